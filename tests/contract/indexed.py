"""A queue with Redis in front, put together as the service does it, with everything at hand for looking inside."""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from contract.making import admission
from ringbearer import clock
from ringbearer.domain.deliveries import Lease
from ringbearer.queue.base import Demand
from ringbearer.queue.bell import Bell
from ringbearer.queue.index import RedisIndex
from ringbearer.queue.reconciler import Reconciler
from ringbearer.queue.redis import RedisQueue
from ringbearer.redis_link import open_redis
from ringbearer.storage.base import Storage
from ringbearer.storage.ledger import Admission
from ringbearer.storage.vault import Vault, generate_key
from ringbearer.telemetry import IndexUsed, RedisFailed, Telemetry


class Indexed(AbstractContextManager["Indexed"]):
    """Index, queue and reconciler on a store; each has keys of its own, and so a Redis for itself."""

    def __init__(
        self, storage: Storage, bell: Bell, url: str, *, key: str | None = None, lane_most: int = 200_000
    ) -> None:
        self.storage = storage
        self.link = open_redis(url, Vault([key or generate_key()]))
        self.used: Counter[str] = Counter()
        self.failures: list[RedisFailed] = []
        telemetry = Telemetry()
        telemetry.listen(IndexUsed, self._count)
        telemetry.listen(RedisFailed, self.failures.append)
        self.index = RedisIndex(self.link, telemetry, lane_most=lane_most)
        self.queue = RedisQueue(storage.ledger, bell, self.index, telemetry)
        self.reconciler = Reconciler(ready=storage.ready, index=self.index, telemetry=telemetry)

    def _count(self, report: IndexUsed) -> None:
        self.used[report.how] += report.count

    def accept(self, count: int, *, lane: int = 2, endpoints: int = 7, push: bool = True) -> list[Admission]:
        """Commit events for several endpoints, and push them; returns when that has got through."""
        made = [admission(f"ep_{n % endpoints}", lane=lane) for n in range(count)]
        self.storage.ledger.accept(made)
        if push:
            self.queue.push(count, made)
            self.queue.close()
        return made

    def claim(self, *quotas: int) -> list[Lease]:
        until = clock.now() + 60 * clock.SECOND
        return self.queue.claim(Demand(quotas=quotas or (100, 100, 100, 100), worker="w", until=until))

    def drain(self, *quotas: int) -> list[str]:
        """Claim until nothing comes."""
        got: list[str] = []
        while leases := self.claim(*quotas):
            got += [lease.delivery_id for lease in leases]
        return got

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.queue.close()
        self.link.close()


def delivery_ids(made: Sequence[Admission]) -> list[str]:
    """The ids of the deliveries of events with one endpoint each."""
    return [f"dlv_{a.event_id[4:]}0000" for a in made]
