"""Parking: the ready deliveries of an endpoint that cannot take them leave the ready set in bulk, and come back spaced.

So a claim never walks over them. What arrives while an endpoint is parked is stored as scheduled at once.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, TextClause, text

from ringbearer import clock
from ringbearer.domain.deliveries import State
from ringbearer.storage.database import Database
from ringbearer.storage.flows import Flows
from ringbearer.storage.parameters import keys_of, text_of

PARKED = "parked: "
"""What the reason of a parked delivery begins with."""
RATE_LIMIT = "its rate limit"
"""The reason of a delivery that waits for a rate limit; of one that is parked for it, behind PARKED."""
_KNOWN_EVERYWHERE = 2 * clock.SECOND  # after a change; a limit is followed within a second
_CHUNK = 500  # deliveries in one transaction, so that nobody waits long behind it
_LOOK = 20_000  # deliveries that are looked up at a time
_LONGEST = (
    3_600 * clock.SECOND
)  # how far they are spread; those beyond it come together, and are parked again
_BRIEF = 120 * clock.SECOND
_OVERLAP = 5 * clock.SECOND

_Moves = Counter[tuple[int, str]]


class Park(msgspec.Struct, frozen=True, gc=False):
    """An endpoint that takes nothing until a stored time, and then one delivery each `spacing` microseconds."""

    endpoint_id: str
    until: int
    spacing: int
    reason: str
    brief: bool = False
    """Parked on the word of one moment, as when there was no room: it is looked at again within two minutes, and
    what arrives is not parked, so that whoever finds room again is not held up."""


class _Place(NamedTuple):
    delivery_id: str
    endpoint_id: str
    lane: int


class _Line:
    """Where the next delivery of a parked endpoint queues up."""

    __slots__ = ("next_due", "park", "used")

    def __init__(self, park: Park) -> None:
        self.park = park
        self.next_due = park.until
        self.used = False

    def take(self) -> int:
        """When the next one is due."""
        due = self.next_due
        longest = _BRIEF if self.park.brief else _LONGEST
        self.next_due = min(due + self.park.spacing, self.park.until + longest)
        return due


class Parking:
    """Parks and unparks. Blocks, and raises StoreUnavailable; `count` books moves in a transaction.

    What parked deliveries were charged in the fair order is taken back: each takes its turn anew when it may run, and
    would wait behind all of the others once more. That is not so for brief parks, which end before it matters.

    Of endpoints that are parked every process learns by `follow`; until then some arrivals come to be claimed, and
    whoever finds that they cannot be sent puts them back one by one.
    """

    def __init__(
        self,
        database: Database,
        flows: Flows,
        count: Callable[[Connection, _Moves], None],
    ) -> None:
        self._database = database
        self._flows = flows
        self._count = count
        self._lines: dict[str, _Line] = {}
        self._lifted: set[str] = set()
        self._lock = threading.Lock()
        rows = database.rows
        self._write = text(f"""
            INSERT INTO parked (endpoint_id, until, spacing, reason, parked_at)
            SELECT r.value ->> 0, CAST(r.value ->> 1 AS BIGINT), CAST(r.value ->> 2 AS BIGINT), r.value ->> 3, :now
            FROM {rows} WHERE true
            ON CONFLICT (endpoint_id) DO UPDATE SET until = excluded.until, spacing = excluded.spacing,
                reason = excluded.reason, parked_at = excluded.parked_at
        """)
        self._remove = text(f"DELETE FROM parked WHERE endpoint_id IN (SELECT r.value ->> 0 FROM {rows})")
        self._remove_limited = text(
            f"DELETE FROM parked WHERE reason = '{RATE_LIMIT}' "
            f"AND endpoint_id IN (SELECT r.value ->> 0 FROM {rows})"
        )
        self._in_force = text("SELECT endpoint_id, until, spacing, reason FROM parked WHERE until > :now")
        # Both of these are rare and hold no lock: they walk an index rather than that each delivery pays for another.
        self._ready = text(f"""
            SELECT delivery_id, endpoint_id, lane FROM jobs
            WHERE state = 'ready' AND endpoint_id IN (SELECT r.value ->> 0 FROM {rows})
            ORDER BY lane, rank LIMIT {_LOOK}
        """)
        scheduled = f"""
            SELECT delivery_id, endpoint_id, lane FROM jobs
            WHERE state = 'scheduled' AND {{which}}
              AND due_at > :now AND endpoint_id IN (SELECT r.value ->> 0 FROM {rows})
            ORDER BY due_at LIMIT {_LOOK}
        """
        self._scheduled = text(scheduled.format(which=f"reason LIKE '{PARKED}%'"))
        self._limited = text(scheduled.format(which=f"reason IN ('{RATE_LIMIT}', '{PARKED}{RATE_LIMIT}')"))

        def move(before: str) -> str:
            which = f"state = '{before}'"
            if database.skip_locked:  # else SQLite would go through all rows for each of them
                those = (
                    f"{which} AND delivery_id IN (SELECT r.value ->> 0 FROM {rows}) {database.skip_locked}"
                )
                which = f"delivery_id {database.among.format(f'SELECT delivery_id FROM jobs WHERE {those}')}"
            return f"""
                UPDATE jobs SET state = 'scheduled', due_at = CAST(r.value ->> 1 AS BIGINT), reason = r.value ->> 2
                FROM {rows} WHERE delivery_id = r.value ->> 0 AND {which} RETURNING lane
            """

        self._park = text(move("ready"))
        self._hasten = text(move("scheduled"))

    def __repr__(self) -> str:
        return f"<Parking of {len(self._lines)} endpoints>"

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, endpoint_id: object) -> bool:
        return endpoint_id in self._lines

    def park(self, parks: Sequence[Park], *, now: int) -> int:
        """Move what these endpoints have ready away, in their order; returns how many deliveries that were."""
        if not parks:
            return 0
        lines = {park.endpoint_id: _Line(park) for park in parks}
        told = [(p.endpoint_id, p.until, p.spacing, p.reason) for p in parks if not p.brief]
        if told:
            with self._database.write(durable=False) as connection:
                connection.execute(self._write, {"rows": text_of(told), "now": now})
                self._flows.untell(connection, (row[0] for row in told))
        with self._lock:
            self._lines |= {park.endpoint_id: lines[park.endpoint_id] for park in parks if not park.brief}
        moved = 0
        for places in self._look(self._ready, lines, {}):
            for start in range(0, len(places), _CHUNK):
                moved += self._move(places[start : start + _CHUNK], lines)
        self._flows.refund({park.endpoint_id for park in parks if not park.brief})
        return moved

    def unpark(self, endpoint_ids: Iterable[str], *, now: int) -> int:
        """Let these endpoints have their parked deliveries now; returns how many there were."""
        wanted = dict.fromkeys(endpoint_ids)
        if not wanted:
            return 0
        with self._database.write(durable=False) as connection:
            connection.execute(self._remove, {"rows": keys_of(wanted)})
        with self._lock:
            for endpoint_id in wanted:
                self._lines.pop(endpoint_id, None)
        return self._hasten_those(wanted, {"now": now}, now)

    def limits_changed(self, endpoint_ids: Iterable[str], *, now: int) -> int:
        """Let what waits for these endpoints' rate limits be tried anew; returns how many deliveries that were.

        By the time they come, everybody knows the new limit.
        """
        wanted = dict.fromkeys(endpoint_ids)
        if not wanted:
            return 0
        with self._database.write(durable=False) as connection:
            connection.execute(self._remove_limited, {"rows": keys_of(wanted)})
        with self._lock:
            for endpoint_id in wanted:
                line = self._lines.get(endpoint_id)
                if line is not None and line.park.reason == RATE_LIMIT:
                    del self._lines[endpoint_id]
                    self._lifted.add(endpoint_id)
        due_at = now + _KNOWN_EVERYWHERE
        return self._hasten_those(wanted, {"now": due_at}, due_at, self._limited)

    def _hasten_those(
        self,
        endpoint_ids: Iterable[str],
        parameters: dict[str, object],
        due_at: int,
        statement: TextClause | None = None,
    ) -> int:
        """Let parked deliveries of these endpoints that are due later be due then."""
        wanted = list(endpoint_ids)
        hastened = 0
        for places in self._look(self._scheduled if statement is None else statement, wanted, parameters):
            for start in range(0, len(places), _CHUNK):
                rows = [(place.delivery_id, due_at, None) for place in places[start : start + _CHUNK]]
                with self._database.write(durable=False) as connection:
                    hastened += len(connection.execute(self._hasten, {"rows": text_of(rows)}).all())
        return hastened

    def due(self, endpoint_id: str, now: int) -> tuple[int, str] | None:
        """When a delivery that arrives is due, and why, if its endpoint is parked."""
        with self._lock:
            line = self._lines.get(endpoint_id)
            if line is None or line.park.until <= now:
                return None
            line.used = True
            return line.take(), PARKED + line.park.reason

    def follow(self, *, now: int) -> int:
        """Learn what other processes parked and unparked; returns how many deliveries were let go for it.

        What was stored as parked here after another process had unparked its endpoint is let go, by this look or by
        the next: a transaction may still have been under way.
        """
        with self._database.read() as connection:
            found = [Park(*row) for row in connection.execute(self._in_force, {"now": now})]
        with self._lock:
            before, self._lines = self._lines, {}
            fresh = {park.endpoint_id for park in found} - before.keys()
            for park in found:
                known = before.pop(park.endpoint_id, None)
                self._lines[park.endpoint_id] = (
                    known if known is not None and known.park == park else _Line(park)
                )
            lifted = {e for e, line in before.items() if line.used and line.park.until > now}
            again, self._lifted = lifted | self._lifted - self._lines.keys(), lifted
        self._flows.refund(fresh)
        return self._hasten_those(again, {"now": now}, now)

    def forget(self, *, now: int) -> int:
        """Remove what is no longer in force; returns how many rows."""
        with self._database.write(durable=False) as connection:
            removed: int = connection.execute(
                text("DELETE FROM parked WHERE until < :before"), {"before": now - _OVERLAP}
            ).rowcount
        return removed

    def _look(
        self, statement: TextClause, endpoints: Iterable[str], parameters: dict[str, object]
    ) -> Iterable[list[_Place]]:
        """What there is to move, a look at a time; the last is the one that finds less than it could."""
        given = parameters | {"rows": keys_of(endpoints)}
        while True:
            with self._database.read() as connection:
                places = [_Place(*row) for row in connection.execute(statement, given)]
            if places:
                yield places
            if len(places) < _LOOK:
                return

    def _move(self, places: Sequence[_Place], lines: dict[str, _Line]) -> int:
        rows = []
        for place in places:
            line = lines[place.endpoint_id]
            rows.append((place.delivery_id, line.take(), PARKED + line.park.reason))
        with self._database.write(durable=False) as connection:
            lanes = [lane for (lane,) in connection.execute(self._park, {"rows": text_of(rows)})]
            moves: _Moves = Counter()
            for lane in lanes:
                moves[lane, State.READY] -= 1
                moves[lane, State.SCHEDULED] += 1
            self._count(connection, moves)
        return len(lanes)
