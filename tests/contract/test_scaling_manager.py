"""The scaling manager by itself, on either store: what it measures is there, and what it changes is changed."""

import asyncio

import psutil
import pytest
from sqlalchemy import text

from chaos.service import wait_for
from contract.making import DAY, add_endpoint, admission, claim
from ringbearer import clock
from ringbearer.calendar import CalendarConfiguration, WeekdayPeak, zone
from ringbearer.domain.relief import RELIEF, ServiceLevel, SLAConfiguration
from ringbearer.domain.scaling import LoadMetrics, ScalingPolicy
from ringbearer.queue.steering import Steering
from ringbearer.redis_link import open_redis
from ringbearer.scaling.connections import fair_share
from ringbearer.scaling.foresight import Foresight
from ringbearer.scaling.headroom import Room, redis_workers
from ringbearer.scaling.manager import WebhookScalingManager
from ringbearer.season import Season, SeasonScalingConfig
from ringbearer.storage.base import Storage
from ringbearer.storage.parking import Park
from ringbearer.storage.rollups import Level, Rollup
from ringbearer.storage.vault import Vault, generate_key
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


def test_a_leader_of_an_earlier_term_decides_nothing_and_relieves_nothing(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    beat(storage, "a")
    new = WebhookScalingManager(storage=storage, term=lambda: 2)
    assert asyncio.run(new.scale_webhook_infrastructure()).applied
    old = WebhookScalingManager(storage=storage, term=lambda: 1)
    late = SLAConfiguration(
        levels=(ServiceLevel(lane="normal", seconds=1.0, objective=0.9),), burn_rate=1.0, step_seconds=1.0
    )
    made = add_endpoint(storage)
    storage.ledger.accept([admission(made.id, at=clock.now() - DAY)])
    asyncio.run(new.enforce_performance_slas(late))
    before = storage.plans.get(RELIEF)
    with caplog.at_level("INFO"):
        asyncio.run(old._tick())
    assert "another process decides" in caplog.text
    assert storage.plans.get(RELIEF) == before


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


def test_what_workers_take_from_the_outbox_arrives_too(storage: Storage) -> None:
    beat(storage, "a", accepted=40.0)
    beat(storage, "s", "serve", accepted=2.0)
    manager = WebhookScalingManager(storage=storage)
    assert asyncio.run(manager.scale_webhook_infrastructure()).load.arrivals == 42.0


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
    now = clock.now() // Level.HOUR.span * Level.HOUR.span
    counts = [1_000_000 if (offset % 168) == 0 else 10 for offset in range(2 * 168, 0, -1)]
    remember_hours(storage, counts, until=now)
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


def remember_hours(storage: Storage, counts: list[int], *, until: int) -> None:
    """Deliveries of so many hours, the last of which has just ended."""
    hour = Level.HOUR.span
    first = until - len(counts) * hour
    storage.rollups.sum_up(
        Level.HOUR,
        [
            Rollup("flow", first + index * hour, "deliveries", "", count, 0, 0, 0, 0, 0, "")
            for index, count in enumerate(counts)
        ],
        until=until,
    )


def test_what_was_foretold_a_day_before_stands_beside_what_came(storage: Storage) -> None:
    hour = Level.HOUR.span
    now = clock.now() // hour * hour
    known = [100 + index % 24 for index in range(8 * 24)]
    remember_hours(storage, known, until=now - 2 * hour)
    yesterday = Foresight(storage, Season)
    yesterday.refresh(now=clock.to_datetime(now - 2 * hour))
    kept = storage.forecasts.read(since=now - 2 * hour, until=now + 50 * hour)
    assert [each.at for each in kept] == [now + (offset - 1) * hour for offset in range(24)]
    assert {each.made_at for each in kept} == {now - 2 * hour}
    remember_hours(storage, [*known[2:], 500, 600], until=now)
    later = Foresight(storage, Season)
    later.refresh(now=clock.to_datetime(now))
    again = {each.at: each for each in storage.forecasts.read(since=now - 2 * hour, until=now + 50 * hour)}
    assert len(again) == 26
    assert all(again[each.at] == each for each in kept), "what was said before stands"
    prediction = asyncio.run(WebhookScalingManager(storage=storage).predict_scaling_needs(days=1))
    assert [(clock.from_datetime(past.at), past.expected, past.actual) for past in prediction.past] == [
        (now - hour, kept[0].expected, 600.0)
    ]
    assert storage.forecasts.prune(before=now + 3 * hour) == 4


def test_the_forecast_follows_the_clock_and_the_days_of_the_plans_place(storage: Storage) -> None:
    """In Auckland it is Saturday while it is Friday in UTC: its peak is expected by its own clock."""
    plan = SeasonScalingConfig(
        timezones=("Pacific/Auckland",),
        calendar=CalendarConfiguration(
            preset="none", weekdays=(WeekdayPeak(weekday="saturday", multiplier=3.0),)
        ),
    )
    hour = Level.HOUR.span
    until = clock.now() // hour * hour
    place = zone("Pacific/Auckland")

    def saturday(at: int) -> bool:
        return clock.to_datetime(at).astimezone(place).weekday() == 5

    counts = [300 if saturday(until - offset * hour) else 100 for offset in range(15 * 24, 0, -1)]
    remember_hours(storage, counts, until=until)
    manager = WebhookScalingManager(storage=storage, season=lambda: Season(plan))
    prediction = asyncio.run(manager.predict_scaling_needs(days=7))
    assert prediction.place == "Pacific/Auckland"
    for each in prediction.hours:
        expected = 300 if saturday(clock.from_datetime(each.at)) else 100
        assert each.expected == pytest.approx(expected, rel=1e-6), each.at
    rush = LoadMetrics(workers=1, slots=1, hold_seconds=70.0)
    hours = Foresight(storage, lambda: Season(plan)).prediction(
        rush, ScalingPolicy(), days=7, now=clock.to_datetime(until)
    )
    asked = {(saturday(clock.from_datetime(each.at)), each.workers) for each in hours.hours}
    # 300 an hour for 70 s each are 5.8 slots at 40 %, 100 are 1.9 at 70 %; nothing was ever above the forecast.
    assert asked == {(True, 15), (False, 3)}


def test_a_machine_that_fell_silent_takes_no_workers_from_the_others(storage: Storage) -> None:
    """While it may come back, the number stands, though only the other machine can run its share."""
    beat(storage, "lost", "up", minimum=1, maximum=4, workers=4)
    beat(storage, "here", "up", minimum=1, maximum=4, workers=4)
    beat(storage, "s", "serve")
    beat(storage, "a")
    manager = WebhookScalingManager(storage=storage)
    load = LoadMetrics(workers=8, slots=10, hold_seconds=1.0, arrivals=55.0)
    first = asyncio.run(manager.scale_webhook_infrastructure(load))
    assert (first.after, first.shares) == (8, {"lost": 4, "here": 4})
    with storage.database.write() as connection:
        connection.execute(
            text("UPDATE nodes SET beat_at = beat_at - :by WHERE id = 'lost'"), {"by": 10 * clock.SECOND}
        )
    found = asyncio.run(manager.scale_webhook_infrastructure(load))
    assert (found.after, found.shares) == (8, {"here": 4})
    storage.nodes.forget("lost")
    found = asyncio.run(manager.scale_webhook_infrastructure(load))
    assert (found.after, found.shares) == (4, {"here": 4})


def test_redis_bounds_the_number_by_its_connections(storage: Storage, redis_url: str) -> None:
    beat(storage, "a")
    beat(storage, "s", "serve")
    link = open_redis(redis_url, Vault([generate_key()]))
    manager = WebhookScalingManager(storage=storage, redis=link)
    usage = link.usage()
    assert usage.free_connections is not None
    assert usage.free_connections > 0
    found = asyncio.run(manager.monitor_resource_utilization())
    assert found.redis_connections is not None
    assert abs(found.redis_connections - usage.free_connections) < 50
    assert found.load.redis_workers == redis_workers(Room(redis_connections=found.redis_connections), 1)
    assert redis_workers(Room(redis_connections=16), 3) == 5
    assert redis_workers(Room(), 3) is None
    load = LoadMetrics(workers=1, slots=10, hold_seconds=1.0, arrivals=100.0, redis_workers=2)
    bounded = asyncio.run(manager.scale_webhook_infrastructure(load))
    assert (bounded.rule, bounded.after) == ("store", 2)
    assert "Redis has connections for 2" in bounded.reason
    link.close()


def test_a_redis_that_is_away_is_no_doubt(storage: Storage) -> None:
    beat(storage, "a")
    beat(storage, "s", "serve")
    link = open_redis("redis://127.0.0.1:1/0", Vault([generate_key()]))
    manager = WebhookScalingManager(storage=storage, redis=link)
    found = asyncio.run(manager.scale_webhook_infrastructure())
    assert found.load.redis_workers is None
    assert found.rule != "doubt"


def test_while_it_runs_it_shares_connections_and_writes_down_what_it_expects(storage: Storage) -> None:
    """Nobody asks for either."""
    for number in range(60):
        beat(storage, f"n{number}")
    now = clock.now() // Level.HOUR.span * Level.HOUR.span
    remember_hours(storage, [100] * 200, until=now)

    def written() -> bool:
        return bool(storage.forecasts.read(since=now, until=now + 30 * Level.HOUR.span))

    async def run() -> None:
        async with WebhookScalingManager(storage=storage):
            await asyncio.to_thread(wait_for, written, 30, "a forecast")

    asyncio.run(run())
    kept = storage.forecasts.read(since=now, until=now + 30 * Level.HOUR.span)
    assert [each.expected for each in kept] == pytest.approx([100.0] * len(kept))
    if storage.database.free_connections() is not None:
        assert storage.database.connections().most == 6
