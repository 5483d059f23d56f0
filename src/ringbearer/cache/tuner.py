"""The tuner: measures what live traffic asks of the first tier, and sets its size and lifetimes."""

import logging
import threading
from collections.abc import Sequence

import msgspec

from ringbearer import clock
from ringbearer.cache import tuning
from ringbearer.cache.base import Tier
from ringbearer.cache.lru import LruTier
from ringbearer.cache.reader import Reader
from ringbearer.cache.results import CacheOptimizationResult, Lifetimes
from ringbearer.cache.shards import ReuseDistances
from ringbearer.cache.tuning import Sizing

_log = logging.getLogger(__name__)
_DAY = 86_400.0


class Tuner:
    """Takes the references that the reader samples, and turns them into a size and a lifetime."""

    def __init__(self, *, reader: Reader, l1: LruTier, l2: Tier, max_bytes: int, max_entries: int) -> None:
        self._reader = reader
        self._l1 = l1
        self._l2 = l2
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._distances = ReuseDistances()
        self._lock = threading.Lock()
        self._asked = 0
        self._changes = 0.0
        self._supplier_seconds = 0.0
        self._watched_at = clock.monotonic()
        self._kept_entries = 0
        self._kept_until = 0.0
        self.last: CacheOptimizationResult | None = None

    def __repr__(self) -> str:
        return f"<Tuner with {self._distances!r}>"

    def watch(self) -> None:
        """Take what was sampled since the last time; call it often enough that nothing sampled gets lost."""
        with self._lock:
            now, seen = clock.monotonic(), self._reader.seen
            asked = self._reader.asked
            self._distances.feed([seen.popleft() for _ in range(len(seen))], total=asked - self._asked)
            self._asked = asked
            self._reader.mask = self._distances.mask
            self._changes += self._reader.take_changes()
            self._supplier_seconds += len(self._l1) * (now - self._watched_at)
            self._watched_at = now

    def optimize(self) -> CacheOptimizationResult:
        """Decide and set; what was measured so far weighs half from then on."""
        self.watch()
        with self._lock:
            curve, state = self._distances.curve(), self._l1.state()
            entries, held = state.entries or 0, state.bytes or 0
            per_entry = held / entries if entries else 0.0
            decision = tuning.size(
                curve,
                Sizing(state.max_entries or 0, state.max_bytes or 0, None),
                bytes_per_entry=per_entry,
                least=self._kept_entries if clock.monotonic() < self._kept_until else 0,
                max_bytes=self._max_bytes,
                max_entries=self._max_entries,
            )
            if decision.after != decision.before:
                self._l1.resize(max_bytes=decision.after.bytes, max_entries=decision.after.entries)
            before, after = self._lifetimes()
            tally = self._reader.tallies["l1"]
            hits, asked = tally.hits + self._reader.peeks, self._reader.asked
            self.last = CacheOptimizationResult(
                at=clock.to_datetime(clock.now()),
                curve=curve,
                target_miss_ratio=tuning.TARGET_MISS_RATIO,
                bytes_per_entry=per_entry,
                before=decision.before,
                after=decision.after,
                reason=decision.reason,
                lifetime_before=before,
                lifetime_after=after,
                hit_ratio=hits / asked if asked else None,
            )
            self._distances.fade()
            self._changes /= 2
            self._supplier_seconds /= 2
        self._log(self.last)
        return self.last

    def make_room(self, entries: int, *, keep: float) -> int:
        """Let the first tier hold at least so many entries for `keep` seconds, as far as its limits go.

        Returns how many it holds.
        """
        with self._lock:
            now_seconds = clock.monotonic()
            if entries >= self._kept_entries or now_seconds >= self._kept_until:
                self._kept_entries, self._kept_until = entries, now_seconds + keep
            state = self._l1.state()
            held, now = state.bytes or 0, state.max_entries or 0
            wanted = min(self._max_entries, max(now, entries))
            if wanted > now or (state.max_bytes or 0) < self._max_bytes:
                self._l1.resize(max_bytes=self._max_bytes, max_entries=wanted)
            per_entry = held / state.entries if state.entries else 0.0
            return min(wanted, int(self._max_bytes / per_entry)) if per_entry else wanted

    def _lifetimes(self) -> tuple[Lifetimes, Lifetimes]:
        seconds = tuning.lifetime(self._changes, self._supplier_seconds)
        per_day = self._changes / self._supplier_seconds * _DAY if self._supplier_seconds else 0.0
        before = Lifetimes(self._l1.lifetime, self.last.lifetime_after.changes_per_day if self.last else 0.0)
        self._l1.lifetime = self._l2.lifetime = seconds
        return before, Lifetimes(seconds, per_day)

    def _log(self, result: CacheOptimizationResult) -> None:
        if result.after != result.before:
            _log.info(
                "the cache has another size",
                extra={
                    "before": result.before.entries,
                    "after": result.after.entries,
                    "reason": result.reason,
                },
            )


class Upkeep(msgspec.Struct, frozen=True):
    """What is to be done about entries that grow old."""

    expired: tuple[str, ...]
    """To be dropped."""
    due: tuple[str, ...]
    """To be read anew before anybody has to wait for it."""


_AHEAD = 0.8  # of its life, after which an entry that is used is read anew


def upkeep(ages: Sequence[tuple[str, float]], *, lifetime: float) -> Upkeep:
    """Sort entries, given with their ages from the least to the most recently used one.

    The more recently used half is kept fresh; of the others, those whose time is over are dropped.
    """
    used = ages[len(ages) // 2 :]
    return Upkeep(
        expired=tuple(key for key, age in ages if age > lifetime),
        due=tuple(key for key, age in used if lifetime >= age > _AHEAD * lifetime),
    )
