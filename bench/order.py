"""What the benchmarks of order share: a service with classes of suppliers, paced traffic, and waits from the store.

A wait is the time from when an event was accepted until its first try began, as the service itself wrote them down.
"""

import argparse
import contextlib
import itertools
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol, get_args

import httpx
import msgspec
from rich.console import Console
from sqlalchemy import text

from bench import report
from bench.receiver import Receiver
from bench.system import KEY, POSTGRES
from chaos.ports import free_port
from chaos.service import Service, postgres, wait_for
from ringbearer import clock, ids
from ringbearer.delivery.signing import generate_secret
from ringbearer.domain.deliveries import State
from ringbearer.domain.endpoints import Endpoint
from ringbearer.domain.suppliers import Supplier
from ringbearer.process import open_store
from ringbearer.storage.base import Storage

Backend = Literal["sqlite", "postgresql"]
TICK = 0.05
"""Seconds between two batches of paced traffic."""
_PADDING = "x" * 300
_DRAIN_SECONDS = 1_800.0


class Waits(msgspec.Struct, frozen=True):
    """Percentiles of waits in milliseconds, of so many deliveries."""

    count: int
    p50: float
    p95: float
    p99: float


def waits_of(values: Sequence[float]) -> Waits:
    """The percentiles of waits in seconds, by nearest rank."""
    ordered = sorted(values) or [0.0]

    def at(share: float) -> float:
        return round(1_000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)

    return Waits(len(values), at(0.50), at(0.95), at(0.99))


class Bench:
    """A running service, with suppliers that are made as they are needed."""

    def __init__(self, service: Service, storage: Storage, receiver: Receiver) -> None:
        self.service = service
        self._storage = storage
        self._receiver = receiver
        self._serial = itertools.count()
        self._now = datetime.now(UTC)

    def suppliers(self, name: str, count: int, *, url: str | None = None, timeout: float = 10.0) -> list[str]:
        """So many suppliers of a class, each with one endpoint: at the receiver, or at that address."""
        made = []
        for number in range(count):
            supplier = f"{name}-{number}"
            self._storage.catalog.put_supplier(
                Supplier(id=supplier, created_at=self._now, updated_at=self._now)
            )
            self._storage.catalog.add_endpoint(
                Endpoint(
                    id=ids.endpoint(),
                    supplier_id=supplier,
                    url=url or f"{self._receiver.url}/hook/{supplier}",
                    timeout=timeout,
                    created_at=self._now,
                    updated_at=self._now,
                ),
                generate_secret("hmac"),
            )
            made.append(supplier)
        return made

    def events(self, suppliers: Sequence[str], count: int, **fields: object) -> bytes:
        """So many events in turn for the suppliers, as lines."""
        lines = []
        for _ in range(count):
            serial = next(self._serial)
            lines.append(
                msgspec.json.encode(
                    {
                        "supplier_id": suppliers[serial % len(suppliers)],
                        "type": "booking.confirmed",
                        "data": {"n": serial, "text": _PADDING},
                        **fields,
                    }
                )
            )
        return b"\n".join(lines)

    def flood(self, suppliers: Sequence[str], count: int, *, batch: int = 1_000, **fields: object) -> None:
        """Publish so many events as fast as they are taken."""
        with self.service.client() as client:
            for start in range(0, count, batch):
                _publish(client, self.events(suppliers, min(batch, count - start), **fields))

    def paced(
        self, suppliers: Sequence[str], rate: float, seconds: float, **fields: object
    ) -> threading.Thread:
        """Publish at that rate for so long, on a thread; a late answer does not slow it for long."""
        return self._publish_on_a_thread(suppliers, rate, lambda elapsed: elapsed < seconds, fields)

    @contextmanager
    def steady(self, suppliers: Sequence[str], rate: float, **fields: object) -> Iterator[None]:
        """Publish at that rate for the time of the block."""
        over = threading.Event()
        thread = self._publish_on_a_thread(suppliers, rate, lambda _: not over.is_set(), fields)
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _publish_on_a_thread(
        self, suppliers: Sequence[str], rate: float, go_on: Callable[[float], bool], fields: dict[str, object]
    ) -> threading.Thread:
        def run() -> None:
            began = time.monotonic()
            sent = 0
            with self.service.client() as client:
                while go_on(elapsed := time.monotonic() - began):
                    due = int(rate * elapsed) - sent
                    if due > 0:
                        _publish(client, self.events(suppliers, due, **fields))
                        sent += due
                    time.sleep(TICK)

        thread = threading.Thread(target=run, name="paced")
        thread.start()
        return thread

    def drain(self, *, kept: int = 0) -> float:
        """Wait until all but so many deliveries are finished; returns the seconds that took."""
        began = time.monotonic()

        def drained() -> bool:
            depth = self._storage.ledger.depth()
            return sum(d.count for d in depth if d.state is not State.DEAD) <= kept

        wait_for(drained, _DRAIN_SECONDS, "the queue to drain")
        return time.monotonic() - began

    def waits(self, name: str, *, since: int, until: int | None = None) -> Waits:
        """How long deliveries of a class of suppliers waited that were accepted since a stored time, and before another."""
        query = text("""
            SELECT a.started_at - d.created_at FROM deliveries AS d JOIN attempts AS a ON a.delivery_id = d.id
            WHERE a.number = 1 AND d.created_at >= :since AND d.created_at < :until AND d.supplier_id LIKE :name
        """)
        with self._storage.database.read() as connection:
            bounds = {"since": since, "until": clock.now() if until is None else until}
            found = connection.execute(query, {"name": f"{name}-%", **bounds})
            return waits_of([wait / clock.SECOND for (wait,) in found])


def _publish(client: httpx.Client, lines: bytes) -> None:
    while True:
        answer = client.post(
            "/v1/events/batch", content=lines, headers={"content-type": "application/x-ndjson"}
        )
        if answer.status_code == 202:
            assert not msgspec.json.decode(answer.content)["rejected"]
            return
        if answer.status_code != 503:
            raise RuntimeError(f"publishing failed: {answer.status_code} {answer.text}")
        time.sleep(0.2)


@contextmanager
def running(backend: Backend, directory: Path) -> Iterator[Bench]:
    """A fresh installation with one worker on that database, and a receiver, for the time of the block."""
    with contextlib.ExitStack() as stack:
        url = None
        if backend == "postgresql":
            url = stack.enter_context(postgres(directory / "postgres", **POSTGRES))
        receiver = stack.enter_context(Receiver(free_port()))
        service = stack.enter_context(Service(directory / "system", database_url=url, workers=1))
        storage = stack.enter_context(open_store(service.settings()))
        storage.migrate()
        service.start()
        assert service.environment["RINGBEARER_ADMIN_KEY"] == KEY
        yield Bench(service, storage, receiver)
        service.stop()


@contextmanager
def hanging() -> Iterator[str]:
    """The address of a receiver that takes connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=4_096) as server:
        held: list[socket.socket] = []
        stopped = threading.Event()
        server.settimeout(0.2)

        def accept() -> None:
            while not stopped.is_set():
                with contextlib.suppress(TimeoutError):
                    held.append(server.accept()[0])

        thread = threading.Thread(target=accept, name="hanging")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/hook"
        finally:
            stopped.set()
            thread.join()
            for connection in held:
                connection.close()


def write(
    name: str, backend: str, figures: dict[str, object], facts: dict[str, object], *, quick: bool
) -> Path:
    """Keep the figures with the facts of the machine; those of a quick run beside the others, under its name."""
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    path = report.RESULTS / f"{name}-{day}-{backend}{'-quick' if quick else ''}.json"
    content = {"quick": quick, "machine": facts, "figures": figures}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
    return path


class Findings(Protocol):
    """What a benchmark of order has found on one database."""

    def figures(self) -> dict[str, object]:
        """What is kept in a file."""

    def show(self, console: Console, backend: str) -> None:
        """What is told on the terminal."""


def on_each(name: str, description: str | None, measure: Callable[[Bench, bool], Findings]) -> int:
    """The command line of a benchmark of order: measure on each database in turn, show it, and keep it."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=description)
    parser.add_argument("--quick", action="store_true", help="everything in small, to see that it works")
    parser.add_argument(
        "--database", choices=get_args(Backend), action="append", help="default: each in turn"
    )
    parser.add_argument("--directory", type=Path, default=None, help="on the disk that is to be measured")
    arguments = parser.parse_args()
    console = Console()
    for backend in arguments.database or get_args(Backend):
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=arguments.directory) as made:
            directory = Path(made)
            facts = report.machine(directory)
            with running(backend, directory) as bench:
                found = measure(bench, arguments.quick)
        found.show(console, backend)
        console.print(f"written to {write(name, backend, found.figures(), facts, quick=arguments.quick)}")
    return 0
