"""Events are published singly or by the file, and rejected ones named."""

import asyncio
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.canned import EVENT, NOW, CannedApi, against
from ringbearer.cli import inputs
from ringbearer.cli.client import Client, ServiceError
from ringbearer.cli.events import BatchAnswer, upload
from ringbearer.errors import InvalidInput
from ringbearer.testing import LocalServer


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
