"""How long an emitted event takes to become one: `python -m bench.outbox [--quick]`.

An application emits in SQL and commits; the relay, on an event loop of its own as in a worker, moves what it hears of
into the ledger. Measured from the end of the application's commit to the end of the relay's; one at a time, at a
steady rate, and all that lies there at once. One process for both, a real PostgreSQL, durable commits.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path

import msgspec
import psycopg
from rich.console import Console
from rich.table import Table

from bench import report
from chaos.service import postgres
from ringbearer import clock, ids
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.domain.endpoints import Endpoint
from ringbearer.domain.suppliers import Supplier
from ringbearer.queue.bell import PostgresBell
from ringbearer.queue.database import DatabaseQueue
from ringbearer.relay import Relay
from ringbearer.rules import Rules
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.vault import Vault, generate_key
from ringbearer.telemetry import EventsAccepted, Telemetry

_EMIT = b"SELECT ringbearer.emit('booking.confirmed', 'studio', '{\"booking\": 7, \"couple\": \"Ada and Grace\"}')"
_EMIT_MANY = _EMIT + b" FROM generate_series(1, %s)"


class Scale(msgspec.Struct, frozen=True):
    """How much is measured."""

    alone: int
    steady: int
    rate: float
    """Emitted a second, each in its own transaction."""
    heap: int


_FULL, _QUICK = Scale(500, 3_000, 200.0, 50_000), Scale(50, 200, 100.0, 2_000)


class Latencies(msgspec.Struct, frozen=True):
    """Milliseconds."""

    median: float
    p99: float


class Figures(msgspec.Struct, frozen=True):
    """What came of it."""

    alone: Latencies
    steady: Latencies
    drained_per_second: float


class Ear:
    """Hears how many events became events, and when."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.moments: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        telemetry.listen(EventsAccepted, self._heard)

    def _heard(self, heard: EventsAccepted) -> None:
        self.moments += [clock.monotonic()] * heard.events
        self._loop.call_soon_threadsafe(self._news.set)

    async def until(self, count: int) -> None:
        """Wait until so many were heard of in all."""
        while len(self.moments) < count:
            await self._news.wait()
            self._news.clear()


async def measure(url: str, storage: Storage, scale: Scale) -> Figures:
    """All three, one after the other."""
    telemetry = Telemetry()
    ear = Ear(telemetry)
    bell = PostgresBell(url, listen=False)
    relay = Relay(
        database=storage.database,
        ledger=storage.ledger,
        cache=WebhookCacheManager(catalog=storage.catalog, telemetry=telemetry),
        queue=DatabaseQueue(storage.ledger, bell),
        telemetry=telemetry,
        rules=Rules,
        bell=lambda: PostgresBell(url, listen=True, name="outbox"),
    )
    with psycopg.connect(url, autocommit=True) as application:
        await asyncio.to_thread(application.execute, _EMIT_MANY, [scale.heap])
        began = clock.monotonic()
        relay.start()
        await ear.until(scale.heap)
        drained = scale.heap / (clock.monotonic() - began)
        alone = await _emit(application, ear, scale.alone, pause=None)
        steady = await _emit(application, ear, scale.steady, pause=1.0 / scale.rate)
    await relay.stop()
    bell.close()
    return Figures(alone, steady, drained)


async def _emit(application: psycopg.Connection, ear: Ear, count: int, *, pause: float | None) -> Latencies:
    """Emit one after the other: each when the one before is an event, or at a steady rate."""
    before = len(ear.moments)
    committed = []
    began = clock.monotonic()
    for n in range(count):
        await asyncio.to_thread(application.execute, _EMIT)
        committed.append(clock.monotonic())
        if pause is None:
            await ear.until(before + n + 1)
        else:
            await asyncio.sleep(max(0.0, began + (n + 1) * pause - clock.monotonic()))
    await ear.until(before + count)
    took = sorted(
        max(0.0, heard - emitted) * 1_000
        for emitted, heard in zip(committed, ear.moments[before:], strict=True)
    )
    return Latencies(statistics.median(took), took[int(len(took) * 0.99)])


def _prepare(storage: Storage) -> None:
    storage.migrate()
    now = clock.to_datetime(clock.now())
    storage.catalog.put_supplier(Supplier(id="studio", created_at=now, updated_at=now))
    made = Endpoint(
        id=ids.endpoint(), supplier_id="studio", url="https://hooks.example/", created_at=now, updated_at=now
    )
    storage.catalog.add_endpoint(made, "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0")


def main() -> int:
    """Measure, and show the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.outbox", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="everything in small")
    parser.add_argument("--directory", type=Path, default=None, help="on the disk that is to be measured")
    arguments = parser.parse_args()
    console = Console()
    scale = _QUICK if arguments.quick else _FULL
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.directory) as name:
        facts = report.machine(Path(name))
        with (
            postgres(Path(name) / "postgres") as url,
            open_storage(url, Vault([generate_key()])) as storage,
        ):
            _prepare(storage)
            figures = asyncio.run(measure(url, storage, scale))
    table = Table("emitted", "median, ms", "P99, ms")
    table.add_row("one at a time", f"{figures.alone.median:.1f}", f"{figures.alone.p99:.1f}")
    table.add_row(f"{scale.rate:g}/s", f"{figures.steady.median:.1f}", f"{figures.steady.p99:.1f}")
    console.print(f"{facts['cores']} cores, {facts['processor']}, load {facts['load_average']:.1f}")
    console.print(table)
    console.print(f"{scale.heap:,} that lay there: {figures.drained_per_second:,.0f} events/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
