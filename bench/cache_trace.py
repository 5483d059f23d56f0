"""The month's traffic as the cache sees it: which supplier is asked for next, and when a configuration changes."""

import bisect
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

SUPPLIERS = 2_847
DELIVERIES = 1_247_832
"""Of 30 days, as the owners report them."""
_SKEW = 0.9  # of Zipf's law: the busiest tenth of suppliers has half of the traffic
_SATURDAY = 3.0  # times the traffic of another day, most of it of those who have a wedding
_DAYS = 30
_WEDDINGS = 0.25  # of the suppliers, each Saturday; they are asked for eight times as often
CHANGES_PER_DAY = 0.01
"""Of suppliers' configurations. The owners do not report it, so it is an assumption: that a supplier or one of its one to
three endpoints is changed once in a hundred days, as for a new address, a rotated secret or the start of a season. The
bench goes through ten times less and ten times more as well."""


@dataclass(frozen=True)
class Size:
    """How large the trace is."""

    suppliers: int
    deliveries: int


FULL, QUICK = Size(SUPPLIERS, DELIVERIES), Size(400, 40_000)


class Step(NamedTuple):
    """A batch of deliveries of one day, then changes."""

    day: int
    suppliers: list[str]
    changed: list[str]


def name(number: int) -> str:
    """A supplier's id."""
    return f"supplier-{number:05d}"


def trace(
    size: Size, batch: int, *, changes_per_day: float = CHANGES_PER_DAY, seed: int = 2027
) -> Iterator[Step]:
    """The same for the same seed. Saturdays are days 5, 12, 19 and 26."""
    rng = random.Random(seed)
    ranks = list(range(size.suppliers))
    rng.shuffle(ranks)  # so that a supplier's id tells nothing of how busy it is
    weights = [1 / (rank + 1) ** _SKEW for rank in ranks]
    shares = [_SATURDAY if day % 7 == 5 else 1.0 for day in range(_DAYS)]
    for day, share in enumerate(shares):
        today = list(weights)
        if day % 7 == 5:
            for number in rng.sample(range(size.suppliers), int(size.suppliers * _WEDDINGS)):
                today[number] *= 8
        reach = list(itertools.accumulate(today))
        batches = max(1, round(size.deliveries * share / sum(shares) / batch))
        changes = size.suppliers * changes_per_day / batches
        for _ in range(batches):
            asked = [name(bisect.bisect(reach, rng.random() * reach[-1])) for _ in range(batch)]
            count = int(changes) + (rng.random() < changes % 1)
            yield Step(day, asked, [name(rng.randrange(size.suppliers)) for _ in range(count)])
