"""`python -m bench.fairness`: what the noise of one supplier costs all the others.

quiet    fifty suppliers get events at a steady rate, and nobody else does
crowd    the same, and one supplier queues a hundred thousand events (F16: far more than a burst of ten times)
hanging  the same, and as much traffic again goes to one endpoint that never answers (F12)

The table shows the queue waits of the fifty in each; the target is a P99 of at most twice the quiet one.
"""

import sys
import time

import msgspec
from rich.console import Console
from rich.table import Table

from bench.order import Bench, Waits, hanging, on_each
from chaos.service import wait_for
from ringbearer import clock


class Size(msgspec.Struct, frozen=True):
    """How much of everything. `rate` in events per second."""

    suppliers: int = 50
    rate: float = 100.0
    seconds: float = 40.0
    crowd: int = 100_000


QUIET, CROWD, ITSELF, HANGS = "quiet", "with a crowd", "the crowd itself", "with one that hangs"
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
    found[QUIET] = bench.waits("steady", since=since)

    since = clock.now()
    traffic = bench.paced(steady, size.rate, size.seconds)
    time.sleep(size.seconds / 10)
    bench.flood(crowd, size.crowd)
    traffic.join()
    bench.drain()
    found[CROWD] = bench.waits("steady", since=since)
    found[ITSELF] = bench.waits("crowd", since=since)

    with hanging() as address:
        stuck = bench.suppliers("stuck", 1, url=address, timeout=5.0)
        since = clock.now()
        traffic = bench.paced(steady, size.rate, size.seconds)
        noise = bench.paced(stuck, size.rate, size.seconds)
        traffic.join()
        noise.join()
        bench.drain(kept=round(2 * size.rate * size.seconds))
        found[HANGS] = bench.waits("steady", since=since)
        wait_for(lambda: bench.waits("stuck", since=since).count > 0, 60, "the one that hangs to be tried")
    sent = size.rate * size.seconds
    for case in (QUIET, CROWD, HANGS):
        assert found[case].count > 0.8 * sent, (
            f"{case}: {found[case].count} of {sent:.0f} steady events were sent"
        )
    assert found[ITSELF].count == size.crowd, (
        f"the crowd was to be {size.crowd}, and was {found[ITSELF].count}"
    )
    return found


class Fairness(msgspec.Struct, frozen=True):
    """What was found, by case."""

    found: dict[str, Waits]

    def figures(self) -> dict[str, object]:
        """What is kept."""
        return {case: msgspec.structs.asdict(waits) for case, waits in self.found.items()}

    def show(self, console: Console, backend: str) -> None:
        """The table, with how many times the quiet P99 each is."""
        table = Table(title=f"queue waits on {backend}, in milliseconds")
        for column in ("case", "deliveries", "P50", "P95", "P99", "P99 ÷ quiet"):
            table.add_column(column, justify="left" if column == "case" else "right")
        quiet = max(self.found[QUIET].p99, 0.01)
        for name, waits in self.found.items():
            ratio = "" if name in (QUIET, ITSELF) else f"{waits.p99 / quiet:.2f}"
            table.add_row(
                name, f"{waits.count:,}", f"{waits.p50:.1f}", f"{waits.p95:.1f}", f"{waits.p99:.1f}", ratio
            )
        console.print(table)


def main() -> int:
    """Measure on each database in turn."""
    return on_each(
        "fairness", __doc__, lambda bench, quick: Fairness(measure(bench, QUICK if quick else Size()))
    )


if __name__ == "__main__":
    sys.exit(main())
