"""The latest calls of endpoints that fail, as all workers together made them: what no worker sees alone.

A worker that sees enough by itself opens a circuit at once. One of many workers may see too little of an endpoint
for that; so every call of an endpoint among whose latest calls is a failure is put together here, and judged by the
same rule.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from ringbearer.limits.breaker import BreakerPolicy

MOST_TROUBLED = 10_000
"""Endpoints whose calls are put together; of others each worker judges by itself."""


class SharedCalls(ABC):
    """Keeps for each endpoint a line of calls as `breaker.judged` reads it. Every method blocks.

    All raise StoreUnavailable or RedisUnavailable, whichever it needs.
    """

    @abstractmethod
    def add(self, calls: Mapping[str, str], policy: BreakerPolicy, *, now: int) -> dict[str, str]:
        """Append calls to the lines of endpoints; returns for which a circuit is to open, and why.

        Those lines begin anew, as do those without a failure.
        """

    @abstractmethod
    def troubled(self) -> frozenset[str]:
        """The endpoints of which there is a line: any call of them is of interest."""

    @abstractmethod
    def forget(self, endpoint_ids: Sequence[str]) -> None:
        """Begin these lines anew, since the circuit closed."""
