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

_encode = msgspec.json.Encoder().encode
_COLUMNS = "dimension, at, key, process, attempts, delivered, receiver, ours, first, dead, sketches"
_PAGE = 5_000


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
        self._totals = text(
            "SELECT s.key, sum(s.attempts), sum(s.delivered), sum(s.dead) "
            f"FROM {database.rows} JOIN rollups AS s ON s.level = :level AND s.dimension = :dimension "
            "AND s.key = r.value ->> 0 AND s.at >= :since AND s.at < :until GROUP BY s.key"
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
            "rows": _encode([(key,) for key in keys]).decode(),
            "since": since,
            "until": until,
        }
        with self._database.read() as connection:
            rows = connection.execute(self._totals, values).all()
        return {key: (int(attempts), int(delivered), int(dead)) for key, attempts, delivered, dead in rows}

    def keys(self, dimension: str, *, since: int, until: int) -> list[str]:
        """The keys of a dimension that have rows of any level in a time, in order."""
        with self._database.read() as connection:
            found = connection.execute(
                text(
                    "SELECT DISTINCT key FROM rollups WHERE dimension = :dimension AND at >= :since "
                    "AND at < :until AND level IN (0, 1, 2) ORDER BY key"
                ),
                {"dimension": dimension, "since": since, "until": until},
            )
            return [row[0] for row in found]

    def marks(self) -> dict[Level, int]:
        """For hours and days, until when (a stored time) the spans below were summed up to them."""
        with self._database.read() as connection:
            rows = connection.execute(text("SELECT level, until FROM rollup_marks")).all()
        return {Level(level): until for level, until in rows}

    def oldest(self, level: Level) -> int | None:
        """When the first span of a level begins."""
        with self._database.read() as connection:
            at: int | None = connection.execute(
                text("SELECT min(at) FROM rollups WHERE level = :level"), {"level": level}
            ).scalar()
        return at

    def span(self, level: Level, *, since: int, until: int) -> Iterator[Rollup]:
        """All rows of a level in a time, by dimension and key, page after page."""
        after = ("", "", 0, "")
        while True:
            with self._database.read() as connection:
                rows = connection.execute(
                    text(
                        f"SELECT {_COLUMNS} FROM rollups WHERE level = :level AND at >= :since AND at < :until "
                        "AND (dimension, key, at, process) > (:dimension, :key, :at, :process) "
                        "ORDER BY dimension, key, at, process LIMIT :page"
                    ),
                    {
                        "level": level,
                        "since": since,
                        "until": until,
                        "page": _PAGE,
                        **dict(zip(("dimension", "key", "at", "process"), after, strict=True)),
                    },
                ).all()
            found = [Rollup(*row) for row in rows]
            yield from found
            if len(found) < _PAGE:
                return
            last = found[-1]
            after = (last.dimension, last.key, last.at, last.process)

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
            with self._database.read() as connection:
                bound: int | None = connection.execute(
                    text(
                        "SELECT max(at) FROM (SELECT at FROM rollups WHERE level = :level "
                        "AND dimension = :dimension AND at < :before ORDER BY at LIMIT :page) AS oldest"
                    ),
                    {"level": level, "dimension": dimension, "before": before, "page": _PAGE},
                ).scalar()
            if bound is None:
                continue
            with self._database.write(durable=False) as connection:
                removed += connection.execute(
                    text(
                        "DELETE FROM rollups WHERE level = :level AND dimension = :dimension AND at <= :bound"
                    ),
                    {"level": level, "dimension": dimension, "bound": bound},
                ).rowcount
        return removed

    def _put(self, connection: Connection, level: Level, rows: Sequence[Rollup]) -> None:
        # In one order for everybody: two processes that sum up the same span then wait for each other in turn.
        ordered = sorted(rows, key=lambda row: (row.dimension, row.at, row.key, row.process))
        connection.execute(self._upsert, {"level": level, "rows": _encode(ordered).decode()})
