"""A delivery: one event on its way to one endpoint; its states, its legal moves, its attempts.

waiting ──first of its ordering key──▸ ready
ready ──claim──▸ leased ──2xx──▸ delivered ──replay──▸ ready
  ▲                │ ├─retry──▸ scheduled ──due──▸ ready
  │                │ ├─give up─▸ dead ──replay──▸ ready
  │                │ └─endpoint disabled─▸ held ──enabled──▸ ready
  │ └─parked─▸ scheduled
  └─released, or lease expired─┘     (any but leased and finished) ──cancel──▸ cancelled
"""

from enum import StrEnum

import msgspec

from ringbearer.domain.times import Moment


class State(StrEnum):
    """Where a delivery stands."""

    WAITING = "waiting"
    """Behind an earlier delivery of the same endpoint and ordering key."""
    READY = "ready"
    """May be sent now."""
    LEASED = "leased"
    """With a worker; its attempt number is the fence."""
    SCHEDULED = "scheduled"
    """May be sent at a known time."""
    HELD = "held"
    """Its endpoint is disabled."""
    DELIVERED = "delivered"
    DEAD = "dead"
    """Given up: a dead letter, until it is replayed or its retention ends."""
    CANCELLED = "cancelled"


MOVES: dict[State, frozenset[State]] = {
    State.WAITING: frozenset({State.READY, State.SCHEDULED, State.HELD, State.CANCELLED}),
    State.READY: frozenset({State.LEASED, State.SCHEDULED, State.HELD, State.CANCELLED}),
    State.LEASED: frozenset(
        {State.READY, State.DELIVERED, State.SCHEDULED, State.DEAD, State.HELD, State.CANCELLED}
    ),
    State.SCHEDULED: frozenset({State.READY, State.HELD, State.CANCELLED}),
    State.HELD: frozenset({State.READY, State.SCHEDULED, State.WAITING, State.CANCELLED}),
    State.DELIVERED: frozenset({State.READY}),
    State.DEAD: frozenset({State.READY, State.WAITING}),
    State.CANCELLED: frozenset(),
}
"""The only legal moves: from each state to those it may become."""

FINISHED = frozenset({State.DELIVERED, State.DEAD, State.CANCELLED})
"""States in which nothing more happens by itself."""


class Lease(msgspec.Struct, kw_only=True, gc=False):
    """A claimed delivery with all that sending it needs. Times are stored times (microseconds)."""

    delivery_id: str
    event_id: str
    endpoint_id: str
    supplier_id: str
    lane: int
    attempt: int
    attempt_base: int
    """Attempts spent before the last replay: the retry schedule counts from here."""
    ordering_key: str | None
    accepted_at: int
    event_type: str
    timestamp: str
    data: str
    worker: str = ""
    """Who holds it: with the attempt's number the fence that keeps everybody else from moving it."""
    ready_at: int = 0
    """Since when it may be sent: when it was accepted, or fell due."""
    tier: str = "standard"
    """The supplier's tier, known once the worker has looked it up."""
    claimed_at: int = 0
    """When the worker began with it."""
    trace: str | None = None
    """The trace that its event belongs to, as `domain.traces` keeps it."""
    span: str = ""
    """The id of this attempt's span in it, once the request is made."""


class Content(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What of an event goes to its receivers."""

    type: str
    timestamp: str
    data: str
    trace: str | None = None


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How long the parts of a connection took, one after the other; seconds.

    `name`: until its name was resolved, 0 where that was known. `connect`: TCP or QUIC. `tls`: the handshake, 0 without
    one. What did not come to its end is null.
    """

    name: float
    connect: float | None
    tls: float | None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try to deliver. `duration` in seconds; `error` is a code, and a sentence after a colon.

    `timing` is of attempts that began a connection; null where one was used again.
    """

    number: int
    started_at: Moment
    status_code: int | None = None
    duration: float
    error: str | None = None
    response_body: str | None = None
    response_headers: dict[str, str] = {}
    timing: Timing | None = None


class Record(msgspec.Struct, kw_only=True, gc=False):
    """What is written down of one try, in stored units: times and durations in microseconds."""

    started_at: int
    duration: int
    status_code: int | None
    error: str | None
    response_body: str | None
    response_headers: str | None
    """A JSON object of header names and values."""
    timing: str | None = None
    """A `Timing` in JSON."""


class Outcome(msgspec.Struct, kw_only=True, gc=False):
    """What becomes of a lease. It changes nothing unless that attempt is still leased to that worker.

    `record` is None when nothing was sent; then the attempt is given back, not spent.
    `due_at` is set when, and only when, `state` is SCHEDULED.
    `spacing` is set when it found no room: the microseconds after which its endpoint takes the next one.
    """

    lease: Lease
    state: State
    due_at: int | None = None
    record: Record | None = None
    reason: str | None = None
    spacing: int | None = None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery as the API shows it."""

    id: str
    event_id: str
    event_type: str
    supplier_id: str
    endpoint_id: str
    state: State
    priority: str
    attempt_count: int
    due_at: Moment | None = None
    reason: str | None = None
    created_at: Moment
    finished_at: Moment | None = None


class DeliveryDetail(Delivery, frozen=True, kw_only=True):
    """A delivery with its attempts, oldest first."""

    attempts: list[Attempt] = []
