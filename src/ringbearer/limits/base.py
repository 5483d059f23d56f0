"""Rate limits: at most so many sends in any window of time, exact over all workers.

The window slides: the moments of the last sends are kept, and the next one may go out a period after the
oldest of them. Unlike fixed windows, no choice of the moment lets more through.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from ringbearer import clock
from ringbearer.domain.endpoints import RateLimit

MAX_REMEMBERED = 1_000
"""Sends that are remembered per endpoint; a faster limit is kept as that many in a proportional period."""


class RateLimiter(ABC):
    """Knows when each endpoint was sent to."""

    @abstractmethod
    def take(self, wanted: Mapping[str, tuple[RateLimit, int]], *, now: int) -> dict[str, list[int]]:
        """For each key, when each of so many sends may go out, in order.

        Those at `now` are taken; later ones are estimates, to be asked for again then. Blocks; raises
        StoreUnavailable.
        """


def slots(history: Sequence[int], limit: RateLimit, count: int, now: int) -> tuple[list[int], list[int]]:
    """When `count` sends may go out, and the history once those that may go out now have.

    `history` holds the stored times of earlier sends, oldest first.
    """
    requests, period = _remembered(limit)
    window = [moment for moment in history if moment > now - period][-requests:]
    kept = list(window)
    times = []
    for _ in range(count):
        moment = now if len(window) < requests else max(now, window[-requests] + period)
        times.append(moment)
        window.append(moment)
        if moment <= now:
            kept.append(moment)
    return times, kept


def _remembered(limit: RateLimit) -> tuple[int, int]:
    period = int(limit.period * clock.SECOND)
    if limit.requests <= MAX_REMEMBERED:
        return limit.requests, period
    return MAX_REMEMBERED, max(1, period * MAX_REMEMBERED // limit.requests)
