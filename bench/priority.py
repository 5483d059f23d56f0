"""`python -m bench.priority`: urgent events in a burst of ordinary ones, and what priorities cost.

wedding    events with today's date as their occasion arrive at a steady rate, while ordinary events arrive in a burst:
           their waits from accepted to sent. The target is a P95 under 100 ms.
throughput the same number of events drained once all in one lane for one supplier, once in all lanes for many; the
           target is that the second is at least 0.9 of the first.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import msgspec
from rich.console import Console
from rich.table import Table

from bench import report
from bench.order import Backend, Bench, Waits, running, write
from ringbearer import clock
from ringbearer.domain.events import LANES


class Size(msgspec.Struct, frozen=True):
    """How much of everything. `rate` in events per second, of weddings."""

    suppliers: int = 200
    rate: float = 100.0
    seconds: float = 60.0
    burst: int = 60_000
    drained: int = 40_000


QUICK = Size(suppliers=10, rate=20.0, seconds=3.0, burst=1_000, drained=800)


class Found(msgspec.Struct, frozen=True):
    """Waits of urgent and of ordinary events, and deliveries per second without and with priorities."""

    wedding: Waits
    ordinary: Waits
    plain_rate: float
    prioritised_rate: float


def measure(bench: Bench, size: Size) -> Found:
    """Everything, one after the other."""
    weddings = bench.suppliers("wedding", size.suppliers)
    ordinary = bench.suppliers("ordinary", size.suppliers)
    bench.paced(weddings, size.rate, min(5.0, size.seconds)).join()  # connections, caches
    bench.drain()

    today = datetime.now(UTC).date().isoformat()
    since = clock.now()
    traffic = bench.paced(weddings, size.rate, size.seconds, occasion_date=today)
    time.sleep(size.seconds / 10)
    bench.flood(ordinary, size.burst)
    traffic.join()
    bench.drain()
    wedding, others = bench.waits("wedding", since=since), bench.waits("ordinary", since=since)

    plain = _rate(bench, lambda: bench.flood(ordinary[:1], size.drained), size.drained)
    share = size.drained // len(LANES)

    def all_lanes() -> None:
        floods = [
            threading.Thread(target=bench.flood, args=(ordinary, share), kwargs={"priority": lane})
            for lane in LANES
        ]
        for flood in floods:
            flood.start()
        for flood in floods:
            flood.join()

    prioritised = _rate(bench, all_lanes, share * len(LANES))
    return Found(wedding, others, plain, prioritised)


def _rate(bench: Bench, publish: Callable[[], None], count: int) -> float:
    began = time.monotonic()
    publish()
    bench.drain()
    return round(count / (time.monotonic() - began), 1)


def show(console: Console, backend: str, found: Found) -> None:
    """What came, beside what it should be."""
    table = Table(title=f"priorities on {backend}")
    for column in ("figure", "P50 ms", "P95 ms", "P99 ms", "target"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for name, waits, target in (
        ("urgent: the wedding is today", found.wedding, "P95 < 100 ms"),
        ("ordinary, in the burst", found.ordinary, ""),
    ):
        table.add_row(
            f"{name} ({waits.count:,})", f"{waits.p50:.1f}", f"{waits.p95:.1f}", f"{waits.p99:.1f}", target
        )
    console.print(table)
    ratio = found.prioritised_rate / found.plain_rate
    console.print(
        f"{found.plain_rate:,.0f}/s in one lane, {found.prioritised_rate:,.0f}/s in all: {ratio:.2f} (target ≥ 0.9)"
    )


def main() -> int:
    """Measure on each database in turn."""
    parser = argparse.ArgumentParser(prog="python -m bench.priority", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="everything in small, to see that it works")
    parser.add_argument(
        "--database", choices=get_args(Backend), action="append", help="default: each in turn"
    )
    parser.add_argument("--directory", type=Path, default=None, help="on the disk that is to be measured")
    arguments = parser.parse_args()
    console = Console()
    for backend in arguments.database or get_args(Backend):
        with tempfile.TemporaryDirectory(prefix="priority-", dir=arguments.directory) as name:
            directory = Path(name)
            facts = report.machine(directory)
            with running(backend, directory) as bench:
                found = measure(bench, QUICK if arguments.quick else Size())
        show(console, backend, found)
        figures: dict[str, object] = {
            "wedding": msgspec.structs.asdict(found.wedding),
            "ordinary": msgspec.structs.asdict(found.ordinary),
            "plain_rate": found.plain_rate,
            "prioritised_rate": found.prioritised_rate,
        }
        console.print(f"written to {write('priority', backend, figures, facts, quick=arguments.quick)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
