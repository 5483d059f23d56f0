"""The reconciler: makes the index in Redis anew when it is lost, and keeps the head of each lane in it.

Whoever makes deliveries ready tells the index or not: what falls due, is rescued, replayed or let go, what was
committed by a process that died before it could push. Instead of telling of each of these ways, the head of each
lane is compared with the store all the time; what comes nearer to the head is found in time.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence

from ringbearer import clock
from ringbearer.errors import RedisUnavailable
from ringbearer.looper import Looper
from ringbearer.queue.index import LANE_MOST, LANES, Entry, RedisIndex
from ringbearer.storage.ready import Ready, ReadyJob
from ringbearer.telemetry import IndexRebuilt, IndexUsed, Telemetry

_SECONDS = 1.0
_AGAIN_SECONDS = 0.25  # after a look that found something missing, for there may be more
_HEAD = 2_000  # of each lane, which costs about 10 ms
_PAGE = 2_000
_NO_LIMIT = 2**53

_log = logging.getLogger(__name__)


class Reconciler:
    """Runs on the worker that leads; `start` and `stop` belong to its event loop.

    The index is made anew when its server is another process than the one on which it was made whole: after a
    flush, a start without data or with old data, a failover. Until that is done, workers claim from the store.
    """

    def __init__(self, *, ready: Ready, index: RedisIndex, telemetry: Telemetry) -> None:
        self._ready = ready
        self._index = index
        self._telemetry = telemetry
        self._stopping = False
        self._looper = Looper("reconciler", self._look, interval=_SECONDS)

    def __repr__(self) -> str:
        return f"<Reconciler of {self._index!r}>"

    def start(self) -> None:
        """Begin to look, once a second or, while there is much to put in, four times."""
        self._stopping = False
        self._looper.start()

    async def stop(self) -> None:
        """End; what is being made anew is left to who leads next."""
        self._stopping = True
        await self._looper.stop()

    async def _look(self) -> float | None:
        try:
            put = await asyncio.to_thread(self.reconcile)
        except RedisUnavailable as error:
            _log.debug("nothing to reconcile with: %s", error)
            return None
        return _AGAIN_SECONDS if put else None

    def reconcile(self) -> int:
        """Look once; returns how many deliveries were put into the index.

        Raises RedisUnavailable and StoreUnavailable: what was done until then stays done.
        """
        torn = self._index.torn()
        if torn:
            return self._rebuild(torn)
        return self._mend()

    def _rebuild(self, shards: Sequence[int]) -> int:
        began = clock.monotonic()
        _log.warning("the index in Redis is made anew from the store", extra={"shards": len(shards)})
        self._index.clear(shards)
        wanted, number = set(shards), 0
        for lane in range(LANES):
            for page in self._pages(lane):
                mine = [job for job in page if self._index.shard_of(job.endpoint_id) in wanted]
                number += self._put(mine, "rebuilt")
                if self._stopping:
                    return number
        self._index.mark(shards)
        seconds = clock.monotonic() - began
        self._telemetry.emit(IndexRebuilt(number, seconds))
        _log.warning("the index is whole", extra={"deliveries": number, "seconds": round(seconds, 3)})
        return number

    def _pages(self, lane: int) -> Iterator[list[ReadyJob]]:
        last: ReadyJob | None = None
        for _ in range(LANE_MOST // _PAGE):
            page = self._ready.page(lane, last, limit=_PAGE)
            if page:
                yield page
            if len(page) < _PAGE:
                return
            last = page[-1]

    def _mend(self) -> int:
        heads = self._ready.heads(limit=_HEAD)
        if not heads:
            return 0
        entries = [Entry(job.delivery_id, job.endpoint_id, job.lane, job.rank, None) for job in heads]
        missing = self._index.missing(entries)
        return self._put([job for job in heads if job.delivery_id in missing], "repaired")

    def _put(self, jobs: Sequence[ReadyJob], how: str) -> int:
        if not jobs:
            return 0
        contents = self._ready.contents({job.event_id for job in jobs})
        bodies = {event_id: self._index.seal(event_id, content) for event_id, content in contents.items()}
        entries = [
            Entry(job.delivery_id, job.endpoint_id, job.lane, job.rank, bodies.get(job.event_id))
            for job in jobs
        ]
        self._index.push(entries, most=_NO_LIMIT)
        self._telemetry.emit(IndexUsed(how, len(entries)))
        return len(entries)
