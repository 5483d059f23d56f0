"""The outbox: events that an application emitted in SQL, inside its own transaction; on PostgreSQL alone.

    SELECT ringbearer.emit('booking.confirmed', 'lumen-photo', '{"booking": 7}')

A rollback emits nothing. What was committed stays in the table until it is an event, or is refused with a reason.
"""

from collections.abc import Collection, Mapping
from datetime import date, datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from ringbearer.storage.parameters import text_of

TABLE = "ringbearer.outbox"
BELL = "outbox"
"""The name of the bell that `emit` rings: NOTIFY ringbearer_outbox."""

_TAKE = text(f"""
SELECT id, type, supplier_id, CAST(data AS text), emitted_at, happened_at, idempotency_key, ordering_key, priority,
       deliver_at, occasion_date, tags, traceparent
FROM {TABLE} WHERE refused_at IS NULL ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED
""")
_DONE = text(f"DELETE FROM {TABLE} WHERE id = ANY(CAST(:ids AS bigint[]))")
_REFUSED = text(f"""
UPDATE {TABLE} AS o SET refused_at = statement_timestamp(), reason = r.value ->> 1
FROM jsonb_array_elements(CAST(:rows AS jsonb)) AS r(value) WHERE o.id = CAST(r.value ->> 0 AS bigint)
""")
_COUNT_REFUSED = text(f"SELECT count(*) FROM {TABLE} WHERE refused_at IS NOT NULL")


class Emitted(NamedTuple):
    """An event as it lies in the outbox; `data` is JSON text."""

    id: int
    type: str
    supplier_id: str
    data: str
    emitted_at: datetime
    happened_at: datetime | None
    idempotency_key: str | None
    ordering_key: str | None
    priority: str | None
    deliver_at: datetime | None
    occasion_date: date | None
    tags: list[str] | None
    traceparent: str | None


def take(connection: Connection, most: int) -> list[Emitted]:
    """The oldest that wait, locked until the transaction ends; those that another relay has are left out."""
    return [Emitted(*row) for row in connection.execute(_TAKE, {"most": most})]


def settle(connection: Connection, done: Collection[int], refused: Mapping[int, str]) -> None:
    """Take out what became an event, and write down why something cannot become one."""
    if done:
        connection.execute(_DONE, {"ids": list(done)})
    if refused:
        connection.execute(_REFUSED, {"rows": text_of(list(refused.items()))})


def count_refused(connection: Connection) -> int:
    """How many events lie there that could not become one."""
    count: int = connection.execute(_COUNT_REFUSED).scalar_one()
    return count
