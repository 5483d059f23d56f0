"""The queue contract: deliveries go in as hints and come out as leases, in batches."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ringbearer.domain.deliveries import Lease, Outcome
from ringbearer.storage.ledger import Admission, Depth


class Demand:
    """How many deliveries a worker can take now, by lane, and until when it wants to hold them."""

    __slots__ = ("quotas", "until", "worker")

    def __init__(self, *, quotas: Sequence[int], worker: str, until: int) -> None:
        self.quotas = quotas
        self.worker = worker
        self.until = until

    def __repr__(self) -> str:
        return f"<Demand of {self.worker} for {list(self.quotas)}>"


class Queue(ABC):
    """Which delivery is next. Every method blocks, and raises StoreUnavailable.

    The store remains the truth: losing what a queue knows costs time, never a delivery.
    """

    @abstractmethod
    def push(self, count: int, admitted: Sequence[Admission] = ()) -> None:
        """Tell that so many deliveries have become ready; never raises, and may be lost.

        `admitted` are events that were just committed, from which a queue beside the store need not read it.
        """

    @abstractmethod
    def claim(self, demand: Demand) -> list[Lease]:
        """Lease ready deliveries, most important lane first, by rank within a lane.

        What one lane leaves of its quota goes to the others. Two claims never get the same delivery.
        """

    @abstractmethod
    def settle(self, outcomes: Sequence[Outcome], *, now: int) -> set[str]:
        """Write down what became of leases; returns the ids of those that were still held."""

    def settle_and_claim(
        self, outcomes: Sequence[Outcome], demand: Demand, *, now: int
    ) -> tuple[set[str], list[Lease]] | None:
        """Both in one transaction; None, and nothing was done, where the queue cannot do that."""
        return None

    @abstractmethod
    def extend(self, leases: Sequence[Lease], *, until: int) -> set[str]:
        """Hold leases longer; returns the ids of those that were still held."""

    @abstractmethod
    def release(self, leases: Sequence[Lease]) -> int:
        """Give leases back unsent, their attempt unspent; returns how many were still held."""

    @abstractmethod
    def depth(self) -> list[Depth]:
        """Deliveries per lane and state, at a cost that does not grow with their number."""

    def close(self) -> None:  # noqa: B027  # most have nothing to end
        """End what runs in the background."""
