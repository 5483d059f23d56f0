"""Trials: samples that are sent while somebody waits, on threads that nothing else needs."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from ringbearer.errors import TooManyRequests

MOST = 16
"""Trials of one process under way at a time."""
_RETRY_AFTER = 5.0

P = ParamSpec("P")
T = TypeVar("T")


class Trials:
    """Calls that last as long as a receiver likes, up to half a minute.

    On the threads that everybody shares, a few receivers that answer nothing would hold up each look at a key, and
    the heartbeat. Raises TooManyRequests when as many are under way as may be.
    """

    def __init__(self, most: int = MOST) -> None:
        self._room = threading.BoundedSemaphore(most)
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="trial")

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if not self._room.acquire(blocking=False):
            raise TooManyRequests("as many samples are on their way as may be", _RETRY_AFTER)
        future = self._threads.submit(partial(function, *args, **kwargs))
        future.add_done_callback(self._ended)  # not before: whoever asked may be gone long since
        return await asyncio.wrap_future(future)

    def _ended(self, _: Future[T]) -> None:
        self._room.release()
