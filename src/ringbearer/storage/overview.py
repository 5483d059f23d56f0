"""The overview: suppliers and endpoints as the pages list them, over all suppliers, page by page in both directions."""

from typing import Any

import msgspec
from sqlalchemy import Row, Select, case, func, or_, select

from ringbearer import clock
from ringbearer.domain.breakers import CircuitState
from ringbearer.domain.suppliers import Tier
from ringbearer.domain.times import Moment
from ringbearer.storage import schema
from ringbearer.storage.database import Database

_S, _E, _B = schema.suppliers, schema.endpoints, schema.breakers


class SupplierRow(msgspec.Struct, frozen=True, kw_only=True):
    """A supplier in a list, with how many endpoints it has and how many of them are disabled."""

    id: str
    name: str | None
    tier: Tier
    timezone: str
    endpoints: int
    disabled: int
    created_at: Moment


class EndpointRow(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint in a list."""

    id: str
    supplier_id: str
    url: str
    description: str | None
    event_types: tuple[str, ...]
    enabled: bool
    disabled_reason: str | None
    circuit: CircuitState
    created_at: Moment


class Overview:
    """Reads lists. Every method blocks, and raises StoreUnavailable.

    `after` and `before` are cursors (an id): the items next to it on that side, in the order of ids.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def suppliers(
        self, *, limit: int, text: str | None = None, after: str | None = None, before: str | None = None
    ) -> list[SupplierRow]:
        """Suppliers by id; with `text`, those whose id or name has it in it."""
        query = select(_S).where(_S.c.deleted.is_(False))
        if text is not None:
            found = f"%{_escaped(text.lower())}%"
            query = query.where(
                or_(
                    func.lower(_S.c.id).like(found, escape="\\"),
                    func.lower(_S.c.name).like(found, escape="\\"),
                )
            )
        with self._database.read() as connection:
            rows = connection.execute(_beside(query, _S.c.id, limit, after, before)).all()
            counted = connection.execute(
                select(
                    _E.c.supplier_id,
                    func.count().label("endpoints"),
                    func.sum(case((_E.c.enabled.is_(False), 1), else_=0)).label("disabled"),
                )
                .where(_E.c.supplier_id.in_([row.id for row in rows]), _E.c.deleted.is_(False))
                .group_by(_E.c.supplier_id)
            ).all()
        counts = {row.supplier_id: (row.endpoints, int(row.disabled)) for row in counted}
        ordered = reversed(rows) if before is not None else rows
        return [_supplier(row, *counts.get(row.id, (0, 0))) for row in ordered]

    def endpoints(
        self,
        *,
        limit: int,
        text: str | None = None,
        enabled: bool | None = None,
        after: str | None = None,
        before: str | None = None,
    ) -> list[EndpointRow]:
        """Endpoints of all suppliers, oldest first; with `text`, those whose supplier's id or URL has it in it."""
        circuit = func.coalesce(_B.c.forced, _B.c.state, "closed").label("circuit")
        joined = _E.outerjoin(_B, _B.c.endpoint_id == _E.c.id)
        query = select(_E, circuit).select_from(joined).where(_E.c.deleted.is_(False))
        if enabled is not None:
            query = query.where(_E.c.enabled.is_(enabled))
        if text is not None:
            found = f"%{_escaped(text.lower())}%"
            query = query.where(
                or_(
                    func.lower(_E.c.supplier_id).like(found, escape="\\"),
                    func.lower(_E.c.url).like(found, escape="\\"),
                )
            )
        with self._database.read() as connection:
            rows = connection.execute(_beside(query, _E.c.id, limit, after, before)).all()
        return [_endpoint(row) for row in (reversed(rows) if before is not None else rows)]


def _beside(
    query: Select[Any], column: Any, limit: int, after: str | None, before: str | None
) -> Select[Any]:
    if before is not None:
        return query.where(column < before).order_by(column.desc()).limit(limit)
    if after is not None:
        query = query.where(column > after)
    return query.order_by(column).limit(limit)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _supplier(row: Row[Any], endpoints: int, disabled: int) -> SupplierRow:
    return SupplierRow(
        id=row.id,
        name=row.name,
        tier=row.tier,
        timezone=row.timezone,
        endpoints=endpoints,
        disabled=disabled,
        created_at=clock.to_datetime(row.created_at),
    )


def _endpoint(row: Row[Any]) -> EndpointRow:
    return EndpointRow(
        id=row.id,
        supplier_id=row.supplier_id,
        url=row.url,
        description=row.description,
        event_types=tuple(msgspec.json.decode(row.event_types)),
        enabled=bool(row.enabled),
        disabled_reason=row.disabled_reason,
        circuit=row.circuit,
        created_at=clock.to_datetime(row.created_at),
    )
