"""The system under test: `ringbearer up` on one database, and what its processes use and say of themselves."""

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import httpx
import msgspec
import psutil

from chaos.redis_servers import Server, one_server
from chaos.service import ADMIN_KEY, Service, postgres, wait_for
from ringbearer import ids
from ringbearer.delivery.signing import generate_secret
from ringbearer.domain.deliveries import State
from ringbearer.domain.endpoints import Endpoint
from ringbearer.domain.suppliers import Supplier
from ringbearer.process import open_store
from ringbearer.storage.base import Storage

KEY = ADMIN_KEY
SUPPLIERS = 200
Backend = Literal["sqlite", "postgresql", "postgresql+redis"]

_MEBIBYTE = 1 << 20
_BUCKET = re.compile(r'^ringbearer_accept_to_send_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)
POSTGRES = {"shared_buffers": "256MB", "max_wal_size": "4GB"}


class Use(msgspec.Struct, frozen=True):
    """What processes of one kind used: CPU seconds, memory now and at its highest in MiB."""

    cpu: float
    rss: float
    peak: float


class System:
    """One installation with its suppliers, each with one endpoint at the receiver."""

    def __init__(
        self,
        directory: Path,
        backend: Backend,
        database_url: str | None,
        receiver: int,
        redis: Server | None = None,
        *,
        workers: int = 1,
    ) -> None:
        self._workers = workers
        self.backend = backend
        self._redis = redis
        self._redis_url = "" if redis is None else redis.url  # what is empty is not set
        self._directory = directory
        self._database_url = database_url
        self._receiver = receiver
        self._runs = 0
        self._running: Service | None = None
        self._store: Storage | None = None
        self._data = Service(directory / "system", database_url=database_url)
        with open_store(self._data.settings()) as storage:
            storage.migrate()
            now = datetime.now(UTC)
            for number in range(SUPPLIERS):
                supplier = f"b{number}"
                storage.catalog.put_supplier(Supplier(id=supplier, created_at=now, updated_at=now))
                storage.catalog.add_endpoint(
                    Endpoint(
                        id=ids.endpoint(),
                        supplier_id=supplier,
                        url=f"http://127.0.0.1:{receiver}/hook/{number}",
                        created_at=now,
                        updated_at=now,
                    ),
                    generate_secret("hmac"),
                )

    @contextmanager
    def running(self, *, workers: int | None = None) -> Iterator["System"]:
        """The service runs for the time of the block, with as many workers as are usual here or are given."""
        workers = self._workers if workers is None else workers
        service = Service(
            self._directory / "system",
            database_url=self._database_url,
            redis_url=self._redis_url,
            workers=workers,
        )
        with service, open_store(service.settings()) as self._store:
            service.start()
            wait_for(lambda: len(service.pids("work")) == workers, 20, "the workers")
            self._running = service
            try:
                yield self
                service.stop()
            finally:
                self._running = self._store = None

    @property
    def port(self) -> int:
        """Where the API is."""
        return self._service.port

    @property
    def _service(self) -> Service:
        assert self._running is not None
        return self._running

    def queued(self) -> int:
        """How many deliveries are not finished."""
        assert self._store is not None
        return sum(depth.count for depth in self._store.ledger.depth() if depth.state is not State.DEAD)

    def drain(self, seconds: float) -> None:
        """Wait until everything is delivered and written down."""
        wait_for(lambda: self.queued() == 0, seconds, "the queue to drain")

    def use(self) -> dict[str, Use]:
        """What each kind of process used since its start."""
        groups: dict[str, list[psutil.Process]] = {
            "up": [psutil.Process(self._service.pid)],
            "serve": [psutil.Process(pid) for pid in self._service.pids("serve")],
            "work": [psutil.Process(pid) for pid in self._service.pids("work")],
        }
        if self.backend != "sqlite":
            groups["postgres"] = self._database_processes()
        if self._redis is not None and self._redis.process is not None:
            groups["redis"] = [psutil.Process(self._redis.process.pid)]
        return {name: _use(processes) for name, processes in groups.items() if processes}

    def _database_processes(self) -> list[psutil.Process]:
        pid_file = self._directory / "postgres" / "postmaster.pid"
        server = psutil.Process(int(pid_file.read_text().splitlines()[0]))
        return [server, *server.children()]

    def accept_to_send(self) -> Counter[float]:
        """The histogram that the service itself keeps: cumulated counts by upper bound in seconds."""
        return accept_to_send(self._service.url)


def accept_to_send(url: str) -> Counter[float]:
    """The histogram of a service at that address: cumulated counts by upper bound in seconds."""
    page = httpx.get(f"{url}/metrics", timeout=30, trust_env=False).text
    return Counter({float(bound): int(float(count)) for bound, count in _BUCKET.findall(page)})


def _use(processes: list[psutil.Process]) -> Use:
    cpu = rss = peak = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
            times = process.cpu_times()
            cpu += times.user + times.system
            rss = max(rss, process.memory_info().rss / _MEBIBYTE)
            peak = max(peak, _peak(process.pid))
    return Use(cpu, rss, peak)


def _peak(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


@contextmanager
def installed(backend: Backend, directory: Path, receiver: int, *, workers: int = 1) -> Iterator[System]:
    """A fresh installation on that database, which ends with the block; it runs so many workers."""
    with contextlib.ExitStack() as stack:
        url = redis = None
        if backend != "sqlite":
            url = stack.enter_context(postgres(directory / "postgres", **POSTGRES))
        if backend == "postgresql+redis":
            redis = stack.enter_context(one_server(directory / "redis"))
        yield System(directory, backend, url, receiver, redis, workers=workers)
