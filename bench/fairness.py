"""`python -m bench.fairness`: what the noise of one supplier costs all the others.

quiet    fifty suppliers get events at a steady rate, and nobody else does
burst    the same, and one supplier gets ten times as much (F16)
crowd    the same, and one supplier queues a hundred thousand events, as fast as they are taken; the waits while these
         arrive stand apart from those while they are only worked off
spread   the same, and as many events are queued for a thousand suppliers: what the load itself costs, with nobody
         who dominates. Load, receiver, service and store share the machine, so that being busy costs something
hanging  the steady traffic, and as much again goes to one endpoint that never answers (F12)

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
    many: int = 1_000


QUIET, BURST, HANGS = "quiet", "a burst of ten times", "with one that hangs"
_TIMES = 10
ARRIVING, QUEUED, BOTH, ITSELF = "while it arrives", "while it is worked off", "both together", "its own"
CROWD, SPREAD = "a crowd", "the same load of many"
QUICK = Size(suppliers=10, rate=50.0, seconds=4.0, crowd=2_000, many=100)


def _case(noise: str, phase: str) -> str:
    return f"{noise}: {phase}"


def measure(bench: Bench, size: Size) -> dict[str, Waits]:
    """The waits of the steady suppliers in each case, and those of the crowd."""
    steady = bench.suppliers("steady", size.suppliers)
    crowd, many = bench.suppliers("crowd", 1), bench.suppliers("many", size.many)
    bench.paced(steady, size.rate, min(5.0, size.seconds)).join()  # connections, caches
    bench.drain()
    found: dict[str, Waits] = {}

    since = clock.now()
    bench.paced(steady, size.rate, size.seconds).join()
    bench.drain()
    found[QUIET] = bench.waits("steady", since=since)

    since = clock.now()
    traffic = bench.paced(steady, size.rate, size.seconds)
    bench.paced(crowd, _TIMES * size.rate, size.seconds).join()
    traffic.join()
    bench.drain()
    found[BURST] = bench.waits("steady", since=since)

    for name, others in ((CROWD, crowd), (SPREAD, many)):
        found |= _beside(bench, size, steady, name, others)

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
    for case in (QUIET, BURST, HANGS):
        assert found[case].count > 0.8 * sent, (
            f"{case}: {found[case].count} of {sent:.0f} steady events were sent"
        )
    return found


def _beside(
    bench: Bench, size: Size, steady: list[str], noise: str, suppliers: list[str]
) -> dict[str, Waits]:
    """The waits of the steady suppliers beside a flood for others, while it arrives and after that, and its own."""
    since = clock.now()
    with bench.steady(steady, size.rate):
        time.sleep(1.0)
        began = clock.now()
        bench.flood(suppliers, size.crowd)
        arrived = clock.now()
        bench.drain(kept=round(size.rate))
        ended = clock.now()
    bench.drain()
    name = suppliers[0].rpartition("-")[0]
    own = bench.waits(name, since=since)
    assert own.count == size.crowd, f"{noise} was to be {size.crowd}, and was {own.count}"
    return {
        _case(noise, ARRIVING): bench.waits("steady", since=began, until=arrived),
        _case(noise, QUEUED): bench.waits("steady", since=arrived, until=ended),
        _case(noise, BOTH): bench.waits("steady", since=began, until=ended),
        _case(noise, ITSELF): own,
    }


class Fairness(msgspec.Struct, frozen=True):
    """What was found, by case."""

    found: dict[str, Waits]

    def figures(self) -> dict[str, object]:
        """What is kept."""
        return {case: msgspec.structs.asdict(waits) for case, waits in self.found.items()}

    def show(self, console: Console, backend: str) -> None:
        """The table, with how many times the quiet P99 each is, and how many times that beside the same load of many."""
        table = Table(title=f"queue waits on {backend}, in milliseconds; P99 divided by others")
        columns = ("case", "deliveries", "P50", "P95", "P99", "÷ quiet", "÷ spread")
        for column in columns:
            table.add_column(column, justify="left" if column == "case" else "right")
        for name, waits in self.found.items():
            table.add_row(
                name,
                f"{waits.count:,}",
                f"{waits.p50:.1f}",
                f"{waits.p95:.1f}",
                f"{waits.p99:.1f}",
                *self._ratios(name),
            )
        console.print(table)

    def _ratios(self, name: str) -> tuple[str, str]:
        noise, _, phase = name.partition(": ")
        if name == QUIET or phase == ITSELF:
            return "", ""
        p99 = self.found[name].p99
        spread = self.found[_case(SPREAD, phase)].p99 if noise == CROWD else 0.0
        quiet = f"{p99 / max(self.found[QUIET].p99, 0.01):.2f}"
        return quiet, f"{p99 / spread:.2f}" if spread else ""


def main() -> int:
    """Measure on each database in turn."""
    return on_each(
        "fairness", __doc__, lambda bench, quick: Fairness(measure(bench, QUICK if quick else Size()))
    )


if __name__ == "__main__":
    sys.exit(main())
