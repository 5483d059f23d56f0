"""The other senders of `bench.courier`: libcurl twice, aiohttp and httpx. Run as a program, it is any of the senders.

`aiohttp` and `httpx` stand in libcurl's place within our own engine: what signs, admits, judges and records is the same
code for all three, and only the exchange is another's. `libcurl` makes the same exchanges in a plain loop, each with
headers and a body of its own, and keeps what is answered; its requests are signed beforehand, nothing is limited or
judged. `bare` sends one request over and over and keeps nothing: the least that libcurl can do from Python.
"""

import asyncio
import ssl
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from tempfile import TemporaryDirectory
from typing import cast

import msgspec
import pycurl

from bench.senders import Job, Known, Meter, Result, Tally, leases, ours, parts
from ringbearer import clock
from ringbearer.delivery.couriers import Couriers
from ringbearer.delivery.engine import Engine
from ringbearer.delivery.handle import Order
from ringbearer.delivery.outcome import Exchange
from ringbearer.delivery.returns import Return
from ringbearer.delivery.routes import Parcel, Routes

Send = Callable[[Order], Awaitable[tuple[int, bytes, bytes]]]
"""Makes an exchange: status, head and body of its answer."""


# ── libcurl alone ───────────────────────────────────────────────────────────────────────────────────────────


class _Loop:
    """A plain loop around libcurl's multi interface."""

    def __init__(self, job: Job, orders: list[Parcel], *, keeping: bool) -> None:
        self._orders = orders
        self._keeping = keeping
        self.tally = Tally(job, deque())
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, job.concurrency + len(job.urls))
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._kept: dict[pycurl.Curl, tuple[list[bytes], list[bytes]]] = {}
        self._free = [self._handle(job) for _ in range(job.concurrency)]

    def _handle(self, job: Job) -> pycurl.Curl:
        curl = pycurl.Curl()
        head, body = self._kept[curl] = ([], [])
        curl.setopt(pycurl.POST, 1)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.HTTPHEADER, self._orders[0].headers)
        curl.setopt(pycurl.POSTFIELDS, self._orders[0].body)
        curl.setopt(pycurl.WRITEFUNCTION, body.append if self._keeping else len)
        if self._keeping:
            curl.setopt(pycurl.HEADERFUNCTION, head.append)
        curl.setopt(pycurl.CAINFO, job.ca_file)
        if job.http2:
            curl.setopt(pycurl.PIPEWAIT, 1)
        return curl

    def run(self) -> None:
        """Send everything."""
        begun = ended = 0
        multi, orders, enough = self._multi, self._orders, len(self._free) // 4
        while ended < len(orders):
            if len(self._free) >= enough:
                for _ in range(min(len(self._free), len(orders) - begun)):
                    self._begin(self._free.pop(), orders[begun])
                    begun += 1
            multi.perform()
            queued = 1
            while queued:
                queued, good, bad = multi.info_read()
                if bad:
                    raise RuntimeError(f"libcurl: {bad[0][2]}")
                for curl in good:
                    self._end(curl)
                    ended += 1
            multi.select(1.0)

    def _begin(self, curl: pycurl.Curl, order: Order) -> None:
        curl.setopt(pycurl.URL, order.url)
        if self._keeping:
            curl.setopt(pycurl.HTTPHEADER, order.headers)
            curl.setopt(pycurl.POSTFIELDS, order.body)
        self._multi.add_handle(curl)

    def _end(self, curl: pycurl.Curl) -> None:
        status = curl.getinfo(pycurl.RESPONSE_CODE)
        self.tally.statuses[status] = self.tally.statuses.get(status, 0) + 1
        if self._keeping:
            for kept in self._kept[curl]:
                b"".join(kept)
                kept.clear()
        self._multi.remove_handle(curl)
        self._free.append(curl)


def _libcurl(job: Job, *, keeping: bool) -> Result:
    routes, known = Routes(), Known(job.urls)
    orders = [routes.of(known.target(each.endpoint_id)).order(each, clock.now()) for each in leases(job)]
    loop = _Loop(job, orders, keeping=keeping)
    with Meter() as meter:
        loop.run()
    return meter.result(job.concurrency, loop.tally)


# ── others within our engine ────────────────────────────────────────────────────────────────────────────────


class _Elsewhere:
    """Takes a courier's place: each order is a task that makes its exchange by another client."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._returns: list[Return] = []
        self.news = asyncio.Event()
        self.in_flight = 0

    def submit(self, order: Order) -> None:
        """Begin an exchange."""
        task = self._loop.create_task(self._exchange(order))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.in_flight += 1

    async def _exchange(self, order: Order) -> None:
        began = clock.now()
        status, head, body = await self._send(order)
        exchange = Exchange(
            started_at=began, duration=clock.now() - began, status=status, head=head, body=body
        )
        self._returns.append(Return(order, exchange, began, True))
        self.news.set()

    def poll(self, _timeout: float) -> tuple[list[Return], bool]:
        """What came to an end."""
        returns, self._returns = self._returns, []
        self.in_flight -= len(returns)
        return returns, False

    def close(self) -> None:
        """Nothing is open here."""


class _Engine(Engine):
    """Our engine with another client."""

    def exchange_by(self, other: _Elsewhere) -> None:
        """Send by that from now on."""
        self._courier.close()
        self._courier = cast(Couriers, other)


async def _drive(engine: _Engine, send: Send, job: Job) -> Result:
    other = _Elsewhere(send)
    engine.exchange_by(other)
    tally, most = Tally(job, deque(leases(job))), 0
    with Meter() as meter:
        while tally.ended < job.requests:
            batch = tally.refill(other.in_flight)
            outcomes = engine.begin(batch) if batch else []
            most = max(most, other.in_flight)
            if other.in_flight:
                other.news.clear()
                await other.news.wait()
            found, _ = engine.poll(0.0)
            tally.take(outcomes + found)
            engine.report()
    return meter.result(most, tally)


async def _aiohttp(engine: _Engine, job: Job) -> Result:
    import aiohttp

    context = ssl.create_default_context(cafile=job.ca_file)
    connector = aiohttp.TCPConnector(limit=job.concurrency, ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def send(order: Order) -> tuple[int, bytes, bytes]:
            async with session.post(order.url, data=order.body, headers=_fields(order)) as answer:
                body = await answer.read()
                return answer.status, _head(answer.status, answer.raw_headers), body

        return await _drive(engine, send, job)


async def _httpx(engine: _Engine, job: Job) -> Result:
    import httpx

    # Idle connections count for it, too: as many as there are hosts, else each would be made anew.
    most = job.concurrency + len(job.urls)
    limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
    context = ssl.create_default_context(cafile=job.ca_file)
    async with httpx.AsyncClient(verify=context, limits=limits, timeout=60, trust_env=False) as client:

        async def send(order: Order) -> tuple[int, bytes, bytes]:
            answer = await client.post(order.url, content=order.body, headers=_fields(order))
            return answer.status_code, _head(answer.status_code, answer.headers.raw), answer.content

        return await _drive(engine, send, job)


def _fields(order: Order) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in order.headers)


def _head(status: int, raw: "list[tuple[bytes, bytes]] | tuple[tuple[bytes, bytes], ...]") -> bytes:
    lines = [b"HTTP/1.1 %d" % status, *[name + b": " + value for name, value in raw], b"\r\n"]
    return b"\r\n".join(lines)


def _rival(job: Job) -> Result:
    with TemporaryDirectory() as directory, parts(job, directory) as made:

        async def run() -> Result:
            engine = _Engine(**made)
            return await (_aiohttp(engine, job) if job.kind == "aiohttp" else _httpx(engine, job))

        return asyncio.run(run())


def main() -> None:
    """Read a job from standard input, do it, and print the result."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    if job.kind == "ours":
        result = ours(job)
    elif job.kind in {"libcurl", "bare"}:
        result = _libcurl(job, keeping=job.kind == "libcurl")
    else:
        result = _rival(job)
    print(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
