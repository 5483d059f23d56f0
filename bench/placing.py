"""What prioritising costs an accepted event: its lane by rules, and its rank in the fair order.

    python -m bench.placing [--quick]

Several kinds of event are placed in turns, by the very functions that publishing calls, and the best of many rounds
counts, in processor time of this process: so what else the machine does matters little. `nothing` is what an event
would cost that all had one lane and one rank for.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import report
from ringbearer import clock
from ringbearer.domain.suppliers import Tier
from ringbearer.priority import FairOrder
from ringbearer.rules import LaneRule, PriorityConfiguration, Rules

TARGET_US = 3.0
"""The microseconds that prioritising may add to accepting an event."""
_SUPPLIERS = 200
_LANE = 2
_TYPE, _ZONE = "booking.confirmed", "Europe/Berlin"
_TIER: Tier = "standard"
_EIGHT = tuple(
    LaneRule(name=f"rule {number}", lane="high", event_types=(f"payment.{number}", f"refund.{number}.*"))
    for number in range(8)
)

Place = Callable[[str, str, int, date | None], object]


def _nothing(supplier_id: str, endpoint_id: str, now: int, occasion: date | None) -> object:
    return _LANE, 0


def _rank(order: FairOrder) -> Place:
    def place(supplier_id: str, endpoint_id: str, now: int, occasion: date | None) -> object:
        return order.tags(_LANE, supplier_id, _TIER, [endpoint_id])

    return place


def _lane(rules: Rules) -> Place:
    def place(supplier_id: str, endpoint_id: str, now: int, occasion: date | None) -> object:
        return rules.lane(_TYPE, _TIER, _ZONE, now, occasion=occasion)

    return place


def _both(rules: Rules, order: FairOrder) -> Place:
    lane, rank = _lane(rules), _rank(order)

    def place(supplier_id: str, endpoint_id: str, now: int, occasion: date | None) -> object:
        return lane(supplier_id, endpoint_id, now, occasion), rank(supplier_id, endpoint_id, now, occasion)

    return place


def measure(events: int, rounds: int) -> dict[str, float]:
    """Microseconds that each way takes, the best of so many rounds of so many events."""
    order, usual = FairOrder(), Rules()
    rules = PriorityConfiguration()
    many = Rules(PriorityConfiguration(rules=(*_EIGHT, *rules.rules)))
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    ways: dict[str, tuple[Place, date | None]] = {
        "nothing": (_nothing, None),
        "the fair rank alone": (_rank(order), None),
        "the usual rules alone": (_lane(usual), None),
        "the usual rules and the rank": (_both(usual, order), None),
        "… with an occasion tomorrow": (_both(usual, order), tomorrow),
        "ten rules and the rank": (_both(many, order), None),
    }
    best = dict.fromkeys(ways, float("inf"))
    whom = [(f"s{number % _SUPPLIERS}", f"ep_{number % _SUPPLIERS}") for number in range(events)]
    for _ in range(rounds):
        for name, (place, occasion) in ways.items():
            now, began = clock.now(), time.process_time()
            for supplier_id, endpoint_id in whom:
                place(supplier_id, endpoint_id, now, occasion)
            best[name] = min(best[name], (time.process_time() - began) / events * 1e6)
    return best


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="only show that it works")
    quick = parser.parse_args().quick
    console = Console()
    costs = measure(*((2_000, 3) if quick else (20_000, 40)))
    table = Table(title="what prioritising costs an event" + (" (quick)" if quick else ""))
    for column in ("placed by", "µs", f"added, target ≤ {TARGET_US:g}"):
        table.add_column(column, justify="left" if column == "placed by" else "right")
    for name, cost in costs.items():
        table.add_row(name, f"{cost:.2f}", f"{cost - costs['nothing']:.2f}")
    console.print(table)
    if not quick:
        with tempfile.TemporaryDirectory(prefix="ringbearer-bench-") as name:
            facts = report.machine(Path(name))
        console.print(f"written to {report.write(costs, 'placing', facts, quick=False)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
