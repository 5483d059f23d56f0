"""The housekeeper: stages what falls due, rescues lost leases, paces replays, and ends what is too old.

It runs on the worker that leads. Every step is short, asks without a lock before it takes one, and is safe beside
another process's: a leader that stood still may finish one step when another leads already.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from ringbearer import clock
from ringbearer.domain.deliveries import State
from ringbearer.domain.events import LANES
from ringbearer.domain.relief import RELIEF, Relief
from ringbearer.limits.breakers import CIRCUIT_SECONDS
from ringbearer.looper import Looper
from ringbearer.maintenance.tidy import tidy
from ringbearer.queue.base import Queue
from ringbearer.storage.base import Storage
from ringbearer.telemetry import DeliveriesMoved, HistoryPruned, Telemetry

_log = logging.getLogger(__name__)

_BATCH = 1_000
_STAGE_SECONDS = 1.0
_RESCUE_SECONDS = 5.0
_RESCUES_PER_LEASE = 4  # with shorter leases, lost ones are looked for more often
_TIDY_SECONDS = 10.0
_REPLAY_SECONDS = 1.0
_REPLAY_STEP = 500
_REPLAY_SLOWED = 20
_REPLAY_READY = 1_000  # replayed deliveries wait in the bulk lane; above this depth a replay pauses
_PRUNE_SECONDS = 600.0
_PRUNE_PAUSE = 0.05  # between two small steps, so that traffic goes first
_BURY_SECONDS = 3_600.0  # a process that gave no sign for so long is not shown as lost any more
_DAY = 86_400
_BULK = LANES.index("bulk")


class Housekeeper:
    """Runs the background loops of a worker process; `start` and `stop` belong to its event loop."""

    def __init__(
        self,
        *,
        storage: Storage,
        queue: Queue,
        telemetry: Telemetry,
        retention_days: float,
        lease_seconds: float,
    ) -> None:
        self._storage = storage
        self._queue = queue
        self._telemetry = telemetry
        self._retention = int(retention_days * _DAY * clock.SECOND)
        self._loopers = [
            Looper("stager", self._stage, interval=_STAGE_SECONDS),
            Looper(
                "rescuer", self._rescue, interval=min(_RESCUE_SECONDS, lease_seconds / _RESCUES_PER_LEASE)
            ),
            Looper("tidier", self._tidy, interval=_TIDY_SECONDS),
            Looper("replayer", self._replay, interval=_REPLAY_SECONDS),
            Looper("pruner", self._prune, interval=_PRUNE_SECONDS),
        ]

    def __repr__(self) -> str:
        return f"<Housekeeper with {self._loopers!r}>"

    def start(self) -> None:
        """Begin all loops."""
        for looper in self._loopers:
            looper.start()

    async def stop(self) -> None:
        """End all loops."""
        await asyncio.gather(*(looper.stop() for looper in self._loopers))

    async def _stage(self) -> float | None:
        ledger = self._storage.ledger
        moved = await self._moved("staged", lambda: ledger.stage(now=clock.now(), limit=_BATCH))
        if moved == _BATCH:
            return 0.0
        due = await asyncio.to_thread(ledger.next_due)
        if due is None:
            return None
        return min(_STAGE_SECONDS, max(0.005, (due - clock.now()) / clock.SECOND))

    async def _rescue(self) -> float | None:
        ledger = self._storage.ledger
        moved = await self._moved("rescued", lambda: ledger.rescue(now=clock.now(), limit=_BATCH))
        if moved:
            _log.warning("leases of a lost worker were rescued", extra={"deliveries": moved})
        return 0.0 if moved == _BATCH else None

    async def _tidy(self) -> float | None:
        await tidy(self._storage.ledger, self._queue, self._telemetry)
        return None

    async def _replay(self) -> float | None:
        await asyncio.to_thread(self._replay_step)
        return None

    def _replay_step(self) -> None:
        """Move the next page of the oldest replay, unless its lane is full."""
        history, ledger = self._storage.history, self._storage.ledger
        replays = history.open_replays()
        if not replays:
            return
        ready = sum(d.count for d in ledger.depth() if d.lane == _BULK and d.state is State.READY)
        if ready > _REPLAY_READY:
            return
        replay = replays[0]
        step = _REPLAY_STEP // _REPLAY_SLOWED if self._slowed() else _REPLAY_STEP
        page = history.replay_page(replay, limit=step)
        moved = history.advance_replay(
            replay,
            cursor=page[-1] if page else replay.cursor,
            finished=len(page) < step,
            move=lambda connection: ledger.replay_within(connection, page, now=clock.now(), lane=_BULK),
        )
        self._queue.push(moved)
        self._telemetry.emit(DeliveriesMoved("replayed", moved))

    def _slowed(self) -> bool:
        """Whether replays give way, for a service level burns too fast."""
        stored = self._storage.plans.get(RELIEF)
        return stored is not None and "replays" in msgspec.json.decode(stored.body, type=Relief).steps

    async def _prune(self) -> float | None:
        for what, step in self._ends():
            try:
                await step()
            except Exception as error:  # of one thing, which must not keep the others from ending
                _log.warning("%s could not be cleaned up, will try again: %s", what, error)
        return None

    def _ends(self) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
        """What ends by age, each by itself."""
        storage = self._storage

        def old(seconds: float | None = None) -> int:
            return clock.now() - (self._retention if seconds is None else int(seconds * clock.SECOND))

        def threaded(step: Callable[[], object]) -> Callable[[], Awaitable[object]]:
            return lambda: asyncio.to_thread(step)

        return [
            ("history", self._prune_history),
            ("flows", threaded(lambda: storage.ledger.flows.forget(now=clock.now()))),
            ("parking", threaded(lambda: storage.ledger.parking.forget(now=clock.now()))),
            ("what is closed", threaded(lambda: storage.retention.forget_closed(before=old()))),
            ("circuits", threaded(lambda: storage.breakers.prune(before=old(CIRCUIT_SECONDS)))),
            ("calls", threaded(lambda: storage.calls.prune(before=old(CIRCUIT_SECONDS)))),
            ("processes", threaded(lambda: storage.nodes.bury(after=_BURY_SECONDS))),
            ("scaling decisions", threaded(lambda: storage.scaling.prune(before=old()))),
            ("commands", threaded(lambda: storage.commands.prune(before=old()))),
        ]

    async def _prune_history(self) -> None:
        retention = self._storage.retention
        await asyncio.to_thread(retention.prepare)
        while removed := await asyncio.to_thread(
            lambda: retention.prune(before=clock.now() - self._retention)
        ):
            self._telemetry.emit(HistoryPruned(removed))
            await asyncio.sleep(_PRUNE_PAUSE)

    async def _moved(self, how: str, step: Callable[[], int]) -> int:
        count = await asyncio.to_thread(step)
        if count:
            self._telemetry.emit(DeliveriesMoved(how, count))
            self._queue.push(count)
        return count
