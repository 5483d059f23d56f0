"""The commands find the service and its key, and put what went wrong into words."""

import asyncio
from pathlib import Path

import pytest

from cli.canned import CannedApi, against
from ringbearer.cli.client import is_local
from ringbearer.cli.main import main
from ringbearer.testing import LocalServer


def test_the_key_is_sent_and_never_shown(capsys: pytest.CaptureFixture[str]) -> None:
    api = CannedApi((401, {"title": "Unauthorized", "status": 401, "detail": "no such key"}))
    assert against(api, "keys", "list") == 1
    assert api.asked[0].headers["authorization"] == "Bearer rb_test"
    captured = capsys.readouterr()
    assert "no such key (401)" in captured.err
    assert "--key" in captured.err
    assert "rb_test" not in captured.out + captured.err


@pytest.mark.parametrize("variable", ["RINGBEARER_KEY", "RINGBEARER_ADMIN_KEY"])
def test_address_and_key_come_from_the_environment(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    api = CannedApi((200, {"items": [], "next": None}))

    async def run() -> int:
        async with LocalServer(api) as server:
            monkeypatch.setenv("RINGBEARER_URL", server.url)
            monkeypatch.setenv(variable, "rb_env")
            return await asyncio.to_thread(main, ["suppliers", "list"])

    assert asyncio.run(run()) == 0
    assert api.asked[0].headers["authorization"] == "Bearer rb_env"


def test_the_key_of_a_service_on_this_machine_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "admin.key").write_text("rb_file\n")
    monkeypatch.setenv("RINGBEARER_DATA_DIR", str(tmp_path))
    api = CannedApi((200, {"items": [], "next": None}))

    async def run() -> int:
        async with LocalServer(api) as server:
            return await asyncio.to_thread(main, ["suppliers", "list", "--server", server.url])

    assert asyncio.run(run()) == 0
    assert api.asked[0].headers["authorization"] == "Bearer rb_file"


def test_the_key_of_this_machine_is_not_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "admin.key").write_text("rb_file\n")
    monkeypatch.setenv("RINGBEARER_DATA_DIR", str(tmp_path))
    assert main(["suppliers", "list", "--server", "https://webhooks.example"]) == 1
    assert "no key for https://webhooks.example" in capsys.readouterr().err


def test_no_service_is_said_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    async def free() -> str:
        async with LocalServer(CannedApi((200, {}))) as server:
            return server.url

    url = asyncio.run(free())
    assert main(["suppliers", "list", "--server", url, "--key", "rb_test"]) == 1
    error = capsys.readouterr().err
    assert f"nothing answers at {url}; start it with `ringbearer up`" in error


def test_every_problem_of_an_answer_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    problem = {
        "title": "Invalid request",
        "detail": "2 fields are wrong",
        "errors": [
            {"pointer": "/tier", "message": "expected standard, premium or enterprise"},
            {"pointer": "/timezone", "message": "expected an IANA zone"},
        ],
    }
    assert against(CannedApi((422, problem)), "suppliers", "put", "lumen") == 1
    error = capsys.readouterr().err
    assert "Invalid request: 2 fields are wrong (422)" in error
    assert "  /tier: expected standard, premium or enterprise\n  /timezone: expected an IANA zone" in error


@pytest.mark.parametrize("answer", [b"<html>hello</html>", b"\xff", b"[]", b""])
@pytest.mark.parametrize("status", [200, 302, 500])
def test_what_does_not_speak_this_language_is_no_traceback(
    status: int, answer: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert against(CannedApi((status, answer)), "suppliers", "show", "lumen") == 1
    assert capsys.readouterr().err.startswith("ringbearer: ")


def test_retry_after_is_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    api = CannedApi((429, {"title": "Too many changes"}, {"retry-after": "42"}))
    assert against(api, "endpoints", "enable", "lumen", "ep_1") == 1
    assert "try again in 42 s" in capsys.readouterr().err


@pytest.mark.parametrize("server", ["8200", "ftp://host", "localhost:8200", "http://[", "http://h:x"])
def test_an_address_that_is_none_is_refused(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suppliers", "list", "--server", server, "--key", "rb_test"]) == 1
    assert "address" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("server", "local"),
    [
        ("http://127.0.0.1:8200", True),
        ("http://localhost", True),
        ("http://[::1]:8200", True),
        ("http://127.0.0.1.example", False),
        ("http://localhost.example", False),
        ("http://127.0.0.1@example.org", False),
        ("http://10.0.0.1", False),
    ],
)
def test_this_machine_is_told_from_others(server: str, local: bool) -> None:
    assert is_local(server) is local


def test_ids_cannot_leave_their_place_in_the_path() -> None:
    api = CannedApi((204, b""))
    assert against(api, "endpoints", "delete", "a/../b", "ep?x=1#y") == 0
    assert api.asked[0].path == "/v1/suppliers/a/../b/endpoints/ep?x=1#y"
    assert api.asked[0].query == ""
