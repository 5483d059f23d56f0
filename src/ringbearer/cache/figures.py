"""What the cache counts: requests, loads and latencies of each tier, as plain numbers that are cheap to add to."""

from collections import deque
from collections.abc import Iterable

import msgspec

from ringbearer.cache.base import Entry, TierState

_RECENT = 1024
"""Latencies kept per tier: enough for a 99th percentile that rests on ten."""


class Tally:
    """Counts of one tier since the start. Only the thread that reads the tier adds to it, or one that holds a lock."""

    __slots__ = ("failures", "hits", "latencies", "misses", "untold", "writes")

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.writes = 0
        """Entries written into it."""
        self.failures = 0
        """Round trips that failed."""
        self.latencies: deque[float] = deque(maxlen=_RECENT)
        """Seconds of recent reads: in memory a sample of single ones, elsewhere whole round trips."""
        self.untold: deque[float] = deque(maxlen=_RECENT)
        """Those that telemetry has not heard of."""

    def took(self, seconds: float) -> None:
        """Note how long a read took."""
        self.latencies.append(seconds)
        self.untold.append(seconds)


class TierFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What one tier did since the process started, and how it stands. Times in seconds."""

    tier: str
    hits: int
    misses: int
    hit_ratio: float | None
    """The share of requests that it answered; None before the first one."""
    writes: int
    failures: int
    evictions: int = 0
    entries: int | None = None
    bytes: int | None = None
    max_entries: int | None = None
    max_bytes: int | None = None
    mean_age: float | None = None
    oldest_age: float | None = None
    latency_p50: float | None = None
    latency_p99: float | None = None


def figures(
    tier: str,
    tally: Tally,
    state: TierState,
    *,
    more_hits: int = 0,
    more_failures: int = 0,
    evictions: int = 0,
    ages: Iterable[float] = (),
) -> TierFigures:
    """The figures of a tier as they stand now."""
    latencies = sorted(tally.latencies)
    known = list(ages)
    hits = tally.hits + more_hits
    asked = hits + tally.misses
    return TierFigures(
        tier=tier,
        hits=hits,
        misses=tally.misses,
        hit_ratio=hits / asked if asked else None,
        writes=tally.writes,
        failures=tally.failures + more_failures,
        evictions=evictions,
        entries=state.entries,
        bytes=state.bytes,
        max_entries=state.max_entries,
        max_bytes=state.max_bytes,
        mean_age=sum(known) / len(known) if known else None,
        oldest_age=max(known, default=None),
        latency_p50=percentile(latencies, 0.50),
        latency_p99=percentile(latencies, 0.99),
    )


def percentile(ascending: list[float], share: float) -> float | None:
    """The smallest value that at least that share of the values does not exceed; None of nothing."""
    if not ascending:
        return None
    return ascending[min(len(ascending) - 1, max(0, -int(-share * len(ascending) // 1) - 1))]


def age(entry: Entry, now: float) -> float:
    """Seconds since the entry was read."""
    return max(0.0, now - entry.loaded_at)
