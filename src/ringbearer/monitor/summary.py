"""Summing up: minutes become hours, hours become days, and what is too old goes."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from ringbearer import clock
from ringbearer.monitor.figures import (
    DAYS_KEPT,
    HOURS_KEPT,
    HOURS_KEPT_OF_MANY,
    MANY,
    MINUTES_KEPT,
    MINUTES_KEPT_OF_MANY,
    Figures,
)
from ringbearer.monitor.recorder import DIMENSIONS, MAX_MINUTES, encode_stages
from ringbearer.storage.rollups import Level, Rollup, Rollups

_MARGIN = (MAX_MINUTES + 5) * 60 * clock.SECOND  # nobody writes minutes that are older
_FEW = tuple(dimension for dimension in DIMENSIONS if dimension not in MANY)
_KEPT = (
    (Level.MINUTE, MANY, MINUTES_KEPT_OF_MANY),
    (Level.MINUTE, _FEW, MINUTES_KEPT),
    (Level.HOUR, MANY, HOURS_KEPT_OF_MANY),
    (Level.HOUR, _FEW, HOURS_KEPT),
    (Level.DAY, DIMENSIONS, DAYS_KEPT),
)


def sum_up(rollups: Rollups, *, now: int) -> bool:
    """Sum up the next hour and the next day that are over; returns whether more are left to do.

    Safe to call in several processes at once: all write the same. Blocks; raises StoreUnavailable.
    """
    marks = rollups.marks()
    ready = (now - _MARGIN) // Level.HOUR.span * Level.HOUR.span
    more = _next(rollups, Level.HOUR, marks.get(Level.HOUR), ready)
    hours = rollups.marks().get(Level.HOUR, 0)
    return _next(rollups, Level.DAY, marks.get(Level.DAY), hours // Level.DAY.span * Level.DAY.span) or more


def prune(rollups: Rollups, *, now: int) -> int:
    """Remove some of what is too old; returns how many rows went. Blocks; raises StoreUnavailable."""
    return sum(rollups.prune(level, dimensions, before=now - kept) for level, dimensions, kept in _KEPT)


def _next(rollups: Rollups, level: Level, mark: int | None, ready: int) -> bool:
    below = Level(level - 1)
    if mark is None:
        oldest = rollups.oldest(below, DIMENSIONS)
        if oldest is None:
            return False
        mark = oldest // level.span * level.span
    if mark >= ready:
        return False
    until = mark + level.span
    rows = [
        row
        for dimension in DIMENSIONS
        for row in summed(rollups.span(below, dimension, since=mark, until=until), mark)
    ]
    rollups.sum_up(level, rows, until=until)
    return until < ready


def summed(rows: Iterable[Rollup], at: int) -> Iterator[Rollup]:
    """One row for each key; the rows are of one dimension, and come by key."""
    for (dimension, key), same in groupby(rows, lambda row: (row.dimension, row.key)):
        figures = Figures()
        for row in same:
            figures.add(row)
        yield Rollup(
            dimension=dimension,
            at=at,
            key=key,
            process="",
            attempts=figures.attempts,
            delivered=figures.delivered,
            receiver=figures.receiver,
            ours=figures.ours,
            first=figures.first,
            dead=figures.dead,
            sketches=encode_stages(figures.sketches),
        )
