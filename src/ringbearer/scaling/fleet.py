"""A fleet of child processes of one kind: started, started again when they end by themselves, drained when too many."""

import asyncio
import contextlib
import logging
import signal
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ringbearer import backoff, clock, ids

_log = logging.getLogger(__name__)

_RESTART_FIRST = 0.25
_RESTART_MOST = 30.0
_STABLE_SECONDS = 10.0  # a child that lived so long starts its backoff from the beginning
_KILL_SECONDS = 10.0  # after the grace time, for a process that hangs


@dataclass(frozen=True)
class Life:
    """One life of one child."""

    node_id: str
    first: bool
    """Whether it is the first life of its place in the fleet."""


class Fleet:
    """Keeps as many children running as it was told to; belongs to one event loop.

    `launch` starts one; `gone` is told of each end. A child that is not needed any more gets SIGTERM, by which it
    gives back or finishes what it holds, and SIGKILL when it has not ended `grace` seconds and ten more after that.
    """

    def __init__(
        self,
        name: str,
        *,
        launch: Callable[[Life], Awaitable[Process]],
        gone: Callable[[Life, Process], Awaitable[None]],
        grace: float,
    ) -> None:
        self._name = name
        self._launch = launch
        self._gone = gone
        self._patience = grace + _KILL_SECONDS
        self._places: list[_Place] = []
        self._leaving: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Fleet of {len(self._places)} {self._name}, {len(self._leaving)} leaving>"

    @property
    def size(self) -> int:
        """How many there shall be."""
        return len(self._places)

    def resize(self, number: int) -> None:
        """Start or drain children until there are so many; the youngest leave first, for their caches are coldest."""
        while len(self._places) < number:
            self._places.append(_Place(self._name, self._launch, self._gone, self._patience))
        while len(self._places) > number:
            place = self._places.pop()
            place.leave()
            self._leaving.add(place.task)
            place.task.add_done_callback(self._leaving.discard)

    async def stop(self) -> None:
        """Drain all; returns when no child is left."""
        self.resize(0)
        if self._leaving:
            await asyncio.wait(self._leaving)


class _Place:
    """One place of a fleet, and whoever holds it now."""

    def __init__(
        self,
        name: str,
        launch: Callable[[Life], Awaitable[Process]],
        gone: Callable[[Life, Process], Awaitable[None]],
        patience: float,
    ) -> None:
        self._name = name
        self._launch = launch
        self._gone = gone
        self._patience = patience
        self._to_leave = asyncio.Event()
        self.task = asyncio.create_task(self._keep(), name=f"keeper of {name}")

    def leave(self) -> None:
        """Let the child end in order, and start no other."""
        self._to_leave.set()

    async def _keep(self) -> None:
        """Start a child, and again whenever it ends by itself, later each time it fails soon."""
        failures = 0
        first = True
        while not self._to_leave.is_set():
            life = Life(ids.node(), first)
            began = clock.monotonic()
            try:
                child = await self._launch(life)
            except OSError as error:  # no memory, or too many processes, for the moment
                failures += 1
                _log.error("a process could not be started: %s", error, extra={"command": self._name})
            else:
                code = await self._until_it_ends(child)
                await self._tell(life, child)
                first = False
                if self._to_leave.is_set():
                    return
                # Exit code 0: somebody asked it to stop, as in a rolling restart, which is no failure.
                stable = code == 0 or clock.monotonic() - began > _STABLE_SECONDS
                failures = 1 if stable else failures + 1
                _log.error(
                    "a process ended by itself, it is started again",
                    extra={"command": self._name, "exit_code": code},
                )
            await self._rest(failures)

    async def _tell(self, life: Life, child: Process) -> None:
        """Tell of its end; whatever that comes to, another one is started."""
        try:
            await self._gone(life, child)
        except Exception:
            _log.exception("the end of a process could not be noted", extra={"command": self._name})

    async def _rest(self, failures: int) -> None:
        """Wait before the next start, longer after each failure."""
        pause = backoff.exponential(failures, first=_RESTART_FIRST, most=_RESTART_MOST)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._to_leave.wait()

    async def _until_it_ends(self, child: Process) -> int:
        ending = asyncio.create_task(child.wait())
        leaving = asyncio.create_task(self._to_leave.wait())
        await asyncio.wait({ending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not ending.done():
            _signal(child, signal.SIGTERM)
            _, unfinished = await asyncio.wait({ending}, timeout=self._patience)
            if unfinished:
                _log.error("a process does not stop, it is killed; its leases run out and are taken up again")
                _signal(child, signal.SIGKILL)
        return await ending


def _signal(child: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(number)
