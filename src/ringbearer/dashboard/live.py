"""The pulse: one reader per process looks once a second, for however many viewers there are."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable

from ringbearer.dashboard.vitals import Vitals
from ringbearer.errors import RingbearerError

MAX_VIEWERS = 200
"""Viewers of one process at a time; each is a connection that stays open."""
KEPT = 300
"""Looks that are kept for whoever comes next: five minutes."""
_INTERVAL = 1.0
_LINGER = 60  # looks after the last viewer has left, so that a reload finds no gap

_log = logging.getLogger(__name__)


class Pulse:
    """Looks at the system while anybody watches, and hands each look to all who do.

    Belongs to one event loop. `look` blocks and is called on a thread, once a second at most.
    """

    def __init__(self, look: Callable[[], Vitals], *, interval: float = _INTERVAL) -> None:
        self._look = look
        self._interval = interval
        self._beating: asyncio.Task[None] | None = None
        self._next: asyncio.Future[Vitals | None] | None = None
        self._viewers = 0
        self._stopped = False
        self.kept: deque[Vitals] = deque(maxlen=KEPT)

    def __repr__(self) -> str:
        return f"<Pulse with {self._viewers} viewers>"

    @property
    def full(self) -> bool:
        """Whether there are as many viewers as there may be."""
        return self._viewers >= MAX_VIEWERS

    async def newest(self) -> Vitals:
        """The last look if it is still fresh, or a new one; raises StoreUnavailable."""
        if self._beating is not None and not self._beating.done() and self.kept:
            return self.kept[-1]
        return await asyncio.to_thread(self._look)

    async def watch(self) -> AsyncIterator[Vitals]:
        """Each look from now on, until `stop`; a slow viewer misses some rather than fall behind."""
        self._viewers += 1
        try:
            while not self._stopped:
                if self._beating is None or self._beating.done():
                    self._beating = asyncio.get_running_loop().create_task(self._beat(), name="pulse")
                if self._next is None or self._next.done():
                    self._next = asyncio.get_running_loop().create_future()
                found = await asyncio.shield(self._next)
                if found is not None:
                    yield found
        finally:
            self._viewers -= 1

    def stop(self) -> None:
        """Let every viewer go."""
        self._stopped = True
        if self._beating is not None:
            self._beating.cancel()
        self._hand_out(None)

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        idle = 0
        while idle < _LINGER:
            began = loop.time()
            try:
                found = await asyncio.to_thread(self._look)
            except RingbearerError as error:
                _log.warning("the pages could not look at the system: %s", error)
            else:
                self.kept.append(found)
                self._hand_out(found)
            idle = 0 if self._viewers else idle + 1
            await asyncio.sleep(max(0.05, began + self._interval - loop.time()))

    def _hand_out(self, found: Vitals | None) -> None:
        if self._next is not None and not self._next.done():
            self._next.set_result(found)
