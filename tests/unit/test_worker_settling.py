"""Settling in the worker: one outcome that cannot be stored does not take the others with it."""

from collections.abc import Sequence
from typing import Any, cast

import pytest

from contract.making import lease_of
from ringbearer.domain.deliveries import Lease, Outcome, Record, State
from ringbearer.errors import StoreUnavailable
from ringbearer.queue.base import Demand, Queue
from ringbearer.queue.loop import WorkLoop
from ringbearer.storage.ledger import Admission, Depth


class PickyQueue(Queue):
    """Cannot store one answer, and nothing at all while it is away."""

    def __init__(self) -> None:
        self.stored: list[Outcome] = []
        self.away = False

    def settle(self, outcomes: Sequence[Outcome], *, now: int) -> set[str]:
        if self.away:
            raise StoreUnavailable("away")
        if any(o.record is not None and o.record.response_body == "poison" for o in outcomes):
            raise ValueError("no such character")
        self.stored += outcomes
        return {o.lease.delivery_id for o in outcomes}

    def push(self, count: int, admitted: Sequence[Admission] = ()) -> None: ...

    def claim(self, demand: Demand) -> list[Lease]:
        return []

    def extend(self, leases: Sequence[Lease], *, until: int) -> set[str]:
        return set()

    def release(self, leases: Sequence[Lease]) -> int:
        return 0

    def depth(self) -> list[Depth]:
        return []


def _worker(queue: Queue) -> WorkLoop:
    nobody = cast(Any, None)
    return WorkLoop(
        queue=queue,
        processor=nobody,
        cache=nobody,
        catalog=nobody,
        bell=nobody,
        telemetry=nobody,
        lease_seconds=60,
        grace=1,
    )


def _outcome(number: int, body: str) -> Outcome:
    made = Record(
        started_at=1, duration=2, status_code=200, error=None, response_body=body, response_headers=None
    )
    return Outcome(lease=lease_of(number), state=State.DELIVERED, record=made)


def test_the_others_are_stored_as_they_are_and_the_poisoned_one_without_its_details() -> None:
    queue = PickyQueue()
    settled = _worker(queue)._write_down([_outcome(1, "fine"), _outcome(2, "poison"), _outcome(3, "fine")])
    assert settled == {"dlv_1", "dlv_2", "dlv_3"}
    kept = {o.lease.delivery_id: o for o in queue.stored}
    assert len(queue.stored) == 3
    for number, body in ((1, "fine"), (2, None), (3, "fine")):
        outcome = kept[f"dlv_{number}"]
        assert outcome.state is State.DELIVERED
        assert outcome.record is not None
        assert (outcome.record.response_body, outcome.record.status_code) == (body, 200)


def test_a_store_that_is_away_is_not_taken_for_a_poisoned_outcome() -> None:
    queue = PickyQueue()
    queue.away = True
    with pytest.raises(StoreUnavailable):
        _worker(queue)._write_down([_outcome(1, "fine")])
    assert queue.stored == []


class Waiting:
    """A processor in which deliveries wait that were not begun."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        self._outcomes = outcomes

    def put_down(self) -> list[Outcome]:
        outcomes, self._outcomes = self._outcomes, []
        return outcomes


class Leases(PickyQueue):
    """Knows which deliveries are still held."""

    def __init__(self, held: set[str]) -> None:
        super().__init__()
        self._held = held

    def extend(self, leases: Sequence[Lease], *, until: int) -> set[str]:
        return self._held


@pytest.mark.parametrize("held", [{"dlv_1"}, {"dlv_1", "dlv_2"}])
def test_when_a_lease_was_lost_what_waits_here_goes_back_instead_of_out(held: set[str]) -> None:
    first, second = _outcome(1, "fine").lease, _outcome(2, "fine").lease
    waiting = [Outcome(lease=second, state=State.READY)]
    worker = _worker(Leases(held))
    worker._processor = cast(Any, Waiting(list(waiting)))
    worker._held = {lease.delivery_id: lease for lease in (first, second)}
    worker._extend()
    assert worker._unsettled == (waiting if len(held) == 1 else [])
