"""The telemetry spine: every operation reports here once per batch; metrics and logs listen.

Each kind of report is a class below, and nothing else is emitted. A listener that fails is logged and skipped:
it never breaks the work it listens to.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from ringbearer.domain.deliveries import State

_log = logging.getLogger(__name__)


class Report(msgspec.Struct, frozen=True):
    """The root of all reports. Durations are in seconds."""


class EventsAccepted(Report, frozen=True):
    """A group of events was committed."""

    events: int
    duplicates: int
    deliveries: int
    duration: float


class EventsRefused(Report, frozen=True):
    """Events were not taken; `reason` is one of a few fixed words."""

    events: int
    reason: str


class EventTraced(msgspec.Struct, frozen=True, gc=False):
    """One event that belongs to a trace: how long its publishing took, in stored times. `context` as kept with it."""

    context: str
    parent: str
    """The publisher's span; empty when the trace begins here."""
    event_id: str
    supplier_id: str
    event_type: str
    deliveries: int
    duplicate: bool
    began_at: int
    ended_at: int


class EventsTraced(Report, frozen=True):
    """Events of a group that was committed and that belong to traces; only told where traces are sent on."""

    events: Sequence[EventTraced]


class SpansSent(Report, frozen=True):
    """What became of spans of traces: `how` is exported, failed or dropped (too many waited)."""

    how: str
    count: int


class DeliveriesClaimed(Report, frozen=True):
    """A worker leased a batch."""

    count: int
    duration: float


class AttemptTraced(msgspec.Struct, frozen=True, gc=False):
    """The span of a try whose event belongs to a trace; `context` as kept with the event."""

    context: str
    span: str
    delivery_id: str
    event_id: str
    status_code: int | None


class AttemptMade(msgspec.Struct, frozen=True, gc=False):
    """One finished try, as part of a batch. Moments are stored times.

    `outcome` is `delivered`, or who caused the failure: `receiver` (its answer, its absence, its configuration)
    or `ours`. `state` is what became of the delivery. `accept_to_send` counts in seconds from when the event was
    accepted, or from its `deliver_at`, and is None but for first attempts. `first_byte_at` is None when nothing
    went out.
    """

    outcome: str
    send_seconds: float
    accept_to_send: float | None
    reused_connection: bool
    lane: int
    tier: str
    supplier_id: str
    endpoint_id: str
    event_type: str
    attempt: int
    state: State
    error: str | None
    """The code of the error, without its sentence."""
    accepted_at: int
    ready_at: int
    """Since when it might be sent: when it was accepted, fell due, or its endpoint's limits let it."""
    claimed_at: int
    first_byte_at: int | None
    answered_at: int
    traced: AttemptTraced | None = None


class AttemptsMade(Report, frozen=True):
    """A batch of tries came to an end and was written down, which was done at `settled_at`, a stored time."""

    attempts: Sequence[AttemptMade]
    settled_at: int


class DeliveriesSettled(Report, frozen=True):
    """A batch of outcomes was committed; `states` counts what deliveries became."""

    states: dict[State, int]
    lost: int
    """Outcomes whose lease had been lost in between: fenced, they changed nothing."""
    duration: float


class DeliveriesMoved(Report, frozen=True):
    """Background work moved deliveries: `how` is staged, rescued, held, unheld, cancelled, promoted, replayed, ranked, parked."""

    how: str
    count: int


class RedisFailed(Report, frozen=True):
    """Redis did not do something, `during` naming it with a fixed word; the store does without."""

    during: str
    error: str


class IndexUsed(Report, frozen=True):
    """What became of deliveries on their way through Redis: `how` is pushed, left_out, dropped, claimed, stale,
    claimed_from_store, repaired or rebuilt."""

    how: str
    count: int


class IndexRebuilt(Report, frozen=True):
    """The index in Redis was made anew from the store."""

    count: int
    duration: float


class HistoryPruned(Report, frozen=True):
    """Retention removed rows or day tables."""

    count: int


class TierWork(msgspec.Struct, frozen=True, kw_only=True):
    """What one tier of the cache did since the last report, and how full it is (None: it does not know)."""

    tier: str
    hits: int
    misses: int
    writes: int
    failures: int
    evictions: int
    entries: int | None
    bytes: int | None
    mean_age: float | None
    """Seconds since its entries were read."""
    latencies: Sequence[float]
    """Seconds: a sample of reads from memory, every round trip to elsewhere."""


class CacheWorked(Report, frozen=True):
    """What the cache of this process did since the last report; about twice a second."""

    tiers: Sequence[TierWork]


class ScalingDecided(Report, frozen=True):
    """It was decided how many workers there shall be; `current` are ready now, `before` was decided before."""

    current: int
    before: int
    desired: int
    rule: str


class PlanChanged(Report, frozen=True):
    """What the queue follows has changed in this process: what was and what is, by name, and why."""

    changes: dict[str, str]
    reason: str


class BacklogGrew(Report, frozen=True):
    """A lane's backlog went over its threshold, or came back under half of it."""

    lane: str
    ready: int
    oldest_age: float
    over: bool


class ReliefChanged(Report, frozen=True):
    """A step of relief was taken, for a service level burns too fast, or undone."""

    step: str
    taken: bool
    reason: str


class StoreFailed(Report, frozen=True):
    """The store did not take or answer something; `during` names the operation."""

    during: str
    error: str


class OwnTrouble(Report, frozen=True):
    """Deliveries were stopped by a failure of our own; `what` is dns or proxy. No attempt was spent."""

    what: str
    deliveries: int
    error: str


class ProcessorTuned(Report, frozen=True):
    """A worker changed how it works; `what` is couriers, parallelism, batch, connections, breaker_pause or memory."""

    what: str
    before: float
    after: float
    reason: str


class BreakerMoved(Report, frozen=True):
    """A circuit opened, closed or is being probed: `before` and `after` are closed, open or half_open."""

    endpoint_id: str
    supplier_id: str
    before: str
    after: str
    reason: str | None


R = TypeVar("R", bound=Report)
Listener = Callable[[R], None]


class Telemetry:
    """Hands each report to whoever listens for its kind."""

    def __init__(self) -> None:
        self._listeners: dict[type[Report], list[Callable[[Report], None]]] = {}

    def listen(self, kind: type[R], listener: Listener[R]) -> None:
        """Call the listener with every report of that kind, in the thread that emits it."""

        def deliver(report: Report) -> None:
            assert isinstance(report, kind)
            listener(report)

        self._listeners.setdefault(kind, []).append(deliver)

    def emit(self, report: Report) -> None:
        """Hand a report on; never raises."""
        for listener in self._listeners.get(type(report), ()):
            try:
                listener(report)
            except Exception:
                _log.exception("a telemetry listener failed on %s", type(report).__name__)
