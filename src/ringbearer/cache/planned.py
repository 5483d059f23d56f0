"""Warming by plan: before a peak, at the moments that the season's plan names, the busiest suppliers are brought in."""

import asyncio
import logging
from collections.abc import Callable

from ringbearer import clock
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.cache.results import WarmingResult
from ringbearer.season import Season

_log = logging.getLogger(__name__)


class PlannedWarming:
    """Looks now and then whether a moment of warming has come, and warms this process's cache then.

    `season` is asked for the plan in force each time.
    """

    def __init__(self, *, cache: WebhookCacheManager, season: Callable[[], Season], since: int) -> None:
        self._cache = cache
        self._season = season
        self._looked_at = since

    def __repr__(self) -> str:
        return f"<PlannedWarming for {self._season()!r}>"

    async def look(self, *, now: int) -> WarmingResult | None:
        """Warm if a moment of the plan has passed since the last look; returns what came of it.

        `now` is a stored time. Raises StoreUnavailable when the store cannot say who is busiest; the next look tries
        again.
        """
        planned = self._season().next_warming(clock.to_datetime(self._looked_at))
        if planned is None or clock.from_datetime(planned) > now:
            self._looked_at = now
            return None
        suppliers = await asyncio.to_thread(self._cache.busiest, now)
        result = await self._cache.warm_cache_for_peak_season(suppliers)
        self._looked_at = now
        _log.info("warmed for a peak", extra={"loaded": result.loaded, "left": result.left})
        return result
