"""The change limit: how often one endpoint may be changed, counted exactly over a sliding minute."""

from collections import OrderedDict, deque
from collections.abc import Callable

from ringbearer import clock
from ringbearer.errors import TooManyRequests

WINDOW = 60.0
"""Seconds over which changes are counted."""
MAX_ENDPOINTS = 50_000
"""Endpoints remembered; beyond that, the one whose last change lies furthest back is forgotten."""


class ChangeLimit:
    """Takes at most `per_minute` changes of each endpoint in any minute; 0 takes any number.

    Each process counts for itself. Only changes that are taken count: a refused one prolongs no wait.
    """

    def __init__(self, per_minute: int, *, monotonic: Callable[[], float] = clock.monotonic) -> None:
        self._per_minute = per_minute
        self._monotonic = monotonic
        self._taken: OrderedDict[str, deque[float]] = OrderedDict()  # by the time of the last change

    def __repr__(self) -> str:
        return f"<ChangeLimit {self._per_minute} per minute, {len(self._taken)} endpoints>"

    def take(self, endpoint_id: str) -> None:
        """Count one change; raises TooManyRequests when there were as many as may be."""
        if self._per_minute <= 0:
            return
        now = self._monotonic()
        self._drop_old(now)
        moments = self._taken.setdefault(endpoint_id, deque())
        while moments and moments[0] <= now - WINDOW:
            moments.popleft()
        if len(moments) >= self._per_minute:
            raise TooManyRequests(
                f"endpoint {endpoint_id!r} was changed {self._per_minute} times in the last minute, "
                "which is the most",
                moments[0] + WINDOW - now,
            )
        moments.append(now)
        self._taken.move_to_end(endpoint_id)

    def _drop_old(self, now: float) -> None:
        while self._taken:
            endpoint_id, moments = next(iter(self._taken.items()))
            if len(self._taken) < MAX_ENDPOINTS and moments[-1] > now - WINDOW:
                return
            del self._taken[endpoint_id]
