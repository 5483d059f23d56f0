"""An event: something that happened and that suppliers are told of."""

from datetime import date, datetime
from typing import Literal

import msgspec

from ringbearer.domain.times import Moment

Priority = Literal["urgent", "high", "normal", "bulk"]
LANES: tuple[Priority, ...] = ("urgent", "high", "normal", "bulk")
"""The lanes of the queue, most important first. A stored lane is its index here."""

MAX_DATA_BYTES = 256 * 1024
MAX_BATCH_EVENTS = 10_000
MAX_BATCH_BYTES = 16 * 1024 * 1024


class NewEvent(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a publisher says. `data` keeps the publisher's bytes as they came."""

    supplier_id: str
    type: str
    data: msgspec.Raw
    timestamp: datetime | None = None
    idempotency_key: str | None = None
    occasion_date: date | None = None
    priority: Priority | None = None
    deliver_at: datetime | None = None
    ordering_key: str | None = None
    tags: tuple[str, ...] = ()


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An accepted event, as the API shows it."""

    id: str
    supplier_id: str
    type: str
    timestamp: Moment
    data: msgspec.Raw
    idempotency_key: str | None = None
    occasion_date: date | None = None
    priority: Priority
    priority_reason: str | None = None
    """The name of the rule that chose its lane; null when none did."""
    deliver_at: Moment | None = None
    ordering_key: str | None = None
    tags: tuple[str, ...] = ()
    created_at: Moment


def body(event_id: str, event_type: str, timestamp: str, data: str) -> bytes:
    """The bytes that are signed and sent, the same on every attempt.

    `timestamp` is RFC 3339 and `data` is JSON text already, so nothing is parsed or written anew.
    """
    return f'{{"id":"{event_id}","type":"{event_type}","timestamp":"{timestamp}","data":{data}}}'.encode()
