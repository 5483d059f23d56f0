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
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ringbearer import clock
from ringbearer.domain.deliveries import State
from ringbearer.domain.events import LANES
from ringbearer.monitor.sketch import Sketch, bucket, buckets
from ringbearer.monitor.table import Column, Spans, Table
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
MAX_FLOWS = 10_000
"""The same of other reports."""
MAX_MINUTES = 10
"""Minutes that are kept while the store does not take them; the oldest goes, and is counted as lost."""

_MINUTE = 60 * clock.SECOND
_AT_ONCE = {"path": 10_000, "type": MAX_TYPES, "error": 2_000, "flow": 100}
_LATER = {"supplier": MAX_KEYS, "endpoint": MAX_KEYS}
_BOUNDS = _AT_ONCE | _LATER
DIMENSIONS = tuple(_BOUNDS)
# A kind of attempt is a number: 4 for each step along _OUTCOMES, and 2 for a first one, and 1 for one that was the last.
_OUTCOMES = {"delivered": 0, "receiver": 4, "ours": 8}
_ONLY = 12  # whatever is merely counted, and attempts with another outcome
_FIRST, _DEAD = 2, 1
_WEIGHTS = np.array(
    [
        [1, kind < 4, 4 <= kind < 8, 8 <= kind < 12, bool(kind & _FIRST), kind & _DEAD]
        for kind in range(_ONLY + 4)
    ],
    np.int64,
)
"""What an attempt of each kind adds to: attempts, delivered, receiver, ours, first, dead."""
_LINGER = 2 * clock.SECOND  # after the end of a minute, for what is settled a little later


class _Flow(NamedTuple):
    """What was reported of a flow at a moment, with how long its batch took."""

    at: int
    key: str
    many: int
    seconds: float | None


class Recorder:
    """Counts the minutes of one process, whose name is unique to it and its start. Thread-safe."""

    def __init__(self, telemetry: Telemetry, *, process: str) -> None:
        self.process = process
        self.lost_minutes = 0
        """Minutes that could not be written in time."""
        self._waiting: list[AttemptsMade] = []
        self._attempts_waiting = 0
        self._flows: list[_Flow] = []
        self._minutes: dict[int, dict[str, Table]] = {}
        self._names: dict[int, str] = {}
        self._forgotten_until = 0
        self._late = itertools.count(1)
        self._handing_over = threading.Lock()  # held for an append: whoever reports waits for nothing else
        self._counting = threading.RLock()
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
        with self._counting:
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
        with self._counting:
            for at, dimension in {(row.at, row.dimension) for row in rows}:
                if at in self._minutes:
                    self._minutes[at][dimension].changed = True

    def forget(self, now: int) -> None:
        """Let go the minutes that are over and written, and those that the store did not take for too long.

        What still comes of them is written beside it, as another process would, and so added on reading.
        """
        with self._counting:
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
        with self._handing_over:
            self._waiting.append(report)
            self._attempts_waiting += len(report.attempts)
            full = self._attempts_waiting > MAX_WAITING
        if full:
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
        with self._handing_over:
            self._flows.append(_Flow(clock.now(), key, count, seconds))
            full = len(self._flows) > MAX_FLOWS
        if full:
            self._work_in()

    # ── working in ──────────────────────────────────────────────────────────────────────────────────────

    def _work_in(self) -> None:
        with self._counting:
            with self._handing_over:
                reports, self._waiting, self._attempts_waiting = self._waiting, [], 0
                flows, self._flows = self._flows, []
            for at, same in itertools.groupby(flows, lambda flow: flow.at // _MINUTE * _MINUTE):
                self._count_flows(at, list(same))
            self._work_attempts_in(reports)

    def _work_attempts_in(self, reports: Sequence[AttemptsMade]) -> None:
        attempts = [attempt for report in reports for attempt in report.attempts]
        if not attempts:
            return
        settled = np.repeat([r.settled_at for r in reports], [len(r.attempts) for r in reports])
        answered = np.array([a.answered_at for a in attempts], np.int64)
        kinds = _kinds(attempts)
        stages = _stages(attempts, kinds, answered, settled)
        minutes = answered // _MINUTE * _MINUTE
        if minutes.min() == minutes.max():  # nearly always
            self._count(int(minutes[0]), attempts, kinds, stages)
            return
        for at in np.unique(minutes).tolist():
            mask = minutes == at
            chosen = [a for a, wanted in zip(attempts, mask, strict=True) if wanted]
            self._count(at, chosen, kinds[mask], stages[:, mask])

    def _count(self, at: int, attempts: Sequence[AttemptMade], kinds: Column, stages: Column) -> None:
        spans = Spans(stages)
        for dimension, keys in (
            ("path", [_path(a.lane, a.tier, a.outcome) for a in attempts]),
            ("type", [a.event_type for a in attempts]),
            ("supplier", [a.supplier_id for a in attempts]),
            ("endpoint", [a.endpoint_id for a in attempts]),
        ):
            self._table(at, dimension).add(keys, kinds, spans)
        errors = [a.error for a in attempts if a.error is not None]
        if errors:
            self._table(at, "error").add(errors, np.full(len(errors), _ONLY))

    def _count_flows(self, at: int, flows: Sequence[_Flow]) -> None:
        stages = np.full((1, len(flows)), -1, np.int64)
        stages[0] = [-1 if flow.seconds is None else bucket(flow.seconds) for flow in flows]
        self._table(at, "flow").add(
            [flow.key for flow in flows],
            np.full(len(flows), _ONLY),
            Spans(stages),
            np.array([flow.many for flow in flows], np.int64),
        )

    def _table(self, at: int, dimension: str) -> Table:
        tables = self._minutes.get(at)
        if tables is None:
            late = at <= self._forgotten_until
            self._names[at] = f"{self.process}.{next(self._late)}" if late else self.process
            tables = self._minutes[at] = {
                name: Table(stages=len(STAGES), weights=_WEIGHTS, most=most) for name, most in _BOUNDS.items()
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


def _kinds(attempts: Sequence[AttemptMade]) -> Column:
    known, dead = _OUTCOMES.get, State.DEAD
    return np.array(
        [known(a.outcome, _ONLY) + (_FIRST if a.attempt == 1 else 0) + (a.state is dead) for a in attempts],
        np.int64,
    )


@lru_cache(1_000)
def _path(lane: int, tier: str, outcome: str) -> str:
    """The key of a path: the same text each time, so that its hash is known."""
    return f"{LANES[lane]}/{tier}/{outcome}"


def _stages(attempts: Sequence[AttemptMade], kinds: Column, answered: Column, settled: Column) -> Column:
    """For each stage and attempt the bucket of its duration, -1 where it has none."""
    accepted = np.array([a.accepted_at for a in attempts], np.int64)
    ready = np.array([a.ready_at for a in attempts], np.int64)
    claimed = np.array([a.claimed_at for a in attempts], np.int64)
    sent = np.array([a.first_byte_at or 0 for a in attempts], np.int64)
    went = sent > 0
    starts = np.stack((ready, claimed, sent, answered, ready, accepted))
    ends = np.stack((claimed, sent, answered, settled, sent, settled))
    found = buckets((ends - starts) / clock.SECOND)
    found[1:3, ~went] = -1
    found[4, ~(went & (kinds & _FIRST > 0))] = -1
    found[5, kinds >= 4] = -1
    return found
