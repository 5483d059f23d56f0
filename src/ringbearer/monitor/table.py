"""A table of one minute and dimension: counts and sketches of each key, kept in columns and put together at the end."""

import base64
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ringbearer.monitor.sketch import BUCKETS

OTHER = "~other"
"""Stands for all keys beyond the bound. No supplier, endpoint or event type has this name."""
_MOST_LOOSE = 2_000_000  # places that wait to be sorted in, most of a busy minute: 8 MB

Column = NDArray[np.int64]


class Table:
    """Counts batches. A place is a key, a stage and a bucket in one number; equal ones are counted by sorting."""

    __slots__ = (
        "_codes",
        "_counts",
        "_loose",
        "_loose_places",
        "_most",
        "_places",
        "_stages",
        "_sums",
        "changed",
    )

    def __init__(self, *, stages: int, columns: int, most: int) -> None:
        self._stages = stages
        self._most = most
        self._codes: dict[str, int] = {}
        self._sums = np.zeros((0, columns), np.int64)
        self._places = np.zeros(0, np.int64)
        self._counts = np.zeros(0, np.int64)
        self._loose: list[NDArray[np.int32]] = []
        self._loose_places = 0
        self.changed = False

    def __len__(self) -> int:
        return len(self._codes)

    def add(self, keys: Sequence[str], flags: Column, stages: Column) -> None:
        """Count a batch: for each entry its key, what it adds to each count, and its bucket in each stage or -1."""
        known = list(
            map(self._codes.get, keys)
        )  # nearly always all of them: a quarter of what asking each costs
        coded = np.array([self._code(key) for key in keys] if None in known else known, np.int64)
        if len(self._sums) < len(self._codes):
            grown = np.zeros((max(2 * len(self._sums), len(self._codes)), self._sums.shape[1]), np.int64)
            grown[: len(self._sums)] = self._sums
            self._sums = grown
        for column, flag in enumerate(flags):
            self._sums[:, column] += np.bincount(coded, flag, len(self._sums)).astype(np.int64)
        offsets = np.arange(self._stages)[:, None] * BUCKETS
        # Half as wide sorts twice as fast; the bounds on keys keep places far below 2^31.
        places = (coded * (self._stages * BUCKETS) + offsets + stages)[stages >= 0].astype(np.int32)
        self._loose.append(places)
        self._loose_places += len(places)
        if self._loose_places > _MOST_LOOSE:
            self._sort_in()
        self.changed = True

    def rows(self) -> Iterator[tuple[str, list[int], str]]:
        """Each key with its counts and the encoded sketch of each stage, joined by commas; no sketch is no text."""
        self._sort_in()
        sketches = len(self._codes) * self._stages
        bounds = np.searchsorted(self._places, np.arange(sketches + 1) * BUCKETS)
        first = np.zeros(len(self._places), bool)
        first[bounds[:-1][bounds[:-1] < bounds[1:]]] = True
        index = self._places % BUCKETS
        distance = np.where(first, index, np.diff(index, prepend=0))
        text, ends = varints(distance, self._counts)
        starts = np.concatenate(([0], ends))[bounds].tolist()
        sums = self._sums.tolist()
        for key, code in self._codes.items():
            own = starts[code * self._stages : (code + 1) * self._stages + 1]
            parts = [base64.b64encode(text[begin:end]).decode() for begin, end in pairwise(own)]
            yield key, sums[code], ",".join(parts) if own[0] < own[-1] else ""

    def _code(self, key: str) -> int:
        code = self._codes.get(key)
        if code is None:
            if len(self._codes) >= self._most:
                key = OTHER
            code = self._codes.setdefault(key, len(self._codes))
        return code

    def _sort_in(self) -> None:
        if not self._loose:
            return
        found, counts = np.unique(np.concatenate(self._loose), return_counts=True)
        fresh = found.astype(np.int64)
        self._loose, self._loose_places = [], 0
        if not len(self._places):
            self._places, self._counts = fresh, counts.astype(np.int64)
            return
        merged, where = np.unique(np.concatenate((self._places, fresh)), return_inverse=True)
        weights = np.concatenate((self._counts, counts))
        self._places = merged
        self._counts = np.bincount(where.ravel(), weights, len(merged)).astype(np.int64)


def varints(distances: Column, counts: Column) -> tuple[bytes, Column]:
    """All pairs as a sketch encodes them, one after the other, and where each pair ends."""
    numbers = np.empty(2 * len(distances), np.int64)
    numbers[0::2], numbers[1::2] = distances, counts
    lengths = np.ones(len(numbers), np.int64)
    for bits in range(7, 63, 7):
        lengths += numbers >= 1 << bits
    ends = np.cumsum(lengths)
    out = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    starts = ends - lengths
    left, at, rest = numbers, starts, lengths
    while len(left):
        more = rest > 1
        out[at] = (left & 0x7F) | (more * 0x80)
        left, at, rest = left[more] >> 7, at[more] + 1, rest[more] - 1
    return out.tobytes(), ends[1::2]
