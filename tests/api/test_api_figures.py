"""Figures over HTTP: by group, over a window, and a supplier's own for a supplier's key."""

import asyncio
import json
from pathlib import Path

import pytest

from api.harness import Api, pointers, problem
from ringbearer import clock
from ringbearer.api.services import Turns
from ringbearer.cli.main import main
from ringbearer.domain.deliveries import State
from ringbearer.errors import Overloaded
from ringbearer.telemetry import AttemptMade, AttemptsMade, EventsAccepted
from tools import turn


@pytest.fixture
def measured(api: Api) -> Api:
    """An API in whose process three attempts were measured."""
    now = clock.now()
    attempts = [
        AttemptMade(
            outcome="delivered" if ok else "receiver",
            send_seconds=0.2,
            accept_to_send=0.1,
            reused_connection=True,
            lane=lane,
            tier=tier,
            supplier_id=supplier,
            endpoint_id=f"ep_{supplier}",
            event_type="booking.confirmed",
            attempt=1,
            state=State.DELIVERED if ok else State.SCHEDULED,
            error=None if ok else "http_500",
            accepted_at=now - 300_000,
            ready_at=now - 300_000,
            claimed_at=now - 250_000,
            first_byte_at=now - 200_000,
            answered_at=now,
        )
        for lane, tier, supplier, ok in (
            (0, "premium", "lumen", True),
            (0, "standard", "other", True),
            (2, "standard", "other", False),
        )
    ]
    api.telemetry.emit(AttemptsMade(attempts, now))
    api.telemetry.emit(EventsAccepted(3, 0, 3, 0.01))
    api.write_figures()
    return api


def test_figures_are_told_by_group(measured: Api) -> None:
    reader = measured.as_("read")
    lanes = reader.get("/v1/figures").json()["items"]
    assert [(item["key"], item["attempts"], item["success"]) for item in lanes] == [
        ("urgent", 2, 1.0),
        ("normal", 1, 0.0),
    ]
    assert lanes[0]["stages"]["reach"]["p99"] == pytest.approx(0.1, rel=0.011)
    tiers = reader.get("/v1/figures?by=tier").json()["items"]
    assert {item["key"]: item["attempts"] for item in tiers} == {"standard": 2, "premium": 1}
    errors = reader.get("/v1/figures?by=error").json()["items"]
    assert [(item["key"], item["attempts"]) for item in errors] == [("http_500", 1)]
    one = reader.get("/v1/figures?by=endpoint&key=ep_other").json()["items"]
    assert [(item["key"], item["failed_by_receiver"]) for item in one] == [("ep_other", 1)]


def test_the_window_is_what_was_asked_for(measured: Api) -> None:
    reader = measured.as_("read")
    long_ago = {"after": "2020-01-01T00:00:00Z", "before": "2020-01-02T00:00:00Z"}
    answer = reader.get("/v1/figures", params=long_ago).json()
    assert (answer["items"], answer["until"]) == ([], "2020-01-02T00:00:00Z")
    assert pointers(reader.get("/v1/figures?window=0")) == ["/window"]
    assert pointers(reader.get("/v1/figures?by=colour")) == ["/by"]
    wrong = {"after": "2020-01-02T00:00:00Z", "before": "2020-01-01T00:00:00Z"}
    assert pointers(reader.get("/v1/figures", params=wrong)) == ["/after"]


def test_a_suppliers_key_sees_that_suppliers_figures_only(measured: Api) -> None:
    own = measured.as_("supplier:lumen")
    assert [(i["key"], i["attempts"]) for i in own.get("/v1/figures").json()["items"]] == [("lumen", 1)]
    problem(own.get("/v1/figures?by=supplier&key=other"), 404)
    problem(own.get("/v1/figures?by=endpoint"), 403)


def test_the_service_as_a_whole(measured: Api) -> None:
    reader = measured.as_("read")
    queue = reader.get("/v1/figures/queue").json()
    assert queue["lanes"][0]["wait"]["count"] == 2
    throughput = reader.get("/v1/figures/throughput").json()
    assert sum(minute["accepted"] for minute in throughput["minutes"]) == 3
    alert = measured.alert()
    overview = reader.get("/v1/figures/overview?window=600").json()
    assert (overview["errors"]["attempts"], overview["queue"]["lanes"][0]["lane"]) == (3, "urgent")
    assert [firing["id"] for firing in overview["alerts"]] == [alert.id]
    levels = reader.get("/v1/slos").json()
    assert {o["objective"]: o["total"] for o in levels["objectives"]}["success/all"] == 2
    patterns = reader.get("/v1/figures/patterns").json()
    assert patterns["anomalies"] == []
    errors = reader.get("/v1/figures/errors?window=600").json()
    assert (errors["attempts"], errors["receiver"]) == (3, 1)


def test_the_report_of_a_month_in_each_form(
    measured: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    month = f"{clock.to_datetime(clock.now()):%Y-%m}"
    to = ["--month", month, "--server", measured.url, "--key", measured.key("read")]
    assert main(["report", "--format", "json", *to]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["total"]["attempts"], len(report["suppliers"])) == (3, 2)
    assert main(["report", "--format", "csv", *to]) == 0
    assert f"{month},supplier,lumen,1,1," in capsys.readouterr().out
    assert main(["report", "--output", str(tmp_path / "report.html"), *to]) == 0
    assert "<svg" in (tmp_path / "report.html").read_text()
    own = measured.as_("supplier:lumen").get(f"/v1/reports/{month}").json()
    assert (own["supplier_id"], own["total"]["attempts"]) == ("lumen", 1)
    problem(measured.as_("supplier:lumen").get(f"/v1/reports/{month}?supplier_id=other"), 404)
    problem(measured.as_("read").get("/v1/reports/june"), 404)
    problem(measured.as_("read").get(f"/v1/reports/{month}?supplier_id=nobody"), 404)


def test_questions_for_figures_take_turns_and_no_end_of_them_may_wait() -> None:
    async def ask() -> None:
        turns = Turns("questions", most=2, waiting=1)
        working, go = [], asyncio.Event()

        async def work(number: int) -> int:
            working.append(number)
            await go.wait()
            return number

        asked = [asyncio.create_task(turns(work, number)) for number in range(3)]
        await turn()
        with pytest.raises(Overloaded, match="3 questions wait"):
            await turns(work, 3)
        assert working == [0, 1]
        go.set()
        assert await asyncio.gather(*asked) == [0, 1, 2]
        assert await turns(work, 4) == 4

    asyncio.run(ask())
