"""Pages and lists over a full store: `python -m bench.pages [--quick] [--rows N] [--database sqlite|postgresql]`.

The store is filled by SQL with events, deliveries and attempts of 29 days; then every page and every list is asked for
over HTTP as a browser and a client would, some of them with filters that hardly anything meets. What is told is how
long the whole answer takes. Target: each below 300 ms, with 1,000,000 deliveries (and 10,000,000 on PostgreSQL).
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args
from unittest import mock

import httpx
import msgspec
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from bench import report
from bench.system import Backend
from chaos.service import ADMIN_KEY, Service, postgres
from ringbearer import clock, ids
from ringbearer.delivery.signing import generate_secret
from ringbearer.domain.endpoints import Endpoint
from ringbearer.domain.suppliers import Supplier
from ringbearer.process import open_store
from ringbearer.storage.base import Storage
from ringbearer.storage.rollups import Level, Rollup

SUPPLIERS = 2_847
TARGET_MS = 300.0
_DAYS = 29
_DAY = 86_400 * clock.SECOND
_CHUNK = 250_000
_TYPES = 8
_HOURS = 39 * 7 * 24
_STATE = """
    CASE WHEN n % 1000 < 970 THEN 'delivered' WHEN n % 1000 < 980 THEN 'dead' WHEN n % 1000 < 985 THEN 'scheduled'
    WHEN n % 1000 < 990 THEN 'ready' WHEN n % 1000 = 990 THEN 'held' WHEN n % 100000 = 991 THEN 'cancelled'
    ELSE 'delivered' END
"""


class Measured(msgspec.Struct):
    """One page: the median and the longest answer in milliseconds."""

    median_ms: float
    longest_ms: float


def main() -> int:
    """Fill, ask, tell."""
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20,000 rows and few requests")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--database", choices=get_args(Backend), action="append", help="default: each in turn"
    )
    parser.add_argument("--directory", type=Path, default=None, help="on the disk that is to be measured")
    arguments = parser.parse_args()
    rows, rounds = (20_000, 3) if arguments.quick else (arguments.rows, 15)
    console = Console()
    backends: list[Backend] = arguments.database or list(get_args(Backend))
    for backend in backends:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.directory) as name:
            facts = report.machine(Path(name))
            measured = _measure(backend, Path(name), rows, rounds, console)
        _show(console, measured, backend, rows)
        console.print(f"written to {_write(measured, backend, rows, facts, quick=arguments.quick)}")
    return 0


def _measure(
    backend: Backend, directory: Path, rows: int, rounds: int, console: Console
) -> dict[str, Measured]:
    with contextlib.ExitStack() as stack:
        url = None
        if backend == "postgresql":
            settings = {"shared_buffers": "256MB", "max_wal_size": "4GB"}
            url = stack.enter_context(postgres(directory / "postgres", **settings))
        service = Service(directory / "service", database_url=url, workers=0)
        with open_store(service.settings()) as storage:
            began = time.monotonic()
            examples = _fill(storage, rows)
            console.print(f"{backend}: {rows:,} rows in {time.monotonic() - began:.0f} s")
        stack.enter_context(service)
        service.start()
        return dict(_ask(service.url, examples, rounds))


# ── filling ─────────────────────────────────────────────────────────────────────────────────────────────────


def _fill(storage: Storage, rows: int) -> dict[str, str]:
    """Put everything into the store; what pages of single things are asked for."""
    storage.migrate()
    newest = clock.now() - 60 * clock.SECOND
    oldest = newest - _DAYS * _DAY
    for day in range(_DAYS + 1):
        with mock.patch.object(clock, "now", lambda day=day: oldest + day * _DAY):
            storage.retention.prepare()
    endpoint = _catalog(storage)
    for low in range(0, rows, _CHUNK):
        _chunk(storage, low, min(rows, low + _CHUNK), oldest, (newest - oldest) // rows)
    _depth(storage)
    _rollups(storage, newest)
    with storage.database.write() as connection:
        connection.exec_driver_sql("ANALYZE")
    dead = rows // 2 // 1_000 * 1_000 + 975
    return {
        "delivery": _delivery_id(oldest + dead * ((newest - oldest) // rows), dead),
        "endpoint": endpoint,
        "middle": clock.to_datetime(oldest + (newest - oldest) // 2).strftime("%Y-%m-%dT%H:%M"),
    }


def _catalog(storage: Storage) -> str:
    """Suppliers `s0`, `s1`, …, each with one endpoint whose id is made of its number; the first endpoint."""
    now = datetime.now(UTC)
    for number in range(SUPPLIERS):
        supplier = f"s{number}"
        storage.catalog.put_supplier(Supplier(id=supplier, created_at=now, updated_at=now))
        made = Endpoint(
            id=_endpoint_id(number),
            supplier_id=supplier,
            url=f"https://hooks.example/{number}",
            created_at=now,
            updated_at=now,
        )
        storage.catalog.add_endpoint(made, generate_secret("hmac"))
    return _endpoint_id(0)


def _chunk(storage: Storage, low: int, high: int, oldest: int, step: int) -> None:
    """Deliveries number `low` to `high`, each with its event and one attempt; those not done with their jobs."""
    with storage.database.write() as connection:
        lite = connection.dialect.name == "sqlite"
        hexed = "printf('%012x', at / 1000) || printf('%020x', n)"
        number = "printf('%032x', n % :suppliers)"
        if lite:
            numbers = "WITH RECURSIVE r(n) AS (SELECT :low UNION ALL SELECT n + 1 FROM r WHERE n + 1 < :high)"
        else:
            numbers = (
                "WITH r AS (SELECT generate_series(CAST(:low AS bigint), CAST(:high AS bigint) - 1) AS n)"
            )
            hexed = "lpad(to_hex(at / 1000), 12, '0') || lpad(to_hex(n), 20, '0')"
            number = "lpad(to_hex(n % :suppliers), 32, '0')"
        rows = (
            f"{numbers}, t AS (SELECT n, :oldest + n * :step AS at FROM r), "
            f"x AS (SELECT n, at, 'evt_' || {hexed} AS event, 'dlv_' || {hexed} || '0000' AS delivery, "
            f"'s' || (n % :suppliers) AS supplier, 'ep_' || {number} AS endpoint, "
            f"'kind.n' || (n % {_TYPES}) AS type, n % 4 AS lane, {_STATE} AS state FROM t) "
        )
        given = {"low": low, "high": high, "oldest": oldest, "step": step, "suppliers": SUPPLIERS}
        for statement in _statements(rows):
            wanted = {name: value for name, value in given.items() if f":{name}" in statement}
            connection.execute(text(statement), wanted)


def _statements(rows: str) -> Iterator[str]:
    def insert(table: str, columns: Mapping[str, str], where: str = "") -> str:
        return f"INSERT INTO {table} ({', '.join(columns)}) {rows} SELECT {', '.join(columns.values())} FROM x {where}"

    yield insert(
        "events",
        {
            "id": "event",
            "supplier_id": "supplier",
            "type": "type",
            "timestamp": "'2027-06-19T14:00:00Z'",
            "data": '\'{"booking":\' || n || \',"couple":"Ada & Grace"}\'',
            "lane": "lane",
            "created_at": "at",
        },
    )
    yield insert(
        "deliveries",
        {
            "id": "delivery",
            "event_id": "event",
            "endpoint_id": "endpoint",
            "supplier_id": "supplier",
            "event_type": "type",
            "lane": "lane",
            "state": "state",
            "attempts": "1",
            "created_at": "at",
            "finished_at": "at + 20000",
        },
    )
    yield insert(
        "attempts",
        {
            "delivery_id": "delivery",
            "number": "1",
            "started_at": "at + 5000",
            "duration": "9000",
            "status_code": "200",
            "response_body": "'ok'",
            "response_headers": '\'{"server":"nginx"}\'',
        },
    )
    yield insert(
        "jobs",
        {
            "delivery_id": "delivery",
            "event_id": "event",
            "endpoint_id": "endpoint",
            "supplier_id": "supplier",
            "state": "state",
            "lane": "lane",
            "rank": "at",
            "due_at": "at + 1000000000000",
            "attempt": "1",
            "attempt_base": "0",
            "accepted_at": "at",
            "ready_at": "at",
        },
        "WHERE state IN ('dead', 'scheduled', 'ready', 'held')",
    )


def _depth(storage: Storage) -> None:
    with storage.database.write() as connection:
        connection.execute(
            text(
                "INSERT INTO queue_depth (shard, lane, state, n) "
                "SELECT 0, lane, state, count(*) FROM jobs GROUP BY lane, state"
            )
        )


def _rollups(storage: Storage, newest: int) -> None:
    """What was measured: hours of the whole service, minutes of a supplier and an endpoint."""

    def row(dimension: str, at: int, key: str) -> Rollup:
        return Rollup(dimension, at, key, "", 100, 98, 1, 1, 98, 1, "")

    hour = Level.HOUR.span
    last = newest // hour * hour
    hours = [row("flow", last - n * hour, "deliveries") for n in range(_HOURS)]
    storage.rollups.sum_up(Level.HOUR, hours, until=last)
    minute = Level.MINUTE.span
    storage.rollups.write(
        [
            row(dimension, newest // minute * minute - n * minute, key)
            for n in range(24 * 60)
            for dimension, key in (
                ("supplier", "s0"),
                ("endpoint", _endpoint_id(0)),
                ("path", "high/standard/ok"),
            )
        ]
    )


def _endpoint_id(number: int) -> str:
    return f"ep_{number:032x}"


def _delivery_id(at: int, number: int) -> str:
    return ids.delivery(f"evt_{at // 1000:012x}{number:020x}", 0)


# ── asking ──────────────────────────────────────────────────────────────────────────────────────────────────


def _ask(url: str, examples: Mapping[str, str], rounds: int) -> Iterator[tuple[str, Measured]]:
    endpoint, delivery, middle = examples["endpoint"], examples["delivery"], examples["middle"]
    pages = [
        "/",
        "/deliveries",
        "/deliveries?older=" + delivery,
        "/deliveries?newer=" + delivery,
        "/deliveries?supplier_id=s7",
        f"/deliveries?endpoint_id={endpoint}&state=dead",
        "/deliveries?event_type=kind.n3",
        "/deliveries?event_type=nothing.like.it",
        f"/deliveries?after={middle}&zone=UTC&state=delivered",
        f"/deliveries?before={middle}&zone=UTC&event_type=nothing.like.it",
        *(f"/deliveries?state={s}" for s in ("delivered", "dead", "scheduled", "ready", "held", "cancelled")),
        "/deliveries?state=dead&supplier_id=s7",
        "/dead-letters",
        "/deliveries/" + delivery,
        "/suppliers",
        "/suppliers?text=28",
        "/suppliers/s0",
        "/endpoints",
        "/endpoints?text=28",
        f"/suppliers/s0/endpoints/{endpoint}",
        "/season",
        "/service-levels",
        "/alerts",
        "/replay?state=dead",
    ]
    lists = [
        "/v1/deliveries",
        "/v1/deliveries?state=dead",
        "/v1/deliveries?event_type=nothing.like.it&limit=250",
    ]
    with httpx.Client(base_url=url, timeout=60, trust_env=False, headers={"origin": url}) as client:
        client.post("/login", data={"key": ADMIN_KEY})
        for path in pages:
            yield path, _timed(client, path, {}, rounds)
        yield "/live, until its figures", _streamed(client, rounds)
        for path in lists:
            yield path, _timed(client, path, {"authorization": f"Bearer {ADMIN_KEY}"}, rounds)


def _timed(client: httpx.Client, path: str, headers: dict[str, str], rounds: int) -> Measured:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        answer = client.get(path, headers=headers)
        times.append((time.perf_counter() - began) * 1e3)
        if answer.status_code != 200:
            raise RuntimeError(f"{path} was answered with {answer.status_code}")
    return Measured(statistics.median(times), max(times))


def _streamed(client: httpx.Client, rounds: int) -> Measured:
    """From asking for the stream of the first page to the figures, which a page that came without them shows then."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        with client.stream("GET", "/live") as stream:
            for line in stream.iter_lines():
                if line == "event: sample":
                    break
        times.append((time.perf_counter() - began) * 1e3)
    return Measured(statistics.median(times), max(times))


# ── telling ─────────────────────────────────────────────────────────────────────────────────────────────────


def _show(console: Console, measured: Mapping[str, Measured], backend: str, rows: int) -> None:
    table = Table(title=f"Pages over {rows:,} deliveries on {backend}; target {TARGET_MS:.0f} ms")
    for name in ("path", "median", "longest"):
        table.add_column(name, justify="left" if name == "path" else "right", overflow="fold")
    for path, one in measured.items():
        color = "[green]" if one.longest_ms < TARGET_MS else "[red]"
        table.add_row(path, f"{one.median_ms:.0f} ms", f"{color}{one.longest_ms:.0f} ms")
    console.print(table)


def _write(
    measured: Mapping[str, Measured], backend: str, rows: int, facts: dict[str, object], *, quick: bool
) -> Path:
    stamp = datetime.now(UTC)
    size = "-quick" if quick else ""
    path = report.RESULTS / f"{stamp:%Y-%m-%d}-pages-{backend}{size}.json"
    document = {
        "at": stamp.isoformat(timespec="seconds"),
        "backend": backend,
        "rows": rows,
        "quick": quick,
        "machine": facts,
        "pages": {
            name: {"median_ms": round(one.median_ms, 1), "longest_ms": round(one.longest_ms, 1)}
            for name, one in measured.items()
        },
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
