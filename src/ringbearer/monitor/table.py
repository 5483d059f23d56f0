"""A table of one minute and dimension: counts and sketches of each key, kept in columns and put together at the end."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ringbearer.monitor.sketch import BUCKETS, Sketch

OTHER = "~other"
"""Stands for all keys beyond the bound. No supplier, endpoint or event type has this name."""
_MOST_LOOSE = 250_000  # places that wait to be sorted in: 2 MB

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
        self._loose: list[Column] = []
        self._loose_places = 0
        self.changed = False

    def __len__(self) -> int:
        return len(self._codes)

    def add(self, keys: Sequence[str], flags: Column, stages: Column) -> None:
        """Count a batch: for each entry its key, what it adds to each count, and its bucket in each stage or -1."""
        coded = np.array([self._code(key) for key in keys], np.int64)
        if len(self._sums) < len(self._codes):
            grown = np.zeros((max(2 * len(self._sums), len(self._codes)), self._sums.shape[1]), np.int64)
            grown[: len(self._sums)] = self._sums
            self._sums = grown
        for column, flag in enumerate(flags):
            self._sums[:, column] += np.bincount(coded, flag, len(self._sums)).astype(np.int64)
        offsets = np.arange(self._stages)[:, None] * BUCKETS
        places = (coded * (self._stages * BUCKETS) + offsets + stages)[stages >= 0]
        self._loose.append(places)
        self._loose_places += len(places)
        if self._loose_places > _MOST_LOOSE:
            self._sort_in()
        self.changed = True

    def rows(self) -> Iterator[tuple[str, list[int], list[Sketch]]]:
        """Each key with its counts and the sketch of each stage."""
        self._sort_in()
        width = self._stages * BUCKETS
        bounds = np.searchsorted(self._places, np.arange(len(self._codes) + 1) * width).tolist()
        sums = self._sums.tolist()
        for key, code in self._codes.items():
            part = slice(bounds[code], bounds[code + 1])
            sketches = [Sketch() for _ in range(self._stages)]
            places = (self._places[part] - code * width).tolist()
            for place, count in zip(places, self._counts[part].tolist(), strict=True):
                stage, index = divmod(place, BUCKETS)
                sketches[stage].counts[index] = count
            yield key, sums[code], sketches

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
        fresh, counts = np.unique(np.concatenate(self._loose), return_counts=True)
        self._loose, self._loose_places = [], 0
        if not len(self._places):
            self._places, self._counts = fresh, counts.astype(np.int64)
            return
        merged, where = np.unique(np.concatenate((self._places, fresh)), return_inverse=True)
        weights = np.concatenate((self._counts, counts))
        self._places = merged
        self._counts = np.bincount(where.ravel(), weights, len(merged)).astype(np.int64)
