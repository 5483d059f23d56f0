"""A sketch of durations: percentiles within 1 %, of any number of values, that add up over processes and time.

The mathematics are DDSketch's (Masson, Rim, Lee: DDSketch, VLDB 2019). Bucket i holds the values in
(γ^(i-1), γ^i] microseconds with γ = (1 + α) / (1 - α); whatever is in it is at most α away from the value that
stands for it. Values are held between 1 µs and about 11 days, so that there are at most 1,383 buckets.
"""

import base64
import math
from collections.abc import Iterable, Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

ACCURACY = 0.01
"""α: how far a percentile may be from the exact one, as a part of it."""
BUCKETS = 1_383
SMALLEST = 1e-6
"""Seconds: shorter values count as this."""
_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_LOG_GAMMA = math.log(_GAMMA)
LONGEST = SMALLEST * _GAMMA ** (BUCKETS - 1)
"""Seconds: longer values count as this."""
_MIDDLE = 2 / (_GAMMA + 1)  # from a bucket's upper bound to the value that is equally far from both bounds


def bucket(seconds: float) -> int:
    """The bucket of one value."""
    if seconds <= SMALLEST:
        return 0
    return math.ceil(math.log(min(seconds, LONGEST) / SMALLEST) / _LOG_GAMMA - 1e-9)


def buckets(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """The buckets of many values at once."""
    exponents = np.log(np.clip(seconds, SMALLEST, LONGEST) / SMALLEST) / _LOG_GAMMA
    return np.ceil(exponents - 1e-9).astype(np.int64)


def value(index: int) -> float:
    """The seconds that stand for all values of a bucket."""
    return SMALLEST if index == 0 else float(SMALLEST * _GAMMA**index * _MIDDLE)


class Sketch:
    """How many values fell into each bucket."""

    __slots__ = ("counts",)

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: dict[int, int] = dict(counts or {})

    def __repr__(self) -> str:
        return f"<Sketch of {self.count} values>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and self.counts == other.counts

    __hash__ = None  # type: ignore[assignment]  # it changes

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.counts.values())

    @property
    def mean(self) -> float | None:
        """The mean in seconds, within 1 %; None without values."""
        count = self.count
        return sum(value(i) * n for i, n in self.counts.items()) / count if count else None

    def add(self, seconds: float, times: int = 1) -> None:
        """Count a value."""
        index = bucket(seconds)
        self.counts[index] = self.counts.get(index, 0) + times

    def merge(self, other: Self) -> None:
        """Count all that the other one counted."""
        counts = self.counts
        for index, n in other.counts.items():
            counts[index] = counts.get(index, 0) + n

    def percentile(self, share: float) -> float | None:
        """The value in seconds below which that share (0 to 1) of all lies; None without values.

        It is that of rank ⌊share · (n - 1)⌋ from 0, as numpy's `method="lower"`, within 1 %.
        """
        found = self.percentiles([share])
        return found[0] if found else None

    def percentiles(self, shares: Iterable[float]) -> list[float]:
        """Several percentiles, by ascending share, in one walk; empty without values."""
        count = self.count
        if not count:
            return []
        walk = iter(sorted(self.counts.items()))
        index, seen = next(walk)
        found = []
        for share in shares:
            rank = math.floor(share * (count - 1))
            while seen <= rank:
                index, n = next(walk)
                seen += n
            found.append(value(index))
        return found

    def within(self, seconds: float) -> int:
        """How many values are at most that long; exact but for those within 1 % of it."""
        last = bucket(seconds)
        return sum(n for index, n in self.counts.items() if index <= last)

    def encode(self) -> str:
        """As text: pairs of varints (distance to the bucket before, count) in base64."""
        out = bytearray()
        before = 0
        for index, n in sorted(self.counts.items()):
            _varint(out, index - before)
            _varint(out, n)
            before = index
        return base64.b64encode(out).decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """The opposite of `encode`; raises ValueError for what it never wrote."""
        data = base64.b64decode(text, validate=True)
        counts: dict[int, int] = {}
        numbers = _numbers(data)
        if len(numbers) % 2:
            raise ValueError("a sketch ends in the middle of a pair")
        index = 0
        for distance, n in zip(numbers[::2], numbers[1::2], strict=True):
            index += distance
            counts[index] = n
        if index >= BUCKETS:
            raise ValueError(f"a sketch has no bucket {index}")
        sketch = cls()
        sketch.counts = counts
        return sketch


def _varint(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _numbers(data: bytes) -> list[int]:
    numbers = []
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
        else:
            numbers.append(number)
            number = shift = 0
    if shift:
        raise ValueError("a sketch ends in the middle of a number")
    return numbers
