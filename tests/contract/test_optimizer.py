"""The optimizer acts on the running queue: what it changes is stored, followed by every process, and told."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from contract.making import (
    HIGH,
    NORMAL,
    admission,
    claim,
    counted,
    one,
    query,
    rows,
    settle,
    supplier,
)
from ringbearer import clock
from ringbearer.calendar import CalendarConfiguration, DatePeak
from ringbearer.domain.deliveries import State
from ringbearer.errors import Conflict, InvalidInput
from ringbearer.queue.bell import SocketBell
from ringbearer.queue.database import DatabaseQueue
from ringbearer.queue.optimizer import WebhookQueueOptimizer
from ringbearer.queue.plan import QueuePlan
from ringbearer.queue.steering import QUEUE, Steering
from ringbearer.rules import LaneRule, PriorityConfiguration
from ringbearer.season import SeasonScalingConfig
from ringbearer.storage.base import Storage
from ringbearer.storage.ranking import Moved
from ringbearer.telemetry import BacklogGrew, PlanChanged, Report, Telemetry

URGENT, BULK = 0, 3
TODAY = datetime.now(UTC).date()
PEAK_TODAY = SeasonScalingConfig(
    name="rush",
    calendar=CalendarConfiguration(
        preset="none",
        dates=tuple(
            DatePeak(date=TODAY + timedelta(days=n), multiplier=5, name="the fair") for n in (-1, 0, 1)
        ),
    ),
    tier_reserves={"premium": 3.0},
    peak_weights=(20, 4, 2, 1),
)


class House:
    """What a process without a loop has of the queue."""

    def __init__(self, storage: Storage, bell: SocketBell, node_id: str = "") -> None:
        self.telemetry = Telemetry()
        self.reports: list[Report] = []
        for kind in (PlanChanged, BacklogGrew):
            self.telemetry.listen(kind, self.reports.append)
        self.steering = Steering(
            plans=storage.plans, ledger=storage.ledger, telemetry=self.telemetry, node_id=node_id
        )
        self.optimizer = WebhookQueueOptimizer(
            queue=DatabaseQueue(storage.ledger, bell),
            ledger=storage.ledger,
            nodes=storage.nodes,
            steering=self.steering,
            telemetry=self.telemetry,
        )


@pytest.fixture
def bell(tmp_path: Path) -> Iterator[SocketBell]:
    made = SocketBell(tmp_path / "run", listen=False)
    yield made
    made.close()


@pytest.fixture
def house(storage: Storage, bell: SocketBell) -> House:
    return House(storage, bell)


def test_new_rules_move_what_is_queued_and_are_followed_everywhere(
    storage: Storage, house: House, bell: SocketBell
) -> None:
    storage.catalog.put_supplier(supplier("studio", tier="premium"))
    made = [admission("ep_1", "ep_2", event_type=kind) for kind in ("photo.ready", "booking.made") * 3]
    later = admission("ep_1", event_type="photo.ready", deliver_at=clock.now() + 10**10)
    storage.ledger.accept([*made, later])
    rules = PriorityConfiguration(rules=(LaneRule(name="photos", lane="bulk", event_types=("photo.*",)),))
    result = asyncio.run(house.optimizer.prioritize_webhook_deliveries(rules))
    assert (result.examined, result.moved, result.version) == (13, 7, 1)
    assert result.before == PriorityConfiguration()
    assert (
        counted(storage)
        == rows(storage)
        == {
            (NORMAL, State.READY): 6,
            (BULK, State.READY): 6,
            (BULK, State.SCHEDULED): 1,
        }
    )
    event = storage.history.get_event(made[0].event_id)[0]
    assert (event.priority, event.priority_reason) == ("bulk", "photos")
    other = House(storage, bell)
    other.steering.follow(now=clock.now())
    assert other.steering.rules.configuration == rules
    again = asyncio.run(house.optimizer.prioritize_webhook_deliveries(rules))
    assert again.moved == 0


def test_what_was_asked_for_is_remembered_when_rules_come_and_go(storage: Storage, house: House) -> None:
    storage.catalog.put_supplier(supplier())
    made = admission(lane=HIGH)
    made.asked, made.reason = "high", "asked for by the publisher"
    storage.ledger.accept([made])
    everything = PriorityConfiguration(rules=(LaneRule(name="all", lane="bulk"),))
    asyncio.run(house.optimizer.prioritize_webhook_deliveries(everything))
    assert counted(storage) == {(BULK, State.READY): 1}
    asyncio.run(house.optimizer.prioritize_webhook_deliveries(PriorityConfiguration()))
    assert counted(storage) == {(HIGH, State.READY): 1}
    assert query(storage, "SELECT lane, lane_reason FROM events") == [(HIGH, "asked for by the publisher")]


def test_what_is_with_a_worker_or_replayed_stays_in_its_lane(storage: Storage, house: House) -> None:
    storage.catalog.put_supplier(supplier())
    storage.ledger.accept([admission(), admission()])
    first, second = claim(storage)
    settle(storage, [first])
    storage.ledger.replay([first.delivery_id], now=clock.now(), lane=BULK)
    rules = PriorityConfiguration(rules=(LaneRule(name="all", lane="urgent"),))
    assert asyncio.run(house.optimizer.prioritize_webhook_deliveries(rules)).moved == 0
    assert settle(storage, [second]) == {second.delivery_id}


def test_two_who_rank_the_same_at_once_count_it_once(storage: Storage) -> None:
    storage.catalog.put_supplier(supplier())
    storage.ledger.accept([admission(), admission(deliver_at=clock.now() + 10**10)])
    ranking = storage.ledger.ranking
    page = ranking.page(after="", limit=10)
    assert ranking.move([Moved(queued, BULK, "mine") for queued in page]) == 2
    assert ranking.move([Moved(queued, HIGH, "theirs, read before") for queued in page]) == 0
    assert counted(storage) == rows(storage) == {(BULK, State.READY): 1, (BULK, State.SCHEDULED): 1}


def test_rules_that_cannot_be_followed_change_nothing(storage: Storage, house: House) -> None:
    rules = PriorityConfiguration(rules=(LaneRule(name="r", lane="high", event_types=("a b",)),))
    with pytest.raises(InvalidInput):
        asyncio.run(house.optimizer.prioritize_webhook_deliveries(rules))
    assert one(storage, "SELECT count(*) FROM plans") == 0


def test_a_season_changes_weights_thresholds_and_tiers_and_changes_them_back(
    storage: Storage, house: House
) -> None:
    result = asyncio.run(house.optimizer.scale_for_wedding_season(PEAK_TODAY))
    assert result.state.phase == "peak"
    assert result.plan.weights == (20, 4, 2, 1)
    assert house.steering.plan.backlog_age == 30.0
    storage.ledger.accept([admission("ep_a", supplier_id="a") for _ in range(100)])
    made = [admission("ep_b", supplier_id="b") for _ in range(100)]
    for each in made:
        each.tier = "premium"
    storage.ledger.accept(made)
    got = Counter(x.supplier_id for x in storage.ledger.claim([0, 0, 70, 0], worker="w", until=10**16))
    assert got["b"] == pytest.approx(60, abs=2)  # 2 * 3 : 1
    house.steering.follow(now=clock.now() + 5 * 86_400 * clock.SECOND)  # when no peak is any more
    assert house.steering.plan == QueuePlan()
    told = [report for report in house.reports if isinstance(report, PlanChanged)]
    assert [report.changes["phase"] for report in told] == ["ordinary → peak", "peak → season"]


def test_a_season_that_makes_no_sense_is_refused_and_a_rehearsal_changes_nothing(
    storage: Storage, house: House
) -> None:
    with pytest.raises(InvalidInput, match="is not a time zone"):
        asyncio.run(house.optimizer.scale_for_wedding_season(SeasonScalingConfig(timezones=("Mars/Base",))))
    hours = asyncio.run(house.optimizer.rehearse_season(date(2027, 6, 19), SeasonScalingConfig()))
    assert {hour.state.phase for hour in hours} == {"peak"}
    assert one(storage, "SELECT count(*) FROM plans") == 0
    assert house.steering.plan == QueuePlan()
    peaks = asyncio.run(house.optimizer.coming_peaks(14, "Europe/Paris"))
    assert {peak.date.weekday() for peak in peaks} == {5}


def test_a_plan_that_another_version_wrote_is_not_followed(storage: Storage, house: House) -> None:
    storage.plans.put(QUEUE, '{"warp": 9}', now=1, reason="from the future")
    house.steering.follow(now=clock.now())
    assert house.steering.plan == QueuePlan()
    asyncio.run(house.optimizer.change_plan(QueuePlan(batch_size=100), reason="a test"))
    assert house.steering.plan.batch_size == 100
    assert storage.plans.get(QUEUE) is not None


def test_backlogs_are_told_once_when_they_grow_and_once_when_they_are_gone(
    storage: Storage, house: House
) -> None:
    asyncio.run(house.optimizer.change_plan(QueuePlan(backlog_depth=10), reason="a test"))
    storage.ledger.accept([admission() for _ in range(11)])
    for _ in range(3):
        (alert,) = asyncio.run(house.optimizer.alert_on_queue_backlog())
    assert (alert.lane, alert.ready) == ("normal", 11)
    settle(storage, claim(storage, 4))  # 7 left: less than the threshold, more than half of it
    assert asyncio.run(house.optimizer.alert_on_queue_backlog()) == []
    settle(storage, claim(storage, 4))
    assert asyncio.run(house.optimizer.alert_on_queue_backlog()) == []
    told = [(r.lane, r.over) for r in house.reports if isinstance(r, BacklogGrew)]
    assert told == [("normal", True), ("normal", False)]


def test_what_stands_in_the_lanes_is_shown_with_what_is_followed(storage: Storage, house: House) -> None:
    now = clock.now()
    storage.ledger.accept([admission(at=now - 5 * clock.SECOND), admission(lane=URGENT)])
    shown = asyncio.run(house.optimizer.monitor_queue_performance())
    assert [lane.ready for lane in shown.lanes] == [1, 0, 1, 0]
    assert shown.lanes[NORMAL].oldest_age >= 5
    assert shown.measure is None
    assert shown.bottlenecks == ()


def test_a_busy_worker_is_to_fill_less_until_it_is_no_busier_than_the_others(
    storage: Storage, house: House, bell: SocketBell
) -> None:
    def beat(node_id: str, cpu: float) -> None:
        storage.nodes.beat(node_id, kind="work", host="h", pid=1, version="1", signals={"cpu": cpu})

    beat("node_busy", 0.9)
    beat("node_idle", 0.3)
    result = asyncio.run(house.optimizer.balance_queue_load())
    assert (result.before, result.after) == ({}, {"node_busy": 0.67})
    busy, idle = House(storage, bell, "node_busy"), House(storage, bell, "node_idle")
    for each in (busy, idle):
        each.steering.follow(now=clock.now())
    assert busy.steering.plan.prefetch == pytest.approx(0.5 * 0.67)
    assert idle.steering.plan.prefetch == 0.5
    beat("node_busy", 0.35)
    assert asyncio.run(house.optimizer.balance_queue_load()).after == {}
    assert asyncio.run(house.optimizer.balance_queue_load()).reason == "nothing to change"


def test_warming_opens_what_a_claim_needs(storage: Storage, house: House) -> None:
    async def warm() -> None:
        async with house.optimizer as optimizer:
            result = await optimizer.pre_warm_queue_infrastructure()
            assert set(result.steps) == {"claim", "depth", "order", "parking", "plans", "bell"}

    asyncio.run(warm())
    assert "WebhookQueueOptimizer" in repr(house.optimizer)


def test_what_limits_is_named_the_worst_first_with_its_evidence(storage: Storage, house: House) -> None:
    assert asyncio.run(house.optimizer.detect_queue_bottlenecks()) == []
    storage.catalog.put_supplier(supplier())
    storage.ledger.accept([admission(), admission()])
    storage.nodes.beat("api", kind="serve", host="h", pid=1, version="1", signals={"cpu": 0.9})
    held = {"cpu": 0.2, "slots": 10.0, "held": 10.0}
    storage.nodes.beat("worker", kind="work", host="h", pid=2, version="1", signals=held)
    receivers, ingest = asyncio.run(house.optimizer.detect_queue_bottlenecks())
    assert (receivers.stage, ingest.stage) == ("receivers", "ingest")
    assert receivers.severity > ingest.severity > 1
    assert "2 deliveries wait" in receivers.evidence
    assert "10 of 10 slots" in receivers.evidence
    assert "90%" in ingest.evidence
    storage.nodes.beat("worker", kind="work", host="h", pid=2, version="1", signals=held | {"held": 2.0})
    assert [b.stage for b in asyncio.run(house.optimizer.detect_queue_bottlenecks())] == ["ingest"]


def test_rules_can_be_stored_for_the_leading_worker_to_rank_by(storage: Storage, house: House) -> None:
    storage.catalog.put_supplier(supplier())
    storage.ledger.accept([admission(), admission()])
    rules = PriorityConfiguration(rules=(LaneRule(name="all", lane="bulk"),))
    put = asyncio.run(house.optimizer.prioritize_webhook_deliveries(rules, at_once=False))
    assert (put.before, put.after, put.version) == (PriorityConfiguration(), rules, 1)
    assert (put.examined, put.moved) == (0, 0)
    assert counted(storage) == {(NORMAL, State.READY): 2}
    assert asyncio.run(house.optimizer.catch_up_with_rules()) == 2
    assert counted(storage) == {(BULK, State.READY): 2}


def test_an_optimizer_without_a_loop_steers_and_delivers_nothing(house: House) -> None:
    with pytest.raises(Conflict, match="has no loop"):
        asyncio.run(house.optimizer.batch_process_webhooks(1, 0.0))
