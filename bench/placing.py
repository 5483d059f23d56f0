"""What prioritising costs an accepted event: its lane by rules, and its rank in the fair order.

    python -m bench.placing [--quick]

Several kinds of event are placed in turns, by the very functions that publishing calls, and the best of many rounds
counts, in processor time of this process: so what else the machine does matters little. `nothing` is what an event
would cost that all had one lane and one rank for.

Then the same from end to end: events are checked, matched, placed and stored by the hundred in an SQLite file, with
each way of placing in turns, and without any.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median

import msgspec
from rich.console import Console
from rich.table import Table

from bench import report
from ringbearer import clock, ids
from ringbearer.delivery.signing import generate_secret
from ringbearer.domain.endpoints import Endpoint
from ringbearer.domain.events import NewEvent
from ringbearer.domain.suppliers import Supplier, Tier
from ringbearer.priority import FairOrder
from ringbearer.publish import admit
from ringbearer.rules import LaneRule, PriorityConfiguration, Rules
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.catalog import Subscriptions
from ringbearer.storage.vault import Vault, generate_key

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

_GROUP = 100
_DATA = b'{"text":"' + b"x" * 300 + b'"}'
_PLAIN, _USUAL, _TEN = (
    f"accepted {how}" for how in ("without rules and rank", "by the usual rules", "by ten rules")
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


class _Flat(FairOrder):
    """No order: everybody has the same rank."""

    def tags(self, lane: int, supplier_id: str, tier: Tier, endpoint_ids: Sequence[str]) -> list[int]:
        return [0] * len(endpoint_ids)


def accept(storage: Storage, groups: int) -> dict[str, float]:
    """Microseconds of processor that an event takes until it is committed, the median of so many groups each way."""
    known = _subscriptions(storage)
    events = [
        NewEvent(supplier_id=supplier_id, type=_TYPE, data=msgspec.Raw(_DATA))
        for supplier_id in itertools.islice(itertools.cycle(known), _GROUP)
    ]
    none = Rules(PriorityConfiguration(rules=()))
    ten = Rules(PriorityConfiguration(rules=(*_EIGHT, *PriorityConfiguration().rules)))
    ways = {_PLAIN: (none, _Flat()), _USUAL: (Rules(), FairOrder()), _TEN: (ten, FairOrder())}
    took: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(groups):
        for name in [*ways, *ways][turn % len(ways) :][: len(ways)]:  # none always comes after the same one
            rules, order = ways[name]
            storage.ledger.flows._order = order
            now, began = clock.now(), time.process_time()
            storage.ledger.accept([admit(event, known[event.supplier_id], now, rules) for event in events])
            took[name].append((time.process_time() - began) / _GROUP * 1e6)
    return {name: median(values) for name, values in took.items()}


def _subscriptions(storage: Storage) -> dict[str, Subscriptions]:
    now = datetime.now(UTC)
    names = [f"s{number}" for number in range(_SUPPLIERS)]
    for name in names:
        storage.catalog.put_supplier(Supplier(id=name, timezone=_ZONE, created_at=now, updated_at=now))
        storage.catalog.add_endpoint(
            Endpoint(
                id=ids.endpoint(),
                supplier_id=name,
                url="https://hooks.example/",
                created_at=now,
                updated_at=now,
            ),
            generate_secret("hmac"),
        )
    return storage.catalog.subscriptions(names)


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
    with (
        tempfile.TemporaryDirectory(prefix="ringbearer-bench-") as made,
        open_storage(f"sqlite:///{made}/store.db", Vault([generate_key()])) as storage,
    ):
        storage.migrate()
        accepted = accept(storage, 5 if quick else 200)
    for name, cost in accepted.items():
        share = cost / accepted[_PLAIN] - 1
        console.print(f"{name}: {cost:.1f} µs an event, {share:+.1%}")
    costs |= accepted
    if not quick:
        with tempfile.TemporaryDirectory(prefix="ringbearer-bench-") as name:
            facts = report.machine(Path(name))
        console.print(f"written to {report.write(costs, 'placing', facts, quick=False)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
