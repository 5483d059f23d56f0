"""The receiver of the command line and the demonstration tell what they saw."""

import asyncio
import json
import sys
from pathlib import Path

import msgspec
import pytest

from ringbearer import clock, settings
from ringbearer.cli import demo, receive, stage
from ringbearer.cli.client import Client, ServiceError
from ringbearer.cli.main import main
from ringbearer.errors import ConfigurationError
from ringbearer.testing import Received, Receiver


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
