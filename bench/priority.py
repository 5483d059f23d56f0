"""`python -m bench.priority`: urgent events in a burst of ordinary ones, and what priorities cost.

wedding    events with today's date as their occasion arrive at a steady rate, while ordinary events arrive in a burst:
           their waits from accepted to sent. The target is a P95 under 100 ms.
throughput the same number of events for the same suppliers, published in the same way, once all in one lane, once in
           all of them, each twice in turn; the target is that the second is at least 0.9 of the first.
"""

import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import fmean

import msgspec
from rich.console import Console
from rich.table import Table

from bench.order import Bench, Waits, on_each
from ringbearer import clock
from ringbearer.domain.events import LANES, Priority


class Size(msgspec.Struct, frozen=True):
    """How much of everything. `rate` in events per second, of weddings."""

    suppliers: int = 200
    rate: float = 100.0
    seconds: float = 40.0
    burst: int = 60_000
    drained: int = 30_000


QUICK = Size(suppliers=10, rate=20.0, seconds=3.0, burst=1_000, drained=800)


class Found(msgspec.Struct, frozen=True):
    """Waits of urgent and of ordinary events, and deliveries per second without and with priorities."""

    wedding: Waits
    ordinary: Waits
    plain_rate: float
    prioritised_rate: float

    def figures(self) -> dict[str, object]:
        """What is kept."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]

    def show(self, console: Console, backend: str) -> None:
        """What came, beside what it should be."""
        table = Table(title=f"priorities on {backend}")
        for column in ("figure", "P50 ms", "P95 ms", "P99 ms", "target"):
            table.add_column(column, justify="left" if column == "figure" else "right")
        for name, waits, target in (
            ("urgent: the wedding is today", self.wedding, "P95 < 100 ms"),
            ("ordinary, in the burst", self.ordinary, ""),
        ):
            table.add_row(
                f"{name} ({waits.count:,})",
                f"{waits.p50:.1f}",
                f"{waits.p95:.1f}",
                f"{waits.p99:.1f}",
                target,
            )
        console.print(table)
        ratio = self.prioritised_rate / self.plain_rate
        console.print(
            f"{self.plain_rate:,.0f}/s in one lane, {self.prioritised_rate:,.0f}/s in all: {ratio:.2f} (target ≥ 0.9)"
        )


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

    assert wedding.count > 0.8 * size.rate * size.seconds, f"only {wedding.count} urgent events were sent"
    assert others.count == size.burst, f"the burst was to be {size.burst}, and was {others.count}"

    one_lane: list[Priority] = ["normal" for _ in LANES]
    plain: list[float] = []
    prioritised: list[float] = []
    for lanes, rates in ((one_lane, plain), (LANES, prioritised), (LANES, prioritised), (one_lane, plain)):
        rates.append(_rate(bench, ordinary, lanes, size.drained))
    return Found(wedding, others, fmean(plain), fmean(prioritised))


def _rate(bench: Bench, suppliers: Sequence[str], lanes: Sequence[Priority], count: int) -> float:
    """Deliveries per second from the first publish to the last end; each lane named is published on a thread."""
    share = count // len(lanes)
    floods = [
        threading.Thread(target=bench.flood, args=(suppliers, share), kwargs={"priority": lane})
        for lane in lanes
    ]
    began = time.monotonic()
    for flood in floods:
        flood.start()
    for flood in floods:
        flood.join()
    bench.drain()
    return share * len(lanes) / (time.monotonic() - began)


def main() -> int:
    """Measure on each database in turn."""
    return on_each("priority", __doc__, lambda bench, quick: measure(bench, QUICK if quick else Size()))


if __name__ == "__main__":
    sys.exit(main())
