"""The scaling manager by itself, on either store: what it measures is there, and what it changes is changed."""

import asyncio

import psutil
import pytest
from sqlalchemy import text

from contract.making import DAY, add_endpoint, admission, claim
from ringbearer import clock
from ringbearer.calendar import CalendarConfiguration, WeekdayPeak
from ringbearer.domain.scaling import LoadMetrics, ScalingPolicy
from ringbearer.queue.steering import Steering
from ringbearer.scaling.connections import fair_share
from ringbearer.scaling.manager import WebhookScalingManager
from ringbearer.season import Season, SeasonScalingConfig
from ringbearer.storage.base import Storage
from ringbearer.storage.parking import Park
from ringbearer.storage.rollups import Level, Rollup
from ringbearer.telemetry import ScalingDecided, Telemetry

SIGNALS = {
    "slots": 100.0,
    "held": 50.0,
    "settled": 100.0,
    "attempts": 100.0,
    "retries": 0.0,
    "cpu": 0.5,
    "warm": 1.0,
}


def beat(storage: Storage, node_id: str, kind: str = "work", **signals: float) -> None:
    storage.nodes.beat(
        node_id,
        kind=kind,
        host="h",
        pid=1,
        version="1",
        signals=(SIGNALS if kind == "work" else {}) | signals,
    )


def test_it_measures_what_all_processes_tell_and_what_waits(storage: Storage) -> None:
    beat(storage, "a")
    beat(storage, "b", held=100.0, memory=7e7)
    beat(storage, "cold", warm=0.0)
    beat(storage, "leaving", draining=1.0)
    beat(storage, "s", "serve", accepted=150.0, memory=9e7)
    made = add_endpoint(storage)
    storage.ledger.accept([admission(made.id) for _ in range(7)])
    found = asyncio.run(WebhookScalingManager(storage=storage).monitor_resource_utilization())
    load = found.load
    assert (load.workers, load.slots, load.arrivals) == (2, 100, 150.0)
    assert load.backlog == (0, 0, 7, 0)
    assert load.hold_seconds == 150 / 200  # Little's law over both
    assert load.utilisation == 0.75
    assert load.missing == ()
    assert len(found.processes) == 5
    assert found.memory == int(16e7)
    assert 0 <= found.host_memory <= 1
    assert found.host_memory == pytest.approx(psutil.virtual_memory().percent / 100, abs=0.3)


def test_a_dead_endpoint_does_not_scale_the_fleet(storage: Storage) -> None:
    """What is parked, for its circuit is open, is not runnable, and asks for nobody."""
    beat(storage, "a")
    beat(storage, "s", "serve")
    dead, well = add_endpoint(storage), add_endpoint(storage)
    storage.ledger.accept([admission(dead.id) for _ in range(50)] + [admission(well.id)])
    now = clock.now()
    storage.ledger.parking.park([Park(dead.id, now + DAY, 1_000, "parked: its circuit is open")], now=now)
    manager = WebhookScalingManager(storage=storage)
    assert asyncio.run(manager.scale_webhook_infrastructure()).load.backlog == (0, 0, 1, 0)
    assert len(claim(storage)) == 1


def test_a_process_that_fell_silent_is_a_doubt_and_one_that_signed_off_is_none(storage: Storage) -> None:
    for name in ("a", "b"):
        beat(storage, name)
    beat(storage, "s", "serve")
    with storage.database.write() as connection:
        connection.execute(
            text("UPDATE nodes SET beat_at = beat_at - :by WHERE id = 'b'"), {"by": 10 * clock.SECOND}
        )
    manager = WebhookScalingManager(storage=storage)
    found = asyncio.run(manager.scale_webhook_infrastructure())
    assert found.load.missing == ("a heartbeat of work h:1",)
    assert found.rule == "doubt"
    storage.nodes.forget("b")
    assert asyncio.run(manager.scale_webhook_infrastructure()).load.missing == ()


def test_machines_get_their_shares_within_their_bounds(storage: Storage) -> None:
    beat(storage, "big", "up", minimum=1, maximum=6, workers=1)
    beat(storage, "small", "up", minimum=1, maximum=2, workers=1)
    beat(storage, "fixed", "up", minimum=0, maximum=0, workers=3)
    beat(storage, "a")
    manager = WebhookScalingManager(storage=storage)
    asyncio.run(manager.implement_auto_scaling_policies(ScalingPolicy(fixed=7)))
    found = asyncio.run(manager.scale_webhook_infrastructure())
    assert (found.after, found.target, found.shares) == (7, "local processes", {"big": 5, "small": 2})
    assert storage.scaling.assigned("big") == 5
    assert storage.scaling.assigned("fixed") is None
    asyncio.run(manager.implement_auto_scaling_policies(ScalingPolicy(fixed=100)))
    found = asyncio.run(manager.scale_webhook_infrastructure())
    assert found.shares == {"big": 6, "small": 2}


def test_a_forecast_rush_has_workers_before_it_comes(storage: Storage) -> None:
    """Two weeks alike with one hour of many, which is about to come again."""
    hour = Level.HOUR.span
    now = clock.now() // hour * hour
    counts = [1_000_000 if (offset % 168) == 0 else 10 for offset in range(2 * 168, 0, -1)]
    storage.rollups.sum_up(
        Level.HOUR,
        [
            Rollup("flow", now - (336 - index) * hour, "deliveries", "", count, 0, 0, 0, 0, 0, "")
            for index, count in enumerate(counts)
        ],
        until=now,
    )
    beat(storage, "a")
    beat(storage, "s", "serve")
    manager = WebhookScalingManager(storage=storage)
    prediction = asyncio.run(manager.predict_scaling_needs(days=1))
    assert prediction.method == "seasonal naive"
    assert prediction.hours[0].expected == 1_000_000
    assert prediction.hours[0].workers > prediction.hours[1].workers
    found = asyncio.run(
        manager.scale_webhook_infrastructure(LoadMetrics(workers=1, slots=10, hold_seconds=1.0))
    )
    assert found.rule == "forecast"
    assert found.after > 1
    advise = ScalingPolicy(forecast="advise")
    asyncio.run(manager.implement_auto_scaling_policies(advise))
    other = WebhookScalingManager(storage=storage)
    found = asyncio.run(
        other.scale_webhook_infrastructure(LoadMetrics(workers=1, slots=10, hold_seconds=1.0))
    )
    assert found.rule != "forecast"


def test_the_seasons_plan_keeps_its_workers_and_makes_peaks_quicker(storage: Storage) -> None:
    """Every day is a peak of this plan: its floor stands at once, and more reserve is kept."""
    weekdays = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    calendar = CalendarConfiguration(preset="none", weekdays=tuple(WeekdayPeak(weekday=d) for d in weekdays))  # type: ignore[arg-type]
    plan = SeasonScalingConfig(calendar=calendar, worker_floor=2, peak_worker_floor=6)
    load = LoadMetrics(workers=1, slots=100, hold_seconds=1.0, arrivals=60.0)
    ordinary = WebhookScalingManager(storage=storage)
    assert asyncio.run(ordinary.scale_webhook_infrastructure(load)).needed == 1
    peak = WebhookScalingManager(storage=storage, season=lambda: Season(plan))
    found = asyncio.run(peak.scale_webhook_infrastructure(load))
    assert (found.rule, found.after, found.needed) == ("season", 6, 2)


def test_connections_are_shared_and_every_process_follows(storage: Storage) -> None:
    manager = WebhookScalingManager(storage=storage)
    health = asyncio.run(manager.monitor_connection_health())
    assert health.healthy
    assert health.round_trip is not None
    assert health.slowest is not None
    assert 0 < health.round_trip <= health.slowest
    assert health.pool.most >= health.pool.in_use + health.pool.idle
    for number in range(60):
        beat(storage, f"n{number}")
    found = asyncio.run(manager.optimize_connection_pools())
    if storage.database.free_connections() is None:
        assert not found.changed
        return
    assert found.changed
    assert found.before == 12
    assert found.after == storage.database.connections().most == 6
    steering = Steering(plans=storage.plans, ledger=storage.ledger, telemetry=Telemetry())
    steering.follow(now=clock.now())
    assert steering.connections is not None
    assert steering.connections.most == 6
    assert fair_share(100, 4) == 12
    assert fair_share(100, 10) == 9


def test_the_report_tells_how_the_number_moved(storage: Storage) -> None:
    telemetry = Telemetry()
    told: list[ScalingDecided] = []
    telemetry.listen(ScalingDecided, told.append)
    manager = WebhookScalingManager(storage=storage, telemetry=telemetry)

    async def run() -> None:
        for arrivals in (50.0, 120.0, 120.0):
            await manager.scale_webhook_infrastructure(
                LoadMetrics(workers=1, slots=100, hold_seconds=1.0, arrivals=arrivals)
            )
        await manager.implement_auto_scaling_policies(ScalingPolicy(maximum=9))

    asyncio.run(run())
    found = asyncio.run(manager.generate_performance_reports())
    assert (found.scaled_up, found.scaled_down, found.fewest, found.most) == (1, 0, 1, 2)
    assert found.rules == {"load": 1}
    assert found.policy_changes == 1
    assert "1 times up" in found.summary
    assert [each.desired for each in told] == [1, 2, 2]
