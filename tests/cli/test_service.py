"""Options of the service become settings; none is started here."""

import json
import types
from pathlib import Path

import pytest

from ringbearer import settings
from ringbearer.cli import service
from ringbearer.cli.main import main


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[settings.Settings]:
    """The settings with which the service was called; none is started."""
    called: list[settings.Settings] = []

    def rotated(chosen: settings.Settings) -> int:
        called.append(chosen)
        return 3

    def examined(chosen: settings.Settings) -> list[types.SimpleNamespace]:
        called.append(chosen)
        return [
            types.SimpleNamespace(level="ok", subject="store", detail="it opens"),
            types.SimpleNamespace(level="error", subject="port", detail="8200 is taken"),
        ]

    monkeypatch.setattr("ringbearer.supervisor.up", called.append)
    monkeypatch.setattr("ringbearer.process.rotate_encryption", rotated)
    monkeypatch.setattr("ringbearer.doctor.examine", examined)
    return called


def test_options_that_are_not_given_stay_unset() -> None:
    assert service.overrides(service.Everything()) == {}
    assert service.overrides(service.Everything(port=0, workers=2)) == {"port": 0, "workers": 2}


def test_options_of_up_become_settings(given: list[settings.Settings], tmp_path: Path) -> None:
    arguments = ("--host", "::1", "--port", "9000", "--workers", "3", "--log-format", "json")
    networks = ("--allow-networks", "10.0.0.0/8, 192.168.0.0/16", "--allow-networks", "127.0.0.0/8")
    assert main(["up", *arguments, *networks, "--data-dir", str(tmp_path)]) == 0
    (chosen,) = given
    assert (chosen.host, chosen.port, chosen.workers, chosen.log_format) == ("::1", 9000, 3, "json")
    assert chosen.allow_networks == ("10.0.0.0/8", "192.168.0.0/16", "127.0.0.0/8")
    assert chosen.data_dir == tmp_path


def test_the_command_line_wins_over_file_and_environment(
    given: list[settings.Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my.toml").write_text("port = 1\nworkers = 7\n")
    monkeypatch.setenv("RINGBEARER_PORT", "2")
    assert main(["up", "--config", str(tmp_path / "my.toml"), "--port", "3"]) == 0
    assert (given[0].port, given[0].workers) == (3, 7)


def test_a_wrong_setting_is_a_sentence(
    given: list[settings.Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up", "--allow-networks", "everything"]) == 1
    assert "allow_networks" in capsys.readouterr().err
    assert not given


def test_doctor_fails_when_something_is_wrong(
    given: list[settings.Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor"]) == 1
    assert "8200 is taken" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert rows[0] == {"level": "ok", "subject": "store", "detail": "it opens"}


def test_rotated_secrets_are_counted(
    given: list[settings.Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "rotate-encryption"]) == 0
    assert "3 secrets" in capsys.readouterr().err
