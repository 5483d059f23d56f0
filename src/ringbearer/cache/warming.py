"""Warming: suppliers are brought into memory ahead of whoever asks, paced, and bounded in time."""

import threading
from collections.abc import Callable, Sequence

from ringbearer import clock
from ringbearer.cache.base import Entry
from ringbearer.cache.lru import LruTier
from ringbearer.cache.results import Progress, WarmingResult
from ringbearer.errors import StoreUnavailable

BATCH = 200
"""Suppliers in one read: so warming is in nobody's way for long."""
_SHARE = 0.5  # of the time, that warming leaves to others between two reads when it is not urgent


class Warmer:
    """Brings suppliers into memory by `load`, which reads one batch through the tiers. Blocks."""

    def __init__(
        self,
        *,
        l1: LruTier,
        load: Callable[[Sequence[str]], dict[str, Entry]],
        stopping: threading.Event,
    ) -> None:
        self._l1 = l1
        self._load = load
        self._stopping = stopping

    def warm(
        self,
        supplier_ids: Sequence[str],
        *,
        why: str,
        room: int,
        within: float,
        urgent: bool = False,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> WarmingResult:
        """Read those that are not in memory, the first ones first, until `within` seconds are over or no room is
        left.

        One that is `urgent`, as before a worker may begin, takes no pauses.
        """
        began, before = clock.monotonic(), self._l1.state().bytes or 0
        wanted = list(dict.fromkeys(supplier_ids))
        missing = [key for key in wanted if not self._l1.has(key)]
        fitting = missing[: max(0, room - len(self._l1))]
        reason = "all of them are in memory" if len(fitting) == len(missing) else "there is no room for more"
        loaded: dict[str, Entry] = {}
        for start in range(0, len(fitting), BATCH):
            at = clock.monotonic()
            if at - began >= within or self._stopping.is_set():
                reason = "it was to stop" if self._stopping.is_set() else f"{within:g} s were over"
                break
            try:
                loaded |= self._load(fitting[start : start + BATCH])
            except StoreUnavailable as error:
                reason = f"the store is away: {error}"
                break
            progress(Progress(len(wanted) - len(missing) + len(loaded), len(wanted)))
            if not urgent and start + BATCH < len(fitting):
                self._stopping.wait((clock.monotonic() - at) * _SHARE / (1 - _SHARE))
        return WarmingResult(
            why=why,
            wanted=len(wanted),
            present=len(wanted) - len(missing),
            loaded=len(loaded),
            unknown=sum(entry.value is None for entry in loaded.values()),
            left=len(missing) - len(loaded),
            duration=clock.monotonic() - began,
            before_bytes=before,
            after_bytes=self._l1.state().bytes or 0,
            reason=reason,
        )
