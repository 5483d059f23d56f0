"""The pulse: one reader per process looks once a second, and paints what it sees once, for however many viewers."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable

from ringbearer import clock
from ringbearer.dashboard.vitals import Vitals
from ringbearer.errors import RingbearerError

MAX_VIEWERS = 200
"""Viewers of one process at a time; each is a connection that stays open."""
KEPT = 300
"""Points of the chart that are kept for whoever comes next: five minutes."""
PATIENCE = 0.1
"""Seconds that a page waits for its first look; later it is painted without figures, and the stream brings them."""
_INTERVAL = 1.0
_LINGER = 60  # looks after the last viewer has left, so that a reload finds no gap
_STALE = 5  # intervals after which a look is not shown to whoever comes next

_log = logging.getLogger(__name__)


class Pulse:
    """Looks at the system while anybody watches, and hands each look to all who do, as `paint` makes it of it.

    Belongs to one event loop. `look` and `paint` are called on a thread, once a second at most.
    """

    def __init__(
        self, look: Callable[[], Vitals], *, paint: Callable[[Vitals], bytes], interval: float = _INTERVAL
    ) -> None:
        self._look = look
        self._paint = paint
        self._interval = interval
        self._beating: asyncio.Task[None] | None = None
        self._next: asyncio.Future[bytes | None] | None = None
        self._newest: Vitals | None = None
        self._painted = b""
        self._viewers = 0
        self._stopped = False
        self.points: deque[list[float]] = deque(maxlen=KEPT)
        """What the chart shows of the last looks."""

    def __repr__(self) -> str:
        return f"<Pulse with {self._viewers} viewers>"

    @property
    def full(self) -> bool:
        """Whether there are as many viewers as there may be."""
        return self._viewers >= MAX_VIEWERS

    async def newest(self) -> Vitals | None:
        """The last look if it is fresh, or else the next one if it is there in time; from then on looks go on."""
        if self._fresh() is None:
            coming = self._coming()
            try:
                async with asyncio.timeout(PATIENCE):
                    await asyncio.shield(coming)
            except TimeoutError:
                return None
        else:
            self._coming()
        return self._fresh()

    async def watch(self) -> AsyncIterator[bytes | None]:
        """The last look if it is fresh, then each one, painted, until `stop`; None when the store did not answer.

        A slow viewer misses some rather than fall behind.
        """
        self._viewers += 1
        try:
            coming = self._coming()
            if self._fresh() is not None:
                yield self._painted
            while True:
                painted = await asyncio.shield(coming)
                if self._stopped:
                    return
                yield painted
                coming = self._coming()
        finally:
            self._viewers -= 1

    def stop(self) -> None:
        """Let every viewer go."""
        self._stopped = True
        if self._beating is not None:
            self._beating.cancel()
        self._hand_out(None)

    def _fresh(self) -> Vitals | None:
        found = self._newest
        if found is None or abs(clock.now() - found.at) > _STALE * self._interval * clock.SECOND:
            return None
        return found

    def _coming(self) -> "asyncio.Future[bytes | None]":
        """What comes of the next look, which is made whether or not somebody waits for it."""
        loop = asyncio.get_running_loop()
        if self._next is None or self._next.done():
            self._next = loop.create_future()
        if self._stopped:
            self._hand_out(None)
        elif self._beating is None or self._beating.done():
            self._beating = loop.create_task(self._beat(), name="pulse")
        return self._next

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        idle = 0
        while idle < _LINGER:
            began = loop.time()
            try:
                found, painted = await asyncio.to_thread(self._look_and_paint)
            except RingbearerError as error:
                _log.warning("the pages could not look at the system: %s", error)
                self._newest = None
                self._hand_out(None)
            else:
                self._newest, self._painted = found, painted
                self.points.append(found.point)
                self._hand_out(painted)
            idle = 0 if self._viewers else idle + 1
            await asyncio.sleep(max(0.05, began + self._interval - loop.time()))

    def _look_and_paint(self) -> tuple[Vitals, bytes]:
        found = self._look()
        return found, self._paint(found)

    def _hand_out(self, painted: bytes | None) -> None:
        if self._next is not None and not self._next.done():
            self._next.set_result(painted)
