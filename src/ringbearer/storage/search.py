"""Searching deliveries: which way through the tables serves a filter, and how far one page goes along it.

 filter                              way, newest first
 an event                            its range of the deliveries' primary key
 a state of which there are few      that state's partial index of the jobs
 dead letters, however many          their partial index, which is in the order of ids
 a supplier, or an endpoint          the supplier's index of the deliveries
 another open state                  the jobs' primary key
 anything else                       the deliveries' primary key

A way that must look at rows which the filter does not mean goes STEP rows far and no further: then a page holds
what was found so far, and its cursor goes on from there. So every page takes bounded time, whatever is asked for
and however much there is.
"""

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, FromClause, Select, and_, func, literal_column, select

from ringbearer import clock, ids
from ringbearer.domain.deliveries import Delivery, State
from ringbearer.domain.times import Moment
from ringbearer.storage import schema

STEP = 20_000
"""Rows that one page looks at."""
FEW = 5_000
"""So many jobs of a state are sorted for each page rather than searched for among all others."""

GONE = frozenset({State.DELIVERED, State.CANCELLED})
"""States that the delivery itself tells; of the others its job does."""


class Filter(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which deliveries are meant. `after` and `before` bound when the event was accepted."""

    supplier_id: str | None = None
    endpoint_id: str | None = None
    event_id: str | None = None
    event_type: str | None = None
    state: State | None = None
    after: Moment | None = None
    before: Moment | None = None


class Found(msgspec.Struct, frozen=True):
    """A page of deliveries, newest first, and the cursors of those beside it.

    `older` may be there although the page is not full, or empty: so far was looked.
    """

    items: list[Delivery]
    older: str | None
    newer: str | None


class Way(msgspec.Struct, frozen=True):
    """A walk along one index: `steps` are rows of `table` whose ids are in `column`, and `rest` what remains to be
    asked of each. Without a rest there is nothing to bound."""

    table: FromClause
    column: str
    steps: list[ColumnElement[bool]]
    rest: list[str]


def choose(wanted: Filter, *, few: bool) -> Way:
    """The way that serves the filter; `few` tells that there are but few jobs of the wanted state."""
    d, j = schema.deliveries, schema.jobs
    asked = [name for name in ("endpoint_id", "event_type", "state") if getattr(wanted, name) is not None]
    if wanted.event_id is not None:
        asked += ["supplier_id"] if wanted.supplier_id is not None else []
        return Way(d, "id", [*_within(d.c.id, wanted), of_event(d.c.id, wanted.event_id)], asked)
    supplied = wanted.supplier_id is not None or wanted.endpoint_id is not None
    open_state = wanted.state is not None and wanted.state not in GONE
    if open_state and (few or not supplied):
        within = _within(j.c.delivery_id, wanted)
        if wanted.supplier_id is not None:
            asked.append("supplier_id")
        if few or wanted.state is State.DEAD:
            asked.remove("state")
            within.append(is_state(j.c.state, wanted.state))
        return Way(j, "delivery_id", within, asked)
    within = _within(d.c.id, wanted)
    if wanted.supplier_id is not None:
        within.append(d.c.supplier_id == wanted.supplier_id)
    if wanted.endpoint_id is not None:
        # Deliveries are indexed by supplier: the endpoint's own one narrows the search.
        owner = select(schema.endpoints.c.supplier_id).where(schema.endpoints.c.id == wanted.endpoint_id)
        within.append(d.c.supplier_id == owner.scalar_subquery())
    return Way(d, "id", within, asked)


def page_query(
    way: Way, wanted: Filter, *, limit: int, older: str | None, newer: str | None, step: int
) -> Select[Any]:
    """The rows of a page: at most `limit`, from the cursor on; those after `newer` come oldest first."""
    along = _along(way, older, newer)
    source: FromClause = way.table
    if way.rest:
        source = along.with_only_columns(way.table).limit(step).subquery("walked")
    walks_jobs = way.column == "delivery_id"
    d: FromClause = schema.deliveries if walks_jobs else source
    j: FromClause = source if walks_jobs else schema.jobs
    query = joined(d, j, inner=walks_jobs)
    if not way.rest and along.whereclause is not None:
        query = query.where(along.whereclause)
    query = query.where(*_conditions(way.rest, wanted, d, j, walks_jobs=walks_jobs))
    column = source.c[way.column]
    return query.order_by(column.asc() if newer is not None else column.desc()).limit(limit)


def reach_query(way: Way, *, older: str | None, newer: str | None, step: int) -> Select[Any]:
    """How many rows a page looked at, and the last id of them."""
    column = way.table.c[way.column]
    walked = _along(way, older, newer).with_only_columns(column.label("id")).limit(step).subquery()
    last = func.max(walked.c.id) if newer is not None else func.min(walked.c.id)
    return select(func.count().label("n"), last.label("last")).select_from(walked)


def joined(
    d: FromClause = schema.deliveries, j: FromClause = schema.jobs, *, inner: bool = False
) -> Select[Any]:
    """Deliveries with what their jobs, if they have any, tell of them."""
    return select(
        *(c for c in d.c),
        j.c.state.label("job_state"),
        j.c.due_at,
        j.c.attempt,
        j.c.reason.label("job_reason"),
        j.c.lane.label("job_lane"),
    ).select_from(d.join(j, j.c.delivery_id == d.c.id, isouter=not inner))


def of_event(column: ColumnElement[str], event_id: str) -> ColumnElement[bool]:
    """The deliveries of an event. Not by BETWEEN, whose bounds PostgreSQL does not take with a collation."""
    low, high = ids.delivery(event_id, 0), ids.delivery(event_id, ids.MAX_FANOUT - 1)
    return and_(column >= low, column <= high)


def is_state(column: ColumnElement[str], state: State | None) -> ColumnElement[bool]:
    """The state as a literal, because only then do the partial indexes serve."""
    assert state is not None
    return column == literal_column(f"'{state.value}'")


def _along(way: Way, older: str | None, newer: str | None) -> Select[Any]:
    """The ids of a way, from a cursor on."""
    column = way.table.c[way.column]
    query = select(column).where(*way.steps)
    if newer is not None:
        return query.where(column > newer).order_by(column.asc())
    if older is not None:
        query = query.where(column < older)
    return query.order_by(column.desc())


def _within(column: ColumnElement[str], wanted: Filter) -> list[ColumnElement[bool]]:
    """The time that is meant, as a range of ids."""
    conditions = []
    if wanted.after is not None:
        conditions.append(column >= ids.floor("dlv", clock.from_datetime(wanted.after)))
    if wanted.before is not None:
        conditions.append(column < ids.floor("dlv", clock.from_datetime(wanted.before)))
    return conditions


def _conditions(
    rest: list[str], wanted: Filter, d: FromClause, j: FromClause, *, walks_jobs: bool
) -> list[ColumnElement[bool]]:
    walked = j if walks_jobs else d
    conditions: list[ColumnElement[bool]] = []
    for name in rest:
        if name == "state":
            gone = wanted.state in GONE
            conditions.append(is_state(d.c.state if gone else j.c.state, wanted.state))
        else:
            column = d.c[name] if name == "event_type" else walked.c[name]
            conditions.append(column == getattr(wanted, name))
    return conditions
