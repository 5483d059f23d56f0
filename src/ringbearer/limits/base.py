"""Rate limits: at most so many sends in any window of time, exact over all workers.

The window slides: the moments of the last sends are kept, and the next one may go out a period after the
oldest of them. Unlike fixed windows, no choice of the moment lets more through.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from ringbearer import clock
from ringbearer.domain.endpoints import RateLimit

MAX_REMEMBERED = 1_000
"""Sends that are remembered per endpoint; a faster limit is kept as its n-th part in each n-th of its period."""


class RateLimiter(ABC):
    """Knows when each endpoint was sent to."""

    @abstractmethod
    def take(self, wanted: Mapping[str, tuple[RateLimit, int]], *, now: int) -> dict[str, list[int]]:
        """For each key, when each of so many sends may go out, in order.

        Those at `now` are taken; later ones are estimates, to be asked for again then. Blocks; raises
        StoreUnavailable.
        """


_CLOCK_JUMP = 60 * clock.SECOND  # more than two hosts differ by, or than one waits for the store


def slots(history: Sequence[int], limit: RateLimit, count: int, now: int) -> tuple[list[int], list[int]]:
    """When `count` sends may go out, and the history once those that may go out now have.

    `history` holds the stored times of earlier sends, oldest first. Whoever sent last may have looked at its
    clock a little later than this caller did: then what goes out now is noted down with that later time. A
    history that lies far ahead tells that the clock was set back, and is set back with it.
    """
    requests, period = _remembered(limit)
    ahead = history[-1] - now if history else 0
    if ahead > _CLOCK_JUMP:
        history = [moment - ahead for moment in history]
        ahead = 0
    present = now + max(0, ahead)
    window = [moment for moment in history if moment > present - period][-requests:]
    kept = list(window)
    times = []
    for _ in range(count):
        moment = present if len(window) < requests else max(present, window[-requests] + period)
        window.append(moment)
        if moment == present:
            kept.append(moment)
            times.append(now)
        else:
            times.append(moment)
    return times, kept


def _remembered(limit: RateLimit) -> tuple[int, int]:
    parts = -(-limit.requests // MAX_REMEMBERED)
    return limit.requests // parts, -(-round(limit.period * clock.SECOND) // parts)
