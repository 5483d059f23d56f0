"""The report of a month: its sums are those of what was measured, and each form of it says the same."""

import asyncio
import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from contract.test_rollups import attempt
from ringbearer import clock
from ringbearer.calendar import Calendar
from ringbearer.domain.deliveries import State
from ringbearer.errors import InvalidInput
from ringbearer.monitor.bookkeeping import report_last_month
from ringbearer.monitor.burning import BurnBook
from ringbearer.monitor.monitor import WebhookPerformanceMonitor
from ringbearer.monitor.recorder import Recorder
from ringbearer.monitor.rendering import as_csv, as_html
from ringbearer.monitor.report import Report, bounds, build, month_before
from ringbearer.monitor.summary import sum_up
from ringbearer.storage.base import Storage
from ringbearer.telemetry import AttemptsMade, Telemetry

JULY = clock.from_datetime(datetime(2027, 7, 1, tzinfo=UTC))
DAY = 86_400 * clock.SECOND


def book(storage: Storage) -> BurnBook:
    return BurnBook(storage.rollups, peak=lambda moment: Calendar().is_peak(moment, "UTC"))


@pytest.fixture
def june(storage: Storage) -> Storage:
    """A June in which 10 are delivered each day, 20 on Saturdays, and some fail on the last day."""
    recorder = Recorder(telemetry := Telemetry(), process="one")
    for day in range(30):
        noon = JULY - (30 - day) * DAY + DAY // 2
        saturday = (datetime(2027, 6, 1, tzinfo=UTC) + timedelta(days=day)).weekday() == 5
        made = [attempt(noon + n, supplier_id=f"s{n % 2}") for n in range(20 if saturday else 10)]
        if day == 29:
            made.append(
                attempt(noon, outcome="receiver", error="http_500", state=State.DEAD, supplier_id="s1")
            )
            made.append(
                attempt(noon, outcome="ours", error="internal_error", state=State.SCHEDULED, supplier_id="s1")
            )
        telemetry.emit(AttemptsMade(made, noon + 100))
        storage.rollups.write(recorder.drain(noon, everything=True))
        recorder.forget(noon + 5 * 60 * clock.SECOND)
    return storage


def test_the_sums_are_those_of_what_was_measured(june: Storage) -> None:
    report = build(june, book(june), "2027-06", now=JULY + 60 * clock.SECOND)
    total = report.total
    assert (total.delivered, total.failed_by_receiver, total.failed_by_us, total.dead) == (340, 1, 1, 1)
    assert total.delivered_share == pytest.approx(340 / 341)
    assert total.our_success == pytest.approx(340 / 341)
    assert total.reach_p50 == pytest.approx(0.02, rel=0.011)
    assert [(line.key, line.delivered) for line in report.suppliers] == [("s1", 170), ("s0", 170)]
    assert sum(line.delivered for line in report.days) == 340
    assert {line.key for line in report.days if line.peak} == {f"2027-06-{d:02d}" for d in (5, 12, 19, 26)}
    assert {line.delivered for line in report.days if line.peak} == {20}
    assert {(code.code, code.failed) for code in report.codes} == {("http_500", 1), ("internal_error", 1)}
    kept = {each.objective: each for each in report.objectives}
    assert (kept["success/all"].good, kept["success/all"].total, kept["success/all"].kept) == (
        340,
        341,
        False,
    )
    assert kept["latency/high"].kept
    assert kept["latency/bulk"].share is None
    assert report.complete


def test_a_month_under_way_ends_now_and_an_empty_one_is_empty(june: Storage) -> None:
    midway = build(june, book(june), "2027-06", now=JULY - 10 * DAY)
    assert not midway.complete
    assert len(midway.days) == 20
    empty = build(june, book(june), "2027-05", now=JULY)
    assert (empty.total.attempts, empty.total.delivered_share, empty.suppliers) == (0, None, [])
    assert "–" in as_html(empty)
    with pytest.raises(InvalidInput):
        bounds("2027-13")


def test_one_suppliers_report_is_about_that_supplier(june: Storage) -> None:
    report = build(june, book(june), "2027-06", now=JULY, supplier_id="s0")
    assert (report.total.delivered, report.total.failed_by_us) == (170, 0)
    assert report.suppliers == []
    assert "s1" not in as_html(report)


def test_the_page_needs_nothing_else_and_shows_what_others_wrote_as_it_is(june: Storage) -> None:
    report = build(june, book(june), "2027-06", now=JULY)
    hostile = msgspec.structs.replace(report.suppliers[0], key="<script>alert(1)</script>")
    page = as_html(msgspec.structs.replace(report, suppliers=[hostile]))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(src|href)=|https?://|url\(", page)
    assert page.count("<rect") == 3 * 30
    assert "340" in page
    assert "@media print" in page


def test_the_lines_for_spreadsheets_say_the_same(june: Storage) -> None:
    report = build(june, book(june), "2027-06", now=JULY)
    lines = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert [line["kind"] for line in lines].count("day") == 30
    total = next(line for line in lines if line["kind"] == "total")
    assert (total["delivered"], total["dead"]) == ("340", "1")
    hostile = msgspec.structs.replace(report.suppliers[0], key="=1+1")
    assert "'=1+1" in as_csv(msgspec.structs.replace(report, suppliers=[hostile]))


def test_the_seasons_patterns_come_from_what_was_measured(
    june: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = JULY + 6 * 3_600 * clock.SECOND
    while sum_up(june.rollups, now=now):
        pass
    monkeypatch.setattr(clock, "now", lambda: now)
    monitor = WebhookPerformanceMonitor(storage=june, telemetry=Telemetry(), process="reader")
    found = asyncio.run(monitor.track_seasonal_performance_patterns())
    noons = {baseline.hour_of_week: baseline for baseline in found.week if baseline.delivered}
    assert sorted(noons) == [day * 24 + 12 for day in range(7)]
    assert [(b.delivered, b.weeks) for hour, b in noons.items() if b.peak] == [(20, 4)]
    assert found.peak_factor == 2
    assert len(found.year) == 30
    assert found.anomalies == []


def test_last_month_is_kept_once_its_hours_are_summed_up(june: Storage) -> None:
    now = JULY + 6 * 3_600 * clock.SECOND
    assert month_before(now) == "2027-06"
    assert not report_last_month(june, book(june), now=now)
    while sum_up(june.rollups, now=now):
        pass
    assert report_last_month(june, book(june), now=now)
    assert not report_last_month(june, book(june), now=now)
    stored = june.alerts.report("2027-06")
    assert stored is not None
    assert msgspec.json.decode(stored, type=Report) == build(june, book(june), "2027-06", now=now)
    assert json.loads(stored)["total"]["delivered"] == 340
