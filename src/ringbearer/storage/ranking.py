"""Ranking anew: what is queued already goes into other lanes when the rules change, page by page."""

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import Connection, text

from ringbearer.domain.deliveries import State
from ringbearer.domain.events import Priority
from ringbearer.domain.suppliers import Tier
from ringbearer.storage.database import Database
from ringbearer.storage.flows import Flows
from ringbearer.storage.parameters import keys_of, text_of

_Moves = Counter[tuple[int, str]]
_OPEN = "('ready', 'waiting', 'scheduled', 'held')"


class Queued(msgspec.Struct, frozen=True, gc=False):
    """A delivery that is queued, with what rules look at."""

    delivery_id: str
    event_id: str
    endpoint_id: str
    supplier_id: str
    lane: int
    event_type: str
    tags: str | None
    occasion_date: str | None
    asked: Priority | None
    tier: Tier
    timezone: str


class Moved(msgspec.Struct, frozen=True, gc=False):
    """A delivery with the lane that it is to be in, and the rule that says so."""

    queued: Queued
    lane: int
    reason: str | None


class Ranking:
    """Reads what is queued, and moves it between lanes. Blocks, and raises StoreUnavailable."""

    def __init__(self, database: Database, flows: Flows, count: Callable[[Connection, _Moves], None]) -> None:
        self._database = database
        self._flows = flows
        self._count = count
        # One whose lane is not that of its delivery was put there by an operator's replay, and stays there.
        self._page = text(f"""
            SELECT j.delivery_id, j.event_id, j.endpoint_id, j.supplier_id, j.lane, e.type, e.tags, e.occasion_date,
                   e.asked, s.tier, s.timezone
            FROM jobs AS j JOIN events AS e ON e.id = j.event_id JOIN suppliers AS s ON s.id = j.supplier_id
            JOIN deliveries AS d ON d.id = j.delivery_id
            WHERE j.delivery_id > :cursor AND j.state IN {_OPEN} AND j.lane = d.lane
            ORDER BY j.delivery_id LIMIT :limit
        """)
        self._take = text(f"""
            SELECT delivery_id, state, lane FROM jobs
            WHERE delivery_id IN (SELECT r.value ->> 0 FROM {database.rows}) AND state IN {_OPEN}
            {database.skip_locked}
        """)
        self._jobs = text(f"""
            UPDATE jobs SET lane = CAST(r.value ->> 1 AS SMALLINT), rank = CAST(r.value ->> 2 AS BIGINT)
            FROM {database.rows} WHERE delivery_id = r.value ->> 0
        """)
        self._deliveries = text(f"""
            UPDATE deliveries SET lane = CAST(r.value ->> 1 AS SMALLINT) FROM {database.rows}
            WHERE deliveries.id = r.value ->> 0 AND deliveries.id BETWEEN :low AND :high
        """)
        self._events = text(f"""
            UPDATE events SET lane = CAST(r.value ->> 1 AS SMALLINT), lane_reason = r.value ->> 2
            FROM {database.rows} WHERE events.id = r.value ->> 0 AND events.id BETWEEN :low AND :high
        """)

    def page(self, *, after: str, limit: int) -> list[Queued]:
        """The queued deliveries with ids after that one, in the order of their ids."""
        with self._database.read() as connection:
            rows = connection.execute(self._page, {"cursor": after, "limit": limit}).all()
        return [Queued(*row) for row in rows]

    def move(self, moved: Sequence[Moved]) -> int:
        """Put deliveries into other lanes, behind what is queued there; returns how many still were queued."""
        if not moved:
            return 0
        by_id = {m.queued.delivery_id: m for m in moved}
        with self._database.write() as connection:
            found = connection.execute(self._take, {"rows": keys_of(by_id)}).all()
            self._flows.follow_clocks(connection)
            jobs, moves = [], Counter[tuple[int, str]]()
            for delivery_id, state, lane in found:
                m = by_id[delivery_id]
                if lane != m.queued.lane:  # since it was read, a replay or another who ranks put it elsewhere
                    continue
                rank = 0
                if state in (State.READY, State.WAITING):
                    q = m.queued
                    (rank,) = self._flows.tags(m.lane, q.supplier_id, q.tier, (q.endpoint_id,))
                jobs.append((delivery_id, m.lane, rank))
                moves[lane, state] -= 1
                moves[m.lane, state] += 1
            if jobs:
                connection.execute(self._jobs, {"rows": text_of(jobs)})
                connection.execute(self._deliveries, _within([row[:2] for row in jobs]))
                ids = [row[0] for row in jobs]
                events = {by_id[i].queued.event_id: (by_id[i].lane, by_id[i].reason) for i in ids}
                connection.execute(self._events, _within([(e, *rest) for e, rest in sorted(events.items())]))
                self._count(connection, moves)
        return len(jobs)


def _within(rows: Sequence[Sequence[object]]) -> dict[str, object]:
    """The rows, with the bounds that let PostgreSQL leave out the days it need not look at."""
    ids = [str(row[0]) for row in rows]
    return {"rows": text_of(rows), "low": min(ids), "high": max(ids)}
