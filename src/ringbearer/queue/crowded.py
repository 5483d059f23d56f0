"""Crowded endpoints: those of which a worker had to put back many deliveries, whose others are better parked."""

import threading
from collections.abc import Iterable

from ringbearer import clock
from ringbearer.domain.deliveries import Outcome, State
from ringbearer.storage.parking import Park

MANY = 24
"""Deliveries of one endpoint that are put back from one claim; so many mean that more stand behind them."""
_LEAST_SPACING = 1_000
_QUICK = 2_000
"""Microseconds between two deliveries of an endpoint that is too quick to be worth parking: half a thousand a second."""
_MOST_SPACING = 60 * clock.SECOND


class Crowded:
    """Noted by the loop's thread, taken and parked by another, since looking for what is queued takes a while."""

    def __init__(self) -> None:
        self._parks: dict[str, Park] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Crowded: {len(self._parks)} endpoints>"

    def __bool__(self) -> bool:
        return bool(self._parks)

    def note(self, outcomes: Iterable[Outcome]) -> None:
        """What was claimed and comes again later without having been sent."""
        back: dict[str, list[Outcome]] = {}
        for outcome in outcomes:
            if outcome.state is State.SCHEDULED and outcome.record is None:
                back.setdefault(outcome.lease.endpoint_id, []).append(outcome)
        for endpoint_id, those in back.items():
            if len(those) >= MANY and (park := park_like(endpoint_id, those)) is not None:
                with self._lock:
                    self._parks[endpoint_id] = park

    def take(self) -> list[Park]:
        """What is to be parked; each is handed out once."""
        with self._lock:
            parks, self._parks = list(self._parks.values()), {}
        return parks


def park_like(endpoint_id: str, back: list[Outcome]) -> Park | None:
    """Where those that stand behind these queue up: after the last of them, at the same distances.

    None for an endpoint that will have taken them before they were parked and had come back.
    """
    dues = [outcome.due_at for outcome in back if outcome.due_at is not None]
    # Of those that found no room the distance is known; their times are shaken, and would tell another.
    spacing = back[-1].spacing
    if spacing is None:
        spacing = (max(dues) - min(dues)) // max(1, len(dues) - 1)
    elif spacing < _QUICK:
        return None
    return Park(
        endpoint_id,
        until=max(dues),
        spacing=min(_MOST_SPACING, max(_LEAST_SPACING, spacing)),
        reason=back[-1].reason or "its endpoint takes no more now",
        brief=True,
    )
