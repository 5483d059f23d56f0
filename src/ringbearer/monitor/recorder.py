"""The recorder: what telemetry reports becomes rows of minutes, a few hundred deliveries at a time.

dimension   keys                                  stages
path        lane/tier/outcome                     all
type        event types, at most MAX_TYPES        all
error       codes of errors                       none
flow        accepted, duplicates, deliveries,     how long the batch took, in place of the first
            refused, claimed, settled, lost,
            store_errors
supplier    supplier ids, at most MAX_KEYS        all; written when the minute is over
endpoint    endpoint ids, at most MAX_KEYS        all; written when the minute is over

Of suppliers, endpoints and types beyond the bound, all of a minute are one key, OTHER, so that sums stay right.
Whoever emits only hands over the batch; the work is done off the hot path, in columns.
"""

import itertools
import threading
from collections.abc import Iterable, Sequence

import numpy as np

from ringbearer import clock
from ringbearer.domain.deliveries import State
from ringbearer.domain.events import LANES
from ringbearer.monitor.sketch import Sketch, bucket, buckets
from ringbearer.monitor.table import Column, Table
from ringbearer.storage.rollups import Rollup
from ringbearer.telemetry import (
    AttemptMade,
    AttemptsMade,
    DeliveriesClaimed,
    DeliveriesSettled,
    EventsAccepted,
    EventsRefused,
    StoreFailed,
    Telemetry,
)

STAGES = ("claim", "start", "answer", "settle", "reach", "whole")
"""ready ▸ claimed ▸ first byte sent ▸ answered ▸ settled; ready ▸ first byte sent; accepted ▸ settled.

A delivery is ready when it is accepted, or later if it has to wait for its time, its order or its endpoint.
`reach` is of first attempts, `whole` of attempts that delivered; the others are of all.
"""
MAX_KEYS = 3_000
MAX_TYPES = 200
MAX_WAITING = 50_000
"""Attempts that may wait to be worked in; whoever emits more does that work itself."""
MAX_MINUTES = 10
"""Minutes that are kept while the store does not take them; the oldest goes, and is counted as lost."""

_MINUTE = 60 * clock.SECOND
_AT_ONCE = {"path": 10_000, "type": MAX_TYPES, "error": 2_000, "flow": 100}
_LATER = {"supplier": MAX_KEYS, "endpoint": MAX_KEYS}
_BOUNDS = _AT_ONCE | _LATER
DIMENSIONS = tuple(_BOUNDS)
_COUNTS = 6  # attempts, delivered, receiver, ours, first, dead
_NO_STAGES = np.full((len(STAGES), 1), -1, np.int64)
_LINGER = 2 * clock.SECOND  # after the end of a minute, for what is settled a little later


class Recorder:
    """Counts the minutes of one process, whose name is unique to it and its start. Thread-safe."""

    def __init__(self, telemetry: Telemetry, *, process: str) -> None:
        self.process = process
        self.lost_minutes = 0
        """Minutes that could not be written in time."""
        self._waiting: list[AttemptsMade] = []
        self._attempts_waiting = 0
        self._minutes: dict[int, dict[str, Table]] = {}
        self._names: dict[int, str] = {}
        self._forgotten_until = 0
        self._late = itertools.count(1)
        self._lock = threading.Lock()
        telemetry.listen(AttemptsMade, self.take)
        telemetry.listen(EventsAccepted, self._on_accepted)
        telemetry.listen(EventsRefused, lambda r: self._flow("refused", r.events))
        telemetry.listen(DeliveriesClaimed, lambda r: self._flow("claimed", r.count, r.duration))
        telemetry.listen(DeliveriesSettled, self._on_settled)
        telemetry.listen(StoreFailed, lambda r: self._flow("store_errors", 1))

    def __repr__(self) -> str:
        return f"<Recorder {self.process} with {len(self._minutes)} minutes>"

    def drain(self, now: int, *, everything: bool = False) -> list[Rollup]:
        """What changed since the last time, whole. What is given must be written, or given back.

        Suppliers and endpoints are given when their minute is over, unless `everything` is wanted now.
        """
        with self._lock:
            self._work_in()
            rows = []
            for at, tables in self._minutes.items():
                over = everything or at + _MINUTE + _LINGER <= now
                for dimension, table in tables.items():
                    if table.changed and (over or dimension in _AT_ONCE):
                        rows += [self._rollup(dimension, at, *row) for row in table.rows()]
                        table.changed = False
            return rows

    def give_back(self, rows: Iterable[Rollup]) -> None:
        """Have those rows given again the next time, since they could not be written."""
        with self._lock:
            for at, dimension in {(row.at, row.dimension) for row in rows}:
                if at in self._minutes:
                    self._minutes[at][dimension].changed = True

    def forget(self, now: int) -> None:
        """Let go the minutes that are over and written, and those that the store did not take for too long.

        What still comes of them is written beside it, as another process would, and so added on reading.
        """
        with self._lock:
            self._forgotten_until = now - 2 * _MINUTE
            for at in sorted(self._minutes):
                if at + 2 * _MINUTE > now:
                    continue
                unwritten = any(table.changed for table in self._minutes[at].values())
                if not unwritten or at + MAX_MINUTES * _MINUTE < now:
                    del self._minutes[at], self._names[at]
                    self.lost_minutes += unwritten

    # ── what is heard ───────────────────────────────────────────────────────────────────────────────────

    def take(self, report: AttemptsMade) -> None:
        """Count a batch of attempts."""
        with self._lock:
            self._waiting.append(report)
            self._attempts_waiting += len(report.attempts)
            if self._attempts_waiting > MAX_WAITING:
                self._work_in()

    def _on_accepted(self, report: EventsAccepted) -> None:
        self._flow("accepted", report.events, report.duration)
        self._flow("duplicates", report.duplicates)
        self._flow("deliveries", report.deliveries)

    def _on_settled(self, report: DeliveriesSettled) -> None:
        self._flow("settled", sum(report.states.values()), report.duration)
        self._flow("lost", report.lost)

    def _flow(self, key: str, count: int, seconds: float | None = None) -> None:
        if not count:
            return
        stages = _NO_STAGES
        if seconds is not None:
            stages = stages.copy()
            stages[0, 0] = bucket(seconds)
        with self._lock:
            self._table(clock.now() // _MINUTE * _MINUTE, "flow").add([key], _only_count(count), stages)

    # ── working in ──────────────────────────────────────────────────────────────────────────────────────

    def _work_in(self) -> None:
        reports, self._waiting, self._attempts_waiting = self._waiting, [], 0
        attempts: list[AttemptMade] = []
        settled: list[int] = []
        for report in reports:
            attempts += report.attempts
            settled += [report.settled_at] * len(report.attempts)
        if not attempts:
            return
        minutes = np.array([a.answered_at for a in attempts], np.int64) // _MINUTE * _MINUTE
        stages = _stages(attempts, np.array(settled, np.int64))
        for at in np.unique(minutes).tolist():
            mask = minutes == at
            if mask.all():
                self._count(at, attempts, stages)
            else:
                chosen = [a for a, wanted in zip(attempts, mask, strict=True) if wanted]
                self._count(at, chosen, stages[:, mask])

    def _count(self, at: int, attempts: Sequence[AttemptMade], stages: Column) -> None:
        flags = _flags(attempts)
        for dimension, keys in (
            ("path", [f"{LANES[a.lane]}/{a.tier}/{a.outcome}" for a in attempts]),
            ("type", [a.event_type for a in attempts]),
            ("supplier", [a.supplier_id for a in attempts]),
            ("endpoint", [a.endpoint_id for a in attempts]),
        ):
            self._table(at, dimension).add(keys, flags, stages)
        for attempt in attempts:
            if attempt.error is not None:
                self._table(at, "error").add([attempt.error], _only_count(1), _NO_STAGES)

    def _table(self, at: int, dimension: str) -> Table:
        tables = self._minutes.get(at)
        if tables is None:
            late = at <= self._forgotten_until
            self._names[at] = f"{self.process}.{next(self._late)}" if late else self.process
            tables = self._minutes[at] = {
                name: Table(stages=len(STAGES), columns=_COUNTS, most=most) for name, most in _BOUNDS.items()
            }
        return tables[dimension]

    def _rollup(self, dimension: str, at: int, key: str, counts: Sequence[int], sketches: str) -> Rollup:
        attempts, delivered, receiver, ours, first, dead = counts
        return Rollup(
            dimension=dimension,
            at=at,
            key=key,
            process=self._names[at],
            attempts=attempts,
            delivered=delivered,
            receiver=receiver,
            ours=ours,
            first=first,
            dead=dead,
            sketches=sketches,
        )


def encode_stages(sketches: Sequence[Sketch]) -> str:
    """Sketches as the text of a row; none at all is the empty text."""
    return ",".join(sketch.encode() for sketch in sketches) if any(s.counts for s in sketches) else ""


def decode_stages(text: str) -> list[Sketch]:
    """The opposite of `encode_stages`."""
    return [Sketch.decode(part) if part else Sketch() for part in text.split(",")] if text else []


def _only_count(count: int) -> Column:
    return np.array([[count]] + [[0]] * (_COUNTS - 1), np.int64)


def _stages(attempts: Sequence[AttemptMade], settled: Column) -> Column:
    """For each stage and attempt the bucket of its duration, -1 where it has none."""

    def column(values: list[int]) -> Column:
        return np.array(values, np.int64)

    accepted = column([a.accepted_at for a in attempts])
    ready = column([a.ready_at for a in attempts])
    claimed = column([a.claimed_at for a in attempts])
    sent = column([a.first_byte_at or 0 for a in attempts])
    answered = column([a.answered_at for a in attempts])
    first = column([a.attempt for a in attempts]) == 1
    done = np.array([a.outcome == "delivered" for a in attempts], bool)
    went = sent > 0
    everything = np.ones(len(attempts), bool)
    spans = (
        (ready, claimed, everything),
        (claimed, sent, went),
        (sent, answered, went),
        (answered, settled, everything),
        (ready, sent, went & first),
        (accepted, settled, done),
    )
    found = np.full((len(STAGES), len(attempts)), -1, np.int64)
    for stage, (start, end, counts) in enumerate(spans):
        found[stage] = np.where(counts, buckets((end - start) / clock.SECOND), -1)
    return found


def _flags(attempts: Sequence[AttemptMade]) -> Column:
    """What each attempt adds to the counts of a row, in their order."""
    outcomes = [a.outcome for a in attempts]
    return np.array(
        (
            [1] * len(attempts),
            [outcome == "delivered" for outcome in outcomes],
            [outcome == "receiver" for outcome in outcomes],
            [outcome == "ours" for outcome in outcomes],
            [a.attempt == 1 for a in attempts],
            [a.state is State.DEAD for a in attempts],
        ),
        np.int64,
    )
