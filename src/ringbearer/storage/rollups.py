"""Rollups: what each process measured in each minute, and what minutes were summed up to.

A row belongs to a level (minute, hour, day), a dimension (see `monitor.recorder`), a key in it and the process
that measured it; summed-up rows belong to no process (""). A process writes what it has of a minute again and
again, each time over what it wrote before: repeating a write changes nothing.
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum

import msgspec
from sqlalchemy import Connection, text

from ringbearer import clock
from ringbearer.storage.database import Database
from ringbearer.storage.parameters import keys_of, text_of

_COLUMNS = "dimension, at, key, process, attempts, delivered, receiver, ours, first, dead, sketches"
_PAGE = 5_000
_KEYS = 50  # that are read at a time: of an hour's minutes, 3,000 rows of each process


class Level(IntEnum):
    """How long a row's span is."""

    MINUTE = 0
    HOUR = 1
    DAY = 2

    @property
    def span(self) -> int:
        """Microseconds."""
        return (60, 3_600, 86_400)[self] * clock.SECOND


class Rollup(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One row. `at` is the start of its span, a stored time; `sketches` are encoded, one a stage, joined by commas."""

    dimension: str
    at: int
    key: str
    process: str
    attempts: int
    delivered: int
    receiver: int
    ours: int
    first: int
    dead: int
    sketches: str


class Rollups:
    """Writes and reads them. Every method blocks, and raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        numbers = ", ".join(f"CAST(r.value ->> {n} AS BIGINT)" for n in range(4, 10))
        self._upsert = text(
            f"INSERT INTO rollups (level, {_COLUMNS}) "
            "SELECT CAST(:level AS SMALLINT), r.value ->> 0, CAST(r.value ->> 1 AS BIGINT), r.value ->> 2, "
            f"r.value ->> 3, {numbers}, r.value ->> 10 FROM {database.rows} WHERE true "
            "ON CONFLICT (level, dimension, at, key, process) DO UPDATE SET attempts = excluded.attempts, "
            "delivered = excluded.delivered, receiver = excluded.receiver, ours = excluded.ours, "
            "first = excluded.first, dead = excluded.dead, sketches = excluded.sketches"
        )
        select = f"SELECT {_COLUMNS} FROM rollups WHERE level = :level AND dimension = :dimension"
        self._read = text(select + " AND at >= :since AND at < :until")
        self._oldest = text(
            "SELECT min((SELECT min(s.at) FROM rollups AS s WHERE s.level = :level "
            f"AND s.dimension = r.value ->> 0)) FROM {database.rows}"
        )
        self._keys = text(
            "SELECT DISTINCT key FROM rollups WHERE level = :level AND dimension = :dimension "
            "AND at >= :since AND at < :until ORDER BY key"
        )
        named = "AND key " + database.among.format(f"SELECT r.value ->> 0 FROM {database.rows}")
        among = f"{named} AND at >= :since AND at < :until"
        self._read_keys = text(f"{select} {among} ORDER BY key, at, process")
        self._totals = text(
            "SELECT key, sum(attempts), sum(delivered), sum(dead) FROM rollups "
            f"WHERE level = :level AND dimension = :dimension {among} GROUP BY key"
        )
        self._bound = text(
            "SELECT max(at) FROM (SELECT at FROM rollups WHERE level = :level "
            "AND dimension = :dimension AND at < :before ORDER BY at LIMIT :page) AS oldest"
        )
        self._prune = text(
            "DELETE FROM rollups WHERE level = :level AND dimension = :dimension AND at <= :bound"
        )
        self._read_key = text(select + " AND key = :key AND at >= :since AND at < :until")

    def write(self, rows: Sequence[Rollup]) -> None:
        """Put a process's minutes over what it wrote of them before; one statement however many there are."""
        if rows:
            with self._database.write(durable=False) as connection:
                self._put(connection, Level.MINUTE, rows)

    def read(
        self, level: Level, dimension: str, *, since: int, until: int, key: str | None = None
    ) -> list[Rollup]:
        """The rows of a dimension whose spans begin in [since, until), of one key or of all."""
        parameters: dict[str, object] = {
            "level": level,
            "dimension": dimension,
            "since": since,
            "until": until,
        }
        statement = self._read if key is None else self._read_key
        if key is not None:
            parameters["key"] = key
        with self._database.read() as connection:
            return [Rollup(*row) for row in connection.execute(statement, parameters)]

    def totals(
        self, level: Level, dimension: str, keys: Sequence[str], *, since: int, until: int
    ) -> dict[str, tuple[int, int, int]]:
        """Attempts, delivered and given up of these keys in spans that begin in [since, until), summed up; only
        those of which there is anything."""
        values = {
            "level": level,
            "dimension": dimension,
            "rows": keys_of(keys),
            "since": since,
            "until": until,
        }
        with self._database.read() as connection:
            rows = connection.execute(self._totals, values).all()
        return {key: (int(attempts), int(delivered), int(dead)) for key, attempts, delivered, dead in rows}

    def marks(self) -> dict[Level, int]:
        """For hours and days, until when (a stored time) the spans below were summed up to them."""
        with self._database.read() as connection:
            rows = connection.execute(text("SELECT level, until FROM rollup_marks")).all()
        return {Level(level): until for level, until in rows}

    def oldest(self, level: Level, dimensions: Sequence[str]) -> int | None:
        """When the first span of a level begins, of these dimensions."""
        rows = keys_of(dimensions)
        with self._database.read() as connection:
            at: int | None = connection.execute(self._oldest, {"level": level, "rows": rows}).scalar()
        return at

    def span(self, level: Level, dimension: str, *, since: int, until: int) -> Iterator[Rollup]:
        """All rows of a dimension whose spans begin in [since, until), by key, some keys at a time."""
        given = {"level": level, "dimension": dimension, "since": since, "until": until}
        with self._database.read() as connection:
            keys = [row[0] for row in connection.execute(self._keys, given)]
        for first in range(0, len(keys), _KEYS):
            rows = {"rows": keys_of(keys[first : first + _KEYS])}
            with self._database.read() as connection:
                found = [Rollup(*row) for row in connection.execute(self._read_keys, given | rows)]
            yield from found

    def sum_up(self, level: Level, rows: Sequence[Rollup], *, until: int) -> None:
        """Write the summed-up rows of a span, and that all before `until` is summed up; all of it or nothing."""
        with self._database.write(durable=False) as connection:
            if rows:
                self._put(connection, level, rows)
            connection.execute(
                text(
                    "INSERT INTO rollup_marks (level, until) VALUES (:level, :until) "
                    "ON CONFLICT (level) DO UPDATE SET until = excluded.until"
                ),
                {"level": level, "until": until},
            )

    def prune(self, level: Level, dimensions: Sequence[str], *, before: int) -> int:
        """Remove rows of these dimensions whose spans began before a moment, a few thousand at most; how many."""
        removed = 0
        for dimension in dimensions:
            values = {"level": level, "dimension": dimension}
            with self._database.read() as connection:
                bound: int | None = connection.execute(
                    self._bound, values | {"before": before, "page": _PAGE}
                ).scalar()
            if bound is None:
                continue
            with self._database.write(durable=False) as connection:
                removed += connection.execute(self._prune, values | {"bound": bound}).rowcount
        return removed

    def _put(self, connection: Connection, level: Level, rows: Sequence[Rollup]) -> None:
        # In one order for everybody: two processes that sum up the same span then wait for each other in turn.
        ordered = sorted(rows, key=lambda row: (row.dimension, row.at, row.key, row.process))
        connection.execute(self._upsert, {"level": level, "rows": text_of(ordered)})
