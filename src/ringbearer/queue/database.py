"""The queue on the store's own tables: the base implementation, always there."""

from collections.abc import Sequence

from ringbearer.domain.deliveries import Lease, Outcome
from ringbearer.queue.base import Demand, Queue
from ringbearer.queue.bell import Bell
from ringbearer.storage.ledger import Admission, Depth, Ledger


class DatabaseQueue(Queue):
    """Claims by the index of ready jobs; a bell tells workers that there is something to claim."""

    def __init__(self, ledger: Ledger, bell: Bell) -> None:
        self._ledger = ledger
        self._bell = bell

    def push(self, count: int, admitted: Sequence[Admission] = ()) -> None:
        if count:
            self._bell.ring()

    def claim(self, demand: Demand) -> list[Lease]:
        return self._ledger.claim(demand.quotas, worker=demand.worker, until=demand.until)

    def settle(self, outcomes: Sequence[Outcome], *, now: int) -> set[str]:
        return self._ledger.settle(outcomes, now=now)

    def settle_and_claim(
        self, outcomes: Sequence[Outcome], demand: Demand, *, now: int
    ) -> tuple[set[str], list[Lease]]:
        return self._ledger.settle_and_claim(
            outcomes, demand.quotas, worker=demand.worker, until=demand.until, now=now
        )

    def extend(self, leases: Sequence[Lease], *, until: int) -> set[str]:
        return self._ledger.extend(leases, until=until)

    def release(self, leases: Sequence[Lease]) -> int:
        released = self._ledger.release(leases)
        self.push(released)
        return released

    def depth(self) -> list[Depth]:
        return self._ledger.depth()
