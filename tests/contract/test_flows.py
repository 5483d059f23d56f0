"""Within a lane everybody who has work is served by weight, whatever the others queue."""

from collections import Counter
from collections.abc import Iterable

import pytest

from contract.making import (
    NORMAL,
    add_endpoint,
    admission,
    at_once,
    claim,
    in_processes,
    one,
    opened,
    outcome,
    query,
    settle,
    supplier,
)
from ringbearer import clock
from ringbearer.domain.deliveries import Lease, State
from ringbearer.domain.suppliers import Tier
from ringbearer.priority import FIRST_COST
from ringbearer.storage.base import Storage
from ringbearer.storage.ledger import Admission
from ringbearer.storage.parking import Park
from ringbearer.storage.vault import generate_key

LATER = clock.now() + 3_600 * clock.SECOND


def many(
    count: int, supplier: str, *endpoints: str, tier: Tier = "standard", lane: int = NORMAL
) -> list[Admission]:
    made = [
        admission(*(endpoints or (f"ep_{supplier}",)), supplier_id=supplier, lane=lane) for _ in range(count)
    ]
    for each in made:
        each.tier = tier
    return made


def next_ones(storage: Storage, count: int, *, lane: int = NORMAL) -> list[Lease]:
    """The next so many of a lane, and only of it."""
    quotas = [0, 0, 0, 0]
    quotas[lane] = count
    return storage.ledger.claim(quotas, worker="wrk_test", until=LATER)


def raise_clock(storage: Storage) -> None:
    """Let the lanes' virtual times be written down with the next claim, and read with the next event."""
    storage.ledger.flows._next_raise = storage.ledger.flows._next_read = 0.0


def suppliers(leases: Iterable[Lease]) -> Counter[str]:
    return Counter(lease.supplier_id for lease in leases)


def test_who_comes_after_a_crowd_does_not_stand_behind_it(storage: Storage) -> None:
    storage.ledger.accept(many(1_000, "crowd"))
    storage.ledger.accept(many(3, "late"))
    assert suppliers(next_ones(storage, 6)) == {"crowd": 3, "late": 3}


def test_shares_follow_the_weights(storage: Storage) -> None:
    tiers: tuple[Tier, ...] = ("standard", "premium", "enterprise")
    for tier in tiers:
        storage.ledger.accept(many(200, tier, tier=tier))
    got = suppliers(next_ones(storage, 140))
    assert got["standard"] == pytest.approx(20, abs=2)
    assert got["premium"] == pytest.approx(40, abs=2)
    assert got["enterprise"] == pytest.approx(80, abs=2)


def test_a_tiers_reserve_holds_while_others_flood_the_queue(storage: Storage) -> None:
    """Four suppliers send twice as much as can be done; a premium one, of weight six, is sure of six parts in ten."""
    storage.ledger.flows.weigh({"standard": 1.0, "premium": 6.0, "enterprise": 4.0})
    capacity = 50

    def round_of(premium: int) -> Counter[str]:
        for number in range(4):
            storage.ledger.accept(many(capacity // 2, f"crowd{number}"))
        storage.ledger.accept(many(premium, "studio", tier="premium"))
        raise_clock(storage)
        return suppliers(next_ones(storage, capacity))

    within = [round_of(25) for _ in range(8)]
    assert all(got.total() == capacity for got in within)
    assert sum(got["studio"] for got in within) >= 8 * 25 - 3, "what is within its reserve does not wait"
    beyond = [round_of(100) for _ in range(8)]
    assert sum(got["studio"] for got in beyond[1:]) == pytest.approx(7 * 30, abs=14)
    for number in range(4):
        assert sum(got[f"crowd{number}"] for got in beyond[1:]) == pytest.approx(7 * 5, abs=7)


def test_deliveries_of_one_flow_keep_the_order_in_which_they_came(storage: Storage) -> None:
    made = many(30, "a")
    storage.ledger.accept(made[:10])
    storage.ledger.accept(many(30, "b"))
    storage.ledger.accept(made[10:])
    got = [x.event_id for x in next_ones(storage, 60) if x.supplier_id == "a"]
    assert got == [a.event_id for a in made]


def test_a_supplier_with_many_endpoints_has_one_suppliers_share(storage: Storage) -> None:
    storage.ledger.accept(many(50, "wide", *(f"ep_wide{n}" for n in range(10))))
    storage.ledger.accept(many(500, "narrow"))
    got = suppliers(next_ones(storage, 100))
    assert got["wide"] == pytest.approx(50, abs=10)  # its endpoints start together


def test_idling_gathers_no_credit(storage: Storage) -> None:
    """Who was silent while another was served does not overtake more than its share afterwards."""
    storage.ledger.accept(many(2, "idle"))
    storage.ledger.accept(many(1_000, "busy"))
    next_ones(storage, 400)
    raise_clock(storage)
    next_ones(storage, 1)
    storage.ledger.accept(many(300, "idle"))
    got = suppliers(next_ones(storage, 100))
    assert got["idle"] == pytest.approx(50, abs=3)


def test_who_used_idle_capacity_does_not_pay_for_it(storage: Storage) -> None:
    storage.ledger.accept(many(500, "busy"))
    next_ones(storage, 499)
    raise_clock(storage)
    next_ones(storage, 1)
    storage.ledger.accept(many(100, "other"))
    storage.ledger.accept(many(100, "busy"))
    got = suppliers(next_ones(storage, 100))
    assert got["busy"] == pytest.approx(50, abs=3)


def test_lanes_do_not_know_of_each_other(storage: Storage) -> None:
    storage.ledger.accept(many(100, "a", lane=3))
    storage.ledger.accept([*many(5, "b", lane=0), *many(5, "a", lane=0)])
    assert suppliers(next_ones(storage, 4, lane=0)) == {"a": 2, "b": 2}


def test_a_retry_queues_up_behind_what_its_flow_has_by_then(storage: Storage) -> None:
    storage.ledger.accept(many(1, "a"))
    (lease,) = next_ones(storage, 1)
    storage.ledger.settle([outcome(lease, State.SCHEDULED, due_at=5)], now=clock.now())
    storage.ledger.accept(many(3, "a"))
    assert storage.ledger.stage(now=5, limit=10) == 1
    assert [x.attempt for x in next_ones(storage, 4)] == [1, 1, 1, 2]


def test_what_waits_for_its_time_takes_nobodys_place(storage: Storage) -> None:
    storage.ledger.accept([admission("ep_a", supplier_id="a", deliver_at=LATER) for _ in range(50)])
    assert storage.ledger.flows.exchange(now=clock.now()) == 0
    assert storage.ledger.stage(now=LATER, limit=100) == 50
    assert [x.ready_at for x in next_ones(storage, 50)] == [LATER] * 50


def test_a_replay_takes_its_turn_in_the_lane_it_is_sent_to(storage: Storage) -> None:
    storage.ledger.accept(many(20, "a"))
    leases = next_ones(storage, 20)
    settle(storage, leases)
    storage.ledger.accept(many(20, "b", lane=3))
    assert storage.ledger.replay([x.delivery_id for x in leases], now=clock.now(), lane=3) == 20
    got = next_ones(storage, 20, lane=3)
    assert suppliers(got) == {"a": 10, "b": 10}


def test_held_deliveries_queue_up_when_they_are_let_go(storage: Storage) -> None:
    made = add_endpoint(storage, "held")
    storage.ledger.accept([admission(made.id, enabled=False, supplier_id="held") for _ in range(100)])
    storage.ledger.accept(many(100, "other"))
    assert storage.ledger.unhold(limit=1_000) == 100
    assert suppliers(next_ones(storage, 20)) == {"held": 10, "other": 10}


def test_a_slow_endpoint_pays_for_the_time_it_takes(storage: Storage) -> None:
    """Ten of eleven of the next slots go to who is ten times as fast: so both hold as much time."""
    flows = storage.ledger.flows
    flows.held([("ep_slow", 1_000_000)] * 100 + [("ep_fast", 100_000)] * 100)
    assert flows.exchange(now=clock.now()) == 2
    flows.exchange(now=clock.now())  # it hears of it as every other process does
    assert dict(query(storage, "SELECT endpoint_id, cost FROM flow_costs")) == {
        "ep_slow": 1_000_000,
        "ep_fast": 100_000,
    }
    storage.ledger.accept([*many(200, "slow"), *many(200, "fast")])
    assert suppliers(next_ones(storage, 110))["slow"] == pytest.approx(10, abs=2)


def test_what_was_measured_as_believed_is_not_written(storage: Storage) -> None:
    flows = storage.ledger.flows
    flows.held([("ep_a", FIRST_COST)] * 10)
    assert flows.exchange(now=clock.now()) == 0
    flows.held([("ep_a", 2 * FIRST_COST)] * 10)
    assert flows.exchange(now=clock.now()) == 1
    flows.held([("ep_a", 2 * FIRST_COST)] * 10)
    assert flows.exchange(now=clock.now()) == 0


def test_a_process_that_starts_knows_what_others_have_queued(storage: Storage, store_url: str) -> None:
    """Else a restart would let a crowd's next events overtake its own, and double its share."""
    crowd = many(100, "crowd")
    storage.ledger.accept(crowd)
    storage.ledger.accept(many(1, "other"))
    assert storage.ledger.flows.exchange(now=clock.now()) == 2
    assert storage.ledger.flows.exchange(now=clock.now()) == 0
    with opened(store_url, generate_key()) as started:
        started.ledger.flows.exchange(now=clock.now())
        late = many(1, "crowd")
        started.ledger.accept(late)
        started.ledger.accept(many(3, "other"))
        got = [x.event_id for x in next_ones(started, 105)]
    assert [e for e in got if e in {a.event_id for a in crowd + late}] == [a.event_id for a in crowd + late]


def test_what_was_told_long_ago_is_forgotten(storage: Storage) -> None:
    storage.ledger.accept(many(2, "a"))
    storage.ledger.flows.held([("ep_a", 1_000_000)])
    assert storage.ledger.flows.exchange(now=clock.now()) == 2
    assert storage.ledger.flows.forget(now=clock.now()) == 0
    assert storage.ledger.flows.forget(now=clock.now() + 90_000 * clock.SECOND) == 1  # the flow
    assert storage.ledger.flows.forget(now=clock.now() + 31 * 86_400 * clock.SECOND) == 1  # the cost


def test_a_tier_counts_for_what_is_staged_too(storage: Storage) -> None:
    storage.catalog.put_supplier(supplier("big", tier="enterprise"))
    for name in ("big", "small"):
        storage.ledger.accept(
            [admission(f"ep_{name}", supplier_id=name, deliver_at=1_000) for _ in range(50)]
        )
    assert storage.ledger.stage(now=2_000, limit=100) == 100
    assert suppliers(next_ones(storage, 50))["big"] == pytest.approx(40, abs=2)


def test_other_weights_count_from_the_next_event_on(storage: Storage) -> None:
    storage.ledger.flows.weigh({"standard": 1.0, "premium": 9.0, "enterprise": 9.0})
    storage.ledger.accept([*many(100, "a"), *many(100, "b", tier="premium")])
    assert suppliers(next_ones(storage, 100))["b"] == pytest.approx(90, abs=2)


def test_publishers_at_once_give_every_delivery_a_place_of_its_own(storage: Storage) -> None:
    at_once(4, lambda _: storage.ledger.accept(many(50, "a", "ep_1", "ep_2")))
    assert one(storage, "SELECT count(*) FROM jobs") == 400
    assert one(storage, "SELECT count(*) FROM (SELECT DISTINCT endpoint_id, rank FROM jobs) AS places") == 400


def _accept(url: str, key: str, names: tuple[str, ...]) -> None:
    with opened(url, key) as storage:
        for n in range(20):
            storage.ledger.accept([a for name in names for a in many(2, name)])
            if n % 5 == 0:
                storage.ledger.flows.exchange(now=clock.now())


def test_processes_that_publish_for_the_same_suppliers_share_their_order(
    storage: Storage, store_url: str
) -> None:
    orders = (("a", "b", "c"), ("c", "b", "a"))
    in_processes(_accept, [(store_url, generate_key(), order) for order in orders])
    got = suppliers(next_ones(storage, 60))
    assert got == {
        "a": pytest.approx(20, abs=6),
        "b": pytest.approx(20, abs=6),
        "c": pytest.approx(20, abs=6),
    }


def test_after_the_flows_are_lost_nothing_else_is(storage: Storage) -> None:
    storage.ledger.accept(many(20, "a"))
    with storage.database.write() as connection:
        for table in ("flows", "flow_costs", "lane_clocks"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    storage.ledger.accept([*many(10, "a"), *many(10, "b")])
    assert len(claim(storage)) == 40


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_is_parked_is_not_charged_for_its_turn_twice(
    storage: Storage, store_url: str, elsewhere: bool
) -> None:
    """A thousand were queued when the circuit opened; the first that comes back takes its turn with the others."""
    now = clock.now()
    with opened(store_url, generate_key()) as other:
        made = other if elsewhere else storage
        made.ledger.accept(many(1_000, "parked"))
        for each in (made, storage):
            each.ledger.flows.exchange(now=now)
        park = Park("ep_parked", now + clock.SECOND, 0, "its circuit is open")
        assert storage.ledger.parking.park([park], now=now) == 1_000
        made.ledger.parking.follow(now=now)
        for each in (made, storage):
            each.ledger.flows.exchange(now=now)
        storage.ledger.accept(many(20, "other"))
        assert made.ledger.stage(now=now + clock.SECOND, limit=10) == 10
        assert suppliers(next_ones(storage, 20)) == {"parked": 10, "other": 10}
