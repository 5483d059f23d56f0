"""The history: events, deliveries and attempts as people ask for them, page by page; and replays."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, and_, func, insert, select, update

from ringbearer import clock, ids
from ringbearer.domain.deliveries import Attempt, Content, Delivery, DeliveryDetail, State, Timing
from ringbearer.domain.events import LANES, Event
from ringbearer.errors import NotFound
from ringbearer.storage import schema, search
from ringbearer.storage.database import Database
from ringbearer.storage.search import Filter as Filter
from ringbearer.storage.search import Found, joined, of_event

_D, _J, _A, _V = schema.deliveries, schema.jobs, schema.attempts, schema.events
_COUNT_LIMIT = 1_000_000


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """A replay and how far it is. `matched` counts what the filter meant when it was asked for."""

    id: str
    filter: Filter
    matched: int
    moved: int
    cursor: str
    created_at: datetime
    finished_at: datetime | None = None


class History:
    """Reads what happened. Every method blocks, and raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get_event(self, event_id: str) -> tuple[Event, list[Delivery]]:
        """The event and its deliveries; raises NotFound."""
        with self._database.read() as connection:
            row = connection.execute(select(_V).where(_V.c.id == event_id)).first()
            if row is None:
                raise NotFound(f"there is no event {event_id!r}, or its retention has ended")
            found = connection.execute(joined().where(of_event(_D.c.id, event_id)).order_by(_D.c.id)).all()
        return _event(row), [_delivery(r) for r in found]

    def get_content(self, event_id: str) -> Content:
        """What of the event goes to receivers, to the letter; raises NotFound."""
        with self._database.read() as connection:
            row = connection.execute(
                select(_V.c.type, _V.c.timestamp, _V.c.data).where(_V.c.id == event_id)
            ).first()
        if row is None:
            raise NotFound(f"there is no event {event_id!r}, or its retention has ended")
        return Content(*row)

    def get_delivery(self, delivery_id: str) -> DeliveryDetail:
        """The delivery with its attempts, oldest first; raises NotFound."""
        with self._database.read() as connection:
            row = connection.execute(joined().where(_D.c.id == delivery_id)).first()
            if row is None:
                raise NotFound(f"there is no delivery {delivery_id!r}, or its retention has ended")
            tries = connection.execute(
                select(_A).where(_A.c.delivery_id == delivery_id).order_by(_A.c.number)
            ).all()
        return DeliveryDetail(**_fields(row), attempts=[_attempt(r) for r in tries])

    def last_errors(self, delivery_ids: Sequence[str]) -> dict[str, str]:
        """What the last failed attempt of each of these deliveries says; of those that had one."""
        failed = (
            select(_A.c.delivery_id, _A.c.error)
            .where(_A.c.delivery_id.in_(delivery_ids), _A.c.error.is_not(None))
            .order_by(_A.c.number)
        )
        with self._database.read() as connection:
            return {row.delivery_id: row.error for row in connection.execute(failed)}

    def find(
        self,
        wanted: Filter,
        *,
        limit: int,
        older: str | None = None,
        newer: str | None = None,
        step: int = search.STEP,
        few: int = search.FEW,
    ) -> Found:
        """A page of the deliveries that the filter means, newest first.

        `older` and `newer` are cursors (a delivery's id): the page holds those next to it on that side. A page
        that is not full still has a cursor when there is more to look at than `step` rows.
        """
        with self._database.read() as connection:
            self._database.look_up(connection)
            way = search.choose(wanted, few=self._are_few(connection, wanted, few))
            query = search.page_query(way, wanted, limit=limit + 1, older=older, newer=newer, step=step)
            items = [_delivery(row) for row in connection.execute(query)]
            further = items[limit - 1].id if len(items) > limit else None
            if further is None and way.rest:
                reach = search.reach_query(way, older=older, newer=newer, step=step)
                looked, last = connection.execute(reach).one()
                further = last if looked == step else None
        items = items[:limit]
        if newer is not None:
            items.reverse()
            return Found(items, items[-1].id if items else newer, further)
        return Found(items, further, items[0].id if items and older is not None else None)

    def _are_few(self, connection: Connection, wanted: Filter, few: int) -> bool:
        if wanted.state is None or wanted.state in search.GONE:
            return False
        depth = schema.queue_depth
        counted = select(func.sum(depth.c.n)).where(depth.c.state == wanted.state)
        return (connection.execute(counted).scalar() or 0) <= few

    def count(self, wanted: Filter) -> int:
        """How many deliveries the filter means, at most a million; may take seconds."""
        source = select(_D.c.id).select_from(_D.outerjoin(_J, _J.c.delivery_id == _D.c.id))
        inner = self._filtered(source, wanted).limit(_COUNT_LIMIT).subquery()
        with self._database.read() as connection:  # which keeps no writer waiting
            counted: int = connection.execute(select(func.count()).select_from(inner)).scalar_one()
        return counted

    def start_replay(self, wanted: Filter) -> Replay:
        """Note down a replay of finished deliveries that the filter means; the moving is done in steps.

        Without a state in the filter, dead letters are meant.
        """
        if wanted.state is None:
            wanted = msgspec.structs.replace(wanted, state=State.DEAD)
        now = clock.now()
        upto = ids.floor("dlv", now + clock.SECOND)
        matched = self.count(wanted)
        replay = Replay(
            id=ids.replay(),
            filter=wanted,
            matched=matched,
            moved=0,
            cursor=upto,
            created_at=clock.to_datetime(now),
        )
        with self._database.write() as connection:
            connection.execute(
                insert(schema.replays).values(
                    id=replay.id,
                    filter=msgspec.json.encode(wanted).decode(),
                    matched=matched,
                    moved=0,
                    cursor=upto,
                    created_at=now,
                )
            )
        return replay

    def get_replay(self, replay_id: str) -> Replay:
        """The replay; raises NotFound."""
        table = schema.replays
        with self._database.read() as connection:
            row = connection.execute(select(table).where(table.c.id == replay_id)).first()
        if row is None:
            raise NotFound(f"there is no replay {replay_id!r}")
        return _replay(row)

    def open_replays(self) -> list[Replay]:
        """Replays that are not finished, oldest first."""
        table = schema.replays
        with self._database.read() as connection:
            found = connection.execute(
                select(table).where(table.c.finished_at.is_(None)).order_by(table.c.id)
            )
            return [_replay(row) for row in found]

    def replay_page(self, replay: Replay, *, limit: int) -> list[str]:
        """The next ids of a replay, newest first."""
        query = select(_D.c.id).select_from(_D.outerjoin(_J, _J.c.delivery_id == _D.c.id))
        query = self._filtered(query, replay.filter).where(_D.c.id < replay.cursor)
        with self._database.read() as connection:
            found = connection.execute(query.order_by(_D.c.id.desc()).limit(limit))
            return [row[0] for row in found]

    def advance_replay(
        self, replay: Replay, *, cursor: str, finished: bool, move: Callable[[Connection], int]
    ) -> int:
        """Do one step of a replay in one transaction: `move` its page, and write down how far it is.

        Returns how many were moved; none when another has taken this step since `replay` was read.
        """
        table = schema.replays
        here = and_(table.c.id == replay.id, table.c.cursor == replay.cursor, table.c.finished_at.is_(None))
        values = {"cursor": cursor, "finished_at": clock.now() if finished else None}
        with self._database.write() as connection:
            # First, so that of two who take this step at a time the second waits, and then finds it taken.
            if connection.execute(update(table).where(here).values(values)).rowcount == 0:
                return 0
            moved = move(connection)
            count = {"moved": table.c.moved + moved}
            connection.execute(update(table).where(table.c.id == replay.id).values(count))
        return moved

    def _filtered(self, query: Select[Any], wanted: Filter) -> Select[Any]:
        conditions = []
        if wanted.supplier_id is not None:
            conditions.append(_D.c.supplier_id == wanted.supplier_id)
        if wanted.endpoint_id is not None:
            # Deliveries are indexed by supplier: the endpoint's own one narrows the search.
            owner = select(schema.endpoints.c.supplier_id).where(schema.endpoints.c.id == wanted.endpoint_id)
            conditions += [
                _D.c.endpoint_id == wanted.endpoint_id,
                _D.c.supplier_id == owner.scalar_subquery(),
            ]
        if wanted.event_id is not None:
            conditions.append(of_event(_D.c.id, wanted.event_id))
        if wanted.event_type is not None:
            conditions.append(_D.c.event_type == wanted.event_type)
        if wanted.after is not None:
            conditions.append(_D.c.id >= ids.floor("dlv", clock.from_datetime(wanted.after)))
        if wanted.before is not None:
            conditions.append(_D.c.id < ids.floor("dlv", clock.from_datetime(wanted.before)))
        if wanted.state is not None:
            gone = wanted.state in search.GONE
            conditions.append(search.is_state(_D.c.state if gone else _J.c.state, wanted.state))
        return query.where(and_(*conditions)) if conditions else query


def _fields(row: Row[Any]) -> dict[str, Any]:
    state = State(row.job_state or row.state)
    due = row.due_at if state is State.SCHEDULED else None
    return {
        "id": row.id,
        "event_id": row.event_id,
        "event_type": row.event_type,
        "supplier_id": row.supplier_id,
        "endpoint_id": row.endpoint_id,
        "state": state,
        "priority": LANES[row.lane if row.job_lane is None else row.job_lane],
        "attempt_count": row.attempts if row.attempt is None else row.attempt,
        "due_at": clock.to_datetime(due) if due is not None else None,
        "reason": row.job_reason or row.reason,
        "created_at": clock.to_datetime(row.created_at),
        "finished_at": clock.to_datetime(row.finished_at) if row.finished_at is not None else None,
    }


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(**_fields(row))


def _attempt(row: Row[Any]) -> Attempt:
    return Attempt(
        number=row.number,
        started_at=clock.to_datetime(row.started_at),
        status_code=row.status_code,
        duration=row.duration / clock.SECOND,
        error=row.error,
        response_body=row.response_body,
        response_headers=msgspec.json.decode(row.response_headers) if row.response_headers else {},
        timing=msgspec.json.decode(row.timing, type=Timing) if row.timing else None,
    )


def _event(row: Row[Any]) -> Event:
    return Event(
        id=row.id,
        supplier_id=row.supplier_id,
        type=row.type,
        timestamp=datetime.fromisoformat(row.timestamp),
        data=msgspec.Raw(row.data.encode()),
        idempotency_key=row.idempotency_key,
        occasion_date=datetime.fromisoformat(row.occasion_date).date() if row.occasion_date else None,
        priority=LANES[row.lane],
        priority_reason=row.lane_reason,
        deliver_at=clock.to_datetime(row.deliver_at) if row.deliver_at is not None else None,
        ordering_key=row.ordering_key,
        tags=tuple(msgspec.json.decode(row.tags)) if row.tags else (),
        created_at=clock.to_datetime(row.created_at),
    )


def _replay(row: Row[Any]) -> Replay:
    return Replay(
        id=row.id,
        filter=msgspec.json.decode(row.filter, type=Filter),
        matched=row.matched,
        moved=row.moved,
        cursor=row.cursor,
        created_at=clock.to_datetime(row.created_at),
        finished_at=clock.to_datetime(row.finished_at) if row.finished_at is not None else None,
    )
