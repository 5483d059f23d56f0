"""One periodic loop for all background work: it survives errors, wakes early when told, and stops at once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)


class Looper:
    """Calls an async function again and again until it is stopped.

    The function returns how many seconds to wait before the next call, or None for the usual interval. An
    exception is logged, and the next call comes after the usual interval.
    """

    def __init__(self, name: str, work: Callable[[], Awaitable[float | None]], *, interval: float) -> None:
        self._name = name
        self._work = work
        self._interval = interval
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "running" if self._task is not None and not self._task.done() else "stopped"
        return f"<Looper {self._name} every {self._interval} s, {state}>"

    def start(self) -> None:
        """Begin; the first call comes at once."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=self._name)

    def wake(self) -> None:
        """Call the function now instead of later."""
        self._wake.set()

    async def stop(self) -> None:
        """End; returns when the loop has ended."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                pause = await self._work()
            except Exception as error:
                _log.warning("%s failed, will try again: %s", self._name, error)
                pause = None
            await self._rest(self._interval if pause is None else pause)

    async def _rest(self, seconds: float) -> None:
        """Wait so long, or until woken: a timer that wakes costs a tenth of a timeout that is raised and caught."""
        timer = asyncio.get_running_loop().call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
