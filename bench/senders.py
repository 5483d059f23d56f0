"""Our sender of signed webhooks for `bench.courier`: the whole processor, alone in a process of its own.

Routes, signatures, windows, circuits, judgement, records: all that a worker does but claiming and settling. Leases are
made beforehand, as a claim would. The others are in `bench.rivals`.
"""

import asyncio
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypedDict, cast

import msgspec
import psutil

from ringbearer import clock, ids
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.delivery.gate import NO_ROOM
from ringbearer.delivery.processor import HighPerformanceWebhookProcessor
from ringbearer.delivery.tuning import ConnectionOptimization, ParallelismConfig
from ringbearer.domain.deliveries import Lease, Outcome
from ringbearer.domain.endpoints import Endpoint, Target
from ringbearer.domain.suppliers import Supplier
from ringbearer.limits.base import RateLimiter
from ringbearer.limits.breaker import BreakerPolicy
from ringbearer.limits.breakers import Breakers
from ringbearer.limits.database import DatabaseRateLimiter
from ringbearer.storage.base import open_storage
from ringbearer.storage.catalog import Subscriptions
from ringbearer.storage.vault import Vault, generate_key
from ringbearer.telemetry import Telemetry

_SECRET = b"k" * 24
_DATA = '{"text":"%s"}' % ("x" * 300)
_SUPPLIER = "bench"
_PATIENT = BreakerPolicy(
    failure_ratio=0.95
)  # where a fifth fails by chance, an open circuit would be measured as rest


class Job(msgspec.Struct):
    """What one sender is to do: so many requests to these URLs in turn, so many at a time."""

    kind: str
    urls: list[str]
    requests: int
    concurrency: int
    ca_file: str
    http2: bool = False
    couriers: int = 1
    """Threads that send; for `ours` alone."""


class Result(msgspec.Struct):
    """What it took: seconds, CPU seconds, bytes of memory at most, requests under way at most, and answers by status.

    Of ours, what its connections were used for.
    """

    seconds: float
    cpu: float
    memory: int
    most_in_flight: int
    statuses: dict[int, int]
    put_back: int = 0
    """Deliveries that were not sent, since their endpoint's circuit had opened."""
    reused: float | None = None
    http2_share: float | None = None
    handshakes_saved: int | None = None


class Parts(TypedDict):
    """What an engine is made of."""

    cache: WebhookCacheManager
    limiter: RateLimiter
    breakers: Breakers
    telemetry: Telemetry
    refuse: Callable[[str], str | None]
    slots: int
    ca_file: str


class Known:
    """Stands where the cache of endpoints does: everything is in it already."""

    def __init__(self, urls: Sequence[str], *, timeout: float = 30.0) -> None:
        now = datetime.now(UTC)
        secret = "whsec_" + b64encode(_SECRET).decode()
        targets = {
            f"ep_{n}": Target(
                endpoint=Endpoint(
                    id=f"ep_{n}",
                    supplier_id=_SUPPLIER,
                    url=url,
                    timeout=timeout,
                    retry_schedule=(3_600.0,) * 3,
                    created_at=now,
                    updated_at=now,
                ),
                secrets=((secret, None),),
                version=1,
            )
            for n, url in enumerate(urls)
        }
        supplier = Supplier(id=_SUPPLIER, created_at=now, updated_at=now)
        self._known = Subscriptions(supplier=supplier, targets=targets, version=1)

    def lookup(self, supplier_ids: set[str], **_: object) -> dict[str, Subscriptions | None]:
        """The one supplier."""
        return dict.fromkeys(supplier_ids, self._known)

    def target(self, endpoint_id: str) -> Target:
        """One endpoint with its secret."""
        return self._known.targets[endpoint_id]


class Meter:
    """Time and CPU of this process for the time of a `with` block."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def __enter__(self) -> "Meter":
        self._cpu, self._began = sum(self._process.cpu_times()[:2]), clock.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._seconds = clock.monotonic() - self._began
        self._cpu = sum(self._process.cpu_times()[:2]) - self._cpu

    def result(self, most: int, tally: "Tally") -> Result:
        """What was measured."""
        peak = next(
            int(line.split()[1]) * 1024
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
        return Result(self._seconds, self._cpu, peak, most, tally.statuses, tally.put_back)


class Tally:
    """What there is still to send, and what became of the rest."""

    def __init__(self, job: Job, todo: deque[Lease]) -> None:
        self._most = job.concurrency
        self._todo = todo
        self.statuses: dict[int, int] = {}
        self.ended = self.put_back = 0

    def refill(self, in_flight: int) -> list[Lease]:
        """What to begin next: like a worker's claims, nothing while less than a quarter of the places is free."""
        room = self._most - in_flight
        if room < self._most // 4:
            return []
        return [self._todo.popleft() for _ in range(min(room, len(self._todo)))]

    def take(self, outcomes: Sequence[Outcome]) -> None:
        """Hear of some."""
        for outcome in outcomes:
            if outcome.record is not None:
                self.ended += 1
                status = outcome.record.status_code or 0
                self.statuses[status] = self.statuses.get(status, 0) + 1
            elif outcome.reason in NO_ROOM:
                self._todo.append(outcome.lease)
            else:
                self.ended += 1
                self.put_back += 1


@contextmanager
def parts(job: Job, directory: str) -> Iterator[Parts]:
    """What an engine for that job is made of, with an empty store in a directory."""
    with open_storage(f"sqlite:///{Path(directory) / 'store.db'}", Vault([generate_key()])) as storage:
        storage.migrate()
        telemetry = Telemetry()
        yield {
            "cache": cast(WebhookCacheManager, Known(job.urls)),
            "limiter": DatabaseRateLimiter(storage.database),
            "breakers": Breakers(table=storage.breakers, telemetry=telemetry, policy=_PATIENT),
            "telemetry": telemetry,
            "refuse": lambda _address: None,
            "slots": 2 * job.concurrency,  # half of the slots is filled with whatever comes
            "ca_file": job.ca_file,
        }


def leases(job: Job) -> list[Lease]:
    """All deliveries of a job, to its endpoints in turn."""
    return [lease(n % len(job.urls)) for n in range(job.requests)]


def ours(job: Job) -> Result:
    """Do it by the whole processor."""
    with TemporaryDirectory() as directory, parts(job, directory) as made:
        return _drive(HighPerformanceWebhookProcessor(**made), job)


def _drive(processor: HighPerformanceWebhookProcessor, job: Job) -> Result:
    asyncio.run(processor.implement_parallel_processing(ParallelismConfig(couriers=job.couriers)))
    tally, most = Tally(job, deque(leases(job))), 0
    with Meter() as meter:
        while tally.ended < job.requests:
            batch = tally.refill(processor.in_flight)
            outcomes = processor.begin(batch) if batch else []
            most = max(most, processor.in_flight)
            found, _ = processor.poll(0.05)
            tally.take(outcomes + found)
            processor.report()
    used = asyncio.run(_used(processor))
    processor.close()
    result = meter.result(most, tally)
    result.reused, result.http2_share = used.reuse_ratio, used.http2_share
    result.handshakes_saved = used.handshakes_saved
    return result


async def _used(processor: HighPerformanceWebhookProcessor) -> ConnectionOptimization:
    """What the connections were used for; the processor's thread, which is this one, has to turn meanwhile."""
    asked = asyncio.create_task(processor.optimize_http_connections())
    while not asked.done():
        await asyncio.sleep(0)
        processor.poll(0.0)
    return await asked


def lease(endpoint: int) -> Lease:
    """A delivery to the endpoint of that number, as if it were just claimed."""
    event_id = ids.event()
    return Lease(
        delivery_id=ids.delivery(event_id, 0),
        event_id=event_id,
        endpoint_id=f"ep_{endpoint}",
        supplier_id=_SUPPLIER,
        lane=1,
        attempt=1,
        attempt_base=0,
        ordering_key=None,
        accepted_at=clock.now(),
        event_type="booking.confirmed",
        timestamp="2027-06-19T14:00:00Z",
        data=_DATA,
    )
