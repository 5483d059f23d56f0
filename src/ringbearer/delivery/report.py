"""What telemetry is told of one try."""

from ringbearer import clock
from ringbearer.delivery.returns import Return
from ringbearer.domain.deliveries import Lease, Outcome, State
from ringbearer.telemetry import AttemptMade, AttemptTraced

_OURS = frozenset({"aborted", "internal_error", "worker_stopped"})
"""Codes of errors that no receiver can be blamed for."""
_NO_SOCKET = "no socket"  # the courier's words when the system gave it none


def attempt_made(lease: Lease, returned: Return, state: State, error: str | None) -> AttemptMade:
    """The report on an exchange that made its delivery become that; `error` as it is written down."""
    exchange, first_byte = returned.exchange, returned.first_byte_at
    code = error.partition(":")[0] if error is not None else None
    if state is State.DELIVERED:
        outcome = "delivered"
    else:
        outcome = "ours" if code in _OURS or _NO_SOCKET in exchange.curl_message else "receiver"
    return AttemptMade(
        outcome=outcome,
        send_seconds=exchange.duration / clock.SECOND,
        accept_to_send=(
            max(0, first_byte - lease.accepted_at) / clock.SECOND
            if first_byte is not None and lease.attempt == 1
            else None
        ),
        reused_connection=returned.reused,
        lane=lease.lane,
        tier=lease.tier,
        supplier_id=lease.supplier_id,
        endpoint_id=lease.endpoint_id,
        event_type=lease.event_type,
        attempt=lease.attempt,
        state=state,
        error=code,
        accepted_at=lease.accepted_at,
        ready_at=lease.ready_at or lease.accepted_at,
        claimed_at=lease.claimed_at,
        first_byte_at=first_byte,
        answered_at=exchange.started_at + exchange.duration,
        traced=None if lease.trace is None else _traced(lease, exchange.status or None),
    )


def _traced(lease: Lease, status_code: int | None) -> AttemptTraced:
    return AttemptTraced(lease.trace or "", lease.span, lease.delivery_id, lease.event_id, status_code)


def attempt_spent(outcome: Outcome) -> AttemptMade:
    """The report on an attempt that was written down, although no exchange came to its end."""
    lease, made = outcome.lease, outcome.record
    assert made is not None
    code = (made.error or "").partition(":")[0]
    return AttemptMade(
        outcome="ours" if code in _OURS else "receiver",
        send_seconds=0.0,
        accept_to_send=None,
        reused_connection=False,
        lane=lease.lane,
        tier=lease.tier,
        supplier_id=lease.supplier_id,
        endpoint_id=lease.endpoint_id,
        event_type=lease.event_type,
        attempt=lease.attempt,
        state=outcome.state,
        error=code,
        accepted_at=lease.accepted_at,
        ready_at=lease.ready_at or lease.accepted_at,
        claimed_at=lease.claimed_at or made.started_at,
        first_byte_at=None,
        answered_at=made.started_at,
        traced=None if lease.trace is None else _traced(lease, None),
    )
