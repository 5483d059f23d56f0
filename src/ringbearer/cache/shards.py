"""The miss-ratio curve of live traffic: which share of references a cache of each size would miss.

SHARDS with a fixed number of samples (C. Waldspurger, N. Park, A. Garthwaite, I. Ahmad: Efficient MRC Construction with
SHARDS, USENIX FAST 2015): of all keys, those whose hash falls below a threshold are followed. A key's reuse distance,
how many other keys were asked for since it was asked for last, is measured among the followed ones and scaled up by
the sampling rate. An LRU cache of n entries hits exactly the references with a distance below n. When more keys are
followed than there is room for, the threshold is lowered, and what was counted so far is scaled down with it.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable

import msgspec

MAX_FOLLOWED = 1024
"""Keys followed at a time. The error of the curve falls with its root: about 1 % at this size (section 5 there)."""

_STEPS_PER_DOUBLING = 8  # distances are counted in steps of 9 %


class Curve(msgspec.Struct, frozen=True):
    """Miss ratios by size: `miss_ratios[i]` is that of a cache with `sizes[i]` entries. Sizes ascend."""

    sizes: tuple[int, ...]
    miss_ratios: tuple[float, ...]
    references: float
    """On how many sampled references it rests."""
    rate: float
    """The share of keys that were followed."""

    def miss_ratio(self, size: int) -> float:
        """The share of references that a cache with that many entries misses; 1.0 when nothing is known."""
        index = bisect_left(self.sizes, size + 1) - 1
        return self.miss_ratios[index] if index >= 0 else 1.0


class ReuseDistances:
    """Counts sampled reuse distances. `mask` tells which references are wanted: those whose hash has none of its bits.

    Not thread-safe: one thread feeds it.
    """

    def __init__(self, *, max_followed: int = MAX_FOLLOWED) -> None:
        self._max = max_followed
        self._last: dict[str, int] = {}
        self._times: list[int] = []  # of the last references to each followed key, ascending
        self._clock = 0
        self._counts: dict[int, float] = {}  # by step of the scaled distance
        self._cold = 0.0
        self._references = 0.0
        self._expected = 0.0
        self.mask = 0

    def __repr__(self) -> str:
        return f"<ReuseDistances of {len(self._last)} keys at a rate of {self.rate:g}>"

    @property
    def rate(self) -> float:
        """The share of keys that are followed."""
        return 1 / (self.mask + 1)

    @property
    def keys(self) -> float:
        """About how many different keys were asked for."""
        return len(self._last) / self.rate

    def feed(self, keys: Iterable[str], *, total: int | None = None) -> None:
        """Take references in their order. `total` is how many there were with those that are not followed, if known."""
        fed = 0
        for key in keys:
            if not hash(key) & self.mask:
                fed += 1
                self._refer(key)
        if total is not None:
            self._expected += total * self.rate
        else:
            self._expected += fed

    def curve(self) -> Curve:
        """The miss ratios as they follow from what was counted."""
        # SHARDS-adj (section 3.3 there): a hot key that is followed, or is not, bends the number of sampled
        # references away from what is to be expected. What is missing counts as hits at the smallest distance.
        total = max(self._expected, 1e-9)
        sizes, ratios, missed = [], [], self._references
        for step in sorted(self._counts):
            missed -= self._counts[step]
            sizes.append(_upper(step))
            ratios.append(min(1.0, max(0.0, missed) / total))
        return Curve(tuple(sizes), tuple(ratios), self._references, self.rate)

    def fade(self, factor: float = 0.5) -> None:
        """Let what was counted so far weigh less than what comes."""
        self._scale(factor)

    def _refer(self, key: str) -> None:
        self._clock += 1
        self._references += 1
        last = self._last.get(key)
        if last is None:
            self._cold += 1
        else:
            place = bisect_left(self._times, last)
            distance = (len(self._times) - place - 1) * (self.mask + 1)
            step = _step(distance)
            self._counts[step] = self._counts.get(step, 0.0) + 1
            del self._times[place]
        self._times.append(self._clock)
        self._last[key] = self._clock
        if len(self._last) > self._max:
            self._follow_fewer()

    def _follow_fewer(self) -> None:
        """Halve the rate: forget half of the keys, and let what was counted weigh half."""
        self.mask = self.mask * 2 + 1
        self._last = {key: last for key, last in self._last.items() if not hash(key) & self.mask}
        self._times = sorted(self._last.values())
        self._scale(0.5)

    def _scale(self, factor: float) -> None:
        self._counts = {step: count * factor for step, count in self._counts.items()}
        self._cold *= factor
        self._references *= factor
        self._expected *= factor


def _step(distance: int) -> int:
    return math.ceil(_STEPS_PER_DOUBLING * math.log2(distance + 1))


def _upper(step: int) -> int:
    """The smallest size that hits every distance of the step."""
    return math.floor(2 ** (step / _STEPS_PER_DOUBLING) + 1e-9)
