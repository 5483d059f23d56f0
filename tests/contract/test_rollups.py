"""Measurements: each process writes its own minutes; read together they are the truth of the attempts table."""

import asyncio
import random
from collections.abc import Sequence

import numpy as np
import pytest

from contract.making import DAY, admission, in_processes, opened, query
from ringbearer import clock
from ringbearer.domain.deliveries import Outcome, Record, State
from ringbearer.monitor.burning import BurnBook
from ringbearer.monitor.figures import Reader
from ringbearer.monitor.monitor import GroupBy, WebhookPerformanceMonitor
from ringbearer.monitor.recorder import MAX_KEYS, MAX_MINUTES, MAX_TYPES, Recorder
from ringbearer.monitor.sketch import ACCURACY, Sketch
from ringbearer.monitor.summary import prune, sum_up
from ringbearer.monitor.table import OTHER
from ringbearer.storage.base import Storage
from ringbearer.storage.rollups import Level, Rollup
from ringbearer.storage.vault import generate_key
from ringbearer.telemetry import AttemptMade, AttemptsMade, EventsAccepted, Telemetry

MINUTE = 60 * clock.SECOND
HOUR = 60 * MINUTE
NOON = 1_800_000_000 * clock.SECOND // HOUR * HOUR
TIERS = ("standard", "premium", "enterprise")


def attempt(at: int, **given: object) -> AttemptMade:
    """An attempt that was answered at a stored time, 10 ms after its first byte went out."""
    values: dict[str, object] = {
        "outcome": "delivered",
        "send_seconds": 0.01,
        "accept_to_send": 0.02,
        "reused_connection": True,
        "lane": 1,
        "tier": "standard",
        "supplier_id": "studio",
        "endpoint_id": "ep_1",
        "event_type": "booking.confirmed",
        "attempt": 1,
        "state": State.DELIVERED,
        "error": None,
        "accepted_at": at - 30_000,
        "ready_at": at - 30_000,
        "claimed_at": at - 15_000,
        "first_byte_at": at - 10_000,
        "answered_at": at,
    }
    return AttemptMade(**(values | given))  # type: ignore[arg-type]  # each has its field's type


def deliver_and_measure(url: str, key: str, seed: int) -> str:
    """One process: accepts, claims and settles with waits and durations of its own, and measures all of it."""
    chance = random.Random(seed)
    with opened(url, key) as storage:
        telemetry = Telemetry()
        recorder = Recorder(telemetry, process=f"node_{seed}")
        for _ in range(3):
            now = clock.now()
            made = [
                admission(lane=chance.randrange(4), at=now - chance.randrange(5_000_000)) for _ in range(150)
            ]
            storage.ledger.accept(made)
            leases = storage.ledger.claim([40] * 4, worker=f"w{seed}", until=now + HOUR)
            now = clock.now()
            outcomes, attempts = [], []
            for lease in leases:
                took = int(chance.lognormvariate(10, 1.5))
                failed = chance.random() < 0.1
                state = State.SCHEDULED if failed else State.DELIVERED
                record = Record(
                    started_at=now,
                    duration=took,
                    status_code=500 if failed else 200,
                    error="http_500: the receiver answered 500" if failed else None,
                    response_body=None,
                    response_headers=None,
                )
                outcomes.append(
                    Outcome(lease=lease, state=state, due_at=now + HOUR if failed else None, record=record)
                )
                attempts.append(
                    attempt(
                        now + took,
                        lane=lease.lane,
                        tier=chance.choice(TIERS),
                        outcome="receiver" if failed else "delivered",
                        error="http_500" if failed else None,
                        state=state,
                        accepted_at=lease.accepted_at,
                        ready_at=lease.ready_at,
                        claimed_at=now,
                        first_byte_at=now,
                        endpoint_id=lease.endpoint_id,
                        supplier_id=lease.supplier_id,
                    )
                )
            assert storage.ledger.settle(outcomes, now=clock.now()) == {x.delivery_id for x in leases}
            telemetry.emit(AttemptsMade(attempts, clock.now()))
            storage.rollups.write(recorder.drain(clock.now()))  # again and again, over what it wrote before
        storage.rollups.write(recorder.drain(clock.now(), everything=True))
        return repr(storage)


def test_what_processes_wrote_apart_is_together_what_the_attempts_table_says(store_url: str) -> None:
    key = generate_key()
    with opened(store_url, key) as storage:
        storage.migrate()
        in_processes(deliver_and_measure, [(store_url, key, seed) for seed in (1, 2, 3)])
        exact = query(
            storage,
            "SELECT a.duration, a.started_at - d.created_at, d.lane, a.status_code FROM attempts AS a "
            "JOIN deliveries AS d ON d.id = a.delivery_id",
        )
        assert len(exact) > 900
        monitor = WebhookPerformanceMonitor(storage=storage, telemetry=Telemetry(), process="reader")
        now = clock.now()
        window = (now - DAY, now + HOUR)
        groups: tuple[GroupBy, ...] = ("lane", "tier", "supplier", "endpoint")
        for group in groups:
            figures = monitor.window(*window, group_by=group)
            assert sum(f.attempts for f in figures.values()) == len(exact), group
            assert sum(f.receiver for f in figures.values()) == sum(r[3] == 500 for r in exact)
        lanes = monitor.window(*window)
        for lane, name in enumerate(("urgent", "high", "normal", "bulk")):
            rows = [r for r in exact if r[2] == lane]
            assert lanes[name].attempts == len(rows)
            _same(lanes[name].stage("answer"), [r[0] / clock.SECOND for r in rows])
            _same(lanes[name].stage("reach"), [r[1] / clock.SECOND for r in rows])
        _same(
            monitor.window(*window, group_by="supplier")["studio"].stage("answer"),
            [r[0] / 1e6 for r in exact],
        )


def _same(sketch: Sketch, values: Sequence[float]) -> None:
    """Every percentile is that of the exact values, within the sketch's accuracy."""
    assert sketch.count == len(values)
    for share in (0, 0.25, 0.5, 0.9, 0.95, 0.99, 1):
        exact = float(np.quantile(np.array(values), share, method="lower"))
        assert sketch.percentile(share) == pytest.approx(exact, rel=ACCURACY * 1.001, abs=2e-6)


def test_hours_and_days_answer_what_their_minutes_answered(storage: Storage) -> None:
    recorder = Recorder(telemetry := Telemetry(), process="one")
    midnight = NOON // DAY * DAY
    times = [midnight + n * 17 * MINUTE for n in range(200)]  # two days and eight hours
    for at in times:
        telemetry.emit(AttemptsMade([attempt(at + n, accepted_at=at - 1000 * n) for n in range(5)], at + 10))
        storage.rollups.write(recorder.drain(at, everything=True))
        recorder.forget(at + 5 * MINUTE)
    reader = Reader(storage.rollups)
    now = times[-1] + 2 * HOUR
    windows = [
        (midnight, now),
        (midnight + 90 * MINUTE, now),
        (midnight + 90 * MINUTE, midnight + DAY + 7 * HOUR),
        (midnight + 5 * MINUTE, midnight + 25 * MINUTE),
    ]

    keys = ["high/standard/delivered", "nothing/like/it"]

    def all_figures() -> list[object]:
        return [
            *(reader.grouped("path", since=since, until=until, now=now) for since, until in windows),
            reader.grouped("endpoint", since=midnight, until=now, now=now),
            *(reader.totals("path", keys, since=since, until=until, now=now) for since, until in windows),
        ]

    before = all_figures()
    summed = reader.totals("endpoint", ["ep_1", "ep_2"], since=midnight, until=now, now=now)
    assert [(total.attempts, total.success) for total in (summed["ep_1"], summed["ep_2"])] == [
        (1_000, 1.0),
        (0, None),
    ]
    steps = 1
    while sum_up(storage.rollups, now=now):
        steps += 1
    assert storage.rollups.marks()[Level.DAY] == midnight + 2 * DAY
    assert storage.rollups.marks()[Level.HOUR] == (now - 15 * MINUTE) // HOUR * HOUR
    assert steps > 50  # an hour at a time
    assert all_figures() == before
    assert not sum_up(storage.rollups, now=now)

    storage.rollups.prune(Level.MINUTE, ["endpoint", "path"], before=midnight + 2 * DAY)
    whole = reader.grouped("endpoint", since=midnight, until=now, now=now)
    assert whole["ep_1"].attempts == 1_000
    # What is left of minutes answers nothing before: there the hours do.
    later = midnight + 12 * DAY
    hours = reader.grouped("path", since=midnight + 90 * MINUTE, until=midnight + 5 * HOUR, now=later)
    expected = sum(2 * HOUR <= at - midnight < 5 * HOUR for at in times) * 5
    first = sum(90 * MINUTE <= at - midnight < 2 * HOUR for at in times) * 5
    assert hours["high/standard/delivered"].attempts in (expected, expected + first)


def test_what_is_too_old_goes_and_the_rest_stays(storage: Storage) -> None:
    def row(dimension: str, at: int) -> Rollup:
        return Rollup(dimension, at, "k", "p", 1, 1, 0, 0, 1, 0, "")

    days = [NOON - n * DAY for n in (0, 1, 3, 9)]
    storage.rollups.write([row(dimension, at) for dimension in ("path", "supplier") for at in days])
    while prune(storage.rollups, now=NOON):
        pass
    kept = query(storage, "SELECT dimension, at FROM rollups ORDER BY dimension, at")
    assert kept == [
        *(("path", at) for at in sorted(days[:3])),
        *(("supplier", at) for at in sorted(days[:2])),
    ]


def test_sums_stay_right_when_there_are_more_keys_than_are_kept(storage: Storage) -> None:
    recorder = Recorder(telemetry := Telemetry(), process="one")
    many = [
        attempt(NOON, supplier_id=f"s{n}", event_type=f"type.t{n % (MAX_TYPES + 50)}")
        for n in range(MAX_KEYS + 500)
    ]
    telemetry.emit(AttemptsMade(many, NOON))
    rows = recorder.drain(NOON, everything=True)
    suppliers = {row.key: row.attempts for row in rows if row.dimension == "supplier"}
    assert len(suppliers) == MAX_KEYS + 1
    assert suppliers[OTHER] == 500
    types = [row for row in rows if row.dimension == "type"]
    assert len(types) == MAX_TYPES + 1
    assert sum(row.attempts for row in types) == len(many)


def test_what_the_store_did_not_take_is_written_later_and_whole() -> None:
    recorder = Recorder(telemetry := Telemetry(), process="one")
    telemetry.emit(AttemptsMade([attempt(NOON)], NOON))
    lost = recorder.drain(NOON)
    recorder.give_back(lost)
    telemetry.emit(AttemptsMade([attempt(NOON + 5)], NOON + 5))
    assert [row.attempts for row in recorder.drain(NOON) if row.dimension == "path"] == [2]
    assert recorder.drain(NOON) == []
    assert {row.dimension for row in recorder.drain(NOON + 2 * MINUTE)} == {"supplier", "endpoint"}


def test_minutes_that_nobody_takes_are_let_go_in_the_end_and_counted() -> None:
    recorder = Recorder(telemetry := Telemetry(), process="one")
    for n in range(3):
        telemetry.emit(AttemptsMade([attempt(NOON + n * MINUTE)], NOON + n * MINUTE))
    assert len({row.at for row in recorder.drain(NOON)}) == 3  # suppliers and endpoints still wait
    recorder.forget(NOON + MAX_MINUTES * MINUTE)
    assert recorder.lost_minutes == 0
    recorder.forget(NOON + (MAX_MINUTES + 2) * MINUTE)
    assert recorder.lost_minutes == 2


async def _throughput(monitor: WebhookPerformanceMonitor) -> tuple[int, int]:
    found = await monitor.track_throughput_metrics(600)
    return sum(p.accepted for p in found.minutes), sum(p.delivered for p in found.minutes)


async def _everything(storage: Storage) -> None:
    telemetry = Telemetry()
    monitor = WebhookPerformanceMonitor(storage=storage, telemetry=telemetry, process="one")
    now = clock.now()
    async with monitor:
        telemetry.emit(EventsAccepted(events=7, duplicates=1, deliveries=9, duration=0.004))
        failed = attempt(now, outcome="receiver", error="timeout", state=State.DEAD, endpoint_id="ep_bad")
        times = await monitor.track_webhook_delivery_times([attempt(now), attempt(now), failed])
        assert (times.taken, times.attempts, times.stages["answer"].count) == (3, 3, 3)
        assert times.stages["reach"].p50 == pytest.approx(0.02, rel=0.02)
        assert await _throughput(monitor) == (7, 2)
    errors = await monitor.monitor_error_rates(600)
    assert (errors.attempts, errors.receiver, errors.ours, errors.dead) == (3, 1, 0, 1)
    assert errors.error_rate == pytest.approx(1 / 3)
    assert [(c.key, c.failed) for c in errors.by_code] == [("timeout", 1)]
    assert [(c.key, c.failed) for c in errors.worst_endpoints] == [("ep_bad", 1)]
    storage.ledger.accept([admission(lane=1, at=now - 5 * clock.SECOND)])
    queue = await monitor.monitor_queue_processing_times(600)
    high = queue.lanes[1]
    assert (high.lane, high.waiting, high.in_flight, high.wait.count) == ("high", 1, 0, 3)
    assert high.oldest_age >= 5
    assert queue.commits.accept.p50 == pytest.approx(0.004, rel=0.02)
    levels = await monitor.monitor_sla_compliance(600)
    kept = {(one.kind, one.lane or one.tier): (one.total, one.kept) for one in levels.objectives}
    assert kept["latency", "high"] == (3, True)
    assert kept["latency", "urgent"] == (0, None)
    assert kept["success", None] == (2, True)  # what the receiver caused counts for neither side
    overview = await monitor.generate_performance_dashboard(600)
    assert (overview.times.taken, overview.times.attempts) == (0, 3)
    assert overview.errors == errors
    assert overview.queue.lanes[1].waiting == 1
    assert {one.objective: one.total for one in overview.levels.objectives} == {
        one.objective: one.total for one in levels.objectives
    }
    assert (overview.alerts, overview.processes, overview.breakers_open) == ([], [], 0)


def test_the_methods_tell_what_was_measured(storage: Storage) -> None:
    asyncio.run(_everything(storage))


def test_what_comes_of_a_minute_that_was_written_long_ago_is_added(storage: Storage) -> None:
    recorder = Recorder(telemetry := Telemetry(), process="one")
    later = NOON + 5 * MINUTE
    for count in (3, 2, 1):
        telemetry.emit(AttemptsMade([attempt(NOON + 1)] * count, NOON + 2))
        storage.rollups.write(recorder.drain(later))
        recorder.forget(later)
    rows = storage.rollups.read(Level.MINUTE, "supplier", since=NOON, until=later)
    assert sorted(row.attempts for row in rows) == [1, 2, 3]
    found = Reader(storage.rollups).grouped("path", since=NOON, until=later, now=later)
    assert sum(figures.attempts for figures in found.values()) == 6
    assert sum(figures.stage("reach").count for figures in found.values()) == 6


def test_what_is_written_late_after_an_outage_counts_against_its_budget(storage: Storage) -> None:
    book = BurnBook(storage.rollups, peak=lambda moment: False)
    recorder = Recorder(telemetry := Telemetry(), process="one")

    def rates(now: int) -> set[float]:
        return {burn.long_rate for burn in book.burns(now) if burn.objective == "success/all"}

    assert rates(NOON) == {0.0}
    during = NOON + MINUTE
    failed = [attempt(during, outcome="ours", state=State.SCHEDULED, error="internal_error")] * 200
    telemetry.emit(AttemptsMade(failed, during))
    back = NOON + 8 * MINUTE  # the first look after an outage, a moment before what was kept is written
    assert rates(back) == {0.0}
    storage.rollups.write(recorder.drain(back))
    (rate,) = rates(back + 2 * clock.SECOND)
    assert rate == pytest.approx(1_000)
    assert rates(back + 10 * MINUTE) == {rate}
