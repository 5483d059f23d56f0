"""How many requests an endpoint may have under way: additive increase, multiplicative decrease, slow start.

The rule of TCP (Chiu and Jain 1989; RFC 5681) for requests in place of packets: what a receiver takes in good time
raises its limit, by one for each success at first and by one for each round later; a sign of distress halves it.
After a pause the beginning is slow again.
"""

import msgspec

from ringbearer import clock

FIRST_LIMIT = 16.0
"""Requests under way before anything is known of the receiver."""
LEAST = 1.0
_HALF = 0.5
_IDLE = 60 * clock.SECOND  # what was learned before that says little of now


class Window(msgspec.Struct, gc=False):
    """One endpoint's limit and what is under way. Times are stored times.

    `distressed_at`: requests that began before then say nothing that is not known already.
    """

    limit: float = FIRST_LIMIT
    threshold: float = 0.0
    """Where slow start ends; 0 as long as no distress was seen: then it does not end."""
    busy: int = 0
    distressed_at: int = 0
    used_at: int = 0

    def room(self, most: int | None) -> int:
        """How many more may begin; `most` is the owner's own limit."""
        limit = int(self.limit) if most is None else min(int(self.limit), most)
        return limit - self.busy


def begun(window: Window, now: int) -> None:
    """A request goes out."""
    if now - window.used_at > _IDLE and not window.busy:
        window.limit = min(window.limit, FIRST_LIMIT)
    window.used_at = now
    window.busy += 1


def succeeded(window: Window, most: float) -> None:
    """A request was taken; call it before `ended`. The limit grows only where it is used, and to `most`."""
    if window.busy * 2 < window.limit:
        return
    if window.threshold == 0.0 or window.limit < window.threshold:
        window.limit = min(most, window.limit + 1.0)
    else:
        window.limit = min(most, window.limit + 1.0 / window.limit)


def distressed(window: Window, *, began: int, now: int) -> None:
    """A request that began at a stored time met 429, 5xx, no answer in time or no connection."""
    if began < window.distressed_at:
        return
    window.distressed_at = now
    window.limit = max(LEAST, window.limit * _HALF)
    window.threshold = max(LEAST, window.limit)


def ended(window: Window) -> None:
    """A request is over, however it went."""
    window.busy -= 1
