"""A claim takes the most important first, and what one worker holds no other one gets."""

from collections import Counter

from contract.making import (
    admission,
    at_once,
    claim,
    counted,
    delivery_of,
    in_processes,
    job_states,
    one,
    opened,
    outcome,
    repeated,
    rows,
    settle,
    shown,
)
from ringbearer import clock
from ringbearer.domain.deliveries import Lease, State
from ringbearer.priority import Shares
from ringbearer.storage.base import Storage
from ringbearer.storage.vault import generate_key

URGENT, HIGH, NORMAL, BULK = range(4)
LATER = clock.now() + 3_600 * clock.SECOND


def lanes(leases: list[Lease]) -> list[int]:
    return [lease.lane for lease in leases]


def fill(storage: Storage, *counts: int) -> None:
    storage.ledger.accept([admission(lane=lane) for lane, n in enumerate(counts) for _ in range(n)])


def test_a_lease_carries_all_that_sending_needs(storage: Storage) -> None:
    made = admission(lane=HIGH, data='{"guests":120}', ordering_key="couple-1")
    storage.ledger.accept([made])
    (lease,) = claim(storage)
    assert lease == Lease(
        delivery_id=delivery_of(made),
        event_id=made.event_id,
        endpoint_id=made.endpoints[0][0],
        supplier_id="studio",
        lane=HIGH,
        attempt=1,
        attempt_base=0,
        worker="wrk_test",
        ordering_key="couple-1",
        accepted_at=made.accepted_at,
        event_type="booking.confirmed",
        timestamp="2027-06-19T14:00:00Z",
        data='{"guests":120}',
        ready_at=made.accepted_at,
    )
    assert shown(storage, lease.delivery_id) is State.LEASED
    assert claim(storage) == []


def test_lanes_come_in_order_and_within_a_flow_the_first_that_came(storage: Storage) -> None:
    made = [admission(lane=n % 4) for n in range(20)]
    storage.ledger.accept(made[:7])
    storage.ledger.accept(made[7:])
    expected = sorted(made, key=lambda a: a.lane)
    assert [x.event_id for x in claim(storage)] == [a.event_id for a in expected]
    assert counted(storage) == rows(storage)


def test_each_lane_gets_its_quota_while_all_have_work(storage: Storage) -> None:
    fill(storage, 9, 9, 9, 9)
    assert Counter(lanes(storage.ledger.claim([4, 3, 2, 1], worker="w", until=LATER))) == {
        0: 4,
        1: 3,
        2: 2,
        3: 1,
    }


def test_what_a_lane_leaves_goes_to_the_others_most_important_first(storage: Storage) -> None:
    fill(storage, 1, 20, 0, 20)
    assert Counter(lanes(storage.ledger.claim([4, 4, 4, 4], worker="w", until=LATER))) == {0: 1, 1: 11, 3: 4}


def test_a_lane_without_a_quota_gets_what_is_left(storage: Storage) -> None:
    """A claim of a single slot must find the one delivery there is, whatever its lane."""
    fill(storage, 0, 0, 0, 5)
    assert lanes(storage.ledger.claim([1, 0, 0, 0], worker="w", until=LATER)) == [BULK]
    assert lanes(storage.ledger.claim([2, 1, 0, 0], worker="w", until=LATER)) == [BULK] * 3


def test_no_claim_takes_more_than_its_quotas_together(storage: Storage) -> None:
    fill(storage, 3, 3, 3, 3)
    assert len(storage.ledger.claim([0, 2, 0, 3], worker="w", until=LATER)) == 5
    assert storage.ledger.claim([0, 0, 0, 0], worker="w", until=LATER) == []


def test_two_deliveries_of_one_event_share_its_body(storage: Storage) -> None:
    storage.ledger.accept([admission("ep_1", "ep_2", data='"x"')])
    assert [(x.endpoint_id, x.data) for x in claim(storage)] == [("ep_1", '"x"'), ("ep_2", '"x"')]


def _drain(storage: Storage) -> list[str]:
    got: list[str] = []
    while leases := claim(storage, 7):
        got += [x.delivery_id for x in leases]
        assert len(storage.ledger.settle([outcome(x) for x in leases], now=clock.now())) == len(leases)
    return got


def test_threads_never_get_the_same_delivery(storage: Storage) -> None:
    fill(storage, 100, 100, 100, 100)
    got = Counter(x for part in at_once(4, lambda _: _drain(storage)) for x in part)
    assert repeated(got) == []
    assert len(got) == 400
    assert counted(storage) == rows(storage) == {}


def _drain_alone(url: str, key: str) -> list[str]:
    with opened(url, key) as storage:
        return _drain(storage)


def test_processes_never_get_the_same_delivery(storage: Storage, store_url: str) -> None:
    fill(storage, 200, 200, 200, 200)
    parts = in_processes(_drain_alone, [(store_url, generate_key())] * 2)
    got = Counter(x for part in parts for x in part)
    assert repeated(got) == []
    assert len(got) == 800
    assert counted(storage) == rows(storage) == {}
    assert one(storage, "SELECT count(*) FROM attempts") == 800


# ── leases ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_expired_lease_is_rescued_and_its_attempt_is_spent(storage: Storage) -> None:
    fill(storage, 0, 0, 2)
    now = clock.now()
    storage.ledger.claim([0, 0, 1, 0], worker="w", until=now - 1)
    assert storage.ledger.rescue(now=now - 2, limit=10) == 0
    assert storage.ledger.rescue(now=now, limit=10) == 1
    assert storage.ledger.rescue(now=now, limit=10) == 0
    assert sorted(x.attempt for x in claim(storage)) == [1, 2]
    assert counted(storage) == rows(storage)


def test_rescue_keeps_to_its_limit(storage: Storage) -> None:
    fill(storage, 0, 0, 5)
    claim(storage, until=0)
    assert [storage.ledger.rescue(now=1, limit=2) for _ in range(4)] == [2, 2, 1, 0]


def test_a_lease_that_is_extended_is_not_rescued(storage: Storage) -> None:
    fill(storage, 0, 0, 2)
    first, second = claim(storage, until=10)
    assert storage.ledger.extend([first], until=30) == {first.delivery_id}
    assert storage.ledger.rescue(now=20, limit=10) == 1
    assert storage.ledger.extend([first, second], until=40) == {first.delivery_id}
    assert storage.ledger.extend([], until=40) == set()


def test_released_leases_are_ready_at_once_with_their_attempt_unspent(storage: Storage) -> None:
    fill(storage, 0, 0, 3)
    leases = claim(storage)
    assert storage.ledger.release(leases) == 3
    assert storage.ledger.release(leases) == 0
    assert storage.ledger.release([]) == 0
    again = claim(storage)
    assert [x.attempt for x in again] == [1, 1, 1]
    assert [x.delivery_id for x in again] == [x.delivery_id for x in leases]
    assert counted(storage) == rows(storage)


def test_a_settle_with_another_attempt_number_changes_nothing(storage: Storage) -> None:
    fill(storage, 0, 0, 1)
    (lease,) = claim(storage)
    for wrong in (0, 2):
        lease.attempt = wrong
        for state in (State.DELIVERED, State.DEAD, State.SCHEDULED, State.READY):
            assert settle(storage, [lease], state) == set()
    assert set(job_states(storage).values()) == {State.LEASED}
    assert one(storage, "SELECT count(*) FROM attempts") == 0
    assert counted(storage) == rows(storage)


def test_a_zombie_cannot_overwrite_its_successor(storage: Storage) -> None:
    fill(storage, 0, 0, 1)
    (zombie,) = claim(storage, until=0)
    storage.ledger.rescue(now=1, limit=10)
    assert settle(storage, [zombie], State.DEAD) == set()  # not leased at all
    (successor,) = claim(storage)
    assert settle(storage, [zombie], State.DEAD) == set()  # leased, by another
    assert storage.ledger.extend([zombie], until=LATER) == set()
    assert storage.ledger.release([zombie]) == 0
    assert settle(storage, [successor]) == {successor.delivery_id}
    assert settle(storage, [zombie], State.DEAD) == set()  # finished
    detail = storage.history.get_delivery(zombie.delivery_id)
    assert detail.state is State.DELIVERED
    assert [a.number for a in detail.attempts] == [2]
    assert counted(storage) == rows(storage) == {}


def test_a_zombie_in_the_same_batch_as_its_successor_changes_nothing(storage: Storage) -> None:
    """A worker that slept longer than its lease may have got the same delivery again."""
    for order in (1, -1):
        fill(storage, 0, 0, 1)
        (zombie,) = claim(storage, until=0)
        storage.ledger.rescue(now=1, limit=10)
        (successor,) = claim(storage)
        batch = [outcome(zombie, State.DEAD), outcome(successor)][::order]
        assert storage.ledger.settle(batch, now=clock.now()) == {successor.delivery_id}
        detail = storage.history.get_delivery(successor.delivery_id)
        assert detail.state is State.DELIVERED
        assert [a.number for a in detail.attempts] == [2]
    assert counted(storage) == rows(storage) == {}


def test_who_held_the_same_attempt_before_changes_nothing(storage: Storage) -> None:
    """Two hold one attempt number after one gave it back unspent, or after a crash that made the store forget a claim."""
    fill(storage, 0, 0, 1)
    (first,) = claim(storage)
    assert storage.ledger.release([first]) == 1
    (second,) = storage.ledger.claim([1, 1, 1, 1], worker="another", until=LATER)
    assert second.attempt == first.attempt
    assert storage.ledger.release([first]) == 0  # said again, since no answer came the first time
    assert storage.ledger.extend([first], until=LATER) == set()
    assert settle(storage, [first]) == settle(storage, [first], State.DEAD) == set()
    assert storage.ledger.extend([second], until=LATER) == {second.delivery_id}
    assert settle(storage, [second]) == {second.delivery_id}
    assert counted(storage) == rows(storage) == {}


def test_of_a_mixed_batch_the_lost_ones_are_left_out(storage: Storage) -> None:
    fill(storage, 0, 0, 4)
    leases = claim(storage)
    leases[1].attempt = 7
    leases[2].attempt = 7
    batch = [
        outcome(x, s)
        for x, s in zip(leases, [State.DELIVERED, State.DELIVERED, State.DEAD, State.DEAD], strict=True)
    ]
    assert storage.ledger.settle(batch, now=clock.now()) == {leases[0].delivery_id, leases[3].delivery_id}
    assert one(storage, "SELECT count(*) FROM attempts") == 2
    assert counted(storage) == rows(storage) == {(NORMAL, State.LEASED): 2, (NORMAL, State.DEAD): 1}


# ── no starvation ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_bulk_delivery_waits_for_fifteen_slots_at_most_however_much_else_there_is(storage: Storage) -> None:
    """Saturation: whatever is claimed from the other lanes is replaced at once."""
    shares = Shares()
    fill(storage, 40, 40, 40)
    for round_ in range(3):
        fill(storage, 0, 0, 0, 1)
        waited = 0
        while True:
            (lease,) = storage.ledger.claim(shares.quotas(1), worker="w", until=LATER)
            waited += 1
            if lease.lane == BULK:
                break
            fill(storage, *(int(lane == lease.lane) for lane in range(3)))
        assert waited <= 15, round_
