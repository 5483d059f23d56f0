"""Lists are shown in full, page by page, and as tables or JSON."""

import json

import pytest

from cli.canned import DELIVERY, NOW, SUPPLIER, CannedApi, against


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
