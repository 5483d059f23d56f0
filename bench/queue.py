"""`python -m bench.queue`: the queue in Redis against BullMQ, on the same server, in the same run.

Both are given the same number of jobs with bodies of the same length in batches of the same size, first all in, then
all out, by one process each. BullMQ adds in bulk and processes by doing nothing. Ringbearer is measured twice:

index   what it does in Redis: seal, push, pop, unseal. Leases and outcomes are no business of its Redis.
queue   the whole of it: events, deliveries, jobs, leases, outcomes and attempts written to PostgreSQL, durably

BullMQ's package is installed on demand, into the virtual environment's directory.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeVar

import msgspec
from rich.console import Console
from rich.table import Table

from bench import report
from chaos.redis_servers import one_server
from chaos.service import postgres
from ringbearer import clock, ids
from ringbearer.domain.deliveries import Content, Outcome, Record, State
from ringbearer.queue.base import Demand
from ringbearer.queue.bell import SocketBell
from ringbearer.queue.index import Entry, RedisIndex
from ringbearer.queue.reconciler import Reconciler
from ringbearer.queue.redis import RedisQueue
from ringbearer.redis_link import RedisLink, open_redis
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.ledger import Admission
from ringbearer.storage.vault import Vault, generate_key
from ringbearer.telemetry import Telemetry

_BULLMQ = Path(__file__).parent / "bullmq"
_INSTALLED = Path(sys.prefix) / "bullmq"
_BATCH = 500
_BODY = 300
_ENDPOINTS = 2_000
_CONCURRENCIES = (50, 200, 1_000)  # the best one counts


class Took(msgspec.Struct, frozen=True):
    """Seconds to put all jobs in, and to take all of them out."""

    add: float
    process: float

    def rate(self, jobs: int) -> float:
        """Jobs per second through both."""
        return jobs / (self.add + self.process)


def main() -> int:
    """Measure, print, write down."""
    parser = argparse.ArgumentParser(prog="python -m bench.queue", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few jobs, to see that it works")
    parser.add_argument("--runs", type=int, default=None, help="the median run counts (default 5, or 1)")
    arguments = parser.parse_args()
    jobs = 5_000 if arguments.quick else 100_000
    runs = arguments.runs or (1 if arguments.quick else 5)
    console = Console()
    figures: dict[str, float] = {"queue.jobs": jobs}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-queue-")))
        facts = report.machine(directory)
        server = stack.enter_context(one_server(directory / "redis"))
        url = stack.enter_context(
            postgres(directory / "postgres", shared_buffers="256MB", max_wal_size="4GB")
        )
        storage = stack.enter_context(open_storage(url, Vault([generate_key()])))
        storage.migrate()
        rows: list[tuple[str, Callable[[], Took]]] = [
            (f"BullMQ, {concurrency} at a time", lambda c=concurrency: _bullmq(server.port, jobs, c))  # type: ignore[misc]
            for concurrency in _CONCURRENCIES
        ]
        rows.append(("index in Redis", lambda: _index(server.url, jobs)))
        rows.append(("queue over PostgreSQL", lambda: _queue(server.url, storage, jobs, directory)))
        rows.append(("rebuild of the index", lambda: _rebuild(server.url, storage, jobs, directory)))
        _install(console)
        table = Table("", "in/s", "out/s", "both/s", title=f"{jobs:,} jobs, batches of {_BATCH}")
        best = 0.0
        for name, measure in rows:
            took = sorted((measure() for _ in range(runs)), key=lambda t: t.add + t.process)[runs // 2]
            out = jobs / took.process if took.process else 0.0
            table.add_row(name, f"{jobs / took.add:,.0f}", f"{out:,.0f}", f"{took.rate(jobs):,.0f}")
            figures[f"{name}.rate"] = took.rate(jobs)
            if name.startswith("BullMQ"):
                best = max(best, took.rate(jobs))
    for name in ("index in Redis", "queue over PostgreSQL"):
        figures[f"{name}.ratio"] = figures[f"{name}.rate"] / best
    console.print(table)
    console.print(
        f"against the best of BullMQ: index {figures['index in Redis.ratio']:.1f} ×, "
        f"queue with everything in PostgreSQL {figures['queue over PostgreSQL.ratio']:.1f} ×"
    )
    console.print(f"written to {report.write(figures, 'queue', facts, quick=arguments.quick)}")
    return 0


def _install(console: Console) -> None:
    """Fetch BullMQ, if it is not there."""
    shutil.copytree(_BULLMQ, _INSTALLED, dirs_exist_ok=True)
    if (_INSTALLED / "node_modules" / "ioredis").is_dir():
        return
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is not installed: it is needed to fetch BullMQ; on Debian: apt-get install npm")
    console.print("fetching BullMQ …")
    subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"],
        cwd=_INSTALLED,
        check=True,
    )


def _bullmq(port: int, jobs: int, concurrency: int) -> Took:
    node = shutil.which("node")
    if node is None:
        raise SystemExit("node is not installed: it runs BullMQ; on Debian: apt-get install nodejs")
    command = [node, "measure.mjs", *map(str, (port, jobs, _BATCH, _BODY, concurrency))]
    ended = subprocess.run(command, cwd=_INSTALLED, capture_output=True, check=True, timeout=900)
    return msgspec.json.decode(ended.stdout, type=Took)


def _opened(url: str) -> RedisLink:
    return open_redis(url, Vault([generate_key()]), timeout=30)


def _index(url: str, jobs: int) -> Took:
    """Through the index alone, each job of another event."""
    content = Content("booking.confirmed", "2027-06-19T14:00:00Z", '"' + "x" * _BODY + '"')
    events = [ids.event() for _ in range(jobs)]
    with closing(_opened(url)) as link:
        index = RedisIndex(link, Telemetry(), lane_most=jobs)
        index.mark(index.shards)
        began = time.perf_counter()
        for part in _parts(events):
            index.push(
                [
                    Entry(
                        ids.delivery(event, 0), f"ep_{n % _ENDPOINTS}", n % 4, n, index.seal(event, content)
                    )
                    for n, event in enumerate(part)
                ]
            )
        pushed = time.perf_counter()
        out = 0
        while out < jobs:
            popped, whole = index.pop([_BATCH // 4] * 4)
            if not whole or not popped:
                raise RuntimeError(f"only {out} of {jobs} came out of the index")
            for delivery, body in popped:
                if body is None or index.unseal(ids.event_of(delivery), body) is None:
                    raise RuntimeError("a body did not come back")
            out += len(popped)
        ended = time.perf_counter()
        index.clear(index.shards)
    return Took(pushed - began, ended - pushed)


def _queue(url: str, storage: Storage, jobs: int, directory: Path) -> Took:
    """Through everything, as publishing and workers do it."""
    with closing(_opened(url)) as link, closing(SocketBell(directory / "run", listen=False)) as bell:
        telemetry = Telemetry()
        index = RedisIndex(link, telemetry, lane_most=jobs)
        queue = RedisQueue(storage.ledger, bell, index, telemetry)
        index.mark(index.shards)
        began = time.perf_counter()
        for part in _parts([_admission(n) for n in range(jobs)]):
            storage.ledger.accept(part)
            queue.push(len(part), part)
        queue.close()
        pushed = time.perf_counter()
        out = 0
        while out < jobs:
            until = clock.now() + 60 * clock.SECOND
            leases = queue.claim(Demand(quotas=[_BATCH // 4] * 4, worker="bench", until=until))
            if not leases:
                raise RuntimeError(f"only {out} of {jobs} came out of the queue")
            outcomes = [Outcome(lease=x, state=State.DELIVERED, record=_record()) for x in leases]
            out += len(queue.settle(outcomes, now=clock.now()))
        ended = time.perf_counter()
        index.clear(index.shards)
    return Took(pushed - began, ended - pushed)


def _rebuild(url: str, storage: Storage, jobs: int, directory: Path) -> Took:
    """The index made anew from what is ready in the store; the way out is the same as above, and not measured."""
    with closing(_opened(url)) as link:
        index = RedisIndex(link, Telemetry(), lane_most=jobs)
        for part in _parts([_admission(n) for n in range(jobs)]):
            storage.ledger.accept(part)
        began = time.perf_counter()
        put = Reconciler(ready=storage.ready, index=index, telemetry=Telemetry()).reconcile()
        ended = time.perf_counter()
        if put != jobs:
            raise RuntimeError(f"only {put} of {jobs} were put into the index")
        index.clear(index.shards)
        while leases := storage.ledger.claim(
            [1_000] * 4, worker="bench", until=clock.now() + 60 * clock.SECOND
        ):
            outcomes = [Outcome(lease=x, state=State.DELIVERED, record=_record()) for x in leases]
            storage.ledger.settle(outcomes, now=clock.now())
    return Took(ended - began, 0.0)


def _admission(number: int) -> Admission:
    return Admission(
        event_id=ids.event(),
        supplier_id=f"b{number % 200}",
        type="booking.confirmed",
        timestamp="2027-06-19T14:00:00Z",
        data='"' + "x" * _BODY + '"',
        lane=number % 4,
        accepted_at=clock.now(),
        endpoints=((f"ep_{number % _ENDPOINTS}", True),),
    )


def _record() -> Record:
    return Record(
        started_at=clock.now(),
        duration=1_000,
        status_code=200,
        error=None,
        response_body="ok",
        response_headers="{}",
    )


T = TypeVar("T")


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


if __name__ == "__main__":
    sys.exit(main())
