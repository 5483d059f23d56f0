"""Four senders of the same signed webhooks, each in a process of its own: ours, bare libcurl, aiohttp, httpx.

Ours is the whole processor: routes, signatures, windows, circuits, judgement, records. The bare loop signs nothing and
judges nothing: it is what libcurl can do at all from Python.
"""

import asyncio
import hashlib
import hmac
import ssl
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import msgspec
import psutil

from ringbearer import clock, ids
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.delivery.processor import HighPerformanceWebhookProcessor
from ringbearer.delivery.tuning import ConnectionOptimization, ParallelismConfig
from ringbearer.domain.deliveries import Lease
from ringbearer.domain.endpoints import Endpoint, Target
from ringbearer.domain.suppliers import Supplier
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
_BATCH = 2_000
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
    reused: float | None = None
    http2_share: float | None = None
    handshakes_saved: int | None = None


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


def _ours(job: Job) -> Result:
    with (
        TemporaryDirectory() as directory,
        open_storage(f"sqlite:///{Path(directory) / 'store.db'}", Vault([generate_key()])) as storage,
    ):
        storage.migrate()
        telemetry = Telemetry()
        processor = HighPerformanceWebhookProcessor(
            cache=cast(WebhookCacheManager, Known(job.urls)),
            limiter=DatabaseRateLimiter(storage.database),
            breakers=Breakers(table=storage.breakers, telemetry=telemetry, policy=_PATIENT),
            telemetry=telemetry,
            refuse=lambda _address: None,
            slots=2 * job.concurrency,  # half of the slots is filled with whatever comes
            ca_file=job.ca_file,
        )
        return _drive(processor, job)


def _drive(processor: HighPerformanceWebhookProcessor, job: Job) -> Result:
    asyncio.run(processor.implement_parallel_processing(ParallelismConfig(couriers=job.couriers)))
    made = 0
    statuses: dict[int, int] = {}
    most, ended = 0, 0
    again: list[Lease] = []
    with _Meter() as meter:
        while ended < job.requests:
            room = job.concurrency - processor.in_flight
            waiting, again = again[:room], again[room:]
            if room > len(waiting):
                count = min(room - len(waiting), _BATCH, job.requests - made)
                waiting += [lease(n % len(job.urls)) for n in range(made, made + count)]
                made += count
            outcomes = processor.begin(waiting) if waiting else []
            most = max(most, processor.in_flight)
            found, _ = processor.poll(0.05)
            for outcome in outcomes + found:
                if outcome.record is None:
                    again.append(outcome.lease)
                else:
                    ended += 1
                    status = outcome.record.status_code or 0
                    statuses[status] = statuses.get(status, 0) + 1
            processor.report()
    used = asyncio.run(_used(processor))
    processor.close()
    result = meter.result(most, statuses)
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


class _Meter:
    """Time and CPU of this process for the time of a `with` block."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def __enter__(self) -> "_Meter":
        self._cpu, self._began = sum(self._process.cpu_times()[:2]), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._seconds = time.perf_counter() - self._began
        self._cpu = sum(self._process.cpu_times()[:2]) - self._cpu

    def result(self, most: int, statuses: dict[int, int]) -> Result:
        """What was measured."""
        peak = next(
            int(line.split()[1]) * 1024
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
        return Result(self._seconds, self._cpu, peak, most, statuses)


def _signed(url: str) -> tuple[str, dict[str, str], bytes]:
    event_id, seconds = ids.event(), str(int(time.time()))
    body = (
        f'{{"id":"{event_id}","type":"booking.confirmed","timestamp":"2027-06-19T14:00:00Z","data":{_DATA}}}'
    ).encode()
    digest = hmac.digest(_SECRET, f"{event_id}.{seconds}.".encode() + body, hashlib.sha256)
    headers = {
        "content-type": "application/json",
        "user-agent": "bench",
        "webhook-id": event_id,
        "webhook-timestamp": seconds,
        "webhook-signature": f"v1,{b64encode(digest).decode()}",
        "ringbearer-attempt": "1",
    }
    return url, headers, body


def _libcurl(job: Job) -> Result:
    import pycurl

    _, headers, body = _signed("")
    lines = [f"{name}: {value}" for name, value in headers.items()] + ["expect:"]
    statuses: dict[int, int] = {}
    multi = pycurl.CurlMulti()
    multi.setopt(pycurl.M_MAXCONNECTS, job.concurrency + len(job.urls))
    multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
    free = []
    for _ in range(job.concurrency):
        curl = pycurl.Curl()
        curl.setopt(pycurl.POST, 1)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.HTTPHEADER, lines)
        curl.setopt(pycurl.POSTFIELDS, body)
        curl.setopt(pycurl.WRITEFUNCTION, len)
        curl.setopt(pycurl.CAINFO, job.ca_file)
        if job.http2:
            curl.setopt(pycurl.PIPEWAIT, 1)
        free.append(curl)
    begun = ended = 0
    with _Meter() as meter:
        while ended < job.requests:
            while free and begun < job.requests:
                curl = free.pop()
                curl.setopt(pycurl.URL, job.urls[begun % len(job.urls)])
                multi.add_handle(curl)
                begun += 1
            multi.perform()
            queued = 1
            while queued:
                queued, good, bad = multi.info_read()
                if bad:
                    raise RuntimeError(f"libcurl: {bad[0][2]}")
                for curl in good:
                    status = curl.getinfo(pycurl.RESPONSE_CODE)
                    statuses[status] = statuses.get(status, 0) + 1
                    multi.remove_handle(curl)
                    free.append(curl)
                    ended += 1
            multi.select(1.0)
    return meter.result(job.concurrency, statuses)


async def _workers(job: Job, send: Callable[[str], object]) -> dict[int, int]:
    statuses: dict[int, int] = {}
    numbers = iter(range(job.requests))

    async def work() -> None:
        for number in numbers:
            status = await send(job.urls[number % len(job.urls)])  # type: ignore[misc]
            statuses[status] = statuses.get(status, 0) + 1

    await asyncio.gather(*(work() for _ in range(job.concurrency)))
    return statuses


async def _aiohttp(job: Job) -> Result:
    import aiohttp

    context = ssl.create_default_context(cafile=job.ca_file)
    connector = aiohttp.TCPConnector(limit=job.concurrency, ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def send(url: str) -> int:
            url, headers, body = _signed(url)
            async with session.post(url, data=body, headers=headers) as answer:
                await answer.read()
                return int(answer.status)

        with _Meter() as meter:
            statuses = await _workers(job, send)
    return meter.result(job.concurrency, statuses)


async def _httpx(job: Job) -> Result:
    import httpx

    limits = httpx.Limits(max_connections=job.concurrency, max_keepalive_connections=job.concurrency)
    context = ssl.create_default_context(cafile=job.ca_file)
    async with httpx.AsyncClient(verify=context, limits=limits, timeout=60, trust_env=False) as client:

        async def send(url: str) -> int:
            url, headers, body = _signed(url)
            return (await client.post(url, content=body, headers=headers)).status_code

        with _Meter() as meter:
            statuses = await _workers(job, send)
    return meter.result(job.concurrency, statuses)


def main() -> None:
    """Read a job from standard input, do it, and print the result."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    if job.kind == "ours":
        result = _ours(job)
    elif job.kind == "libcurl":
        result = _libcurl(job)
    else:
        result = asyncio.run(_aiohttp(job) if job.kind == "aiohttp" else _httpx(job))
    print(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
