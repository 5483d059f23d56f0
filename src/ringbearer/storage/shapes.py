"""Shapes: how the data of an event type looked in an older version, for endpoints that pinned that version."""

from collections.abc import Collection

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select, update

from ringbearer import clock
from ringbearer.domain.times import Moment
from ringbearer.errors import Conflict, NotFound
from ringbearer.storage import schema
from ringbearer.storage.database import Database
from ringbearer.storage.versions import next_version

MAX_SHAPES = 2_000
_S, _E = schema.event_shapes, schema.endpoints


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A JMESPath expression that makes a version's data of an event type out of the data as published."""

    event_type: str
    version: str
    expression: str
    updated_at: Moment


class Shapes:
    """Reads and changes shapes. Every method blocks, and raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, shape: Shape) -> bool:
        """Create or replace; returns whether it is new. Raises Conflict when there are too many."""
        values = {"expression": shape.expression, "updated_at": clock.from_datetime(shape.updated_at)}
        with self._database.write() as connection:
            version = next_version(connection)
            found = connection.execute(update(_S).where(_is(shape.event_type, shape.version)).values(values))
            if found.rowcount == 0:
                if connection.execute(select(func.count()).select_from(_S)).scalar_one() >= MAX_SHAPES:
                    raise Conflict(
                        f"there are {MAX_SHAPES} shapes already, which is the most; delete one first"
                    )
                connection.execute(
                    insert(_S).values(event_type=shape.event_type, version=shape.version, **values)
                )
            _touch(connection, shape.version, version)
        return found.rowcount == 0

    def list(self, *, limit: int, after: tuple[str, str] | None = None) -> list[Shape]:
        """Shapes by event type and version, those after the given one."""
        query = select(_S).order_by(_S.c.event_type, _S.c.version).limit(limit)
        if after is not None:
            event_type, version = after
            query = query.where(
                or_(_S.c.event_type > event_type, and_(_S.c.event_type == event_type, _S.c.version > version))
            )
        with self._database.read() as connection:
            return [
                Shape(
                    event_type=row.event_type,
                    version=row.version,
                    expression=row.expression,
                    updated_at=clock.to_datetime(row.updated_at),
                )
                for row in connection.execute(query)
            ]

    def delete(self, event_type: str, version: str) -> None:
        """Forget a shape: events of that type go as published. Raises NotFound."""
        with self._database.write() as connection:
            taken = next_version(connection)
            if connection.execute(delete(_S).where(_is(event_type, version))).rowcount == 0:
                raise NotFound(f"there is no shape of {event_type!r} in version {version!r}")
            _touch(connection, version, taken)


def shapes_of(connection: Connection, versions: Collection[str]) -> dict[str, dict[str, str]]:
    """The expressions of these versions, by version and event type; no query when no version is asked for."""
    found: dict[str, dict[str, str]] = {}
    if versions:
        for row in connection.execute(select(_S).where(_S.c.version.in_(list(versions)))):
            found.setdefault(row.version, {})[row.event_type] = row.expression
    return found


def _is(event_type: str, version: str) -> ColumnElement[bool]:
    return and_(_S.c.event_type == event_type, _S.c.version == version)


def _touch(connection: Connection, event_version: str, version: int) -> None:
    """Let caches load the endpoints anew that pinned an event version."""
    connection.execute(update(_E).where(_E.c.event_version == event_version).values(version=version))
