"""The contract of a tier: a place that may know a supplier with its endpoints, and since which version it does.

Versions are those that the store counts: each change of a supplier or an endpoint takes the next one. An entry
reflects every change up to its version, and perhaps later ones; so of two entries the one with the higher version
is never the staler, and a tier never lets go of a newer one for an older one.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from ringbearer.storage.catalog import Subscriptions


class Entry(msgspec.Struct, frozen=True):
    """What is known of one supplier: its subscriptions, or that it does not exist (None)."""

    value: Subscriptions | None
    version: int
    """Every change up to this one is in it."""
    weight: int = 0
    """Bytes of memory that it takes in this process."""
    loaded_at: float = 0.0
    """When it was read from the store or another tier: seconds on the monotonic clock."""


class TierState(msgspec.Struct, frozen=True):
    """How full a tier is; None where it does not know or has no bound."""

    entries: int | None = None
    bytes: int | None = None
    max_entries: int | None = None
    max_bytes: int | None = None


Since = Callable[[int], Collection[str]]
"""The suppliers that changed after a version, up to now. Asks the store at most once for each version."""


class Tier(ABC):
    """A place that entries are read from and written to in batches. Safe to use from several threads."""

    name: str
    """A short word for metrics: l1, l2, l3."""
    lifetime: float = 3_600.0
    """Seconds after which an entry is no longer kept without having been read anew."""
    failures: int = 0
    """Round trips that failed without anybody having been told, since the start."""

    @abstractmethod
    def read(self, supplier_ids: Sequence[str], *, version: int) -> dict[str, Entry]:
        """Those that the tier knows, none of them staler than `version`; at most one round trip.

        A tier that is away knows nothing, except for the store, which raises StoreUnavailable.
        """

    @abstractmethod
    def write(self, entries: Mapping[str, Entry]) -> int:
        """Keep these unless something newer is known; returns how many were kept. Never raises."""

    @abstractmethod
    def follow(self, version: int, since: Since) -> None:
        """Learn that the store is at this version, and drop what changed on the way there.

        A version below the last one means that the store was replaced: everything is dropped. A tier that is away
        catches up later; until then it knows nothing. Raises only what `since` raises.
        """

    @abstractmethod
    def forget(self, supplier_ids: Sequence[str]) -> None:
        """Drop these, where that is only this process's business. Never raises."""

    @abstractmethod
    def state(self) -> TierState:
        """How full it is."""

    def close(self) -> None:  # noqa: B027  most tiers hold nothing open
        """Let go of what it holds open."""


def weigh(value: object) -> int:
    """The bytes that a value takes in memory with all that hangs on it, counted where they stand.

    What several entries share is counted for each: an upper bound.
    """
    size = sys.getsizeof(value)
    if isinstance(value, msgspec.Struct):
        return size + sum(weigh(getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, dict):
        return size + sum(weigh(key) + weigh(item) for key, item in value.items())
    if isinstance(value, (tuple, list)):
        return size + sum(weigh(item) for item in value)
    return size
