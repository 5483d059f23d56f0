"""The report: what the figures were, beside what they should be, on which machine."""

import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import msgspec
import pycurl
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("ringbearer", "pycurl", "uvloop", "uvicorn", "httptools", "sqlalchemy", "psycopg", "msgspec")

_ROWS: tuple[tuple[str, str, str, str], ...] = (
    # figure, what it is, unit, the target's name in _TARGETS or nothing
    ("singles.accepted_rate", "single events accepted", "/s", "accepted"),
    ("singles.delivered_rate", "… delivered, until drained", "/s", "singles"),
    ("singles.p50_ms", "… 202 after, P50", "ms", ""),
    ("singles.p95_ms", "… P95", "ms", ""),
    ("singles.p99_ms", "… P99", "ms", ""),
    ("singles.serve_cpu_us", "… CPU per delivery, API", "µs", ""),
    ("singles.work_cpu_us", "… CPU per delivery, worker", "µs", ""),
    ("singles.postgres_cpu_us", "… CPU per delivery, PostgreSQL", "µs", ""),
    ("singles.redis_cpu_us", "… CPU per delivery, Redis", "µs", ""),
    ("batches.accepted_rate", "events by the hundred, accepted", "/s", ""),
    ("batches.delivered_rate", "… delivered, until drained", "/s", "batches"),
    ("batches.serve_cpu_us", "… CPU per delivery, API", "µs", ""),
    ("batches.work_cpu_us", "… CPU per delivery, worker", "µs", ""),
    ("batches.postgres_cpu_us", "… CPU per delivery, PostgreSQL", "µs", ""),
    ("batches.redis_cpu_us", "… CPU per delivery, Redis", "µs", ""),
    ("steady.accept_to_send_p50_ms", "1,000/s: accepted to first byte, P50", "ms", ""),
    ("steady.accept_to_send_p95_ms", "… P95", "ms", "p95"),
    ("steady.accept_to_send_p99_ms", "… P99", "ms", "p99"),
    ("steady.publish_to_arrival_p50_ms", "… published to arrival, seen from outside, P50", "ms", ""),
    ("steady.publish_to_arrival_p95_ms", "… P95", "ms", ""),
    ("steady.publish_to_arrival_p99_ms", "… P99", "ms", ""),
    ("bare.rate", "courier alone", "/s", ""),
    ("bare.cpu_us", "… CPU per request", "µs", ""),
    ("courier.ratio", "batches delivered ÷ courier alone", "", ""),
    ("backlog.queued", "deliveries queued", "", ""),
    ("backlog.short_rate", "delivered from a short queue", "/s", ""),
    ("backlog.long_rate", "delivered from that queue", "/s", ""),
    ("backlog.ratio", "… ratio", "", "ratio"),
    ("backlog.long_serve_rss_mb", "… highest memory, API", "MiB", "memory"),
    ("backlog.long_work_rss_mb", "… highest memory, worker", "MiB", "memory"),
    ("backlog.long_up_rss_mb", "… highest memory, parent", "MiB", "memory"),
    ("backlog.long_loading_serve_rss_mb", "… highest memory while accepting, API", "MiB", "memory"),
)
_AT_LEAST: dict[str, dict[str, float]] = {
    "accepted": {"sqlite": 5_000, "postgresql": 4_500, "postgresql+redis": 4_500},
    "singles": {},
    "batches": {"sqlite": 8_000, "postgresql": 8_000, "postgresql+redis": 8_000},
    "ratio": {"sqlite": 0.8, "postgresql": 0.8, "postgresql+redis": 0.8},
}
_BELOW: dict[str, float] = {"p95": 100, "p99": 250, "memory": 250}


def show(console: Console, figures: dict[str, float], backend: str, *, quick: bool) -> None:
    """Print the table."""
    size = " (quick: too short to be quoted)" if quick else ""
    table = Table(title=f"Ringbearer on {backend}{size}")
    for name in ("figure", "measured", "target"):
        table.add_column(name, justify="left" if name == "figure" else "right")
    for figure, name, unit, target in _ROWS:
        if figure in figures:
            value = figures[figure]
            wanted, met = _target(target, backend, value)
            color = "" if met is None else "[green]" if met else "[red]"
            table.add_row(name, f"{color}{_number(value)} {unit}", wanted)
    console.print(table)
    refused = sum(value for name, value in figures.items() if name.endswith(".bad"))
    if refused:
        console.print(f"[red]{refused:.0f} requests were not answered with 202[/red]")


def _target(name: str, backend: str, value: float) -> tuple[str, bool | None]:
    if (least := _AT_LEAST.get(name, {}).get(backend)) is not None:
        return f"≥ {_number(least)}", value >= least
    if name in _BELOW:
        return f"< {_number(_BELOW[name])}", value < _BELOW[name]
    return "", None


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write(figures: dict[str, float], backend: str, facts: dict[str, object], *, quick: bool) -> Path:
    """Keep the figures in a file of their own; returns its path."""
    RESULTS.mkdir(exist_ok=True)
    stamp = datetime.now(UTC)
    size = "-quick" if quick else ""
    path = RESULTS / f"{stamp:%Y-%m-%d}-{backend}{size}.json"
    document = {
        "at": stamp.isoformat(timespec="seconds"),
        "backend": backend,
        "quick": quick,
        "machine": facts,
        "figures": {name: round(value, 3) for name, value in figures.items()},
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    return path


def machine(directory: Path) -> dict[str, object]:
    """What a reader must know of the machine: processor, versions, how long the disk takes, how busy it was."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "packages": dict(_versions(_PACKAGES)),
        "libcurl": pycurl.version,
        "load_average": os.getloadavg()[0],
        "fdatasync_ms": round(_disk(directory) * 1e3, 3),
    }


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.processor()


def _versions(names: Iterable[str]) -> Iterable[tuple[str, str]]:
    for name in names:
        yield name, metadata.version(name)


def _disk(directory: Path) -> float:
    """The median time of a small durable write."""
    times = []
    path = directory / "probe"
    with path.open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    path.unlink()
    return statistics.median(times)
