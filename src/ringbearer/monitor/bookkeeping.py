"""Bookkeeping of the leader: minutes are summed up, what is too old goes, last month is reported on."""

import asyncio
import logging

import msgspec

from ringbearer import clock
from ringbearer.looper import Looper
from ringbearer.monitor.burning import BurnBook
from ringbearer.monitor.report import bounds, build, month_before
from ringbearer.monitor.summary import prune, sum_up
from ringbearer.storage.base import Storage
from ringbearer.storage.rollups import Level

_log = logging.getLogger(__name__)

_SECONDS = 60.0
_PAUSE = 0.05  # between two small steps, so that traffic goes first
_ALERTS_KEPT = 400 * 86_400 * clock.SECOND


class Bookkeeper:
    """A duty of the leader; every step is short and safe beside another leader's."""

    def __init__(self, *, storage: Storage, book: BurnBook) -> None:
        self._storage = storage
        self._book = book
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
        if not more:
            report_last_month(self._storage, self._book, now=now)
        return more or removed > 0


def report_last_month(storage: Storage, book: BurnBook, *, now: int) -> bool:
    """Keep the report of the month before, once its last hour is summed up; returns whether that was done now.

    Blocks; raises StoreUnavailable.
    """
    month = month_before(now)
    _, end = bounds(month)
    if storage.rollups.marks().get(Level.HOUR, 0) < end or storage.alerts.report(month) is not None:
        return False
    body = msgspec.json.encode(build(storage, book, month, now=now))
    storage.alerts.put_report(month, body, now=now)
    _log.info("the month's report is made", extra={"month": month})
    return True
