"""Circuit breakers in the store: what one worker finds out, all of them know.

Every change takes the next number in its own transaction, under the lock of one row: whoever has seen number n has
seen all before it, so that following is one small read. A change names the number that it builds on; of two
workers that change the same circuit at once, the second changes nothing and follows the first.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, text

from ringbearer.domain.breakers import Circuit, Forced
from ringbearer.storage.database import Database
from ringbearer.storage.parameters import keys_of, text_of

_COLUMNS = "endpoint_id, supplier_id, state, forced, since, opened, probe_at, reason, version"


class BreakerTable:
    """The table of circuits. Every method blocks, and raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        rows = database.rows
        self._tick = text(
            "INSERT INTO breaker_clock (id, version) VALUES (1, 1) "
            "ON CONFLICT (id) DO UPDATE SET version = breaker_clock.version + 1 RETURNING version"
        )
        self._ensure = text(
            "INSERT INTO breakers (endpoint_id, supplier_id, state, since, opened, probe_at, version) "
            f"SELECT r.value ->> 0, r.value ->> 1, 'closed', 0, 0, 0, :version FROM {rows} WHERE true "
            "ON CONFLICT (endpoint_id) DO NOTHING"
        )
        self._change = text(
            "UPDATE breakers SET state = r.value ->> 2, since = CAST(r.value ->> 3 AS BIGINT), "
            "opened = CAST(r.value ->> 4 AS INTEGER), probe_at = CAST(r.value ->> 5 AS BIGINT), "
            f"reason = r.value ->> 6, version = :version FROM {rows} "
            "WHERE endpoint_id = r.value ->> 0 AND version IN (CAST(r.value ->> 7 AS BIGINT), :version) "
            "AND forced IS NULL "
            "RETURNING endpoint_id"
        )
        self._probe = text(
            f"UPDATE breakers SET state = 'half_open', probe_at = :until, version = :version FROM {rows} "
            "WHERE endpoint_id = r.value ->> 0 AND state <> 'closed' AND probe_at <= :now AND forced IS NULL "
            "RETURNING endpoint_id"
        )
        self._force = text(
            "UPDATE breakers SET forced = CAST(:forced AS TEXT), state = 'closed', since = :now, opened = 0, "
            "probe_at = 0, reason = CAST(:reason AS TEXT), version = :version WHERE endpoint_id = :endpoint_id"
        )
        self._since = text(f"SELECT {_COLUMNS} FROM breakers WHERE version > :version ORDER BY version")
        self._one = text(f"SELECT {_COLUMNS} FROM breakers WHERE endpoint_id = :endpoint_id")
        there = "SELECT 1 FROM endpoints AS e WHERE e.id = breakers.endpoint_id AND NOT e.deleted"
        is_open = f"COALESCE(forced, state) <> 'closed' AND EXISTS ({there})"
        self._standing_open = text(
            f"SELECT {_COLUMNS} FROM breakers WHERE {is_open} AND endpoint_id > :cursor "
            "AND (:everybody OR supplier_id = :supplier_id) ORDER BY endpoint_id LIMIT :most"
        )
        self._count_open = text(f"SELECT count(*) FROM breakers WHERE {is_open}")
        self._prune = text(
            "DELETE FROM breakers WHERE (state = 'closed' AND forced IS NULL AND since < :before) "
            f"OR NOT EXISTS ({there})"
        )

    def since(self, version: int) -> list[Circuit]:
        """The circuits that changed after a number, in the order of their numbers."""
        with self._database.read() as connection:
            found = connection.execute(self._since, {"version": version}).all()
        return [_circuit(row) for row in found]

    def change(self, circuits: Sequence[Circuit]) -> set[str]:
        """Write down circuits that moved; returns the ids of those that nobody had moved in between."""
        with self._database.write(durable=False) as connection:
            version = self._next(connection)
            written = [
                (c.endpoint_id, c.supplier_id, c.state, c.since, c.opened, c.probe_at, c.reason, c.version)
                for c in sorted(circuits, key=lambda circuit: circuit.endpoint_id)
            ]
            rows = {"rows": text_of(written)}
            connection.execute(self._ensure, rows | {"version": version})
            changed = connection.execute(self._change, rows | {"version": version})
            return {row.endpoint_id for row in changed}

    def take_probes(self, endpoint_ids: Iterable[str], *, now: int, until: int) -> dict[str, int]:
        """Of open circuits whose pause has passed, those that the caller may probe, until a time; others may not.

        Each comes with the number of this change.
        """
        rows = {"rows": keys_of(sorted(endpoint_ids))}
        with self._database.write(durable=False) as connection:
            version = self._next(connection)
            taken = connection.execute(self._probe, rows | {"version": version, "now": now, "until": until})
            return {row.endpoint_id: version for row in taken}

    def force(
        self,
        endpoint_id: str,
        supplier_id: str,
        forced: Forced | None,
        *,
        now: int,
        reason: str | None = None,
    ) -> Circuit:
        """Keep a circuit open or closed, or let it find out for itself again, starting closed.

        Without a reason it was an operator.
        """
        if forced is None:
            reason = None
        elif reason is None:
            reason = f"forced {forced} by an operator"
        with self._database.write() as connection:
            version = self._next(connection)
            rows = {"rows": text_of([(endpoint_id, supplier_id)]), "version": version}
            connection.execute(self._ensure, rows)
            values = {"forced": forced, "reason": reason, "now": now, "version": version}
            connection.execute(self._force, values | {"endpoint_id": endpoint_id})
            return _circuit(connection.execute(self._one, {"endpoint_id": endpoint_id}).one())

    def get(self, endpoint_id: str, supplier_id: str) -> Circuit:
        """The circuit of an endpoint; a closed one when nothing ever happened."""
        with self._database.read() as connection:
            row = connection.execute(self._one, {"endpoint_id": endpoint_id}).first()
        return Circuit(endpoint_id=endpoint_id, supplier_id=supplier_id) if row is None else _circuit(row)

    def standing_open(
        self, *, limit: int, cursor: str | None = None, supplier_id: str | None = None
    ) -> list[Circuit]:
        """Circuits that let nothing through, or only a probe, by the endpoint's id; of one supplier or all."""
        values = {
            "most": limit,
            "cursor": cursor or "",
            "everybody": supplier_id is None,
            "supplier_id": supplier_id or "",
        }
        with self._database.read() as connection:
            return [_circuit(row) for row in connection.execute(self._standing_open, values)]

    def count_open(self) -> int:
        """How many circuits let nothing through, or only a probe."""
        with self._database.read() as connection:
            return int(connection.execute(self._count_open).scalar_one())

    def prune(self, *, before: int) -> int:
        """Forget circuits that have been closed since a stored time, or have no endpoint; returns how many."""
        with self._database.write(durable=False) as connection:
            return connection.execute(self._prune, {"before": before}).rowcount

    def _next(self, connection: Connection) -> int:
        return int(connection.execute(self._tick).scalar_one())


def _circuit(row: Row[*tuple[Any, ...]]) -> Circuit:
    return Circuit(
        endpoint_id=row.endpoint_id,
        supplier_id=row.supplier_id,
        state=row.state,
        forced=row.forced,
        since=row.since,
        opened=row.opened,
        probe_at=row.probe_at,
        reason=row.reason,
        version=row.version,
    )
