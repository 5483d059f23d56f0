"""The keeper: what the follower's thread does each time: follow, read anew, grow old gracefully, tune and tell."""

from collections import deque

from ringbearer import clock
from ringbearer.cache.base import Tier, TierState
from ringbearer.cache.figures import TierFigures, age, figures
from ringbearer.cache.lru import LruTier
from ringbearer.cache.null import NullTier
from ringbearer.cache.reader import Reader
from ringbearer.cache.tuner import Tuner, upkeep
from ringbearer.telemetry import CacheWorked, Telemetry, TierWork

OPTIMIZE_SECONDS = 60.0
"""Between two decisions about the size; each costs a few milliseconds."""

_UPKEEP_SECONDS = 5.0
_TELL_SECONDS = 1.0
_MOST_AT_A_TIME = 200  # suppliers read anew in one step


class Keeper:
    """Keeps one process's cache in order. `step` belongs to the follower's thread."""

    def __init__(self, *, reader: Reader, l1: LruTier, l2: Tier, tuner: Tuner, telemetry: Telemetry) -> None:
        self._reader = reader
        self._l1 = l1
        self._l2 = l2
        self._tuner = tuner
        self._telemetry = telemetry
        self._due: deque[str] = deque()
        self._told: dict[str, TierFigures] = {}
        now = clock.monotonic()
        self._next_optimize, self._next_upkeep, self._next_tell = now + OPTIMIZE_SECONDS, now, now

    def __repr__(self) -> str:
        return f"<Keeper with {len(self._due)} suppliers to be read anew>"

    def step(self) -> None:
        """Do what is due. Raises StoreUnavailable when the store cannot be followed: nothing expires then."""
        now = clock.monotonic()
        self._reader.check_trust()
        self._tuner.watch()
        if now >= self._next_tell:
            self._next_tell = now + _TELL_SECONDS
            self.tell()
        self._reader.refresh()
        # What a change drove out of memory is there again before the next one asks.
        self._read_anew(self._l1.take_overtaken(_MOST_AT_A_TIME))
        if now >= self._next_upkeep:
            self._next_upkeep = now + _UPKEEP_SECONDS
            self._age(now)
        self._read_anew([self._due.popleft() for _ in range(min(len(self._due), _MOST_AT_A_TIME))])
        if now >= self._next_optimize:
            self._next_optimize = now + OPTIMIZE_SECONDS
            self._tuner.optimize()

    def figures(self) -> list[TierFigures]:
        """What each tier did since the process started, and how it stands."""
        now, tallies = clock.monotonic(), self._reader.tallies
        memory = figures(
            "l1",
            tallies["l1"],
            self._l1.state(),
            more_hits=self._reader.peeks,
            evictions=self._l1.evictions,
            ages=[age(entry, now) for _, entry in self._l1.entries()],
        )
        found = [memory]
        if not isinstance(self._l2, NullTier):
            state, failures = self._l2.state(), self._l2.failures
            found.append(figures("l2", tallies["l2"], state, more_failures=failures))
        return [*found, figures("l3", tallies["l3"], TierState())]

    def tell(self) -> None:
        """Report to telemetry what happened since the last time."""
        work = []
        for now in self.figures():
            before = self._told.get(now.tier)
            self._told[now.tier] = now
            untold = self._reader.tallies[now.tier].untold
            work.append(
                TierWork(
                    tier=now.tier,
                    hits=now.hits - (before.hits if before else 0),
                    misses=now.misses - (before.misses if before else 0),
                    writes=now.writes - (before.writes if before else 0),
                    failures=now.failures - (before.failures if before else 0),
                    evictions=now.evictions - (before.evictions if before else 0),
                    entries=now.entries,
                    bytes=now.bytes,
                    mean_age=now.mean_age,
                    latencies=[untold.popleft() for _ in range(len(untold))],
                )
            )
        self._telemetry.emit(CacheWorked(work))

    def _age(self, now: float) -> None:
        ages = [(key, age(entry, now)) for key, entry in self._l1.entries()]
        todo = upkeep(ages, lifetime=self._l1.lifetime)
        self._l1.expire(todo.expired)
        self._due = deque(todo.due)

    def _read_anew(self, supplier_ids: list[str]) -> None:
        if supplier_ids:
            self._reader.load(supplier_ids)
