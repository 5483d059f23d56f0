"""The gate keeps each endpoint, each supplier and all retries to their share, and forgets nobody who waits."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from contract.making import lease_of
from ringbearer import clock
from ringbearer.delivery.gate import NO_ROOM, Gate
from ringbearer.domain.deliveries import Lease, Outcome, State
from ringbearer.domain.endpoints import Endpoint
from ringbearer.limits.breakers import Breakers
from ringbearer.limits.concurrency import FIRST_LIMIT
from ringbearer.telemetry import Telemetry

NOW = 1_700_000_000 * clock.SECOND
_MADE = datetime(2027, 6, 19, tzinfo=UTC)
FIRST = int(FIRST_LIMIT)


def gate(slots: int) -> Gate:
    """A gate whose circuits are all closed; nothing here asks the store."""
    return Gate(slots=slots, breakers=Breakers(table=cast(Any, None), telemetry=Telemetry()))


def endpoint(name: str, **given: Any) -> Endpoint:
    return Endpoint(
        id=name, supplier_id="studio", url="https://x.example/", created_at=_MADE, updated_at=_MADE, **given
    )


def lease(name: str, number: int, *, attempt: int = 1) -> Lease:
    return lease_of(
        number, delivery_id=f"dlv_{name}_{number}", endpoint_id=name, attempt=attempt, accepted_at=NOW
    )


def ask(
    of: Gate, name: str, count: int, *, attempt: int = 1, most: int | None = None, **given: Any
) -> tuple[list[Lease], list[Lease], list[Outcome]]:
    """Ask for so many deliveries of an endpoint: those sent, those that wait in the worker, those put back."""
    sent: list[Lease] = []
    waiting: list[Lease] = []
    back: list[Outcome] = []
    for number in range(count):
        wanted = lease(name, number, attempt=attempt)
        verdict = of.admit(wanted, endpoint(name, **given), most, NOW)
        if isinstance(verdict, Outcome):
            back.append(verdict)
        else:
            (sent if verdict else waiting).append(wanted)
    return sent, waiting, back


def test_an_unknown_endpoint_begins_with_a_small_window_and_a_short_line() -> None:
    sent, waiting, back = ask(gate(10_000), "ep", 200)
    assert (len(sent), len(waiting), len(back)) == (FIRST, 4 * FIRST, 200 - 5 * FIRST)
    assert {outcome.reason for outcome in back} <= NO_ROOM
    assert all(o.state is State.SCHEDULED and o.record is None and (o.due_at or 0) > NOW for o in back)


def test_an_endpoint_holds_a_tenth_once_half_of_the_slots_is_taken() -> None:
    of = gate(100)
    for n in range(4):
        ask(of, f"ep_{n}", 13)
    assert of.held == 50
    sent, waiting, _ = ask(of, "late", 40)
    assert len(sent) + len(waiting) == 10


def test_retries_hold_at_most_three_tenths() -> None:
    of = gate(100)
    sent = sum(len(ask(of, f"ep_{n}", 10, attempt=2)[0]) for n in range(6))
    assert sent == of.retrying == 30
    assert len(ask(of, "first", 10)[0]) == 10  # there is room for first attempts


def test_the_owners_limits() -> None:
    of = gate(1_000)
    assert len(ask(of, "ep", 20, max_concurrency=3)[0]) == 3
    of = gate(1_000)
    assert len(ask(of, "one", 4, most=5)[0]) + len(ask(of, "two", 4, most=5)[0]) == 5


def test_whoever_waits_goes_when_one_ends() -> None:
    of = gate(1_000)
    sent, waiting, _ = ask(of, "ep", FIRST + 3)
    of.ended(sent[0], began=NOW, took=1_000, well=True, now=NOW + 1_000)
    assert of.next_of("ep") == waiting[:2]  # the place that was left, and the one that its success added
    assert of.take_waiting() == waiting[2:]
    assert of.held == FIRST - 1


def test_nobody_waits_for_what_was_not_sent() -> None:
    of = gate(1_000)
    sent, waiting, _ = ask(of, "ep", FIRST + 3)
    for each in sent:
        of.withdrawn(each, NOW)
    assert sorted(o.lease.delivery_id for o in of.stranded(NOW)) == sorted(w.delivery_id for w in waiting)
    assert of.held == 0


def test_nobody_waits_behind_those_that_were_turned_away() -> None:
    """As when the circuit has opened, or the endpoint is gone: no end of theirs calls those that wait on."""
    of = gate(1_000)
    sent, waiting, _ = ask(of, "ep", 5 * FIRST)
    away: list[Lease] = []
    for each in sent:
        of.ended(each, began=NOW, took=1_000, well=False, now=NOW + 1_000)
        away += of.next_of("ep")  # and none of these is admitted anew
    left = [outcome.lease for outcome in of.stranded(NOW)]
    assert left
    assert sorted(x.delivery_id for x in away + left) == sorted(x.delivery_id for x in waiting)
    assert of.held == 0


@pytest.mark.parametrize("well", [True, False, None])
def test_everything_is_given_back(well: bool | None) -> None:
    of = gate(1_000)
    sent, waiting, _ = ask(of, "ep", 40, attempt=3, most=30)
    while sent:
        of.ended(sent.pop(), began=NOW, took=1_000, well=well, now=NOW + 1_000)
        waiting += of.next_of("ep")
    of.take_waiting()
    assert (of.held, of.retrying) == (0, 0)
    assert of.forget_idle() == 1


def test_a_pause_that_the_receiver_asked_for() -> None:
    of = gate(100)
    ask(of, "ep", 1)
    of.pause("ep", NOW + 5 * clock.SECOND)
    _, _, back = ask(of, "ep", 3)
    assert [outcome.due_at for outcome in back] == [NOW + 5 * clock.SECOND] * 3


def test_a_delivery_that_is_under_way_twice_gives_back_both_of_its_suppliers_places() -> None:
    """Its lease was lost while it was sent, and came back to the same worker."""
    of = gate(1_000)
    first, again = lease("ep", 1), lease("ep", 1, attempt=2)
    for each in (first, again):
        assert of.admit(each, endpoint("ep"), 2, NOW) is True
    assert isinstance(of.admit(lease("ep", 2), endpoint("ep"), 2, NOW), Outcome)
    for each in (first, again):
        of.ended(each, began=NOW, took=1_000, well=True, now=NOW)
    sent, _, back = ask(of, "ep", 3, most=2)
    assert (len(sent), len(back)) == (2, 1)
