"""Retention: what is old enough goes, without standing in the way of what is new.

An unfinished delivery is never removed, nor is the event it belongs to.
"""

from abc import ABC, abstractmethod

import msgspec
from sqlalchemy import Connection, text

from ringbearer import clock, ids
from ringbearer.storage.database import Database
from ringbearer.storage.schema import PARTITIONED

_DAY = 86_400 * clock.SECOND
_DAYS_AHEAD = 3
_CHUNK = 500


class Retention(ABC):
    """Removes events, deliveries and attempts of before a moment. Blocks; raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @abstractmethod
    def prepare(self) -> None:
        """Make room for the coming days."""

    @abstractmethod
    def prune(self, *, before: int) -> int:
        """Do one short step of removal; returns how many rows or tables went: 0 when nothing is left to do."""

    def _forget_dead(self, connection: Connection, before: int) -> int:
        """Dead letters past their retention leave the queue, and its counts, before their deliveries do."""
        gone = connection.execute(
            text(
                "DELETE FROM jobs WHERE delivery_id IN (SELECT delivery_id FROM jobs WHERE state = 'dead' "
                "AND delivery_id < :bound ORDER BY delivery_id LIMIT :chunk) RETURNING lane"
            ),
            {"bound": ids.floor("dlv", before), "chunk": _CHUNK},
        ).all()
        for lane in {row[0] for row in gone}:
            n = sum(1 for row in gone if row[0] == lane)
            connection.execute(
                text(
                    "INSERT INTO queue_depth (shard, lane, state, n) VALUES (0, :lane, 'dead', :n) "
                    "ON CONFLICT (shard, lane, state) DO UPDATE SET n = queue_depth.n + excluded.n"
                ),
                {"lane": lane, "n": -n},
            )
        return len(gone)

    def _prune_rows(self, connection: Connection, before: int) -> int:
        """Remove a chunk of old events that have nothing unfinished, with their deliveries and attempts."""
        old = [
            row[0]
            for row in connection.execute(
                text(
                    "SELECT e.id FROM events AS e WHERE e.id < :bound AND NOT EXISTS (SELECT 1 FROM jobs AS j "
                    "WHERE j.delivery_id >= 'dlv_' || substr(e.id, 5) AND "
                    "j.delivery_id < 'dlv_' || substr(e.id, 5) || 'g') ORDER BY e.id LIMIT :chunk"
                ),
                {"bound": ids.floor("evt", before), "chunk": _CHUNK},
            )
        ]
        if not old:
            return 0
        parameters = {"rows": msgspec.json.encode([(event_id,) for event_id in old]).decode()}
        rows = self._database.rows
        ranges = (
            f"SELECT d.id FROM {rows} JOIN deliveries AS d ON d.id >= 'dlv_' || substr(r.value ->> 0, 5) "
            "AND d.id < 'dlv_' || substr(r.value ->> 0, 5) || 'g'"
        )
        connection.execute(text(f"DELETE FROM attempts WHERE delivery_id IN ({ranges})"), parameters)
        connection.execute(text(f"DELETE FROM deliveries WHERE id IN ({ranges})"), parameters)
        for table, column in (("idempotency", "event_id"), ("events", "id")):
            connection.execute(
                text(f"DELETE FROM {table} WHERE {column} IN (SELECT r.value ->> 0 FROM {rows})"), parameters
            )
        return len(old)


class ChunkedRetention(Retention):
    """For SQLite: small transactions, so that writers wait for milliseconds only."""

    def prepare(self) -> None:
        """Nothing to make: the tables are whole."""

    def prune(self, *, before: int) -> int:
        with self._database.write() as connection:
            return self._forget_dead(connection, before) + self._prune_rows(connection, before)


class PartitionedRetention(Retention):
    """For PostgreSQL: a day is a table of its own, and goes as a whole."""

    def prepare(self) -> None:
        today = clock.now() // _DAY * _DAY
        with self._database.write() as connection:
            for day in range(today - _DAY, today + (_DAYS_AHEAD + 1) * _DAY, _DAY):
                for table, prefix in PARTITIONED.items():
                    name = _name(table, day)
                    if not _exists(connection, name):
                        connection.execute(
                            text(
                                f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF {table} "
                                f"FOR VALUES FROM ('{ids.floor(prefix, day)}') "
                                f"TO ('{ids.floor(prefix, day + _DAY)}')"
                            )
                        )

    def prune(self, *, before: int) -> int:
        with self._database.write() as connection:
            dead = self._forget_dead(connection, before)
        if dead:
            return dead
        for day in self._days(before):
            with self._database.write() as connection:
                if self._unfinished(connection, day):
                    removed = self._prune_rows(connection, min(before, day + _DAY))
                    if removed:
                        return removed
                    continue
                self._drop(connection, day)
                return 1
        return 0

    def _days(self, before: int) -> list[int]:
        """The days that have a table and ended before the moment, oldest first."""
        with self._database.read() as connection:
            names = connection.execute(
                text(
                    "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid "
                    "WHERE i.inhparent = CAST('events' AS regclass) ORDER BY c.relname"
                )
            ).all()
        days = []
        for (name,) in names:
            suffix = name.removeprefix("events_")
            if suffix.isdigit():
                day = int(suffix) * _DAY
                if day + _DAY <= before:
                    days.append(day)
        return days

    @staticmethod
    def _unfinished(connection: Connection, day: int) -> bool:
        return (
            connection.execute(
                text("SELECT 1 FROM jobs WHERE delivery_id >= :low AND delivery_id < :high LIMIT 1"),
                {"low": ids.floor("dlv", day), "high": ids.floor("dlv", day + _DAY)},
            ).first()
            is not None
        )

    @staticmethod
    def _drop(connection: Connection, day: int) -> None:
        # Whoever reads the table now finishes first; if that takes long, the next round tries again,
        # rather than that everybody else queues up behind this statement.
        connection.execute(text("SET LOCAL lock_timeout = '500ms'"))
        for table in PARTITIONED:
            connection.execute(text(f"DROP TABLE IF EXISTS {_name(table, day)}"))
        connection.execute(
            text("DELETE FROM idempotency WHERE event_id >= :low AND event_id < :high"),
            {"low": ids.floor("evt", day), "high": ids.floor("evt", day + _DAY)},
        )


def _name(table: str, day: int) -> str:
    return f"{table}_{day // _DAY}"


def _exists(connection: Connection, name: str) -> bool:
    return connection.execute(text("SELECT to_regclass(:name)"), {"name": name}).scalar() is not None
