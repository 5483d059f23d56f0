"""A worker at work: a real store, real receivers, and everything between them that a worker process has."""

import asyncio
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from contract.making import add_endpoint, admission, delivery_of, shown
from ringbearer import clock
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.delivery.guard import Guard
from ringbearer.delivery.processor import HighPerformanceWebhookProcessor
from ringbearer.domain.deliveries import DeliveryDetail, State
from ringbearer.domain.endpoints import Endpoint
from ringbearer.errors import StoreUnavailable
from ringbearer.limits.base import Limit, RateLimiter
from ringbearer.limits.breaker import BreakerPolicy
from ringbearer.limits.breakers import Breakers
from ringbearer.limits.database import DatabaseRateLimiter
from ringbearer.misbehaving import OK, Peer
from ringbearer.queue.base import Queue
from ringbearer.queue.bell import SocketBell
from ringbearer.queue.database import DatabaseQueue
from ringbearer.queue.loop import WorkLoop
from ringbearer.queue.plan import QueuePlan
from ringbearer.storage.base import Storage
from ringbearer.storage.ledger import Admission
from ringbearer.telemetry import BreakerMoved, DeliveriesSettled, Report, StoreFailed, Telemetry

LONG = 60.0
"""Seconds: far longer than anything here takes; what waits so long has gone wrong."""
SOON = (0.02, 0.02)
"""A retry schedule for impatient tests."""
_STAGE_SECONDS = 0.02


class Holding:
    """A receiver that answers nobody before it is told to; it knows how many were with it at once."""

    def __init__(self) -> None:
        self.inside = self.most = self.answered = 0
        self._told = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def behave(self, peer: Peer) -> None:
        """200, one day."""
        self._loop = asyncio.get_running_loop()
        while True:
            await peer.request()
            self.inside += 1
            self.most = max(self.most, self.inside)
            await self._told.wait()
            self.inside -= 1
            self.answered += 1
            await peer.send(OK)

    def release(self) -> None:
        """Answer all who are there, and all who come; somebody must have come."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._told.set)


class WatchedLimiter(RateLimiter):
    """Asks another limiter, and remembers every send that it allowed."""

    def __init__(self, inner: RateLimiter) -> None:
        self._inner = inner
        self.allowed: list[int] = []

    def take(self, wanted: Sequence[Sequence[Limit]], *, now: int) -> list[int]:
        times = self._inner.take(wanted, now=now)
        self.allowed += [moment for moment in times if moment <= now]
        return times


class Stage:
    """A worker on a thread of its own for the time of a `with` block, with what makes scheduled jobs ready.

    `queue` may wrap the queue that it is to use.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        slots: int = 64,
        grace: float = 10.0,
        ca_file: str | None = None,
        policy: BreakerPolicy | None = None,
        memory_limit: int = 0,
        sends_per_second: int = 0,
        queue: Callable[[Queue], Queue] = lambda queue: queue,
        plan: Callable[[], QueuePlan] = QueuePlan,
    ) -> None:
        self.storage = storage
        self._resources = ExitStack()
        directory = self._resources.enter_context(tempfile.TemporaryDirectory(prefix="ringbearer-"))
        self.telemetry = Telemetry()
        for kind in (DeliveriesSettled, StoreFailed, BreakerMoved):
            self.telemetry.listen(kind, self._heard)
        self.reports: list[Report] = []
        self._news = threading.Condition()
        bell = SocketBell(Path(directory), listen=True)
        self.queue = queue(DatabaseQueue(storage.ledger, bell))
        self.cache = WebhookCacheManager(catalog=storage.catalog, telemetry=self.telemetry)
        self.cache.refresh()
        self.limiter = WatchedLimiter(DatabaseRateLimiter(storage.database))
        self.breakers = Breakers(
            table=storage.breakers,
            telemetry=self.telemetry,
            parking=storage.ledger.parking,
            policy=policy,
        )
        self.processor = HighPerformanceWebhookProcessor(
            cache=self.cache,
            limiter=self.limiter,
            breakers=self.breakers,
            telemetry=self.telemetry,
            refuse=Guard(allow_networks=["127.0.0.0/8"]).check_address,
            slots=slots,
            ca_file=ca_file,
            memory_limit=memory_limit,
            sends_per_second=sends_per_second,
            parking=storage.ledger.parking,
        )
        self.worker = WorkLoop(
            queue=self.queue,
            processor=self.processor,
            cache=self.cache,
            catalog=storage.catalog,
            bell=bell,
            telemetry=self.telemetry,
            lease_seconds=60.0,
            grace=grace,
            plan=plan,
        )
        self.thread = threading.Thread(target=self.worker.run, name="courier")
        self._ended = threading.Event()
        self._stager = threading.Thread(target=self._stage, name="stager")

    def __enter__(self) -> Self:
        self.processor.watch_memory()
        self._stager.start()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._ended.set()
        self._stager.join()
        self.close()

    def close(self) -> None:
        """Let go of what it made; a stage that is used without `with` needs that."""
        self._resources.close()

    def stop(self) -> None:
        """Stop the worker, and wait until it has ended."""
        self.worker.stop()
        self.thread.join(LONG)
        assert not self.thread.is_alive()

    # ── what goes in ────────────────────────────────────────────────────────────────────────────────────

    def endpoint(self, url: str, **given: Any) -> Endpoint:
        """A new endpoint of the supplier `studio`."""
        values: dict[str, Any] = {"url": url, "retry_schedule": SOON, "timeout": 10.0} | given
        made = add_endpoint(self.storage, "studio", **values)
        self.cache.refresh()
        return made

    def publish(self, endpoint: Endpoint, count: int = 1, **given: Any) -> list[str]:
        """So many events for an endpoint, in one batch; returns the ids of their deliveries."""
        return self.accept([admission(endpoint.id, **given) for _ in range(count)])

    def accept(self, admissions: Sequence[Admission]) -> list[str]:
        """Store events and tell the worker."""
        self.storage.ledger.accept(admissions)
        self.queue.push(len(admissions))
        return [delivery_of(each) for each in admissions]

    # ── what comes of it ────────────────────────────────────────────────────────────────────────────────

    def until(self, done: Callable[[], bool]) -> None:
        """Wait until it is so; looks whenever the worker settled something or failed to."""
        deadline = clock.monotonic() + LONG
        with self._news:
            while not done():
                assert clock.monotonic() < deadline, "it never happened"
                assert self.thread.is_alive(), "the worker has ended"
                self._news.wait(1.0)

    def until_state(self, delivery_ids: Sequence[str], state: State) -> None:
        """Wait until all of them stand there."""
        self.until(lambda: all(shown(self.storage, each) is state for each in delivery_ids))

    def detail(self, delivery_id: str) -> DeliveryDetail:
        """A delivery with its attempts, as the API shows it."""
        return self.storage.history.get_delivery(delivery_id)

    def count(self, kind: type[Report]) -> int:
        """How many reports of that kind there were."""
        return sum(isinstance(report, kind) for report in self.reports)

    def _heard(self, report: Report) -> None:
        with self._news:
            self.reports.append(report)
            self._news.notify_all()

    def _stage(self) -> None:
        """What the housekeeper does in a worker process, more often."""
        while not self._ended.wait(_STAGE_SECONDS):
            try:
                self.breakers.follow()
                self.processor.park()
                self.queue.push(self.storage.ledger.stage(now=clock.now(), limit=1_000))
            except StoreUnavailable:
                continue
