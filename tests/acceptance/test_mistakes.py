"""Plausible mistakes of whoever starts the service: each is told in a sentence, with what to do, and starts nothing."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


def start(directory: Path, *arguments: str, **variables: str) -> str:
    """What is said on standard error by a start that fails."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RINGBEARER_")}
    done = subprocess.run(
        [sys.executable, "-m", "ringbearer", *arguments],
        env=clean | variables,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
    return done.stderr


def test_a_data_directory_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for command in ("up", "serve", "work", "migrate"):
        for place in ("file", "file/below"):
            said = start(tmp_path, command, "--data-dir", place)
            assert str(tmp_path / place) in said
            assert "--data-dir" in said


def test_a_port_that_is_taken_and_an_address_of_another_machine(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for command in ("up", "serve"):
            said = start(tmp_path, command, "--port", str(taken.getsockname()[1]))
            assert "another program has it" in said
            assert "--port" in said
    assert "--host takes an address of this machine" in start(
        tmp_path, "up", "--port", "0", "--host", "192.0.2.1"
    )


@pytest.mark.parametrize("command", ["up", "migrate"])
def test_a_database_that_does_not_answer(tmp_path: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"postgresql://ringbearer:not-to-be-shown@127.0.0.1:{port}/hooks"
    said = (
        start(tmp_path, command, "--port", "0", RINGBEARER_DATABASE_URL=url)
        if command != "migrate"
        else start(tmp_path, command, RINGBEARER_DATABASE_URL=url)
    )
    assert "RINGBEARER_DATABASE_URL" in said
    assert "ringbearer doctor" in said
    assert "not-to-be-shown" not in said


def test_authorities_that_are_not_there(tmp_path: Path) -> None:
    """Otherwise every delivery by TLS would fail."""
    said = start(tmp_path, "up", "--port", "0", RINGBEARER_CA_FILE="missing.pem")
    assert "missing.pem does not exist" in said


def test_a_word_that_is_none_of_those_expected(tmp_path: Path) -> None:
    said = start(tmp_path, "up", RINGBEARER_LOG_LEVEL="loud")
    assert "RINGBEARER_LOG_LEVEL: expected one of debug, info, warning, error, got 'loud'" in said


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ringbearer.db").write_bytes(b"no database" * 1_000)
    assert "ringbearer.db" in start(tmp_path, "up", "--port", "0")


@pytest.mark.parametrize(("file", "advice"), [("secret.key", "restore it"), ("admin.key", "delete it")])
def test_a_key_file_that_is_empty(tmp_path: Path, file: str, advice: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / file).write_text("\n")
    said = start(tmp_path, "up", "--port", "0")
    assert str(tmp_path / "data" / file) in said
    assert advice in said
