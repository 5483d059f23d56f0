"""Vitals: one look at everything that the page *Now* shows, over all processes of the service."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from ringbearer import clock
from ringbearer.dashboard.trends import together
from ringbearer.domain.alerts import Alert
from ringbearer.domain.breakers import Circuit
from ringbearer.domain.deliveries import Delivery, State
from ringbearer.domain.events import LANES
from ringbearer.errors import StoreUnavailable
from ringbearer.monitor.figures import Figures
from ringbearer.storage.base import Storage
from ringbearer.storage.nodes import Node
from ringbearer.storage.search import Filter

_NEWEST = 12
_DAY = 86_400 * clock.SECOND
_RATES = ("accepted", "attempts", "retries")
_CIRCUITS = 5
_MINUTE = 60 * clock.SECOND
_WAITING = (State.READY, State.WAITING)


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """One lane of the queue; `oldest` is the age in seconds of the first that is ready."""

    name: str
    ready: int
    leased: int
    scheduled: int
    oldest: float | None
    p95: float | None
    """Seconds from ready to the first byte sent, in the last minute or two."""


class Vitals(msgspec.Struct, frozen=True, kw_only=True):
    """What is going on at a moment, a stored time. Rates are per second, over the last few."""

    at: int
    lanes: tuple[Lane, ...]
    dead: int
    held: int
    newest: tuple[Delivery, ...]
    nodes: tuple[Node, ...]
    circuits: tuple[Circuit, ...]
    """Some of the endpoints that are left alone."""
    circuits_open: int
    store_seconds: float
    """How long the store took for this look."""
    redis_seconds: float | None
    """How long Redis took to answer; None when it did not."""
    redis_used: bool
    alerts: tuple[Alert, ...]
    """What fires."""
    figures: Figures
    """What was measured in the last minute or two."""
    cache_hits: float | None
    """The share of look-ups that this machine's memory answered, since its processes started."""

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

    @property
    def workers(self) -> tuple[Node, ...]:
        """The processes that send."""
        return tuple(node for node in self.nodes if node.kind == "work")

    @property
    def utilisation(self) -> float | None:
        """The share of the workers' places that are taken."""
        slots = self.total("slots")
        return self.total("held") / slots if slots else None

    @property
    def point(self) -> list[float]:
        """A point of the chart: seconds since the epoch; deliveries accepted, tries, and repeated tries a second."""
        return [self.at / clock.SECOND, *(round(self.total(name), 1) for name in _RATES)]

    def total(self, signal: str) -> float:
        """The sum of a signal over all processes."""
        return sum(node.signals.get(signal, 0.0) for node in self.nodes)


class Looker:
    """Looks at the store, at Redis if there is one, and at what this machine's processes count. Blocks."""

    def __init__(
        self,
        storage: Storage,
        *,
        figures: Callable[[int, int], Mapping[str, Figures]],
        totals: Callable[[], Mapping[str, float]],
        ping: Callable[[], None] | None = None,
    ) -> None:
        self._storage = storage
        self._figures = figures
        self._totals = totals
        self._ping = ping

    def __repr__(self) -> str:
        return f"<Looker at {self._storage!r}>"

    def __call__(self) -> Vitals:
        """One look; raises StoreUnavailable."""
        now, began = clock.now(), clock.monotonic()
        storage = self._storage
        depth = {(entry.lane, entry.state): entry.count for entry in storage.ledger.depth()}
        oldest = storage.ledger.oldest()
        measured = self._figures(now - _MINUTE, now + 1)
        circuits = storage.breakers.standing_open(limit=_CIRCUITS)
        return Vitals(
            at=now,
            lanes=tuple(_lane(lane, depth, oldest, now, measured) for lane in range(len(LANES))),
            dead=sum(count for (_, state), count in depth.items() if state is State.DEAD),
            held=sum(count for (_, state), count in depth.items() if state is State.HELD),
            newest=self._newest(now),
            nodes=tuple(storage.nodes.alive()),
            circuits=tuple(circuits),
            circuits_open=storage.breakers.count_open() if len(circuits) == _CIRCUITS else len(circuits),
            alerts=tuple(alert for alert in storage.alerts.live() if alert.state == "firing"),
            figures=together(measured.values()),
            store_seconds=clock.monotonic() - began,
            redis_seconds=self._asked_redis(),
            redis_used=self._ping is not None,
            cache_hits=_hits(self._totals()),
        )

    def _newest(self, now: int) -> tuple[Delivery, ...]:
        """The newest deliveries: of a day if that is enough, so that PostgreSQL opens no other day's tables."""
        find = self._storage.history.find
        found = find(Filter(after=clock.to_datetime(now - _DAY)), limit=_NEWEST).items
        return tuple(found if len(found) == _NEWEST else find(Filter(), limit=_NEWEST).items)

    def _asked_redis(self) -> float | None:
        if self._ping is None:
            return None
        began = clock.monotonic()
        try:
            self._ping()
        except StoreUnavailable:
            return None
        return clock.monotonic() - began


def _lane(
    lane: int,
    depth: Mapping[tuple[int, State], int],
    oldest: Mapping[int, int],
    now: int,
    measured: Mapping[str, Figures],
) -> Lane:
    def count(states: Sequence[State]) -> int:
        return sum(depth.get((lane, state), 0) for state in states)

    return Lane(
        name=LANES[lane],
        ready=count(_WAITING),
        leased=count((State.LEASED,)),
        scheduled=count((State.SCHEDULED,)),
        oldest=max(0, now - oldest[lane]) / clock.SECOND if lane in oldest else None,
        p95=measured.get(LANES[lane], Figures()).distribution("reach").p95,
    )


def _hits(totals: Mapping[str, float]) -> float | None:
    """The share of the first tier's look-ups that it answered."""
    hits, misses = (
        totals.get(f"ringbearer_cache_requests_total{{{result},l1}}", 0) for result in ("hit", "miss")
    )
    return hits / (hits + misses) if hits + misses else None
