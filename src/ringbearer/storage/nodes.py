"""Nodes: which processes run, what they report of themselves, and who leads what only one may do.

Every moment here is read from the database's clock, inside the statement: hosts whose clocks differ, or jump,
neither look dead to each other nor hold a lease for ever. No state outlives a transaction.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Row, text

from ringbearer import clock
from ringbearer.storage.database import Database

ALIVE_SECONDS = 5.0
"""A process that has not beaten for so long counts as gone; it beats each second."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the service. Times are stored times of the database's clock."""

    id: str
    kind: str
    """`serve`, `work` or `up`."""
    host: str
    pid: int
    version: str
    started_at: int
    beat_at: int
    signals: dict[str, float] = {}
    """What it last told of itself: names and figures, see `scaling/signals.py`."""


class Nodes:
    """Heartbeats and leader leases. Everything here blocks and raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        now = database.now
        self._beat = text(
            "INSERT INTO nodes (id, kind, host, pid, version, started_at, beat_at, signals) "
            f"VALUES (:id, :kind, :host, :pid, :version, {now}, {now}, :signals) "
            f"ON CONFLICT (id) DO UPDATE SET beat_at = {now}, signals = excluded.signals"
        )
        # A step of the clock back makes beats lie in the future; those of the living are mended within a second.
        self._alive = text(
            "SELECT id, kind, host, pid, version, started_at, beat_at, signals FROM nodes "
            f"WHERE beat_at > {now} - :within AND beat_at < {now} + :within ORDER BY started_at, id"
        )
        self._bury = text(f"DELETE FROM nodes WHERE beat_at < {now} - :after OR beat_at > {now} + :after")
        # Ends later than a lease can last: the clock went back, and the lease is nobody's.
        self._lead = text(
            f"INSERT INTO leaders (name, holder, until, term) VALUES (:name, :holder, {now} + :length, 1) "
            "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until, "
            "term = leaders.term + CASE WHEN leaders.holder = excluded.holder THEN 0 ELSE 1 END "
            "WHERE leaders.holder = excluded.holder "
            f"OR leaders.until <= {now} OR leaders.until > {now} + 2 * :length RETURNING term"
        )
        self._leader = text(
            f"SELECT holder FROM leaders WHERE name = :name AND until > {now} AND until <= {now} + :longest"
        )

    def __repr__(self) -> str:
        return f"<Nodes on {self._database!r}>"

    def beat(
        self, node_id: str, *, kind: str, host: str, pid: int, version: str, signals: Mapping[str, float]
    ) -> None:
        """Tell that this process lives, and how it is."""
        row = {
            "id": node_id,
            "kind": kind,
            "host": host,
            "pid": pid,
            "version": version,
            "signals": msgspec.json.encode(dict(signals)).decode(),
        }
        with self._database.write(durable=False) as connection:
            connection.execute(self._beat, row)

    def alive(self, *, within: float = ALIVE_SECONDS) -> list[Node]:
        """The processes that have beaten within so many seconds, the oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(self._alive, {"within": _stored(within)}).all()
        return [_node(row) for row in rows]

    def working(self) -> int:
        """How many workers are ready to deliver: they live, are warm, and do not merely finish what they have."""
        return sum(
            node.kind == "work" and not node.signals.get("draining") and node.signals.get("warm", 1.0) > 0
            for node in self.alive()
        )

    def lead(self, name: str, holder: str, *, seconds: float) -> int | None:
        """Take or renew the lease of that name for so long; its term when it is the holder's, None when it is not.

        The term grows each time that the lease changes hands. The holder may count on the lease until `seconds`
        after it *began* to ask, on a clock that neither stops nor jumps.
        """
        with self._database.write(durable=False) as connection:
            parameters = {"name": name, "holder": holder, "length": _stored(seconds)}
            term: int | None = connection.execute(self._lead, parameters).scalar_one_or_none()
        return term

    def leader(self, name: str, *, longest: float = 60.0) -> str | None:
        """Who holds the lease of that name now; `longest` bounds how far ahead a lease may end, in seconds."""
        with self._database.read() as connection:
            found: str | None = connection.execute(
                self._leader, {"name": name, "longest": _stored(longest)}
            ).scalar_one_or_none()
        return found

    def forget(self, node_id: str) -> None:
        """Remove a process that has ended, and let others take the leases that it held."""
        with self._database.write(durable=False) as connection:
            connection.execute(text("DELETE FROM nodes WHERE id = :id"), {"id": node_id})
            connection.execute(text("UPDATE leaders SET until = 0 WHERE holder = :id"), {"id": node_id})

    def bury(self, *, after: float) -> int:
        """Remove processes that have not beaten for so many seconds; returns how many."""
        with self._database.write(durable=False) as connection:
            return connection.execute(self._bury, {"after": _stored(after)}).rowcount


def _stored(seconds: float) -> int:
    return int(seconds * clock.SECOND)


def _node(row: Row[*tuple[Any, ...]]) -> Node:
    node_id, kind, host, pid, version, started_at, beat_at, signals = row
    return Node(
        id=node_id,
        kind=kind,
        host=host,
        pid=pid,
        version=version,
        started_at=started_at,
        beat_at=beat_at,
        signals=msgspec.json.decode(signals, type=dict[str, float]),
    )
