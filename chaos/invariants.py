"""The invariants: what must hold after any run, read from what everybody wrote down and from the store.

I1   accepted ⇒ seen by the receiver with a 2xx, or a dead letter, or scheduled with a time
I2   nothing arrives that was not sent, and everything that arrives is signed
I3   one event ⇒ the same bytes on every attempt
I4   no delivery after its 2xx: never without faults, and with faults at most (workers lost × slots), and only where
     the store lacks the answer to one of its attempts;
     no attempt succeeds twice. Claims that a database that crashed may have forgotten, and connections cut, are excepted
I5   attempts ≤ the schedule's, one more for each worker lost
I6   per endpoint and ordering key, first successes come in order
I8   no endpoint with a rate limit is sent to more often than that, least of all after everybody was away
I9   one idempotency key ⇒ one event
I11  counters equal rows
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import text

from chaos.producer import Said
from chaos.receiver import Seen
from ringbearer import clock
from ringbearer.storage.base import Storage

_LATE = 1.0  # seconds
_SHOWN = 5  # of each kind of violation


class Row(msgspec.Struct, frozen=True):
    """A delivery as the store has it; `job` is the state of its job, if there is one.

    `answered` is how many of its attempts have an answer written down.
    """

    delivery: str
    event: str
    endpoint: str
    state: str
    attempts: int
    job: str | None
    due_at: int | None
    answered: int = 0


class Pace(msgspec.Struct, frozen=True):
    """A rate limit of an endpoint."""

    requests: int
    period: float


class Evidence(msgspec.Struct, kw_only=True):
    """All that was written down.

    `paths` tells the path of each endpoint's URL by its id, `tries` how many attempts it may have. `in_flight`
    is how many deliveries all workers that were lost may have held. `forgotten` is how many claims a database may have
    forgotten when it crashed, since claims do not wait for the disk. `cut` is how many connections the network cut: a
    request on one that was used before, of whose answer nothing has come, libcurl sends once more by itself. `starts`
    are the stored times at which attempts at the endpoints of `limits` began; `frozen` is how many a worker that stood
    still may have begun too late.
    """

    said: Sequence[Said]
    seen: Sequence[Seen]
    rows: Sequence[Row]
    depth: Mapping[tuple[int, str], int]
    jobs: Mapping[tuple[int, str], int]
    paths: Mapping[str, str]
    tries: int
    workers_lost: int
    in_flight: int
    forgotten: int = 0
    cut: int = 0
    starts: Mapping[str, Sequence[int]] = {}
    limits: Mapping[str, Pace] = {}
    frozen: int = 0


class Verdict(msgspec.Struct, kw_only=True):
    """What came out. Without `violations` every promise was kept."""

    tried: int
    accepted: int
    unknown: int
    repeated: int
    delivered: int
    dead: int
    pending: int
    lost: int
    duplicates: int
    duplicates_allowed: int
    requests: int
    most_attempts: int
    violations: list[str]


def read_store(storage: Storage) -> tuple[list[Row], dict[tuple[int, str], int], dict[tuple[int, str], int]]:
    """Every delivery, the counters of jobs that the store keeps, and the jobs counted anew."""
    with storage.database.read() as connection:
        rows = [
            Row(*row)
            for row in connection.execute(
                text(
                    "SELECT d.id, d.event_id, d.endpoint_id, d.state, d.attempts, j.state, j.due_at, "
                    "(SELECT count(*) FROM attempts AS a WHERE a.delivery_id = d.id AND a.status_code IS NOT NULL) "
                    "FROM deliveries AS d LEFT JOIN jobs AS j ON j.delivery_id = d.id"
                )
            )
        ]
        depth = {
            (lane, state): int(n)
            for lane, state, n in connection.execute(
                text("SELECT lane, state, sum(n) FROM queue_depth GROUP BY lane, state")
            )
            if n
        }
        jobs = {
            (lane, state): n
            for lane, state, n in connection.execute(
                text("SELECT lane, state, count(*) FROM jobs GROUP BY lane, state")
            )
        }
    return rows, depth, jobs


def read_starts(storage: Storage, endpoints: Sequence[str]) -> dict[str, list[int]]:
    """When attempts at these endpoints began, as far as they were written down."""
    query = text(
        "SELECT a.started_at FROM attempts AS a JOIN deliveries AS d ON d.id = a.delivery_id "
        "WHERE d.endpoint_id = :endpoint"
    )
    with storage.database.read() as connection:
        return {each: [row[0] for row in connection.execute(query, {"endpoint": each})] for each in endpoints}


def judge(evidence: Evidence) -> Verdict:
    """Hold what was written down against the promises."""
    return _Court(evidence).verdict()


class _Court:
    def __init__(self, evidence: Evidence) -> None:
        self._e = evidence
        self._found: dict[str, list[str]] = defaultdict(list)
        taken_back = {seen.number for seen in evidence.seen if seen.answer == 0}
        self._seen = list({(seen.number, seen.id): seen for seen in evidence.seen}.values())
        self._successes = [s for s in self._seen if s.answer == 200 and s.number not in taken_back]
        self._tried = {said.uid: said for said in evidence.said if said.what == "tried"}
        self._promised: dict[str, set[str]] = defaultdict(set)
        self._deliveries: dict[str, int] = {}
        for said in evidence.said:
            if said.what == "accepted":
                self._promised[said.uid].add(said.event)
                self._deliveries[said.event] = said.deliveries
        self._rows: dict[str, list[Row]] = defaultdict(list)
        for row in evidence.rows:
            self._rows[row.event].append(row)
        self._lost = 0
        self._duplicates = 0

    def verdict(self) -> Verdict:
        for check in (
            self._promises_kept,
            self._nothing_strange,
            self._same_bytes,
            self._no_duplicates,
            self._bounded_attempts,
            self._in_order,
            self._within_limits,
            self._one_event_per_key,
            self._counters,
        ):
            check()
        states = Counter(row.state for row in self._e.rows)
        said = Counter(s.what for s in self._e.said)
        accepted = [s for s in self._e.said if s.what == "accepted"]
        return Verdict(
            tried=len(self._tried),
            accepted=len(self._promised),
            unknown=said["unknown"],
            repeated=sum(s.duplicate for s in accepted),
            delivered=states["delivered"],
            dead=states["dead"],
            pending=states["pending"],
            lost=self._lost,
            duplicates=self._duplicates,
            duplicates_allowed=self._e.in_flight,
            requests=len(self._seen),
            most_attempts=max((s.attempt for s in self._seen), default=0),
            violations=[line for lines in self._found.values() for line in lines],
        )

    def _violation(self, invariant: str, what: str) -> None:
        lines = self._found[invariant]
        if len(lines) < _SHOWN:
            lines.append(f"{invariant}: {what}")
        elif len(lines) == _SHOWN:
            lines.append(f"{invariant}: … and more")

    def _promises_kept(self) -> None:
        arrived = {(s.id, s.path) for s in self._successes}
        for uid, events in self._promised.items():
            for event in events:
                rows = self._rows.get(event, [])
                missing = self._deliveries[event] - len(rows)
                if missing:
                    self._lost += missing
                    self._violation(
                        "I1", f"{uid} was accepted as {event}, but {missing} deliveries are missing"
                    )
                for row in rows:
                    if not self._kept(row, arrived):
                        self._lost += 1
                        self._violation("I1", f"{uid}, accepted as {event}: {row}")

    def _kept(self, row: Row, arrived: set[tuple[str, str]]) -> bool:
        if row.state == "delivered":
            return (row.event, self._e.paths[row.endpoint]) in arrived
        return row.state == "dead" or (row.job == "scheduled" and row.due_at is not None)

    def _nothing_strange(self) -> None:
        for s in self._seen:
            if s.uid not in self._tried:
                self._violation("I2", f"{s.id} arrived with the unknown name {s.uid!r}")
            elif not s.verified:
                self._violation("I2", f"{s.uid} arrived as {s.id} without a right signature")
        for said in self._e.said:
            if said.what == "refused" and not said.detail.startswith("503"):
                self._violation("I2", f"{said.uid} was refused: {said.detail}")

    def _same_bytes(self) -> None:
        digests: dict[str, set[str]] = defaultdict(set)
        for s in self._seen:
            digests[s.id].add(s.digest)
        for event, found in digests.items():
            if len(found) > 1:
                self._violation("I3", f"{event} arrived with {len(found)} different bodies")

    def _no_duplicates(self) -> None:
        times = Counter((s.id, s.path) for s in self._successes)
        self._duplicates = sum(n - 1 for n in times.values())
        if self._duplicates > self._e.in_flight:
            self._violation(
                "I4", f"{self._duplicates} duplicates after a 2xx, {self._e.in_flight} are allowed"
            )
        self._explained(times)
        attempts = Counter((s.id, s.path, s.attempt) for s in self._successes)
        again = {which: n for which, n in attempts.items() if n > 1}
        if sum(again.values()) - len(again) > self._e.forgotten + self._e.cut:
            for (event, path, attempt), n in again.items():
                self._violation("I4", f"attempt {attempt} of {event} at {path} succeeded {n} times")

    def _explained(self, times: Mapping[tuple[str, str], int]) -> None:
        """Who knows that a delivery was taken never sends it again: each repetition stands for an answer that got lost."""
        found = []
        for row in self._e.rows:
            again = times.get((row.event, self._e.paths[row.endpoint]), 0) - 1
            lost = row.attempts - row.answered
            found += [(row, again, lost)] * max(0, again - lost)
        if len(found) > self._e.forgotten + self._e.cut:
            for row, again, lost in found:
                self._violation("I4", f"{again} repetitions, but {lost} lost answers: {row}")

    def _bounded_attempts(self) -> None:
        most = self._e.tries + self._e.workers_lost
        for s in self._seen:
            if s.attempt > most:
                self._violation("I5", f"{s.id} at {s.path}: attempt {s.attempt} of at most {most}")

    def _in_order(self) -> None:
        first: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
        for s in sorted(self._successes, key=lambda s: s.number):
            if s.ordering is not None:
                first[s.path, s.ordering].setdefault(s.sequence, s.number)
        for (path, key), sequences in first.items():
            order = sorted(sequences, key=lambda sequence: sequences[sequence])
            if order != sorted(order):
                self._violation("I6", f"{key} at {path} first succeeded in the order {order}")

    def _within_limits(self) -> None:
        for endpoint, pace in self._e.limits.items():
            starts = sorted(self._e.starts.get(endpoint, ()))
            most = pace.requests + self._e.frozen
            # A send begins a little after it was let go; so the window is looked at without its last part.
            window = int((pace.period - _LATE) * clock.SECOND)
            for first, last in zip(starts, starts[most:], strict=False):
                if last - first < window:
                    self._violation(
                        "I8", f"{endpoint}: {most + 1} attempts within {(last - first) / clock.SECOND} s"
                    )

    def _one_event_per_key(self) -> None:
        arrived: dict[str, set[str]] = defaultdict(set)
        for s in self._seen:
            arrived[s.uid].add(s.id)
        for uid, tried in self._tried.items():
            events = self._promised.get(uid, set()) | arrived[uid]
            if len(events) > 1:
                kind = "the key " + tried.key if tried.key else "no key, but one request"
                self._violation("I9", f"{uid} with {kind} became {len(events)} events: {sorted(events)}")

    def _counters(self) -> None:
        if dict(self._e.depth) != dict(self._e.jobs):
            self._violation("I11", f"the store counts {dict(self._e.depth)}, there are {dict(self._e.jobs)}")
