"""The ledger: every move of a delivery, in batches; each batch travels as one JSON parameter.

A batch costs a fixed number of statements, whatever its size. Every statement that moves a delivery names the
state it comes from, so that of two who want to move it, one does and the other changes nothing.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, TextClause

from ringbearer.domain.deliveries import Content, Lease, Outcome, State
from ringbearer.storage.batches import (
    NONE,
    Claimed,
    Made,
    Moves,
    Settling,
    Written,
    fence,
    leases_of,
)
from ringbearer.storage.batches import Accepted as Accepted
from ringbearer.storage.batches import Admission as Admission
from ringbearer.storage.database import Database
from ringbearer.storage.flows import Flows
from ringbearer.storage.parameters import text_of
from ringbearer.storage.parking import Parking
from ringbearer.storage.ranking import Ranking
from ringbearer.storage.statements import Selection, Statements

_SHARDS = 16  # of the depth counters, so that processes seldom wait for each other's row
_PLACED = frozenset({State.READY, State.WAITING})  # states with a place in the order

_Rows = Sequence[
    Row[*tuple[Any, ...]]
]  # what a textual statement answers: its columns are known to the statement only


class Depth(msgspec.Struct, frozen=True):
    """How many jobs a lane holds in one state."""

    lane: int
    state: State
    count: int


class Ledger:
    """Moves deliveries from state to state. Every method blocks, and raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._shard = os.getpid() % _SHARDS
        self._sql = Statements(database.rows, database.skip_locked, database.among)
        self.flows = Flows(database)
        self.parking = Parking(database, self.flows, self._count)
        self.ranking = Ranking(database, self.flows, self._count)

    # ── in ──────────────────────────────────────────────────────────────────────────────────────────────

    def accept(self, admissions: Sequence[Admission]) -> list[Accepted]:
        """Store events, their deliveries and their jobs in one transaction; answers stand in input order.

        When this returns, what was accepted survives the loss of power.
        """
        made = None
        if all(a.idempotency_key is None for a in admissions):  # then all of them are new
            if self.flows.behind:
                with self._database.read() as connection:
                    self.flows.follow_clocks(connection)
            made = self._make(admissions)
        with self._database.write() as connection:
            if made is None:
                return self.accept_within(connection, admissions)
            self._insert(connection, made)
        return [a.accepted() for a in admissions]

    def accept_within(self, connection: Connection, admissions: Sequence[Admission]) -> list[Accepted]:
        """The same within the caller's transaction."""
        known = self._claim_keys(connection, admissions)
        self.flows.follow_clocks(connection)
        self._insert(connection, self._make([a for a in admissions if a.event_id not in known]))
        return [known.get(a.event_id) or a.accepted() for a in admissions]

    def _claim_keys(self, connection: Connection, admissions: Sequence[Admission]) -> dict[str, Accepted]:
        """Write down the batch's idempotency keys; returns the answers for events whose key was taken."""
        keyed = [a for a in admissions if a.idempotency_key is not None]
        if not keyed:
            return {}
        first: dict[tuple[str, str | None], Admission] = {}
        for admission in keyed:
            first.setdefault((admission.supplier_id, admission.idempotency_key), admission)
        # In one order for everybody: two batches with the same keys then wait for each other in turn.
        rows = [
            (a.supplier_id, a.idempotency_key, a.event_id, a.fingerprint, len(a.endpoints))
            for _, a in sorted(first.items(), key=lambda item: (item[0][0], item[0][1] or ""))
        ]
        written = _run(connection, self._sql.take_keys, rows)
        if len(written) == len(keyed):
            return {}
        holders = {(r[0], r[1]): r for r in _run(connection, self._sql.read_keys, rows)}
        known: dict[str, Accepted] = {}
        for admission in keyed:
            _, _, event_id, fingerprint, count = holders[admission.supplier_id, admission.idempotency_key]
            if event_id != admission.event_id:
                known[admission.event_id] = Accepted(
                    event_id=event_id,
                    deliveries=count,
                    duplicate=True,
                    contradiction=fingerprint != admission.fingerprint,
                )
        return known

    def _make(self, admissions: Sequence[Admission]) -> Made:
        """The rows of events and jobs, put together while nobody has to wait for it."""
        events: list[tuple[object, ...]] = []
        jobs: list[tuple[object, ...]] = []
        moved: Moves = Counter()
        ordered: set[tuple[str, str]] = set()
        for a in admissions:
            events.append(
                (
                    a.event_id,
                    a.supplier_id,
                    a.type,
                    a.timestamp,
                    a.data,
                    a.lane,
                    a.idempotency_key,
                    a.occasion_date,
                    a.deliver_at,
                    a.ordering_key,
                    a.tags,
                    a.accepted_at,
                    a.asked,
                    a.reason,
                    a.trace,
                )
            )
            stem = "dlv_" + a.event_id[4:]
            own = a.own_keys
            keys = [own.get(e, a.ordering_key) if own else a.ordering_key for e, _ in a.endpoints]
            states = [
                _first_state(a, key, enabled) for key, (_, enabled) in zip(keys, a.endpoints, strict=True)
            ]
            parked = self._parked(a, states) if self.parking else {}
            a.ranks = []
            ranks = iter(self._ranks(a, states))
            for ordinal, (endpoint_id, _) in enumerate(a.endpoints):
                key, state = keys[ordinal], states[ordinal]
                if key is not None:
                    ordered.add((endpoint_id, key))
                due_at, reason = parked.get(endpoint_id, (a.deliver_at, None))
                moved[a.lane, state] += 1
                rank = next(ranks) if state in _PLACED else 0
                a.ranks.append(rank if state is State.READY else None)
                jobs.append(
                    (
                        f"{stem}{ordinal:04x}",
                        a.event_id,
                        endpoint_id,
                        a.supplier_id,
                        a.type,
                        a.lane,
                        rank,
                        state,
                        due_at,
                        key,
                        a.accepted_at,
                        a.deliver_at or a.accepted_at,
                        reason,
                    )
                )
        return Made(text_of(events), text_of(jobs), moved, ordered)

    def _insert(self, connection: Connection, made: Made) -> None:
        if made.ordered:
            self._database.lock_ordering(connection, [f"{e}/{k}" for e, k in made.ordered])
        if made.events != NONE:
            connection.execute(self._sql.insert_events, {"rows": made.events})
        if made.jobs != NONE:
            rows = {"rows": made.jobs}
            connection.execute(self._sql.insert_deliveries, rows)
            connection.execute(self._sql.insert_jobs, rows)
        made.moved.update(self._promote(connection, made.ordered))
        self._count(connection, made.moved)

    def _parked(self, admission: Admission, states: list[State]) -> dict[str, tuple[int, str]]:
        """When those are due that cannot be sent now, and why; their states become scheduled."""
        found: dict[str, tuple[int, str]] = {}
        for ordinal, (endpoint_id, _) in enumerate(admission.endpoints):
            if states[ordinal] is State.READY:
                due = self.parking.due(endpoint_id, admission.accepted_at)
                if due is not None:
                    found[endpoint_id] = due
                    states[ordinal] = State.SCHEDULED
        return found

    def _ranks(self, admission: Admission, states: Sequence[State]) -> list[int]:
        """The ranks of those of its deliveries that queue up now; the others get theirs when their time has come."""
        placed = [e for (e, _), state in zip(admission.endpoints, states, strict=True) if state in _PLACED]
        if not placed:
            return []
        return self.flows.tags(admission.lane, admission.supplier_id, admission.tier, placed)

    # ── out ─────────────────────────────────────────────────────────────────────────────────────────────

    def claim(self, quotas: Sequence[int], *, worker: str, until: int) -> list[Lease]:
        """Lease the first ready jobs of each lane, at most `quotas[lane]` of it, to a worker until a time.

        What one lane leaves of its quota goes to the other lanes, most important first.
        """
        moved: Moves = Counter()
        with self._database.write(durable=False) as connection:
            taken, contents = self._claim(connection, quotas, worker, until, moved)
            self._count(connection, moved)
        return leases_of(taken, contents, worker)

    def settle_and_claim(
        self, outcomes: Sequence[Outcome], quotas: Sequence[int], *, worker: str, until: int, now: int
    ) -> tuple[set[str], list[Lease]]:
        """`settle`, then `claim`, in one transaction: what this lets go can be claimed by it."""
        settling = Settling.of(outcomes, now)
        with self._database.write() as connection:
            settled, moved = self._settle(connection, settling)
            taken, contents = self._claim(connection, quotas, worker, until, moved)
            self._count(
                connection, moved
            )  # both at once: counting twice, others in between, would lock crosswise
        return settled, leases_of(taken, contents, worker)

    def _claim(
        self, connection: Connection, quotas: Sequence[int], worker: str, until: int, moved: Moves
    ) -> tuple[list[Claimed], Mapping[str, Content]]:
        """What is leased, which `moved` counts, and what its events say."""
        parameters: dict[str, object] = {"worker": worker, "until": until}
        lanes = {f"n{lane}": quota for lane, quota in enumerate(quotas)}
        taken = self._take(connection, self._sql.claim, parameters | lanes)
        spare = sum(quotas) - len(taken)
        got = Counter(row.lane for row in taken)
        if spare and any(got[lane] == quota for lane, quota in enumerate(quotas)):  # more may be there
            taken += self._take(connection, self._sql.claim_more, parameters | {"spare": spare})
        return taken, self._book(connection, taken, {}, moved) if taken else {}

    def lease(
        self, delivery_ids: Sequence[str], *, worker: str, until: int, contents: Mapping[str, Content]
    ) -> list[Lease]:
        """Lease those of these deliveries that are ready and that nobody else is just moving.

        `contents` are those events' that need not be read any more.
        """
        parameters = {"rows": text_of([(i,) for i in delivery_ids]), "worker": worker, "until": until}
        with self._database.write(durable=False) as connection:
            taken = self._take(connection, self._sql.claim_these, parameters)
            moved: Moves = Counter()
            found = self._book(connection, taken, contents, moved) if taken else {}
            self._count(connection, moved)
        return leases_of(taken, found, worker)

    def _book(
        self, connection: Connection, taken: list[Claimed], contents: Mapping[str, Content], moved: Moves
    ) -> Mapping[str, Content]:
        """Add what was just leased to `moved`, and bring it into its order; returns what its events say."""
        for row in taken:
            moved[row.lane, State.READY] -= 1
            moved[row.lane, State.LEASED] += 1
        taken.sort(key=lambda row: (row.lane, row.rank))
        self.flows.claimed(connection, {row.lane: row.rank for row in taken})  # the last of each lane
        events = {(row.event_id,) for row in taken if row.event_id not in contents}
        found = dict(contents)
        if events:
            for event_id, *content in _run(connection, self._sql.load_events, sorted(events)):
                found[event_id] = Content(*content)
        return found

    @staticmethod
    def _take(connection: Connection, statement: TextClause, parameters: dict[str, object]) -> list[Claimed]:
        return [Claimed(*row) for row in connection.execute(statement, parameters).all()]

    def settle(self, outcomes: Sequence[Outcome], *, now: int) -> set[str]:
        """Write down what became of leases, with their attempts; returns the ids that really changed.

        An outcome whose lease was lost in between (another attempt number, another worker, not leased) changes
        nothing.
        """
        settling = Settling.of(outcomes, now)
        with self._database.write() as connection:
            settled, moved = self._settle(connection, settling)
            self._count(connection, moved)
        return settled

    def _settle(self, connection: Connection, settling: Settling) -> tuple[set[str], Moves]:
        settled: set[str] = set()
        moved: Moves = Counter()
        outcomes, ordered, written = settling.outcomes, settling.ordered, settling.written
        if ordered:
            self._database.lock_ordering(connection, [f"{e}/{k}" for e, k in ordered])
        if settling.finished != NONE:
            for delivery_id, lane in connection.execute(self._sql.finish, {"rows": settling.finished}):
                settled.add(delivery_id)
                moved[lane, State.LEASED] -= 1
        if settling.kept != NONE:
            for delivery_id, lane, state in connection.execute(self._sql.put_back, {"rows": settling.kept}):
                settled.add(delivery_id)
                moved[lane, State.LEASED] -= 1
                moved[lane, state] += 1
        if len(settled) != len(outcomes):  # some leases were lost
            written = Written.of([o for o in outcomes if o.lease.delivery_id in settled], settling.now)
        if written.attempts != NONE:
            connection.execute(self._sql.insert_attempts, {"rows": written.attempts})
        if written.closing != NONE:
            self._close(connection, written)
        moved.update(self._promote(connection, ordered))
        return settled, moved

    def _close(self, connection: Connection, written: Written) -> None:
        # The bounds let PostgreSQL leave out the days it need not look at, before it begins.
        parameters = {"rows": written.closing, "low": written.low, "high": written.high}
        connection.execute(self._sql.close_deliveries, parameters)

    def release(self, leases: Sequence[Lease]) -> int:
        """Give leases back unsent, ready at once, their attempt unspent; returns how many were still held."""
        outcomes = [Outcome(lease=lease, state=State.READY) for lease in leases]
        return len(self.settle(outcomes, now=0)) if outcomes else 0

    def extend(self, leases: Sequence[Lease], *, until: int) -> set[str]:
        """Keep leases longer; returns the ids that were still held."""
        rows = [(*fence(lease), until) for lease in leases]
        if not rows:
            return set()
        with self._database.write(durable=False) as connection:
            return {row[0] for row in _run(connection, self._sql.extend, rows)}

    # ── on their own ────────────────────────────────────────────────────────────────────────────────────

    def stage(self, *, now: int, limit: int) -> int:
        """Make scheduled jobs ready whose time has come; returns how many."""
        return self._shift(self._sql.due, lambda job: State.READY, {"now": now, "limit": limit}, tag=True)

    def next_due(self) -> int | None:
        """When the next scheduled job falls due."""
        with self._database.read() as connection:
            due: int | None = connection.execute(self._sql.next_due).scalar()
        return due

    def rescue(self, *, now: int, limit: int) -> int:
        """Make jobs ready whose lease has run out, their attempt spent; returns how many."""
        return self._shift(self._sql.expired, lambda job: State.READY, {"now": now, "limit": limit})

    def lately_closed(self, *, since: int) -> bool:
        """Whether any endpoint was disabled or deleted since a stored time."""
        with self._database.read() as connection:
            return connection.execute(self._sql.lately_closed, {"since": since}).first() is not None

    def hold(self, *, since: int, limit: int) -> int:
        """Hold the ready and scheduled jobs of endpoints disabled since a stored time; returns how many.

        What this misses is held by the worker that claims it.
        """
        return self._shift(self._sql.to_hold, lambda job: State.HELD, {"limit": limit, "since": since})

    def unhold(self, *, limit: int) -> int:
        """Let go the held jobs of enabled endpoints, those of an ordering key one by one; returns how many."""
        return self._shift(self._sql.to_unhold, _let_go, {"limit": limit}, tag=True)

    def cancel(self, *, since: int, now: int, limit: int) -> int:
        """Cancel the unleased, unfinished jobs of endpoints deleted since a stored time; returns how many.

        What this misses is cancelled by the worker that claims it.
        """
        return self._cancel(self._sql.to_cancel, now, {"limit": limit, "since": since})

    def cancel_orphans(self, *, now: int, limit: int) -> int:
        """Cancel the held jobs of deleted endpoints, which no worker would come to; returns how many."""
        return self._cancel(self._sql.orphans, now, {"limit": limit})

    def _cancel(self, which: Selection, now: int, parameters: dict[str, object]) -> int:
        with self._database.read() as connection:
            if not self._pick(connection, which.look, parameters | {"limit": 1}):
                return 0
        with self._database.write() as connection:
            jobs = self._pick(connection, which.take, parameters)
            if not jobs:
                return 0
            _run(connection, self._sql.delete_jobs, [(job.delivery_id,) for job in jobs])
            reason = "its endpoint was deleted"
            closing = [(j.delivery_id, State.CANCELLED, j.attempt, reason, now) for j in jobs]
            self._close(connection, Written.closed(closing))
            moved: Moves = Counter()
            moved.subtract((j.lane, j.state) for j in jobs)
            moved.update(self._promote(connection, _ordered(jobs)))
            self._count(connection, moved)
        return len(jobs)

    def promote_waiting(self, *, limit: int) -> int:
        """Let waiting jobs go that no earlier delivery stands before any more; returns how many.

        Whoever finishes a delivery does this for its ordering key; this is the net below that.
        """
        with self._database.read() as connection:
            jobs = self._pick(connection, self._sql.stuck.look, {"limit": limit})
        if not jobs:
            return 0
        with self._database.write() as connection:
            moved = self._promote_under_lock(connection, _ordered(jobs))
            self._count(connection, moved)
        return -sum(n for (_, state), n in moved.items() if state == State.WAITING)

    # ── by an operator's hand ───────────────────────────────────────────────────────────────────────────

    def replay(self, delivery_ids: Sequence[str], *, now: int, lane: int | None = None) -> int:
        """Send deliveries again, in their own lane or in another; returns how many were queued.

        Dead and delivered ones are queued anew with a fresh retry schedule; scheduled ones become due now;
        all others stay as they are.
        """
        if not delivery_ids:
            return 0
        with self._database.write() as connection:
            return self.replay_within(connection, delivery_ids, now=now, lane=lane)

    def replay_within(
        self, connection: Connection, delivery_ids: Sequence[str], *, now: int, lane: int | None = None
    ) -> int:
        """The same as part of a transaction."""
        if not delivery_ids:
            return 0
        ids = [(delivery_id,) for delivery_id in delivery_ids]
        window = {"rows": text_of(ids), "low": min(delivery_ids), "high": max(delivery_ids)}
        moved: Moves = Counter()
        jobs = self._pick(connection, self._sql.revivable.take, {"rows": window["rows"]})
        if jobs:
            rows = []
            waiting = []
            ranks = self._tags(connection, jobs, lane)
            for job in jobs:
                to_lane = job.lane if lane is None else lane
                base, state = None, State.READY
                if job.state == State.DEAD:
                    base = job.attempt
                    if job.ordering_key is not None:  # its key went on without it
                        state = State.WAITING
                        waiting.append(job)
                rows.append((job.delivery_id, to_lane, ranks[job.delivery_id], base, state, now))
                moved[job.lane, job.state] -= 1
                moved[to_lane, state] += 1
            _run(connection, self._sql.revive, rows)
            moved.update(self._promote_under_lock(connection, _ordered(waiting)))
        again = self._pick(connection, self._sql.requeue, window | {"now": now, "to_lane": lane})
        if again:
            _run(connection, self._sql.rank, list(self._tags(connection, again).items()))
        for job in again:
            moved[job.lane, State.READY] += 1
        connection.execute(self._sql.reopen, window)
        self._count(connection, moved)
        return len(jobs) + len(again)

    # ── how it stands ───────────────────────────────────────────────────────────────────────────────────

    def depth(self) -> list[Depth]:
        """Jobs per lane and state; costs the same however many there are."""
        with self._database.read() as connection:
            rows = connection.execute(self._sql.depth).all()
        return [Depth(lane, State(state), int(count)) for lane, state, count in rows]

    def oldest(self) -> dict[int, int]:
        """Per lane with ready jobs, when the oldest of them was accepted or fell due.

        It is looked for among the first by rank, where the oldest of each flow is.
        """
        with self._database.read() as connection:
            return {lane: since for lane, since in connection.execute(self._sql.oldest) if since is not None}

    # ── inside a transaction ────────────────────────────────────────────────────────────────────────────

    def _shift(
        self,
        which: Selection,
        target: Callable[["_Job"], State],
        parameters: dict[str, object],
        *,
        tag: bool = False,
    ) -> int:
        """Pick jobs and move each where `target` says, in one transaction; looks first without a lock.

        With `tag` those that become ready queue up behind the others of their flow; else they keep their place.
        """
        with self._database.read() as connection:
            if not self._pick(connection, which.look, parameters | {"limit": 1}):
                return 0
        with self._database.write() as connection:
            jobs = self._pick(connection, which.take, parameters)
            moved: Moves = Counter()
            rows = []
            waiting = []
            targets = [target(job) for job in jobs]
            placed = [job for job, state in zip(jobs, targets, strict=True) if tag and state in _PLACED]
            ranks = self._tags(connection, placed)
            for job, state in zip(jobs, targets, strict=True):
                if state == State.WAITING:
                    waiting.append(job)
                moved[job.lane, job.state] -= 1
                moved[job.lane, state] += 1
                since = job.due_at if job.state == State.SCHEDULED else None
                rows.append((job.delivery_id, state, ranks.get(job.delivery_id), since))
            if rows:
                _run(connection, self._sql.shift, rows)
            moved.update(self._promote_under_lock(connection, _ordered(waiting)))
            self._count(connection, moved)
        return len(jobs)

    def _tags(
        self, connection: Connection, jobs: Sequence["_Job"], lane: int | None = None
    ) -> dict[str, int]:
        """A fresh rank for each of the jobs, in their own lane or in another; they queue up behind their flows."""
        tiers = self.flows.tiers(connection, {job.supplier_id for job in jobs})
        self.flows.follow_clocks(connection)
        ranks = {}
        for job in jobs:
            tier = tiers.get(job.supplier_id, "standard")
            to_lane = job.lane if lane is None else lane
            (ranks[job.delivery_id],) = self.flows.tags(to_lane, job.supplier_id, tier, (job.endpoint_id,))
        return ranks

    @staticmethod
    def _pick(connection: Connection, statement: TextClause, parameters: dict[str, object]) -> list["_Job"]:
        return [_Job(*row) for row in connection.execute(statement, parameters).all()]

    def _promote_under_lock(self, connection: Connection, ordered: set[tuple[str, str]]) -> Moves:
        if ordered:
            self._database.lock_ordering(connection, [f"{e}/{k}" for e, k in ordered])
        return self._promote(connection, ordered)

    def _promote(self, connection: Connection, ordered: Iterable[tuple[str, str]]) -> Moves:
        """Of each endpoint and ordering key that has nothing on its way, let the first that waits go."""
        moved: Moves = Counter()
        pairs = list(ordered)
        if pairs:
            for lane, state in _run(connection, self._sql.promote, pairs):
                moved[lane, State.WAITING] -= 1
                moved[lane, state] += 1
        return moved

    def _count(self, connection: Connection, moved: Moves) -> None:
        rows = sorted((self._shard, lane, state, n) for (lane, state), n in moved.items() if n)
        if rows:
            _run(connection, self._sql.count, rows)


class _Job(NamedTuple):
    delivery_id: str
    endpoint_id: str
    supplier_id: str
    ordering_key: str | None
    lane: int
    state: State
    due_at: int | None
    attempt: int


def _first_state(admission: Admission, ordering_key: str | None, enabled: bool) -> State:
    if ordering_key is not None:
        return State.WAITING  # the first of its key is promoted before the transaction ends
    if not enabled:
        return State.HELD
    return State.READY if admission.deliver_at is None else State.SCHEDULED


def _let_go(job: _Job) -> State:
    """What a held job becomes: it keeps its place behind its ordering key, and the time that it is due at."""
    if job.ordering_key is not None:
        return State.WAITING
    return State.READY if job.due_at is None else State.SCHEDULED


def _ordered(jobs: Iterable[_Job]) -> set[tuple[str, str]]:
    return {(job.endpoint_id, job.ordering_key) for job in jobs if job.ordering_key is not None}


def _run(connection: Connection, statement: TextClause, rows: Sequence[Sequence[object]]) -> _Rows:
    """Run a statement over a batch; returns the rows that it answers with, if it answers with any."""
    result = connection.execute(statement, {"rows": text_of(rows)})
    return result.all() if result.returns_rows else []
