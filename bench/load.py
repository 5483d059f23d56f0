"""The load: a process that publishes over kept-alive connections; prints one line of JSON with what it saw.

closed   each connection publishes its next event when the last one was answered
batch    the same with many events in one request
open     events leave at a given rate, whatever the answers do; delays count from when each was due
"""

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

import msgspec
import uvloop

_WRK = Path(__file__).with_name("post.lua")
_PADDING = "x" * 300
_LAST_ANSWER_SECONDS = 60.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to publish. `rate` is in events per second and for `open` only; `events` ends it early."""

    kind: Literal["closed", "batch", "open"]
    port: int
    key: str
    suppliers: int
    seconds: float
    connections: int
    rate: float = 0.0
    batch: int = 1
    events: int = 1 << 60


class Result(msgspec.Struct, kw_only=True):
    """What came of it: delays of the 202 in seconds."""

    requests: int
    seconds: float
    bad: int
    p50: float
    p95: float
    p99: float


def publish(plan: Plan) -> Result:
    """Publish in a process of its own; by wrk where it is installed and fits."""
    if plan.kind == "closed" and (wrk := shutil.which("wrk")):
        command = [
            wrk,
            "-t1",
            f"-c{plan.connections}",
            f"-d{plan.seconds:g}s",
            "--latency",
            f"-s{_WRK}",
            f"http://127.0.0.1:{plan.port}",
            "--",
            plan.key,
            str(plan.suppliers),
        ]
    else:
        command = [sys.executable, "-m", "bench.load", msgspec.json.encode(plan).decode()]
    ended = subprocess.run(command, capture_output=True, check=False, timeout=plan.seconds * 3 + 120)
    for line in ended.stdout.splitlines():
        if line.startswith(b"RESULT "):
            return msgspec.json.decode(line.removeprefix(b"RESULT "), type=Result)
    raise RuntimeError(f"the load failed: {ended.stdout.decode()} {ended.stderr.decode()}")


class _Load:
    """Shared by all connections: the numbers, and how a request looks."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.delays: list[float] = []
        self.bad = 0
        self.sent = 0
        self.stopping = False
        self._head = (
            f"POST /v1/events{'/batch' if plan.kind == 'batch' else ''} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {plan.key}\r\n"
            f"Content-Type: application/{'x-ndjson' if plan.kind == 'batch' else 'json'}\r\nContent-Length: "
        ).encode()

    def request(self) -> bytes:
        """The next request."""
        lines = [self._event() for _ in range(self.plan.batch)]
        body = b"\n".join(lines)
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)

    def _event(self) -> bytes:
        self.sent += 1
        stamp = f'"sent":{time.time():.6f},' if self.plan.kind == "open" else ""
        return (
            f'{{"supplier_id":"b{self.sent % self.plan.suppliers}","type":"booking.confirmed",'
            f'"data":{{{stamp}"n":{self.sent},"text":"{_PADDING}"}}}}'
        ).encode()

    def result(self, seconds: float) -> Result:
        """What came of it."""
        ordered = sorted(self.delays) or [0.0]

        def at(share: float) -> float:
            return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

        return Result(
            requests=len(self.delays), seconds=seconds, bad=self.bad, p50=at(0.5), p95=at(0.95), p99=at(0.99)
        )


class _Connection(asyncio.Protocol):
    """One request at a time; says when it is free again."""

    def __init__(self, load: _Load, free: "Callable[[_Connection], None]") -> None:
        self._load = load
        self._free = free
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._due = 0.0
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, due: float) -> None:
        """Publish the next event, or batch, which was due then."""
        assert self._transport is not None
        self.busy, self._due = True, due
        self._transport.write(self._load.request())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        if len(self._buffer) < end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0]):
            return
        self._load.delays.append(time.perf_counter() - self._due)
        self._load.bad += head.split(b" ", 2)[1] != b"202"
        self._buffer = b""
        self.busy = False
        self._free(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self.busy:
            self._load.bad += 1
            self.busy = False


async def _run(plan: Plan) -> Result:
    load = _Load(plan)
    loop = asyncio.get_running_loop()
    idle: list[_Connection] = []
    began = time.perf_counter()

    def again(connection: _Connection) -> None:
        if load.stopping or load.sent >= plan.events:
            idle.append(connection)
        else:
            connection.send(time.perf_counter())

    def done(connection: _Connection) -> None:
        idle.append(connection)

    free = done if plan.kind == "open" else again
    connections = [
        (await loop.create_connection(lambda: _Connection(load, free), "127.0.0.1", plan.port))[1]
        for _ in range(plan.connections)
    ]
    began = time.perf_counter()
    if plan.kind == "open":
        idle.extend(connections)
        await _at_rate(load, idle, began)
    else:
        for connection in connections:
            again(connection)
        await _until(lambda: load.sent >= plan.events, plan.seconds)
    load.stopping = True
    await _until(lambda: not any(connection.busy for connection in connections), _LAST_ANSWER_SECONDS)
    return load.result(time.perf_counter() - began)


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for the condition, or that long; looked at often, as asking is cheaper here than being told."""
    deadline = time.perf_counter() + seconds
    while not condition() and time.perf_counter() < deadline:  # noqa: ASYNC110  less work than an event each
        await asyncio.sleep(0.005)


async def _at_rate(load: _Load, idle: list[_Connection], began: float) -> None:
    """Send each event when it is due; one that finds no free connection is late, and that counts."""
    total = int(load.plan.rate * load.plan.seconds)
    number = 0
    while number < total:
        now = time.perf_counter()
        while number < total and idle and (due := began + number / load.plan.rate) <= now:
            idle.pop().send(due)
            number += 1
        await asyncio.sleep(0.0005)


if __name__ == "__main__":
    outcome = uvloop.run(_run(msgspec.json.decode(sys.argv[1], type=Plan)))
    print("RESULT " + msgspec.json.encode(outcome).decode(), flush=True)
