"""Retention: what is old enough goes, without standing in the way of what is new.

An unfinished delivery is never removed, nor is the event it belongs to.
"""

from abc import ABC, abstractmethod

from sqlalchemy import Connection, text

from ringbearer import clock, ids
from ringbearer.storage import tenancy
from ringbearer.storage.database import Database
from ringbearer.storage.parameters import keys_of
from ringbearer.storage.schema import PARTITIONED

_DAY = 86_400 * clock.SECOND
_DAYS_AHEAD = 3
_CHUNK = 500
# Per cent of a page that inserts fill: each delivery is updated once, within its page if that has room, and then
# no index need be told.
_FILL = {"events": 100, "deliveries": 60, "attempts": 100}
_KEY_CHUNK = 5_000
# A statement that waits for a lock makes everybody wait who comes after it: better it gives up, and is tried again.
_IMPATIENT = "SET LOCAL lock_timeout = '500ms'"
_PREPARE_LOCK = 0x52424451  # an arbitrary number that only the making and dropping of days takes


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

    def forget_closed(self, *, before: int) -> None:
        """Remove what was ended before a moment: replays, and deleted endpoints and suppliers."""
        with self._database.write() as connection:
            for statement in (
                "DELETE FROM replays WHERE finished_at < :before",
                "DELETE FROM endpoints WHERE deleted AND updated_at < :before",
                "DELETE FROM suppliers WHERE deleted AND updated_at < :before",
                # Keys are endpoints' ids and `supplier:` with a supplier's; that of the whole service stays.
                "DELETE FROM rate_windows WHERE substr(key, 1, 3) = 'ep_' "
                "AND key NOT IN (SELECT id FROM endpoints WHERE NOT deleted)",
                "DELETE FROM rate_windows WHERE substr(key, 1, 9) = 'supplier:' "
                "AND substr(key, 10) NOT IN (SELECT id FROM suppliers WHERE NOT deleted)",
            ):
                connection.execute(text(statement), {"before": before} if ":before" in statement else {})

    def _forget_dead(self, connection: Connection, before: int) -> int:
        """Dead letters past their retention leave the queue, and its counts, before their deliveries do."""
        # What somebody has just locked is being replayed, and must not be removed once it is ready.
        old = self._database.among.format(
            "SELECT delivery_id FROM jobs WHERE state = 'dead' AND delivery_id < :bound "
            f"ORDER BY delivery_id LIMIT :chunk {self._database.skip_locked}"
        )
        gone = connection.execute(
            text(f"DELETE FROM jobs WHERE delivery_id {old} RETURNING lane"),
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
        parameters = {"rows": keys_of(old)}
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
            # One process at a time: IF NOT EXISTS does not hold against what another one is just making.
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _PREPARE_LOCK})
            connection.execute(text(_IMPATIENT))
            for day in range(today - _DAY, today + (_DAYS_AHEAD + 1) * _DAY, _DAY):
                for table, prefix in PARTITIONED.items():
                    name = _name(table, day)
                    if not _exists(connection, name):
                        self._make(
                            connection, table, name, ids.floor(prefix, day), ids.floor(prefix, day + _DAY)
                        )

    @staticmethod
    def _make(connection: Connection, table: str, name: str, low: str, high: str) -> None:
        """Make a day's table by itself, and attach it: that waits for no reader or writer, and none waits for it."""
        connection.execute(
            text(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL) WITH (fillfactor = {_FILL[table]})")
        )
        tenancy.close(connection, name)
        connection.execute(
            text(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{low}') TO ('{high}')")
        )

    def prune(self, *, before: int) -> int:
        before = before // _DAY * _DAY  # dead letters, too, go with their day
        with self._database.write() as connection:
            dead = self._forget_dead(connection, before)
        if dead:
            return dead
        for day in self._days(before):
            with self._database.write() as connection:
                if not self._lock(connection, day):
                    continue
                if self._unfinished(connection, day):
                    removed = self._prune_rows(connection, day + _DAY)
                else:
                    removed = self._forget_keys(connection, day) or self._drop(connection, day)
            if removed:
                return removed
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
    def _forget_keys(connection: Connection, day: int) -> int:
        """Idempotency keys go before the tables, in chunks: dropping keeps everybody out of the other days too."""
        return connection.execute(
            text(
                "DELETE FROM idempotency WHERE event_id IN (SELECT event_id FROM idempotency "
                "WHERE event_id >= :low AND event_id < :high LIMIT :chunk)"
            ),
            {"low": ids.floor("evt", day), "high": ids.floor("evt", day + _DAY), "chunk": _KEY_CHUNK},
        ).rowcount

    @staticmethod
    def _lock(connection: Connection, day: int) -> bool:
        """Keep others out of a day, so that nothing of it is replayed meanwhile; False when it is gone already."""
        # Whoever reads the table now finishes first; if that takes long, the next round tries again.
        connection.execute(text(_IMPATIENT))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _PREPARE_LOCK})
        name = _name("deliveries", day)
        there = _exists(connection, name)
        if there:
            connection.execute(text(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE"))
        return there

    @staticmethod
    def _drop(connection: Connection, day: int) -> int:
        for table in PARTITIONED:
            connection.execute(text(f"DROP TABLE IF EXISTS {_name(table, day)}"))
        return 1


def _name(table: str, day: int) -> str:
    return f"{table}_{day // _DAY}"


def _exists(connection: Connection, name: str) -> bool:
    # Not by to_regclass, which may still know what another process has just dropped.
    query = text("SELECT 1 FROM pg_class WHERE relname = :name AND pg_table_is_visible(oid)")
    return connection.execute(query, {"name": name}).first() is not None
