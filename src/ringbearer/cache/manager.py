"""The cache manager: suppliers and their endpoints at hand for whoever publishes or delivers, never stale for a second."""

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from ringbearer import clock
from ringbearer.cache.base import Tier, TierState
from ringbearer.cache.figures import TierFigures, age, figures
from ringbearer.cache.follower import Follower
from ringbearer.cache.lru import LruTier
from ringbearer.cache.null import NullTier
from ringbearer.cache.reader import Reader
from ringbearer.cache.wire import SilentWire, Wire
from ringbearer.storage.catalog import Catalog, Subscriptions
from ringbearer.telemetry import CacheWorked, Telemetry, TierWork

MAX_SUPPLIERS = 20_000
MAX_BYTES = 64 * 1024 * 1024
STALE_SECONDS = 300.0
FOLLOW_SECONDS = 0.5
"""Between two looks at the configuration's version: what a lost word on the wire costs."""

_MOST_RELOADED = 500  # suppliers that changed and are wanted, read anew ahead of whoever asks next


class WebhookCacheManager:
    """The only way anyone reads an endpoint on the hot path.

    Entries are suppliers with all their endpoints; unknown suppliers are remembered as such. L1 is in the process,
    `shared` is an L2 for several processes, L3 the catalog. A change anywhere is seen as soon as the wire tells of it,
    or at the next look at the store's version. Safe to use from several threads; `start` or `async with` runs the
    thread that follows changes. While the store is away entries are served for `stale_seconds`.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        telemetry: Telemetry | None = None,
        shared: Tier | None = None,
        wire: Wire | None = None,
        max_suppliers: int = MAX_SUPPLIERS,
        max_bytes: int = MAX_BYTES,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        self._telemetry = telemetry or Telemetry()
        self._l1 = LruTier(max_bytes=max_bytes, max_entries=max_suppliers)
        self._l2 = shared or NullTier()
        self._reader = Reader(catalog=catalog, l1=self._l1, l2=self._l2, stale_seconds=stale_seconds)
        self._follower = Follower(self._step, wire or SilentWire(), interval=FOLLOW_SECONDS)
        self._told: dict[str, TierFigures] = {}

    def __repr__(self) -> str:
        state = self._l1.state()
        return (
            f"<WebhookCacheManager with {state.entries} of {state.max_entries} suppliers, "
            f"version {self._reader.version}>"
        )

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Begin to follow changes."""
        self._follower.start()

    def close(self) -> None:
        """Follow no more, and let go of what is held open."""
        self._follower.stop()
        self._reader.close()
        self._tell_figures()

    # ── the hot path ────────────────────────────────────────────────────────────────────────────────────

    def peek(self, supplier_id: str) -> tuple[bool, Subscriptions | None]:
        """Whether the supplier is in memory, and what is known of it; never blocks."""
        return self._reader.peek(supplier_id)

    async def get(self, supplier_id: str) -> Subscriptions | None:
        """The supplier, None when unknown; those who miss at a time share one load. Raises StoreUnavailable."""
        return await self._reader.get(supplier_id)

    def lookup(self, supplier_ids: Iterable[str], *, fresh: bool = False) -> dict[str, Subscriptions | None]:
        """The suppliers, None for unknown ones; what is missing costs at most one round trip per tier.

        `fresh` asks the store whatever the tiers know. Blocks when something is missing; raises StoreUnavailable
        then.
        """
        return self._reader.lookup(supplier_ids, fresh=fresh)

    # ── changes ─────────────────────────────────────────────────────────────────────────────────────────

    def invalidate(self, supplier_ids: Iterable[str]) -> None:
        """These were changed here: believe nothing read before, in this process from now on, elsewhere in a moment."""
        self._reader.doubt(supplier_ids)
        self._follower.tell()

    def refresh(self) -> int:
        """Look for changes now, and forget what changed since the last time; returns how many suppliers that were.

        Blocks; raises StoreUnavailable.
        """
        return len(self._reader.refresh())

    def changed_here(self) -> None:
        """Something was changed here, wherever it was: look for it now, and tell the others.

        Blocks; raises StoreUnavailable.
        """
        self._follower.tell()
        self._reader.refresh()

    # ── figures ─────────────────────────────────────────────────────────────────────────────────────────

    def figures(self) -> list[TierFigures]:
        """What each tier did since the process started, and how it stands."""
        now, tallies = clock.monotonic(), self._reader.tallies
        found = []
        for tier, state in (("l1", self._l1.state()), ("l2", self._l2.state()), ("l3", TierState())):
            if tier == "l2" and isinstance(self._l2, NullTier):
                continue
            memory = tier == "l1"
            found.append(
                figures(
                    tier,
                    tallies[tier],
                    state,
                    more_hits=self._reader.peeks if memory else 0,
                    evictions=self._l1.evictions if memory else 0,
                    ages=[age(entry, now) for _, entry in self._l1.entries()] if memory else (),
                )
            )
        return found

    # ── upkeep, in the follower's thread ────────────────────────────────────────────────────────────────

    def _step(self) -> None:
        self._reader.check_trust()
        try:
            self._reader.refresh()
            self._reload()
        finally:
            self._tell_figures()

    def _reload(self) -> None:
        """Read anew what a change drove out of memory, ahead of whoever asks next."""
        overtaken = self._l1.overtaken
        wanted = [overtaken.pop() for _ in range(min(len(overtaken), _MOST_RELOADED))]
        self._reader.load(wanted)

    def _tell_figures(self) -> None:
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
