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
_KEYS_AT_ONCE = 200  # whose sketches are encoded together: more would only take more memory
_MOST_DENSE = 300_000  # places of which each has a count, whether it was met or not: 1.2 MB

Column = NDArray[np.int64]
Places = NDArray[np.int32]
"""Half as wide sorts twice as fast; the bounds on keys keep places far below 2^31."""


class Spans:
    """The durations of many entries as places in the sketches of a key, whichever key that is."""

    __slots__ = ("entries", "places")

    def __init__(self, stages: Column) -> None:
        """For each stage and entry the bucket of its duration, or -1."""
        row, self.entries = np.nonzero(stages >= 0)
        self.places: Places = (stages[row, self.entries] + row * BUCKETS).astype(np.int32)


class Table:
    """Counts batches. A place is a key, a stage and a bucket in one number.

    With few keys each place has its count. With many, most places stay empty: then those that were met are kept, and
    equal ones are counted by sorting.
    """

    __slots__ = (
        "_codes",
        "_counts",
        "_dense",
        "_kinds",
        "_loose",
        "_loose_places",
        "_most",
        "_places",
        "_span",
        "_stages",
        "_weights",
        "changed",
    )

    def __init__(self, *, stages: int, weights: Column, most: int) -> None:
        """`weights`: for each kind of entry, what one of them adds to each of the counts of its key."""
        self._stages = stages
        self._span = stages * BUCKETS
        self._weights = weights
        self._most = most
        self._codes: dict[str, int] = {}
        self._kinds = np.zeros((0, len(weights)), np.int64)
        self._dense: Places | None = np.zeros(0, np.int32)
        self._places: Places = np.zeros(0, np.int32)
        self._counts: Places = np.zeros(0, np.int32)
        self._loose: list[Places] = []
        self._loose_places = 0
        self.changed = False

    def __len__(self) -> int:
        return len(self._codes)

    def add(
        self, keys: Sequence[str], kinds: Column, spans: Spans | None = None, times: Column | None = None
    ) -> None:
        """Count a batch: for each entry its key, its kind, its durations, and how many such ones it stands for."""
        known = list(
            map(self._codes.get, keys)
        )  # nearly always all of them: a quarter of what asking each costs
        coded = np.array([self._code(key) for key in keys] if None in known else known, np.int32)
        width = len(self._weights)
        if len(self._kinds) < len(self._codes):
            grown = np.zeros((max(2 * len(self._kinds), len(self._codes)), width), np.int64)
            grown[: len(self._kinds)] = self._kinds
            self._kinds = grown
        found = np.bincount(coded * width + kinds, times, minlength=self._kinds.size)
        self._kinds += found.astype(np.int64).reshape(self._kinds.shape)
        if spans is not None and len(spans.entries):
            self._keep(coded[spans.entries] * self._span + spans.places)
        self.changed = True

    def rows(self) -> Iterator[tuple[str, list[int], str]]:
        """Each key with its counts and the encoded sketch of each stage, joined by commas; no sketch is no text."""
        places, counts = self._met()
        sums = (self._kinds @ self._weights).tolist()
        keys = list(self._codes)
        for begin in range(0, len(keys), _KEYS_AT_ONCE):
            some = keys[begin : begin + _KEYS_AT_ONCE]
            low = begin * self._span
            part = slice(*np.searchsorted(places, (low, low + len(some) * self._span)))
            sketches = self._encoded(len(some), places[part].astype(np.int64) - low, counts[part])
            yield from zip(some, sums[begin:], sketches, strict=False)

    def _encoded(self, keys: int, places: Column, counts: Places) -> Iterator[str]:
        """The sketches of the first so many keys, whose places these are."""
        bounds = np.searchsorted(places, np.arange(keys * self._stages + 1) * BUCKETS)
        first = np.zeros(len(places), bool)
        first[bounds[:-1][bounds[:-1] < bounds[1:]]] = True
        index = places % BUCKETS
        distance = np.where(first, index, np.diff(index, prepend=0))
        text, ends = varints(distance, counts)
        starts = np.concatenate(([0], ends))[bounds].tolist()
        for code in range(keys):
            own = starts[code * self._stages : (code + 1) * self._stages + 1]
            parts = [base64.b64encode(text[begin:end]).decode() for begin, end in pairwise(own)]
            yield ",".join(parts) if own[0] < own[-1] else ""

    def _code(self, key: str) -> int:
        code = self._codes.get(key)
        if code is None:
            if len(self._codes) >= self._most:
                key = OTHER
            code = self._codes.setdefault(key, len(self._codes))
        return code

    def _keep(self, places: Places) -> None:
        if self._dense is not None:
            size = len(self._codes) * self._span
            if size <= _MOST_DENSE:
                if size > len(self._dense):
                    self._dense = np.concatenate((self._dense, np.zeros(size - len(self._dense), np.int32)))
                self._dense += np.bincount(places, minlength=size).astype(np.int32)
                return
            self._places, self._counts = self._met()
            self._dense = None
        self._loose.append(places)
        self._loose_places += len(places)
        if self._loose_places > _MOST_LOOSE:
            self._sort_in()

    def _met(self) -> tuple[Places, Places]:
        """The places that were met, in their order, and how often each was."""
        if self._dense is not None:
            places = np.flatnonzero(self._dense)
            return places.astype(np.int32), self._dense[places]
        self._sort_in()
        return self._places, self._counts

    def _sort_in(self) -> None:
        if not self._loose:
            return
        found, counts = np.unique(np.concatenate(self._loose), return_counts=True)
        self._loose, self._loose_places = [], 0
        where = np.searchsorted(self._places, found)
        known = np.zeros(len(found), bool)
        within = where < len(self._places)
        known[within] = self._places[where[within]] == found[within]
        self._counts[where[known]] += counts[known].astype(np.int32)
        self._places = np.insert(self._places, where[~known], found[~known])
        self._counts = np.insert(self._counts, where[~known], counts[~known])


def varints(distances: Column, counts: Column | Places) -> tuple[bytes, Column]:
    """All pairs as a sketch encodes them, one after the other, and where each pair ends."""
    numbers = np.empty(2 * len(distances), np.int64)
    numbers[0::2], numbers[1::2] = distances, counts
    lengths = np.ones(len(numbers), np.int64)
    for bits in range(7, int(numbers.max(initial=0)).bit_length(), 7):
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
