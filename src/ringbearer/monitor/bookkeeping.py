"""Bookkeeping of the leader: minutes are summed up, and what is too old goes."""

import asyncio

from ringbearer import clock
from ringbearer.looper import Looper
from ringbearer.monitor.summary import prune, sum_up
from ringbearer.storage.base import Storage

_SECONDS = 60.0
_PAUSE = 0.05  # between two small steps, so that traffic goes first
_ALERTS_KEPT = 400 * 86_400 * clock.SECOND


class Bookkeeper:
    """A duty of the leader; every step is short and safe beside another leader's."""

    def __init__(self, *, storage: Storage) -> None:
        self._storage = storage
        self._looper = Looper("bookkeeper", self._keep, interval=_SECONDS)

    def __repr__(self) -> str:
        return f"<Bookkeeper with {self._looper!r}>"

    def start(self) -> None:
        """Begin."""
        self._looper.start()

    async def stop(self) -> None:
        """End."""
        await self._looper.stop()

    async def _keep(self) -> float | None:
        return _PAUSE if await asyncio.to_thread(self._step) else None

    def _step(self) -> bool:
        """A little of everything; returns whether more is left to do."""
        now, rollups = clock.now(), self._storage.rollups
        more = sum_up(rollups, now=now)
        removed = prune(rollups, now=now)
        self._storage.alerts.prune(before=now - _ALERTS_KEPT)
        return more or removed > 0
