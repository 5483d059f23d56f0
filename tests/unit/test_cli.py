"""The commands say the right things to the API, show its answers, and put what went wrong into words."""

import asyncio
import io
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import msgspec
import pytest
from cyclopts import App

from ringbearer import clock, settings
from ringbearer.cli import demo, inputs, output, receive, service, stage
from ringbearer.cli.client import Client, ServiceError, is_local
from ringbearer.cli.events import BatchAnswer, upload
from ringbearer.cli.main import app, main
from ringbearer.cli.options import duration, moment, pairs
from ringbearer.errors import ConfigurationError, InvalidInput
from ringbearer.testing import LocalServer, Message, Receive, Received, Receiver, Send

NOW = "2026-06-20T14:00:00Z"
SUPPLIER = {"id": "lumen", "name": "Lumen", "tier": "premium", "created_at": NOW, "updated_at": NOW}
ENDPOINT = {
    "id": "ep_019e00000000700080000000000000aa",
    "supplier_id": "lumen",
    "url": "https://lumen.example/hooks",
    "created_at": NOW,
    "updated_at": NOW,
}
DELIVERY = {
    "id": "dlv_019e000000007000800000000000000a0000",
    "event_id": "evt_019e000000007000800000000000000a",
    "event_type": "booking.confirmed",
    "supplier_id": "lumen",
    "endpoint_id": ENDPOINT["id"],
    "state": "dead",
    "priority": "normal",
    "attempt_count": 8,
    "created_at": NOW,
}
EVENT = ["publish", "--supplier", "lumen", "--type", "booking.confirmed"]


class Asked(msgspec.Struct):
    """One request as the API saw it."""

    method: str
    path: str
    query: str
    body: bytes
    headers: dict[str, str]


class CannedApi:
    """An API that gives prepared answers, one after the other, and remembers what it was asked."""

    def __init__(self, *answers: tuple[int, object] | tuple[int, object, dict[str, str]]) -> None:
        self.asked: list[Asked] = []
        self._answers = list(answers)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        raw = cast("list[tuple[bytes, bytes]]", scope["headers"])
        body = bytearray()
        more = True
        while more:
            message = await receive()
            body += cast("bytes", message.get("body", b""))
            more = bool(message.get("more_body"))
        self.asked.append(
            Asked(
                method=str(scope["method"]),
                path=str(scope["path"]),
                query=cast("bytes", scope["query_string"]).decode(),
                body=bytes(body),
                headers={name.decode().lower(): value.decode() for name, value in raw},
            )
        )
        status, content, *extra = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        answer = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = [(b"content-length", str(len(answer)).encode())]
        headers += [(name.encode(), value.encode()) for one in extra for name, value in one.items()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def against(api: CannedApi, *arguments: str) -> int:
    """Runs a command against the API and returns its exit status."""

    async def run() -> int:
        async with LocalServer(api) as server:
            return await asyncio.to_thread(main, [*arguments, "--server", server.url, "--key", "rb_test"])

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A developer's own environment and files have no part in these tests."""
    for name in [name for name in os.environ if name.startswith("RINGBEARER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def commands(parent: App, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command of the program, as the words that call it."""
    yield words
    for name in parent:
        if not name.startswith("-"):
            yield from commands(parent[name], (*words, name))


def test_the_contract_names_these_commands() -> None:
    families = {words[0] for words in commands(app) if words}
    assert families >= {"up", "serve", "work", "migrate", "doctor", "publish", "suppliers", "endpoints"}
    assert families >= {"deliveries", "keys", "receive", "demo"}


@pytest.mark.parametrize("words", sorted(commands(app)), ids=" ".join)
def test_every_help_text_has_examples_of_its_command(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == 0
    text = capsys.readouterr().out
    _, heading, examples = text.partition("Examples")
    assert heading
    assert " ".join(("ringbearer", *words)) in examples


def test_the_start_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom ringbearer.cli.main import main\nmain(['--help'])\n"
        "sys.exit(' '.join({'httpx', 'uvicorn', 'litestar', 'sqlalchemy', 'pycurl'} & set(sys.modules)))"
    )

    async def run() -> tuple[bytes, int | None]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate()
        return errors, process.returncode

    assert asyncio.run(run()) == (b"\n", 1)


def test_wrong_usage_is_told_from_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suppliers", "list", "--colour", "red"]) == 2
    assert "--colour" in capsys.readouterr().err
    assert main(["nonsense"]) == 2
    assert main(["deliveries", "list", "--state", "lost"]) == 2


# -- the client


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


# -- lists and tables


def test_json_is_exactly_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    answer = json.dumps({"items": [SUPPLIER], "next": None, "new": 1.50}, indent=3).encode()
    assert against(CannedApi((200, answer)), "suppliers", "list", "--json") == 0
    assert capsys.readouterr().out == answer.decode() + "\n"


def test_tables_show_ids_in_full_also_in_a_narrow_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    cursor = {"items": [DELIVERY], "next": "more"}
    assert against(CannedApi((200, cursor)), "deliveries", "list", "--limit", "1") == 0
    captured = capsys.readouterr()
    assert str(DELIVERY["id"]) in captured.out
    assert "dead" in captured.out
    assert "there are more" in captured.err


def test_pages_are_followed_up_to_the_limit(capsys: pytest.CaptureFixture[str]) -> None:
    api = CannedApi(
        (200, {"items": [{"n": n} for n in range(250)], "next": "c1"}),
        (200, {"items": [{"n": n} for n in range(250, 300)], "next": "c2"}),
    )
    assert against(api, "deliveries", "list", "--limit", "300", "--json") == 0
    assert [asked.query for asked in api.asked] == ["limit=250", "limit=50&cursor=c1"]
    found = json.loads(capsys.readouterr().out)
    assert [item["n"] for item in found["items"]] == list(range(300))
    assert found["next"] == "c2"


def test_all_pages_are_followed_to_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    pages = [{"items": [{"n": n}], "next": f"c{n}" if n < 3 else None} for n in range(4)]
    api = CannedApi(*((200, page) for page in pages))
    assert against(api, "deliveries", "list", "--state", "dead", "--all", "--json") == 0
    assert len(api.asked) == 4
    assert all("state=dead" in asked.query for asked in api.asked)
    assert json.loads(capsys.readouterr().out) == {"items": [{"n": n} for n in range(4)], "next": None}


def test_filters_of_deliveries_are_passed_on() -> None:
    api = CannedApi((200, {"items": [], "next": None}))
    options = ("--supplier", "lumen", "--endpoint", "ep_1", "--event", "evt_1", "--type", "a.b")
    assert (
        against(api, "deliveries", "list", *options, "--after", NOW, "--before", "2026-06-21T00:00:00Z") == 0
    )
    query = api.asked[0].query
    for part in ("supplier_id=lumen", "endpoint_id=ep_1", "event_id=evt_1", "event_type=a.b"):
        assert part in query
    assert "after=2026-06-20T14%3A00%3A00Z" in query


def test_what_others_wrote_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    attempt = {
        "number": 1,
        "started_at": NOW,
        "duration": 0.25,
        "status_code": 500,
        "response_body": "\x1b]0;owned\x07 [bold]hi[/bold]",
    }
    api = CannedApi((200, {**DELIVERY, "attempts": [attempt]}))
    assert against(api, "deliveries", "show", "dlv_1") == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "\\x1b]0;owned\\x07 [bold]hi[/bold]" in text
    assert "250 ms" in text


def test_attempts_tell_how_long_their_connections_took(capsys: pytest.CaptureFixture[str]) -> None:
    timings = (
        {"name": 0.012, "connect": 0.03, "tls": 0.25},
        {"name": 0.0, "connect": 0.03, "tls": 0.0},
        {"name": 0.0, "connect": None, "tls": None},
        None,
    )
    attempts = [
        {"number": n, "started_at": NOW, "duration": 1.5, "status_code": 200, "timing": timing}
        for n, timing in enumerate(timings, 1)
    ]
    api = CannedApi((200, {**DELIVERY, "attempts": attempts}))
    assert against(api, "deliveries", "show", "dlv_1") == 0
    *_, first, second, third, fourth = capsys.readouterr().out.rstrip().splitlines()
    assert "name 12 ms, connect 30 ms, tls 250 ms" in first
    assert "connect 30 ms" in second
    assert "tls" not in second
    assert "connect –, tls –" in third
    assert "connect" not in fourth


# -- suppliers, endpoints, keys, deliveries


def test_a_supplier_is_put_with_what_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    api = CannedApi((201, SUPPLIER))
    options = ("--tier", "premium", "--timezone", "Europe/Paris", "--metadata", '{"crm":"own"}')
    assert against(api, "suppliers", "put", "lumen", *options) == 0
    assert (api.asked[0].method, api.asked[0].path) == ("PUT", "/v1/suppliers/lumen")
    assert json.loads(api.asked[0].body) == {
        "tier": "premium",
        "timezone": "Europe/Paris",
        "metadata": {"crm": "own"},
    }
    assert "Lumen" in capsys.readouterr().out


def test_an_endpoint_is_created_and_its_secret_shown(capsys: pytest.CaptureFixture[str]) -> None:
    api = CannedApi((201, {**ENDPOINT, "secret": "whsec_c2VjcmV0"}))
    url = "https://lumen.example/hooks"
    options = (
        *("--event-types", "booking.*,payment.received", "--event-types", "a.b"),
        *("--header", "X-One: 1", "--header", "Authorization: Bearer a:b"),
        *("--rate-limit", "100/1m", "--max-concurrency", "4", "--timeout", "20s"),
        *("--retry-schedule", "1,1.5s,2m", "--disabled", "--signing", "hmac"),
    )
    assert against(api, "endpoints", "create", "lumen", url, *options) == 0
    assert json.loads(api.asked[0].body) == {
        "url": url,
        "event_types": ["booking.*", "payment.received", "a.b"],
        "headers": {"X-One": "1", "Authorization": "Bearer a:b"},
        "rate_limit": {"requests": 100, "period": 60.0},
        "max_concurrency": 4,
        "timeout": 20.0,
        "retry_schedule": [1.0, 1.5, 120.0],
        "enabled": False,
        "signing": "hmac",
    }
    text = capsys.readouterr().out
    assert "whsec_c2VjcmV0" in text
    assert "shown only now" in text


def test_an_own_secret_can_stay_out_of_the_process_list(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("whsec_c2VjcmV0\n")
    api = CannedApi((201, {**ENDPOINT, "secret": "whsec_c2VjcmV0"}))
    assert against(api, "endpoints", "create", "lumen", "https://l.example", "--secret", "@secret") == 0
    assert json.loads(api.asked[0].body)["secret"] == "whsec_c2VjcmV0"


def test_an_update_sends_only_what_changes(capsys: pytest.CaptureFixture[str]) -> None:
    api = CannedApi((200, ENDPOINT))
    arguments = (
        "endpoints",
        "update",
        "lumen",
        "ep_1",
        "--url",
        "https://n.example",
        "--clear",
        "rate_limit",
    )
    assert against(api, *arguments) == 0
    assert api.asked[0].method == "PATCH"
    assert json.loads(api.asked[0].body) == {"url": "https://n.example", "rate_limit": None}
    assert against(api, "endpoints", "update", "lumen", "ep_1") == 1
    assert "nothing to change" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["enable", "disable"])
def test_endpoints_are_switched(action: str) -> None:
    api = CannedApi((200, ENDPOINT))
    assert against(api, "endpoints", action, "lumen", "ep_1") == 0
    assert (api.asked[0].method, api.asked[0].path) == (
        "POST",
        f"/v1/suppliers/lumen/endpoints/ep_1/{action}",
    )


def test_a_rotated_secret_is_shown_with_its_grace(capsys: pytest.CaptureFixture[str]) -> None:
    api = CannedApi((200, {"secret": "whsec_bmV3"}))
    assert against(api, "endpoints", "rotate-secret", "lumen", "ep_1", "--grace", "24h") == 0
    assert json.loads(api.asked[0].body) == {"grace": 86_400.0}
    assert "whsec_bmV3" in capsys.readouterr().out


@pytest.mark.parametrize(("status_code", "exit_status"), [(204, 0), (500, 1), (None, 1)])
def test_a_sample_that_is_not_taken_is_a_failure(status_code: int | None, exit_status: int) -> None:
    attempt = {"number": 1, "started_at": NOW, "duration": 0.1, "status_code": status_code}
    assert against(CannedApi((200, attempt)), "endpoints", "test", "lumen", "ep_1") == exit_status


def test_a_key_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    made = {"id": "key_1", "scope": "publish", "created_at": NOW, "last_four": "wxyz", "key": "rb_wxyz"}
    api = CannedApi((201, made))
    assert against(api, "keys", "create", "--scope", "publish", "--name", "shop") == 0
    assert json.loads(api.asked[0].body) == {"scope": "publish", "name": "shop"}
    assert "rb_wxyz" in capsys.readouterr().out


def test_a_replay_needs_a_filter(capsys: pytest.CaptureFixture[str]) -> None:
    api = CannedApi((202, {"matched": 12, "replay_id": "rpl_1"}))
    assert against(api, "deliveries", "replay") == 1
    assert not api.asked
    assert against(api, "deliveries", "replay", "--state", "dead") == 0
    assert json.loads(api.asked[0].body) == {"state": "dead"}
    assert "12" in capsys.readouterr().out


def test_several_deliveries_are_retried_at_once() -> None:
    api = CannedApi((202, DELIVERY))
    assert against(api, "deliveries", "retry", "dlv_1", "dlv_2") == 0
    assert [asked.path for asked in api.asked] == ["/v1/deliveries/dlv_1/retry", "/v1/deliveries/dlv_2/retry"]


# -- publishing


def test_an_event_is_published_with_all_that_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    api = CannedApi((202, {"id": "evt_1", "deliveries": 2, "duplicate": False}))
    options = (
        *("--data", '{"a": 1.10, "b":"é"}', "--timestamp", NOW, "--idempotency-key", "k1"),
        *("--occasion-date", "2026-06-20", "--priority", "urgent", "--deliver-at", NOW),
        *("--ordering-key", "wed_7", "--tag", "x", "--tag", "y"),
    )
    assert against(api, *EVENT, *options) == 0
    assert b'"data":{"a": 1.10, "b":"\xc3\xa9"}' in api.asked[0].body
    body = json.loads(api.asked[0].body)
    del body["data"]
    assert body == {
        "supplier_id": "lumen",
        "type": "booking.confirmed",
        "timestamp": NOW,
        "idempotency_key": "k1",
        "occasion_date": "2026-06-20",
        "priority": "urgent",
        "deliver_at": NOW,
        "ordering_key": "wed_7",
        "tags": ["x", "y"],
    }
    assert "evt_1" in capsys.readouterr().out


def test_data_comes_from_a_file_or_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.json").write_text('{"from":"file"}')
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"from":"stdin"}')))
    api = CannedApi((202, {"id": "evt_1", "deliveries": 0, "duplicate": False}))
    assert against(api, *EVENT, "--data", "@data.json") == 0
    assert against(api, *EVENT, "--data", "-") == 0
    assert [json.loads(asked.body)["data"]["from"] for asked in api.asked] == ["file", "stdin"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "{a:1}"], "not JSON"),
        (["--data", "@nowhere.json"], "cannot read nowhere.json"),
        ([], "needs --data"),
        (["--data", "1", "--file", "x.ndjson"], "leave the options"),
    ],
)
def test_an_event_that_cannot_be_sent_is_refused_here(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    api = CannedApi((202, {}))
    assert against(api, *EVENT, *arguments) == 1
    assert said in capsys.readouterr().err
    assert not api.asked


def test_a_file_is_uploaded_and_rejected_lines_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "events.ndjson").write_text('{"n":1}\n\n{"n":2}\r\n  {"n":3}')
    answer = {
        "accepted": 1,
        "duplicates": 1,
        "rejected": [{"index": 2, "detail": "no supplier"}],
        "ids": ["evt_1", "evt_2", None],
    }
    api = CannedApi((202, answer))
    assert against(api, "publish", "--file", "events.ndjson", "--json") == 1
    assert api.asked[0].path == "/v1/events/batch"
    assert api.asked[0].headers["content-type"] == "application/x-ndjson"
    assert api.asked[0].body == b'{"n":1}\n{"n":2}\n{"n":3}\n'
    captured = capsys.readouterr()
    assert json.loads(captured.out) == answer
    assert "line 4: no supplier" in captured.err


def test_chunks_keep_the_bounds_of_the_api_and_the_numbers_of_the_lines() -> None:
    lines = [b"1\n", b"\n", b"22\n", b"333\n", b"4\n"]
    found = list(inputs.chunks(lines, events=2, size=8))
    assert [chunk.numbers for chunk in found] == [[1, 3], [4, 5]]
    assert [chunk.body for chunk in found] == [b"1\n22\n", b"333\n4\n"]
    assert sum(chunk.consumed for chunk in found) == sum(map(len, lines))
    assert [chunk.numbers for chunk in inputs.chunks(lines, events=9, size=5)] == [[1, 3], [4], [5]]
    with pytest.raises(InvalidInput, match="line 2 is larger"):
        list(inputs.chunks([b"1\n", b"12345678\n"], size=8))


def uploading(api: CannedApi, play: Callable[[Client], None]) -> None:
    """Runs `play` with a client of that API."""

    async def run() -> None:
        async with LocalServer(api) as server:
            with Client(server.url, "rb_test") as client:
                await asyncio.to_thread(play, client)

    asyncio.run(run())


def test_answers_of_several_batches_are_summed_up_in_one() -> None:
    answer = {"accepted": 1, "duplicates": 0, "rejected": [{"index": 1, "detail": "no"}], "ids": ["e", None]}

    def play(client: Client) -> None:
        lines = [b"1\n", b"2\n", b"\n", b"3\n", b"4\n"]
        total, rejected = upload(client, inputs.chunks(lines, events=2))
        assert rejected == [(2, "no"), (5, "no")]
        assert [one.index for one in total.rejected] == [1, 3]
        assert (total.accepted, total.ids) == (2, ["e", None, "e", None])

    uploading(CannedApi((202, answer)), play)


def test_a_service_without_room_is_asked_again_after_its_own_time() -> None:
    pauses: list[float] = []
    busy = (503, {"title": "Overloaded"}, {"retry-after": "3"})
    api = CannedApi(
        busy, (429, {}), (202, {"accepted": 1, "duplicates": 0, "rejected": [], "ids": ["evt_1"]})
    )

    def play(client: Client) -> None:
        total, _ = upload(client, inputs.chunks([b"{}\n"]), pause=pauses.append)
        assert total == BatchAnswer(accepted=1, ids=["evt_1"])

    uploading(api, play)
    assert pauses == [3.0, 1.0]


def test_an_upload_that_stops_says_where() -> None:
    fine = (202, {"accepted": 1, "duplicates": 0, "rejected": [], "ids": ["evt_1"]})

    def play(client: Client) -> None:
        with pytest.raises(ServiceError, match="handed over up to line 1") as caught:
            upload(client, inputs.chunks([b"1\n", b"2\n"], events=1))
        assert caught.value.status == 403

    uploading(CannedApi(fine, (403, {"title": "Forbidden"})), play)


# -- the service itself


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
    monkeypatch.setattr("ringbearer.app.rotate_encryption", rotated)
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


# -- words for people


@pytest.mark.parametrize(
    ("text", "seconds"), [("2s", 2.0), ("250ms", 0.25), ("1.5m", 90.0), ("24h", 86_400.0), ("7", 7.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "nan", "inf", "2 parsecs", "2d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidInput):
        duration(text)


def test_moments_are_times_or_ages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: 1_800_000_000 * clock.SECOND)
    assert moment("2h") == "2027-01-15T06:00:00Z"
    assert moment("7d") == "2027-01-08T08:00:00Z"
    assert moment("2026-06-20T14:00:00+02:00") == "2026-06-20T14:00:00+02:00"
    for text in ("", "h", "2x", "2026-06-20", "2026-06-20T14:00:00", "²h", "99999999999999d"):
        with pytest.raises(InvalidInput):
            moment(text)


def test_pairs_are_split_at_the_first_separator() -> None:
    assert pairs(None, ":", "header") is None
    assert pairs(["A: b:c"], ":", "header") == {"A": "b:c"}
    for text in ("A", ": b"):
        with pytest.raises(InvalidInput, match="header"):
            pairs([text], ":", "header")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0421, "42 ms"),
        (2.0, "2 s"),
        (2.25, "2.2 s"),
        (90, "1 min 30 s"),
        (7_200, "2 h"),
        (7_260, "2 h 1 min"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert output.span(seconds) == text


def test_times_near_and_far() -> None:
    now = 1_800_000_000 * clock.SECOND
    assert output.when(None) == ""
    assert output.when(clock.to_datetime(now), now) == "now"
    assert output.when(clock.to_datetime(now - 90 * clock.SECOND), now) == "1 min 30 s ago"
    assert output.when(clock.to_datetime(now + 5 * clock.SECOND), now) == "in 5 s"
    earlier = clock.to_datetime(now - 48 * 3600 * clock.SECOND)
    assert output.when(earlier, now) == f"{earlier.astimezone():%Y-%m-%d %H:%M}"


# -- receive and demo


def received(**changes: object) -> Received:
    """A request that a receiver got."""
    fields: dict[str, object] = {
        "at": 1_800_000_000_123_000,
        "id": "evt_1",
        "type": "booking.confirmed",
        "attempt": 2,
        "path": "/",
        "headers": {"webhook-id": "evt_1"},
        "body": b'{"a":1}',
        "verified": True,
        "status": 200,
    }
    return msgspec.convert({**fields, **changes}, Received)


def test_a_received_webhook_is_one_line() -> None:
    line = receive.as_line(received())
    assert ".123  evt_1  booking.confirmed  attempt 2  verified  → 200" in line
    assert "SIGNATURE WRONG" in receive.as_line(received(verified=False, status=503))
    assert "\n" not in receive.as_line(received(type="a\nb\x1b[2J"))
    assert "\x1b" not in receive.as_line(received(id="\x1b[2J"))


def test_a_received_webhook_is_json_for_programs() -> None:
    fields = json.loads(receive.as_json(received(body=b"\xff")))
    assert fields["at"] == "2027-01-15T08:00:00.123000Z"
    assert (fields["verified"], fields["body"]) == (True, "\ufffd")


def test_receive_ends_with_a_summary() -> None:
    secret = "whsec_c2VjcmV0"

    async def run() -> tuple[bytes, bytes, int | None]:
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "ringbearer",
                "receive",
                "--secret",
                secret,
                "--fail",
                "503",
                "--every",
                "2",
            ),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            url = (await process.stderr.readline()).split()[2].decode()
            with Client(url, "rb_test") as client:
                await asyncio.to_thread(client.send, "POST", "/")
                with pytest.raises(ServiceError, match="503"):
                    await asyncio.to_thread(client.send, "POST", "/")
        finally:
            process.terminate()
            out, errors = await process.communicate()
        return out, errors, process.returncode

    out, errors, status = asyncio.run(run())
    assert out.count(b"SIGNATURE WRONG") == 2
    assert errors.strip() == b"2 received, 0 verified, 2 with a wrong signature, 1 refused"
    assert status == 0


def test_the_demo_says_when_its_events_are_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 1
    assert "pass --events FILE" in capsys.readouterr().err


def test_the_demo_says_when_its_check_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "standardwebhooks", None)
    assert main(["demo"]) == 1
    assert "pip install standardwebhooks" in capsys.readouterr().err


def test_the_demo_gives_its_service_nothing_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGBEARER_DATABASE_URL", "no-such-database://")
    monkeypatch.setenv("RINGBEARER_NONSENSE", "1")
    seen = stage.OwnService(tmp_path)._environment()
    chosen = settings.load({}, seen)
    assert chosen.database_url is None
    assert chosen.allow_networks == ("127.0.0.0/8",)


def test_a_service_that_does_not_start_shows_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho out of cake >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    async def run() -> None:
        with pytest.raises(ConfigurationError, match=r"(?s)status 3.*out of cake"):
            await stage.OwnService(tmp_path).__aenter__()

    asyncio.run(run())


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert demo.percentiles([]) == demo.Latency(0.0, 0.0, 0.0)
    assert demo.percentiles([n * clock.SECOND for n in range(100, 0, -1)]) == demo.Latency(50.0, 95.0, 99.0)


def test_expected_pairs_follow_the_subscriptions() -> None:
    hooks = [stage.Hook("lumen", "ep_1", ("booking.*",)), stage.Hook("other", "ep_2", ("*",))]
    events = [("evt_1", "lumen", "booking.confirmed"), ("evt_2", "lumen", "form.submitted")]
    assert stage.expected_pairs(events, hooks) == {("evt_1", "ep_1")}


def test_the_ledger_tells_refused_taken_and_repeated_apart() -> None:
    ledger = stage.Ledger()
    ledger.expect("/hooks/0", "ep_1", lambda body, _headers: body == b"right")
    for status, body, at in ((503, b"right", 10), (200, b"right", 20), (200, b"wrong", 30)):
        ledger.note(received(path="/hooks/0", status=status, body=body, at=at))
    ledger.note(received(path="/elsewhere"))
    assert (ledger.verified, ledger.unverified, ledger.refused) == (2, 2, 1)
    assert (ledger.taken, ledger.duplicates) == (2, 1)
    arrival = ledger.arrivals["evt_1", "ep_1"]
    assert (arrival.first_at, arrival.taken_at, arrival.taken) == (10, 20, 2)


def test_an_outage_ends_after_so_many_refusals() -> None:
    async def run() -> list[int | None]:
        receiver = Receiver()
        outage = stage.Outage(receiver, requests=2, seconds=3600.0)
        seen = [receiver.fail]
        for _ in range(2):
            outage.note(received(status=503))
            seen.append(receiver.fail)
        return seen

    assert asyncio.run(run()) == [503, 503, None]
