"""The burn book: how much of each budget went in each minute of the last three days, kept in memory.

What is over and written is read once; what is recent is read again. So the four rules with their windows of up to
three days cost a look at a few minutes.
"""

import threading
from collections.abc import Callable
from datetime import datetime

from ringbearer import clock
from ringbearer.monitor.figures import Figures, Reader
from ringbearer.monitor.slo import OBJECTIVES, Burn, Objective, Tally, burns, tally
from ringbearer.storage.rollups import Level, Rollups

_KEPT = 3 * 86_400 * clock.SECOND
_AGAIN = 3 * 60 * clock.SECOND  # within this, minutes may still change
_FINE = 3 * 3_600 * clock.SECOND  # at the start, what is older is read by the hour


class BurnBook:
    """Tells burn rates. Thread-safe; blocks while it reads, and raises StoreUnavailable."""

    def __init__(
        self,
        rollups: Rollups,
        *,
        peak: Callable[[datetime], bool],
        objectives: Callable[[], tuple[Objective, ...]] = lambda: OBJECTIVES,
    ) -> None:
        self._rollups = rollups
        self._reader = Reader(rollups)
        self.peak = peak
        self._source = objectives
        self._objectives: tuple[Objective, ...] = ()
        self._tallies: dict[int, dict[str, Tally]] = {}
        self._upto: int | None = None
        self._read_at = 0
        self._waits_until = 0
        self._lock = threading.Lock()

    def burns(self, now: int) -> list[Burn]:
        """Each objective with each burning rule; stricter on peak days."""
        with self._lock:
            objectives = self.objectives()
            if objectives != self._objectives:  # what was tallied for the others is of no use
                self._objectives, self._tallies, self._upto = objectives, {}, None
            self._read(now)
            return burns(self._objectives, self._tallies, now=now, peak=self.is_peak(now))

    def objectives(self) -> tuple[Objective, ...]:
        """The objectives in force."""
        return self._source()

    def is_peak(self, now: int) -> bool:
        """Whether it is a peak day."""
        return self.peak(clock.to_datetime(now))

    def _read(self, now: int) -> None:
        minute = Level.MINUTE.span
        if self._upto is None:
            self._read_at = now
            whole = (now - _FINE) // Level.HOUR.span * Level.HOUR.span
            self._take(now - _KEPT, whole, Level.HOUR.span, now)
            self._upto = whole
        since = self._upto // minute * minute
        for at in [at for at in self._tallies if at >= since or at < now - _KEPT]:
            del self._tallies[at]
        self._take(since, now + 1, minute, now)
        if now - self._read_at > _AGAIN:
            # The store was away: others are about to write what they kept meanwhile.
            self._waits_until = now + _AGAIN
        self._read_at = now
        if now >= self._waits_until:
            self._upto = max(since, now - _AGAIN)

    def _take(self, since: int, until: int, step: int, now: int) -> None:
        spans: dict[int, dict[str, Figures]] = {}
        for row in self._reader.rows("path", since=since, until=until, now=now):
            spans.setdefault(row.at // step * step, {}).setdefault(row.key, Figures()).add(row)
        for at, paths in spans.items():
            peak = self.is_peak(at)
            self._tallies[at] = {each.id: tally(each, paths, peak=peak) for each in self._objectives}
