"""Vitals: one look at everything that the page *Now* shows."""

from collections.abc import Callable, Mapping

import msgspec

from ringbearer import clock
from ringbearer.domain.deliveries import Delivery, State
from ringbearer.domain.events import LANES
from ringbearer.storage.base import Storage
from ringbearer.storage.history import Filter

_NEWEST = 12
_WAITING = (State.READY, State.WAITING)


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """One lane of the queue; `oldest` is the age in seconds of the first that is ready."""

    name: str
    ready: int
    leased: int
    scheduled: int
    oldest: float | None


class Vitals(msgspec.Struct, frozen=True, kw_only=True):
    """What is going on at a moment. Rates are per second since the look before; None when there was none."""

    at: int
    lanes: tuple[Lane, ...]
    dead: int
    held: int
    newest: tuple[Delivery, ...]
    totals: dict[str, float]
    """What this machine's processes have counted since they started."""
    accepted_rate: float | None = None
    delivered_rate: float | None = None
    failed_rate: float | None = None

    @property
    def ready(self) -> int:
        """Deliveries that wait for a worker."""
        return sum(lane.ready for lane in self.lanes)

    @property
    def leased(self) -> int:
        """Deliveries in flight."""
        return sum(lane.leased for lane in self.lanes)

    @property
    def scheduled(self) -> int:
        """Deliveries that wait for their time."""
        return sum(lane.scheduled for lane in self.lanes)


class Looker:
    """Looks at the store and at what this machine's processes count. Blocks."""

    def __init__(self, storage: Storage, totals: Callable[[], Mapping[str, float]]) -> None:
        self._storage = storage
        self._totals = totals
        self._before: Vitals | None = None

    def __repr__(self) -> str:
        return f"<Looker at {self._storage!r}>"

    def __call__(self) -> Vitals:
        """One look; raises StoreUnavailable."""
        now = clock.now()
        depth = {(entry.lane, entry.state): entry.count for entry in self._storage.ledger.depth()}
        oldest = self._storage.ledger.oldest()
        found = Vitals(
            at=now,
            lanes=tuple(
                Lane(
                    name=name,
                    ready=sum(depth.get((lane, state), 0) for state in _WAITING),
                    leased=depth.get((lane, State.LEASED), 0),
                    scheduled=depth.get((lane, State.SCHEDULED), 0),
                    oldest=max(0, now - oldest[lane]) / clock.SECOND if lane in oldest else None,
                )
                for lane, name in enumerate(LANES)
            ),
            dead=sum(count for (_, state), count in depth.items() if state is State.DEAD),
            held=sum(count for (_, state), count in depth.items() if state is State.HELD),
            newest=tuple(self._storage.history.find(Filter(), limit=_NEWEST).items),
            totals=dict(self._totals()),
        )
        before, self._before = self._before, found
        return found if before is None else _with_rates(found, before)


def _with_rates(found: Vitals, before: Vitals) -> Vitals:
    seconds = (found.at - before.at) / clock.SECOND
    if not 0 < seconds < 10:  # after a pause, an average over it would be no rate of now
        return found

    def rate(name: str) -> float:
        return max(0.0, found.totals.get(name, 0) - before.totals.get(name, 0)) / seconds

    return msgspec.structs.replace(
        found,
        accepted_rate=rate("ringbearer_events_accepted_total"),
        delivered_rate=rate("ringbearer_deliveries_total{delivered}"),
        failed_rate=rate("ringbearer_attempts_total{failed}"),
    )
