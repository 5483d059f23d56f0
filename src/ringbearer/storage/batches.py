"""Batches: what the ledger's statements are given and answer, as rows and as JSON.

All of it is put together and taken apart outside of transactions: on SQLite everybody else waits while one writes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import msgspec

from ringbearer.domain.deliveries import Content, Lease, Outcome, State
from ringbearer.domain.events import Priority
from ringbearer.domain.suppliers import Tier
from ringbearer.storage.parameters import text_of

GONE = frozenset({State.DELIVERED, State.CANCELLED})
"""States without a job."""
CLOSED = GONE | {State.DEAD}
"""States that the delivery itself shows, and that let its ordering key go on."""
NONE = "[]"
"""No rows, as JSON."""

Moves = Counter[tuple[int, str]]
"""How many jobs each lane and state gains."""


class Accepted(msgspec.Struct, kw_only=True, gc=False):
    """What became of an admission."""

    event_id: str
    deliveries: int
    duplicate: bool = False
    contradiction: bool = False
    """The idempotency key stands for an event with another body; nothing was stored."""


class Admission(msgspec.Struct, kw_only=True, gc=False):
    """An event that publishing has checked, matched and ranked, on its way into the store."""

    event_id: str
    supplier_id: str
    type: str
    timestamp: str
    data: str
    lane: int
    accepted_at: int
    endpoints: tuple[tuple[str, bool], ...]
    """The id of each endpoint that wants it, and whether that endpoint is enabled."""
    deliver_at: int | None = None
    ordering_key: str | None = None
    own_keys: dict[str, str | None] = {}
    """The ordering key for endpoints (by id) that do not go by the event's."""
    idempotency_key: str | None = None
    fingerprint: str = ""
    """A digest of what the publisher said: what tells a repetition from a contradiction."""
    occasion_date: str | None = None
    tier: Tier = "standard"
    asked: Priority | None = None
    """The priority that the publisher asked for."""
    reason: str | None = None
    """The name of the rule that chose the lane, if one did."""
    tags: str | None = None
    trace: str | None = None
    """The trace that it belongs to, as `domain.traces` keeps it."""
    trace_parent: str = ""
    """The publisher's own span, where the one in `trace` is ours."""
    ranks: list[int | None] = []
    """The rank of each endpoint's delivery, None for one that is not ready; filled in when it is stored."""

    def accepted(self) -> Accepted:
        """The answer to a new one."""
        return Accepted(event_id=self.event_id, deliveries=len(self.endpoints))


class Made(NamedTuple):
    """What admissions become: rows as JSON, how many jobs they are, and the ordering keys that are concerned."""

    events: str
    jobs: str
    moved: Moves
    ordered: set[tuple[str, str]]


class Written(NamedTuple):
    """What outcomes become beside their jobs, as JSON, with the first and the last id of what is closed."""

    attempts: str
    closing: str
    low: str
    high: str

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], now: int) -> Self:
        """What is written of outcomes that were all still leased."""
        attempts = [_attempt_row(o) for o in outcomes if o.record is not None]
        return cls.closed([_closing_row(o, now) for o in outcomes if o.state in CLOSED], attempts)

    @classmethod
    def closed(
        cls,
        closing: Sequence[tuple[str, str, int, str | None, int]],
        attempts: Sequence[tuple[object, ...]] = (),
    ) -> Self:
        """What is written of deliveries that end: id, state, attempts spent, reason and when."""
        ids = [row[0] for row in closing] or [""]
        return cls(text_of(attempts), text_of(closing), min(ids), max(ids))


class Settling(NamedTuple):
    """What is to be written of outcomes: which jobs end and which go back, by their fences, and what else."""

    outcomes: Sequence[Outcome]
    now: int
    finished: str
    kept: str
    ordered: set[tuple[str, str]]
    written: Written
    """As it is if none of the leases was lost."""

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], now: int) -> Self:
        """Of several outcomes of one delivery only the newest counts."""
        outcomes = _newest(outcomes)
        kept = [
            (*fence(o.lease), o.state, o.due_at, 0 if o.record else 1, o.reason)
            for o in outcomes
            if o.state not in GONE
        ]
        ordered = {
            (o.lease.endpoint_id, o.lease.ordering_key)
            for o in outcomes
            if o.lease.ordering_key is not None and o.state in CLOSED
        }
        finished = text_of([fence(o.lease) for o in outcomes if o.state in GONE])
        return cls(outcomes, now, finished, text_of(kept), ordered, Written.of(outcomes, now))


class Claimed(NamedTuple):
    """A job as it is when it was just leased."""

    delivery_id: str
    event_id: str
    endpoint_id: str
    supplier_id: str
    attempt: int
    lane: int
    rank: int
    attempt_base: int
    ordering_key: str | None
    accepted_at: int
    ready_at: int


def leases_of(taken: Sequence[Claimed], contents: Mapping[str, Content], worker: str) -> list[Lease]:
    """The leases of claimed jobs, given what their events say by id."""
    return [_lease(row, contents[row.event_id], worker) for row in taken]


def _lease(row: Claimed, content: Content, worker: str) -> Lease:
    return Lease(
        delivery_id=row.delivery_id,
        event_id=row.event_id,
        endpoint_id=row.endpoint_id,
        supplier_id=row.supplier_id,
        lane=row.lane,
        attempt=row.attempt,
        attempt_base=row.attempt_base,
        worker=worker,
        ordering_key=row.ordering_key,
        accepted_at=row.accepted_at,
        ready_at=row.ready_at,
        event_type=content.type,
        timestamp=content.timestamp,
        data=content.data,
        trace=content.trace,
    )


def fence(lease: Lease) -> tuple[str, int, str]:
    """What only its holder knows: a lease with another attempt or worker is not this one."""
    return lease.delivery_id, lease.attempt, lease.worker


def _attempt_row(outcome: Outcome) -> tuple[object, ...]:
    record = outcome.record
    assert record is not None
    return (
        outcome.lease.delivery_id,
        outcome.lease.attempt,
        record.started_at,
        record.duration,
        record.status_code,
        record.error,
        record.response_body,
        record.response_headers,
        record.timing,
    )


def _closing_row(outcome: Outcome, now: int) -> tuple[str, str, int, str | None, int]:
    spent = outcome.lease.attempt if outcome.record is not None else outcome.lease.attempt - 1
    return outcome.lease.delivery_id, outcome.state, spent, outcome.reason, now


def _newest(outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    """One outcome of each delivery: a worker that lost a lease and got it again may come to know two of them."""
    newest: dict[str, Outcome] = {}
    for outcome in outcomes:
        known = newest.get(outcome.lease.delivery_id)
        if known is None or outcome.lease.attempt > known.lease.attempt:
            newest[outcome.lease.delivery_id] = outcome
    return outcomes if len(newest) == len(outcomes) else list(newest.values())
