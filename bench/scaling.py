"""How soon the number of workers follows: `python -m bench.scaling [--quick]`.

A tenfold step through the running system: receivers that take a while, so that slots are what is short; from the
first event of the step to the decision, and to the first delivery by a worker that did not run before. And in the
model of the policy's tests: how long until a step is covered on an ordinary day, and on a peak day.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from bench import report
from chaos.service import Service, wait_for
from ringbearer.domain.scaling import Floors, LoadMetrics, ScalingPolicy
from ringbearer.process import open_store
from ringbearer.scaling.policy import Memory, decide
from ringbearer.storage.base import Storage

_HOLD_SECONDS = 0.5
_SLOTS = 200
_WAIT_SECONDS = 60.0
_SUPPLIERS = 50
_STEADY_RATE = 100  # events per second; a worker of 200 slots makes 400 deliveries of half a second each
_STEP = 10
_QUICK_QUIET, _QUIET = 17, 40  # seconds; longer than the time in which the number may only double


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds."""

    decision: float
    """From the step's first event to the decision for more workers."""
    first_delivery: float
    """… to when a worker that did not run before is seen delivering, by its heartbeat."""
    covered_ordinary: float
    covered_peak: float
    """In the model: until there are as many workers as a hundredfold step needs."""


def step(storage: Storage, client: httpx.Client, numbers: Iterator[int]) -> tuple[float, float]:
    """A tenfold step; when it was decided on, and when a new worker had delivered, in seconds after it began."""
    known = {node.id for node in storage.nodes.alive() if node.kind == "work"}
    before = storage.scaling.latest()
    assert before is not None
    decided: float | None = None
    began = time.monotonic()
    for second in itertools.count(1):
        _publish(client, _STEADY_RATE * _STEP, numbers)
        while time.monotonic() < began + second:
            latest = storage.scaling.latest()
            if decided is None and latest is not None and latest.desired > before.desired:
                decided = time.monotonic() - began
            for node in storage.nodes.alive():
                if node.kind == "work" and node.id not in known and node.signals.get("held", 0.0) > 0:
                    assert decided is not None
                    return decided, time.monotonic() - began
            time.sleep(0.02)
        if second > _WAIT_SECONDS:
            raise TimeoutError("no new worker delivered")
    raise AssertionError


def quiet(storage: Storage, client: httpx.Client, numbers: Iterator[int], seconds: int) -> None:
    """Steady traffic until the number has stood for so long, and as many workers run: the step finds no other."""
    stood, wanted = 0, -1
    while stood < seconds:
        _publish(client, _STEADY_RATE, numbers)
        time.sleep(1.0)
        latest = storage.scaling.latest()
        same = latest is not None and latest.desired == wanted == storage.nodes.working()
        stood, wanted = stood + 1 if same else 0, -1 if latest is None else latest.desired


def _publish(client: httpx.Client, count: int, numbers: Iterator[int]) -> None:
    lines = "\n".join(
        json.dumps({"supplier_id": f"b{n % _SUPPLIERS}", "type": "booking.confirmed", "data": {"n": n}})
        for n in itertools.islice(numbers, count)
    )
    answer = client.post("/v1/events/batch", content=lines, headers={"content-type": "application/x-ndjson"})
    answer.raise_for_status()


def covered(*, peak: bool) -> float:
    """In the model of the policy's tests: seconds until a step from 30 to 3,000 deliveries/s is covered."""
    policy, memory, workers = ScalingPolicy(maximum=64), Memory(), 1
    for second in range(600):
        rate = 3_000.0 if second >= 60 else 30.0
        load = LoadMetrics(workers=workers, slots=100, hold_seconds=1.0, arrivals=rate)
        found, memory = decide(load, policy, memory, now=float(second), peak=peak, floors=Floors())
        workers = found.desired
        if second >= 60 and workers * 100 >= rate:
            return second - 60.0
    raise AssertionError("the step was never covered")


# ── a receiver that takes its time ──────────────────────────────────────────────────────────────────────


@contextmanager
def _slow_receiver() -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.scaling", "--receive"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.communicate(timeout=20)


async def _receive() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                at = head.index(b"content-length:") + 15
                await reader.readexactly(int(head[at : head.index(b"\r\n", at)]))
                await asyncio.sleep(_HOLD_SECONDS)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=2_048)
    print(server.sockets[0].getsockname()[1], flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await reader.read()
    server.close()


def main() -> int:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short time of quiet before the step")
    parser.add_argument("--receive", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.receive:
        uvloop.run(_receive())
        return 0
    console = Console()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scaling-")))
        port = stack.enter_context(_slow_receiver())
        service = stack.enter_context(
            Service(directory, workers="auto", max_workers=4, slots=_SLOTS, config="")
        )
        service.start()
        storage = stack.enter_context(open_store(service.settings()))
        client = stack.enter_context(service.client())
        for number in range(_SUPPLIERS):
            client.put(f"/v1/suppliers/b{number}", json={}).raise_for_status()
            body = {"url": f"http://127.0.0.1:{port}/{number}"}
            client.post(f"/v1/suppliers/b{number}/endpoints", json=body).raise_for_status()
        wait_for(lambda: storage.scaling.latest() is not None, _WAIT_SECONDS, "a first decision")
        numbers = itertools.count()
        quiet(storage, client, numbers, _QUICK_QUIET if arguments.quick else _QUIET)
        decision, delivery = step(storage, client, numbers)
        service.stop()
    figures = Figures(
        decision=decision,
        first_delivery=delivery,
        covered_ordinary=covered(peak=False),
        covered_peak=covered(peak=True),
    )
    table = Table(title="A tenfold step" + (" (quick)" if arguments.quick else ""))
    for name in ("figure", "measured", "target"):
        table.add_column(name, justify="left" if name == "figure" else "right")
    table.add_row("decision for more workers", f"{figures.decision:.2f} s", "≤ 2 s")
    table.add_row("first delivery of a new worker", f"{figures.first_delivery:.2f} s", "≤ 5 s")
    table.add_row("a hundredfold step covered, ordinary day (model)", f"{figures.covered_ordinary:.0f} s", "")
    gain = 1 - figures.covered_peak / figures.covered_ordinary
    table.add_row("… peak day (model)", f"{figures.covered_peak:.0f} s, {gain:.0%} quicker", "≥ 40 % quicker")
    console.print(table)
    path = report.RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-scaling{'-quick' if arguments.quick else ''}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=1) + b"\n")
    console.print(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
