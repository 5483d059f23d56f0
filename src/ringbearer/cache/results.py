"""What the cache manager's methods found, decided and changed."""

from collections.abc import Sequence

import msgspec

from ringbearer.cache.figures import TierFigures
from ringbearer.cache.shards import Curve
from ringbearer.cache.tuning import Sizing
from ringbearer.domain.times import Moment


class Lifetimes(msgspec.Struct, frozen=True):
    """How long entries live, in seconds, and the changes per supplier and day that it follows from."""

    seconds: float
    changes_per_day: float


class CacheOptimizationResult(msgspec.Struct, frozen=True, kw_only=True):
    """What live traffic asks of the first tier, and what was set."""

    at: Moment
    curve: Curve
    """Miss ratios by number of entries, measured on references since the last times, older ones weighing less."""
    target_miss_ratio: float
    bytes_per_entry: float
    before: Sizing
    after: Sizing
    reason: str
    lifetime_before: Lifetimes
    lifetime_after: Lifetimes
    hit_ratio: float | None
    """Of the first tier since the process started."""


class Progress(msgspec.Struct, frozen=True):
    """How far a warming is: suppliers in memory, of those that are wanted there."""

    done: int
    wanted: int


class WarmingResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was brought into memory ahead of whoever asks. Times in seconds."""

    why: str
    wanted: int
    present: int
    """Were in memory already."""
    loaded: int
    unknown: int
    """Of the loaded, suppliers that do not exist."""
    left: int
    """Not loaded: time was over, memory full, or the store away."""
    duration: float
    before_bytes: int
    after_bytes: int
    reason: str


class CacheInvalidation(msgspec.Struct, frozen=True, kw_only=True):
    """What was forgotten."""

    suppliers: tuple[str, ...]
    """Of those asked for, the ones that were in this process's memory."""
    version_before: int | None
    version_after: int | None
    reason: str


class CacheWrite(msgspec.Struct, frozen=True, kw_only=True):
    """What became of endpoints that were given to the cache."""

    supplier_id: str
    cached: tuple[str, ...]
    """The endpoints that are in the cache now."""
    refused: tuple[str, ...]
    """Given, but not in the store, or in another version there."""
    before: tuple[str, ...] | None
    """The endpoints that were in memory before; None: nothing was known."""
    version: int
    reason: str


class CachePerformance(msgspec.Struct, frozen=True, kw_only=True):
    """How the cache does: of this process, since it started."""

    tiers: Sequence[TierFigures]
    hit_ratio: float | None
    """The share of requests that were answered from memory; None before the first one."""
    version: int | None
    """The configuration's version that this process follows."""
    version_age: float
    """Seconds since the store last confirmed it."""
    trusted: bool
    """Whether memory is still believed: false once the store was away for too long."""
    lifetime: float
    """Seconds after which an entry is read anew."""
    warm: bool
    """Whether this process has been warmed since it started."""
    warming: Progress | None
    """How far the warming is that is under way."""
    last_optimization: CacheOptimizationResult | None
    last_warming: WarmingResult | None
