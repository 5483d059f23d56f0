"""Deliveries of an endpoint that cannot take them leave the ready set in bulk, and come back one after the other."""

from contract.making import (
    HIGH,
    NORMAL,
    admission,
    at_once,
    claim,
    counted,
    job_states,
    one,
    opened,
    outcome,
    query,
    rows,
)
from ringbearer import clock
from ringbearer.domain.deliveries import Outcome, State
from ringbearer.storage.base import Storage
from ringbearer.storage.parking import RATE_LIMIT, Park
from ringbearer.storage.vault import generate_key

NOW = clock.now()
UNTIL = NOW + 10 * clock.SECOND
PARK = Park("ep_full", UNTIL, 2 * clock.SECOND, "its circuit is open")


def fill(storage: Storage, count: int, endpoint: str = "ep_full", **given: object) -> None:
    storage.ledger.accept([admission(endpoint, at=NOW, **given) for _ in range(count)])  # type: ignore[arg-type]


def dues(storage: Storage) -> list[int]:
    found = query(storage, "SELECT due_at FROM jobs WHERE state = 'scheduled' ORDER BY due_at")
    return [(due - UNTIL) // clock.SECOND for (due,) in found]


def test_a_parked_endpoint_leaves_the_way_to_the_others(storage: Storage) -> None:
    fill(storage, 30)
    fill(storage, 3, "ep_free")
    assert storage.ledger.parking.park([PARK], now=NOW) == 30
    assert [lease.endpoint_id for lease in claim(storage)] == ["ep_free"] * 3
    assert dues(storage) == list(range(0, 60, 2))
    assert counted(storage) == rows(storage)


def test_parked_deliveries_keep_their_order_and_tell_why(storage: Storage) -> None:
    made = [admission("ep_full", at=NOW, lane=lane) for lane in (NORMAL, HIGH, NORMAL)]
    storage.ledger.accept(made)
    storage.ledger.parking.park([PARK], now=NOW)
    found = query(storage, "SELECT event_id, reason FROM jobs ORDER BY due_at")
    assert [event_id for event_id, _ in found] == [made[n].event_id for n in (1, 0, 2)]
    assert {reason for _, reason in found} == {"parked: its circuit is open"}


def test_the_first_comes_back_alone_when_its_time_has_come(storage: Storage) -> None:
    """So that a breaker's half-open state is tried with one delivery, not with all."""
    fill(storage, 5)
    storage.ledger.parking.park([PARK], now=NOW)
    assert storage.ledger.stage(now=UNTIL - 1, limit=100) == 0
    assert storage.ledger.stage(now=UNTIL, limit=100) == 1
    (lease,) = claim(storage)
    assert (lease.attempt, lease.ready_at) == (1, UNTIL)


def test_what_arrives_meanwhile_queues_up_behind(storage: Storage) -> None:
    fill(storage, 2)
    storage.ledger.parking.park([PARK], now=NOW)
    fill(storage, 2)
    fill(storage, 1, "ep_free")
    assert dues(storage) == [0, 2, 4, 6]
    assert [lease.endpoint_id for lease in claim(storage)] == ["ep_free"]
    assert counted(storage) == rows(storage)


def test_another_process_hears_of_it(storage: Storage, store_url: str) -> None:
    fill(storage, 1)
    storage.ledger.parking.park([PARK], now=NOW)
    with opened(store_url, generate_key()) as other:
        other.ledger.parking.follow(now=NOW)
        fill(other, 1)
        assert claim(other) == []
        storage.ledger.parking.unpark(["ep_full"], now=NOW)
        other.ledger.parking.follow(now=NOW)
        fill(other, 1)
        assert len(claim(other)) == 1


def test_unparking_lets_them_come_at_once_but_no_retry_before_its_time(storage: Storage) -> None:
    fill(storage, 3)
    fill(storage, 1, deliver_at=UNTIL)
    storage.ledger.parking.park([PARK], now=NOW)
    assert storage.ledger.parking.unpark(["ep_full"], now=NOW) == 3
    assert storage.ledger.stage(now=NOW, limit=100) == 3
    assert len(claim(storage)) == 3
    assert "ep_full" not in storage.ledger.parking
    assert counted(storage) == rows(storage)


def test_after_its_time_an_endpoint_is_parked_no_more(storage: Storage) -> None:
    storage.ledger.parking.park([PARK], now=NOW)
    storage.ledger.accept([admission("ep_full", at=UNTIL)])
    assert len(claim(storage)) == 1
    storage.ledger.parking.follow(now=UNTIL)
    assert len(storage.ledger.parking) == 0
    assert storage.ledger.parking.forget(now=UNTIL) == 0
    assert storage.ledger.parking.forget(now=UNTIL + 60 * clock.SECOND) == 1


def test_parking_again_puts_off_what_arrives_and_what_came_back(storage: Storage) -> None:
    fill(storage, 2)
    storage.ledger.parking.park([PARK], now=NOW)
    storage.ledger.stage(now=UNTIL, limit=10)
    again = Park("ep_full", UNTIL + 60 * clock.SECOND, 0, "its circuit is open")
    assert storage.ledger.parking.park([again], now=UNTIL) == 1
    fill(storage, 1)
    assert dues(storage) == [2, 60, 60]


def test_a_long_line_is_spread_over_an_hour_at_most(storage: Storage) -> None:
    fill(storage, 5)
    storage.ledger.parking.park([Park("ep_full", UNTIL, 1_500 * clock.SECOND, "slow")], now=NOW)
    assert dues(storage) == [0, 1_500, 3_000, 3_600, 3_600]


def test_only_the_first_of_an_ordering_key_is_parked_and_the_others_wait_for_it(storage: Storage) -> None:
    fill(storage, 3, ordering_key="couple")
    assert storage.ledger.parking.park([PARK], now=NOW) == 1
    assert sorted(job_states(storage).values()) == [State.SCHEDULED, State.WAITING, State.WAITING]


def test_claims_and_parking_at_once_lose_nothing(storage: Storage) -> None:
    fill(storage, 400)

    def work(number: int) -> int:
        if number == 0:
            return storage.ledger.parking.park([PARK], now=NOW)
        return sum(len(claim(storage, 10)) for _ in range(8))

    parked, *claimed = at_once(3, work)
    states = list(job_states(storage).values())
    assert states.count(State.SCHEDULED) == parked
    assert states.count(State.LEASED) == sum(claimed)
    assert len(states) == 400
    assert counted(storage) == rows(storage)


def test_nothing_to_do_is_nothing_done(storage: Storage) -> None:
    assert storage.ledger.parking.park([], now=NOW) == 0
    assert storage.ledger.parking.unpark([], now=NOW) == 0
    assert storage.ledger.parking.unpark(["ep_unknown"], now=NOW) == 0
    assert one(storage, "SELECT count(*) FROM parked") == 0


def test_a_brief_park_keeps_nothing_out_that_arrives_later(storage: Storage) -> None:
    """There may be room again by then; whoever claims it finds out."""
    fill(storage, 4)
    brief = Park("ep_full", UNTIL, 70 * clock.SECOND, "it takes no more at a time", brief=True)
    assert storage.ledger.parking.park([brief], now=NOW) == 4
    assert dues(storage) == [0, 70, 120, 120]
    assert len(storage.ledger.parking) == one(storage, "SELECT count(*) FROM parked") == 0
    fill(storage, 1)
    assert len(claim(storage)) == 1


def test_what_another_process_parked_after_the_end_of_it_comes_back_too(
    storage: Storage, store_url: str
) -> None:
    """An operator closed the circuit; another process heard of it only after more had arrived there."""
    fill(storage, 1)
    storage.ledger.parking.park([PARK], now=NOW)
    with opened(store_url, generate_key()) as other:
        other.ledger.parking.follow(now=NOW)
        storage.ledger.parking.unpark(["ep_full"], now=NOW)
        fill(other, 2)
        assert storage.ledger.stage(now=NOW, limit=100) == 1
        assert other.ledger.parking.follow(now=NOW) == 2
        assert storage.ledger.stage(now=NOW, limit=100) == 2
        fill(other, 1)
        assert len(claim(other)) == 4
        assert other.ledger.parking.follow(now=NOW) == 0
    assert counted(storage) == rows(storage)


def test_what_was_under_way_when_its_process_heard_of_the_end_comes_back_with_the_next_look(
    storage: Storage, store_url: str
) -> None:
    storage.ledger.parking.park([PARK], now=NOW)
    with opened(store_url, generate_key()) as other:
        other.ledger.parking.follow(now=NOW)
        fill(other, 1)
        storage.ledger.parking.unpark(["ep_full"], now=NOW)
        due_at, reason = UNTIL + 50 * clock.SECOND, "parked: its circuit is open"
        assert other.ledger.parking.follow(now=NOW) == 0  # what was there was let go by the one that unparked
        late = admission("ep_full", at=NOW)
        other.ledger.accept([late])
        with (
            other.database.write() as connection
        ):  # as the transaction that had asked before would have left it
            connection.exec_driver_sql(
                f"UPDATE jobs SET state = 'scheduled', due_at = {due_at}, reason = '{reason}' "
                f"WHERE event_id = '{late.event_id}'"
            )
        assert other.ledger.parking.follow(now=NOW) == 1
        assert other.ledger.parking.follow(now=NOW) == 0


def test_when_a_rate_limit_changes_what_waits_for_it_is_tried_anew_soon(storage: Storage) -> None:
    fill(storage, 3)
    fill(storage, 1, deliver_at=UNTIL)
    (first, second, third) = claim(storage, 3)
    storage.ledger.settle(
        [
            Outcome(lease=first, state=State.SCHEDULED, due_at=UNTIL, reason=RATE_LIMIT),
            outcome(second, State.SCHEDULED, due_at=UNTIL),
        ],
        now=NOW,
    )
    storage.ledger.release([third])
    limited = Park("ep_full", UNTIL, 2 * clock.SECOND, RATE_LIMIT)
    assert storage.ledger.parking.park([limited], now=NOW) == 1
    fill(storage, 2)
    assert storage.ledger.parking.limits_changed(["ep_full"], now=NOW) == 4
    assert storage.ledger.stage(now=NOW, limit=100) == 0  # not before every worker knows the new limit
    assert storage.ledger.stage(now=NOW + 2 * clock.SECOND, limit=100) == 4
    fill(storage, 1)
    assert len(claim(storage)) == 5
    assert counted(storage) == rows(storage)


def test_a_changed_rate_limit_lets_nothing_go_that_waits_for_a_circuit(storage: Storage) -> None:
    fill(storage, 2)
    storage.ledger.parking.park([PARK], now=NOW)
    assert storage.ledger.parking.limits_changed(["ep_full"], now=NOW) == 0
    fill(storage, 1)
    assert dues(storage) == [0, 2, 4]
    assert storage.ledger.parking.limits_changed([], now=NOW) == 0
