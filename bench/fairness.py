"""`python -m bench.fairness`: what the noise of one supplier costs all the others.

quiet    fifty suppliers get events at a steady rate, and nobody else does
crowd    the same, and one supplier queues a hundred thousand events (F16: far more than a burst of ten times)
hanging  the same, and as much traffic again goes to one endpoint that never answers (F12)

The table shows the queue waits of the fifty in each; the target is a P99 of at most twice the quiet one.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import get_args

import msgspec
from rich.console import Console
from rich.table import Table

from bench import report
from bench.order import Backend, Bench, Waits, hanging, running, write
from ringbearer import clock


class Size(msgspec.Struct, frozen=True):
    """How much of everything. `rate` in events per second."""

    suppliers: int = 50
    rate: float = 100.0
    seconds: float = 60.0
    crowd: int = 100_000


QUICK = Size(suppliers=10, rate=50.0, seconds=4.0, crowd=2_000)


def measure(bench: Bench, size: Size) -> dict[str, Waits]:
    """The waits of the steady suppliers in each case, and those of the crowd."""
    steady = bench.suppliers("steady", size.suppliers)
    crowd = bench.suppliers("crowd", 1)
    bench.paced(steady, size.rate, min(5.0, size.seconds)).join()  # connections, caches
    bench.drain()
    found: dict[str, Waits] = {}

    since = clock.now()
    bench.paced(steady, size.rate, size.seconds).join()
    bench.drain()
    found["quiet"] = bench.waits("steady", since=since)

    since = clock.now()
    traffic = bench.paced(steady, size.rate, size.seconds)
    time.sleep(size.seconds / 10)
    bench.flood(crowd, size.crowd)
    traffic.join()
    bench.drain()
    found["with a crowd"] = bench.waits("steady", since=since)
    found["the crowd itself"] = bench.waits("crowd", since=since)

    with hanging() as address:
        stuck = bench.suppliers("stuck", 1, url=address, timeout=5.0)
        since = clock.now()
        traffic = bench.paced(steady, size.rate, size.seconds)
        noise = bench.paced(stuck, size.rate, size.seconds)
        traffic.join()
        noise.join()
        bench.drain(kept=round(2 * size.rate * size.seconds))
        found["with one that hangs"] = bench.waits("steady", since=since)
    return found


def show(console: Console, backend: str, found: dict[str, Waits]) -> None:
    """The table, with how many times the quiet P99 each is."""
    table = Table(title=f"queue waits on {backend}, in milliseconds")
    for column in ("case", "deliveries", "P50", "P95", "P99", "P99 ÷ quiet"):
        table.add_column(column, justify="left" if column == "case" else "right")
    quiet = max(found["quiet"].p99, 0.01)
    for name, waits in found.items():
        ratio = "" if name in ("quiet", "the crowd itself") else f"{waits.p99 / quiet:.2f}"
        table.add_row(
            name, f"{waits.count:,}", f"{waits.p50:.1f}", f"{waits.p95:.1f}", f"{waits.p99:.1f}", ratio
        )
    console.print(table)


def main() -> int:
    """Measure on each database in turn."""
    parser = argparse.ArgumentParser(prog="python -m bench.fairness", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="everything in small, to see that it works")
    parser.add_argument(
        "--database", choices=get_args(Backend), action="append", help="default: each in turn"
    )
    parser.add_argument("--directory", type=Path, default=None, help="on the disk that is to be measured")
    arguments = parser.parse_args()
    console = Console()
    for backend in arguments.database or get_args(Backend):
        with tempfile.TemporaryDirectory(prefix="fairness-", dir=arguments.directory) as name:
            directory = Path(name)
            facts = report.machine(directory)
            with running(backend, directory) as bench:
                found = measure(bench, QUICK if arguments.quick else Size())
        show(console, backend, found)
        figures: dict[str, object] = {case: msgspec.structs.asdict(w) for case, w in found.items()}
        console.print(f"written to {write('fairness', backend, figures, facts, quick=arguments.quick)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
