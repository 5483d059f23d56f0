"""The cache manager: suppliers and their endpoints at hand for whoever publishes or delivers, never stale for a second."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from ringbearer import clock
from ringbearer.cache.base import Tier
from ringbearer.cache.figures import TierFigures
from ringbearer.cache.follower import Follower
from ringbearer.cache.keeper import Keeper
from ringbearer.cache.lru import LruTier
from ringbearer.cache.null import NullTier
from ringbearer.cache.reader import Reader
from ringbearer.cache.results import (
    CacheInvalidation,
    CacheOptimizationResult,
    CachePerformance,
    CacheWrite,
    Progress,
    WarmingResult,
)
from ringbearer.cache.shelf import DeliveryMetrics, MetricsWrite, Shelf
from ringbearer.cache.tuner import Tuner
from ringbearer.cache.warming import Warmer
from ringbearer.cache.wire import SilentWire, Wire
from ringbearer.domain.endpoints import Target
from ringbearer.errors import StoreUnavailable
from ringbearer.storage.catalog import Catalog, Subscriptions
from ringbearer.storage.heat import Heat
from ringbearer.telemetry import Telemetry

MAX_SUPPLIERS = 20_000
MAX_BYTES = 64 * 1024 * 1024
STALE_SECONDS = 300.0
FOLLOW_SECONDS = 0.5
"""Between two looks at the configuration's version: what a lost word on the wire costs."""
WARM_SECONDS = 10.0
"""For how long whoever starts waits for warming at most."""

_START_SECONDS, _PEAK_SECONDS = 3_600.0, 24 * 3_600.0  # for which what was warmed has room, asked for or not
_WEEK, _DAY, _HOUR = 7 * 86_400 * clock.SECOND, 86_400 * clock.SECOND, 3_600 * clock.SECOND


class WebhookCacheManager:
    """The only way anyone reads an endpoint on the hot path.

    Entries are suppliers with all their endpoints; unknown suppliers are remembered as such. L1 is in the process,
    `shared` is an L2 for several processes, L3 the catalog. A change anywhere is seen as soon as the wire tells of it,
    or at the next look at the store's version. Safe to use from several threads; `start` or `async with` runs the
    thread that follows changes. While the store is away entries are served for `stale_seconds`. `heat` is asked which
    suppliers are worth warming.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        telemetry: Telemetry | None = None,
        heat: Heat | None = None,
        shared: Tier | None = None,
        wire: Wire | None = None,
        max_suppliers: int = MAX_SUPPLIERS,
        max_bytes: int = MAX_BYTES,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        l2 = shared or NullTier()
        self._heat = heat
        self._max_suppliers = max_suppliers
        self._l1 = LruTier(max_bytes=max_bytes, max_entries=max_suppliers)
        self._reader = Reader(catalog=catalog, l1=self._l1, l2=l2, stale_seconds=stale_seconds)
        self._tuner = Tuner(
            reader=self._reader, l1=self._l1, l2=l2, max_bytes=max_bytes, max_entries=max_suppliers
        )
        self._keeper = Keeper(
            reader=self._reader, l1=self._l1, l2=l2, tuner=self._tuner, telemetry=telemetry or Telemetry()
        )
        self._follower = Follower(self._keeper.step, wire or SilentWire(), interval=FOLLOW_SECONDS)
        self._closing = threading.Event()
        self._warmer = Warmer(l1=self._l1, load=self._reader.load, stopping=self._closing)
        self._last_warming: WarmingResult | None = None
        self._progress: Progress | None = None
        self._shelf = Shelf()

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
        await asyncio.to_thread(self.close)

    def start(self) -> None:
        """Begin to follow changes."""
        self._follower.start()

    def close(self) -> None:
        """Follow no more, and let go of what is held open. Blocks until what is under way has ended."""
        self._closing.set()
        self._follower.stop()
        self._reader.close()
        self._keeper.tell()

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
        """Believe nothing read of these before, in this process from now on, elsewhere in a moment; never blocks."""
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

    # ── for whoever manages endpoints ───────────────────────────────────────────────────────────────────

    async def cache_webhook_endpoints(self, supplier_id: str, endpoints: Sequence[Target]) -> CacheWrite:
        """Bring a supplier's endpoints into every tier.

        The store is asked for the supplier once, since nothing may be cached that it does not know: what is given in
        the version that is there is taken, the rest refused, and what was not given is added. Raises
        StoreUnavailable.
        """
        held = self._l1.peek(supplier_id)
        before = None if held is None or held.value is None else tuple(held.value.targets)
        self._reader.doubt([supplier_id])
        entry = (await asyncio.to_thread(self._reader.load, [supplier_id]))[supplier_id]
        known = entry.value.targets if entry.value is not None else {}
        refused = tuple(
            target.endpoint.id
            for target in endpoints
            if target.endpoint.id not in known or known[target.endpoint.id].version != target.version
        )
        return CacheWrite(
            supplier_id=supplier_id,
            cached=tuple(known),
            refused=refused,
            before=before,
            version=entry.version,
            reason="the store has them so"
            if not refused
            else f"{len(refused)} are not in the store, or in another version",
        )

    async def get_cached_webhook_endpoints(self, supplier_id: str) -> list[Target] | None:
        """The supplier's endpoints with their secrets, oldest first, from the nearest tier that knows them.

        None when no tier knows the supplier, the store included. Raises StoreUnavailable.
        """
        subscriptions = await self._reader.get(supplier_id)
        return None if subscriptions is None else list(subscriptions.targets.values())

    async def invalidate_endpoint_cache(self, *supplier_ids: str) -> CacheInvalidation:
        """Forget these suppliers in every tier and every process, and look at once for what else changed.

        For whoever changed them. Raises StoreUnavailable; this process believes nothing read before all the same.
        """
        before = self._reader.version
        held = tuple(key for key in supplier_ids if self._l1.has(key))
        self.invalidate(supplier_ids)
        await asyncio.to_thread(self.refresh)
        after = self._reader.version
        moved = "the store's version had moved" if after != before else "nothing had changed in the store"
        return CacheInvalidation(suppliers=held, version_before=before, version_after=after, reason=moved)

    async def cache_delivery_metrics(self, metrics: DeliveryMetrics) -> MetricsWrite:
        """Keep how deliveries to an endpoint went, for whoever looks at its health in the next seconds."""
        return self._shelf.put(metrics, now=clock.monotonic())

    async def get_cached_delivery_metrics(self, endpoint_id: str) -> DeliveryMetrics | None:
        """How deliveries to the endpoint went; None when it was not measured within the last seconds."""
        return self._shelf.get(endpoint_id, now=clock.monotonic())

    # ── size and lifetimes ──────────────────────────────────────────────────────────────────────────────

    async def optimize_cache_hit_ratio(self) -> CacheOptimizationResult:
        """Set the size of the first tier by the miss-ratio curve of live traffic, and lifetimes by the changes seen.

        Done by itself once a minute; see `shards.py` and `tuning.py` for the rules.
        """
        return await asyncio.to_thread(self._tuner.optimize)

    async def monitor_cache_performance(self) -> CachePerformance:
        """How the cache of this process does."""
        reader, tiers = self._reader, self.figures()
        memory = tiers[0]
        return CachePerformance(
            tiers=tiers,
            hit_ratio=memory.hit_ratio,
            version=reader.version,
            version_age=reader.confirmed_ago,
            trusted=reader.trusted,
            lifetime=self._l1.lifetime,
            warm=self.warm,
            warming=self._progress,
            last_optimization=self._tuner.last,
            last_warming=self._last_warming,
        )

    def figures(self) -> list[TierFigures]:
        """What each tier did since the process started, and how it stands."""
        return self._keeper.figures()

    @property
    def warm(self) -> bool:
        """Whether this process has been warmed since it started."""
        return self._last_warming is not None

    def signals(self) -> dict[str, float]:
        """What a process tells the others of its cache with each heartbeat."""
        state, misses = self._l1.state(), self._reader.tallies["l1"].misses
        return {
            "warm": float(self.warm),
            "cache_hits": float(self._reader.asked - misses),
            "cache_misses": float(misses),
            "cache_entries": float(state.entries or 0),
            "cache_bytes": float(state.bytes or 0),
        }

    # ── warming ─────────────────────────────────────────────────────────────────────────────────────────

    async def warm_cache_for_peak_season(
        self,
        suppliers: Sequence[str],
        *,
        within: float = 300.0,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> WarmingResult:
        """Bring these suppliers into memory and the shared tier before a peak, paced so that it is in nobody's way.

        The first tier is given room for all of them, as far as its limits go. `within` bounds the seconds;
        `progress` is called after each batch, in the thread that reads.
        """
        return await asyncio.to_thread(
            self._warm, suppliers, why="a peak is coming", within=within, progress=progress
        )

    async def preload_frequently_used_data(self, *, within: float = WARM_SECONDS) -> WarmingResult:
        """Bring into memory whom this process will be asked for: the hottest suppliers of the same day a week ago,
        and of the last day.

        Returns after `within` seconds at the latest, also when the store is away.
        """
        deadline = clock.monotonic() + within
        try:
            async with asyncio.timeout(within):
                chosen = await asyncio.to_thread(self.busiest, clock.now())
                return await asyncio.to_thread(
                    self._warm,
                    chosen,
                    why="they were asked for most",
                    within=max(0.0, deadline - clock.monotonic()),
                    urgent=True,
                )
        except (TimeoutError, StoreUnavailable) as error:
            return self._not_warmed(
                within, f"the store did not answer: {error}" if str(error) else "it took too long"
            )

    def busiest(self, now: int) -> list[str]:
        """The suppliers with the most deliveries in the 24 hours that began an hour before this moment a week ago,
        then those of the last 24 hours, the busiest first.

        Blocks; raises StoreUnavailable.
        """
        if self._heat is None:
            return []
        most = self._max_suppliers
        week_ago = self._heat.hottest(now - _WEEK - _HOUR, now - _WEEK + _DAY - _HOUR, most=most)
        return week_ago + self._heat.hottest(now - _DAY, now, most=most)

    def _warm(
        self,
        suppliers: Sequence[str],
        *,
        why: str,
        within: float,
        urgent: bool = False,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> WarmingResult:
        if self._reader.version is None:  # what is read before the first look at it is not kept
            self._reader.refresh()
        keep = _START_SECONDS if urgent else _PEAK_SECONDS
        room = self._tuner.make_room(len(self._l1) + len(suppliers), keep=keep)

        def note(far: Progress) -> None:
            self._progress = far
            progress(far)

        self._last_warming = self._warmer.warm(
            suppliers, why=why, room=room, within=within, urgent=urgent, progress=note
        )
        self._progress = None
        return self._last_warming

    def _not_warmed(self, duration: float, reason: str) -> WarmingResult:
        held = self._l1.state().bytes or 0
        self._last_warming = WarmingResult(
            why="they were asked for most",
            wanted=0,
            present=0,
            loaded=0,
            unknown=0,
            left=0,
            duration=duration,
            before_bytes=held,
            after_bytes=held,
            reason=reason,
        )
        return self._last_warming
