"""Figures: rollups merged on reading, over any window and all processes."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from ringbearer import clock
from ringbearer.monitor.recorder import STAGES, decode_stages
from ringbearer.monitor.sketch import Sketch
from ringbearer.storage.rollups import Level, Rollup, Rollups

MINUTES_KEPT = 8 * 86_400 * clock.SECOND
"""For how long minutes of most dimensions are kept; those before are answered by the hour or the day."""
MINUTES_KEPT_OF_MANY = 2 * 86_400 * clock.SECOND
"""The same for suppliers and endpoints, of which there may be thousands."""
HOURS_KEPT = 400 * 86_400 * clock.SECOND
HOURS_KEPT_OF_MANY = 8 * 86_400 * clock.SECOND
DAYS_KEPT = 400 * 86_400 * clock.SECOND
MANY = ("supplier", "endpoint")


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution of durations in seconds, each within 1 %; None without values."""

    count: int
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    p999: float | None


class Figures(msgspec.Struct, kw_only=True):
    """Sums over a window. `receiver` and `ours` are failed attempts by whose fault they were."""

    attempts: int = 0
    delivered: int = 0
    receiver: int = 0
    ours: int = 0
    first: int = 0
    """First attempts."""
    dead: int = 0
    """Attempts after which the delivery was given up."""
    sketches: list[Sketch] = msgspec.field(default_factory=lambda: [Sketch() for _ in STAGES])

    def add(self, row: Rollup) -> None:
        """Count a row in."""
        self.attempts += row.attempts
        self.delivered += row.delivered
        self.receiver += row.receiver
        self.ours += row.ours
        self.first += row.first
        self.dead += row.dead
        for mine, other in zip(self.sketches, decode_stages(row.sketches), strict=False):
            mine.merge(other)

    def merge(self, other: "Figures") -> None:
        """Count other figures in."""
        self.attempts += other.attempts
        self.delivered += other.delivered
        self.receiver += other.receiver
        self.ours += other.ours
        self.first += other.first
        self.dead += other.dead
        for mine, theirs in zip(self.sketches, other.sketches, strict=True):
            mine.merge(theirs)

    def stage(self, name: str) -> Sketch:
        """The sketch of one of STAGES."""
        return self.sketches[STAGES.index(name)]

    def distribution(self, name: str) -> Percentiles:
        """The percentiles of one of STAGES."""
        return percentiles(self.stage(name))

    @property
    def success(self) -> float | None:
        """The share of attempts that delivered; None without attempts."""
        return self.delivered / self.attempts if self.attempts else None


def percentiles(sketch: Sketch) -> Percentiles:
    """The usual percentiles of a sketch."""
    found = sketch.percentiles((0.5, 0.95, 0.99, 0.999))
    p50, p95, p99, p999 = found if found else (None, None, None, None)
    return Percentiles(count=sketch.count, mean=sketch.mean, p50=p50, p95=p95, p99=p99, p999=p999)


def pieces(
    since: int,
    until: int,
    *,
    marks: Mapping[Level, int],
    minutes_from: int,
    hours_from: int,
    coarsest: Level = Level.DAY,
) -> list[tuple[Level, int, int]]:
    """Which level answers which part of a window: whole days and hours where they are summed up, minutes else.

    Minutes before `minutes_from` and hours before `hours_from` are not kept: there the level above answers with
    the spans that begin in the window. All are stored times. With a `coarsest` level no longer spans are taken.
    """
    return _pieces(coarsest, since, until, marks, {Level.MINUTE: minutes_from, Level.HOUR: hours_from})


def _pieces(
    level: Level, since: int, until: int, marks: Mapping[Level, int], kept: Mapping[Level, int]
) -> list[tuple[Level, int, int]]:
    if since >= until:
        return []
    if level is Level.MINUTE:
        return [(level, since, until)]
    below = Level(level - 1)
    span = level.span
    mark = marks.get(level, 0)
    gone = min(kept[below], mark)  # before this there is nothing finer
    start = since if since < gone else -(-since // span) * span
    end = min(until, mark) // span * span
    if since < gone and end <= since:
        end = min(until, mark)
    if start >= end:
        return _pieces(below, since, until, marks, kept)
    return [
        *_pieces(below, since, start, marks, kept),
        (level, start, end),
        *_pieces(below, end, until, marks, kept),
    ]


def _within(step: int) -> Level:
    """The level with the longest spans that are no longer than a step."""
    return max((level for level in Level if level.span <= step), default=Level.MINUTE)


class Totals(msgspec.Struct, kw_only=True):
    """What became of attempts, without their distributions."""

    attempts: int = 0
    delivered: int = 0
    dead: int = 0

    @property
    def success(self) -> float | None:
        """The share of attempts that delivered; None without any."""
        return self.delivered / self.attempts if self.attempts else None


class Reader:
    """Reads figures from the store; blocks, and raises StoreUnavailable."""

    def __init__(self, rollups: Rollups) -> None:
        self._rollups = rollups

    def grouped(
        self,
        dimension: str,
        *,
        since: int,
        until: int,
        now: int,
        key: str | None = None,
        by: Callable[[str], str | None] = lambda key: key,
    ) -> dict[str, Figures]:
        """The figures of a dimension in [since, until) by what `by` makes of its keys; None leaves a key out."""
        found: dict[str, Figures] = {}
        for row in self.rows(dimension, since=since, until=until, now=now, key=key):
            name = by(row.key)
            if name is not None:
                found.setdefault(name, Figures()).add(row)
        return found

    def series(
        self,
        dimension: str,
        *,
        since: int,
        until: int,
        step: int,
        now: int,
        key: str | None = None,
        wanted: Callable[[str], bool] = lambda key: True,
    ) -> dict[int, Figures]:
        """The figures by spans of `step` microseconds, by where each begins; spans without anything are left out.

        A step shorter than the spans that are kept of that time gets those spans whole.
        """
        found: dict[int, Figures] = {}
        coarsest = _within(step)
        for row in self.rows(dimension, since=since, until=until, now=now, key=key, coarsest=coarsest):
            if wanted(row.key):
                found.setdefault(row.at // step * step, Figures()).add(row)
        return dict(sorted(found.items()))

    def counts(
        self, dimension: str, *, since: int, until: int, step: int, now: int, key: str
    ) -> dict[int, int]:
        """How many attempts, or whatever a flow counts, by spans as in `series`; without their distributions."""
        found: dict[int, int] = {}
        coarsest = _within(step)
        for row in self.rows(dimension, since=since, until=until, now=now, key=key, coarsest=coarsest):
            at = row.at // step * step
            found[at] = found.get(at, 0) + row.attempts
        return found

    def totals(
        self, dimension: str, keys: Sequence[str], *, since: int, until: int, now: int
    ) -> dict[str, Totals]:
        """What became of the attempts of each of these keys in [since, until): a query for each level that answers."""
        found = {key: Totals() for key in keys}
        for level, start, end in self._plan(dimension, since=since, until=until, now=now, coarsest=Level.DAY):
            summed = self._rollups.totals(level, dimension, keys, since=start, until=end)
            for key, (attempts, delivered, dead) in summed.items():
                total = found[key]
                total.attempts += attempts
                total.delivered += delivered
                total.dead += dead
        return found

    def rows(
        self,
        dimension: str,
        *,
        since: int,
        until: int,
        now: int,
        key: str | None = None,
        coarsest: Level = Level.DAY,
    ) -> Iterator[Rollup]:
        """The rows that answer a window, of whichever level is the coarsest that does."""
        plan = self._plan(dimension, since=since, until=until, now=now, coarsest=coarsest)
        for level, start, end in plan:
            yield from self._rollups.read(level, dimension, since=start, until=end, key=key)

    def _plan(
        self, dimension: str, *, since: int, until: int, now: int, coarsest: Level
    ) -> list[tuple[Level, int, int]]:
        many = dimension in MANY
        return pieces(
            since // Level.MINUTE.span * Level.MINUTE.span,
            until,
            marks=self._rollups.marks(),
            coarsest=coarsest,
            minutes_from=now - (MINUTES_KEPT_OF_MANY if many else MINUTES_KEPT),
            hours_from=now - (HOURS_KEPT_OF_MANY if many else HOURS_KEPT),
        )
