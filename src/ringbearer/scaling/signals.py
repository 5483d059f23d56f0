"""Signals: what a process tells of itself with each heartbeat, and what all of them together amount to.

| name | of | meaning |
|---|---|---|
| `cpu` | all | processor time, as a share of one processor |
| `memory` | all | resident bytes |
| `files`, `file_limit` | all | open file descriptors, and how many there may be |
| `lag` | all | the event loop's worst delay of late, in seconds |
| `accepted` | serve, work | deliveries accepted per second: published, or taken from the outbox by a worker |
| `accept_seconds` | serve, work | mean duration of the transactions that accept |
| `slots`, `held` | work | how many deliveries it may hold, and holds |
| `settled`, `attempts`, `retries` | work | per second; retries are the attempts that were not the first |
| `store_seconds` | work | mean duration of the transactions that claim and settle |
| `warm` | serve, work | 1 when its cache is warm |
| `cache_hits`, `cache_misses`, `cache_entries`, `cache_bytes` | serve, work | its cache's first tier, since it started |
| `draining` | work | 1 while it only finishes what it has |
| `minimum`, `maximum`, `workers` | up | how many workers it may run, and runs |
"""

import asyncio
import os
import resource
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

import psutil

from ringbearer import clock
from ringbearer.domain.events import LANES
from ringbearer.domain.scaling import LoadMetrics
from ringbearer.looper import Looper
from ringbearer.storage.nodes import Node
from ringbearer.telemetry import (
    AttemptsMade,
    DeliveriesClaimed,
    DeliveriesSettled,
    EventsAccepted,
    Telemetry,
)

WINDOW_SECONDS = 5.0
"""Rates are those of the last so many seconds."""
_LAG_SECONDS = 0.25


class ProcessSignals:
    """Counts what one process does; `read` belongs to its event loop and is called about once a second.

    `own` adds what only this kind of process knows. Listening costs one addition per batch.
    """

    def __init__(self, telemetry: Telemetry, own: Callable[[], Mapping[str, float]] = dict) -> None:
        self._own = own
        self._process = psutil.Process()
        self._file_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._totals = dict.fromkeys(
            ("accepted", "accepting", "groups", "settled", "attempts", "retries", "storing", "batches"), 0.0
        )
        self._past: deque[tuple[float, dict[str, float]]] = deque()
        self._lag = 0.0
        self._last_turn: float | None = None
        self._looper = Looper("lag", self._measure_lag, interval=_LAG_SECONDS)
        telemetry.listen(EventsAccepted, self._on_accepted)
        telemetry.listen(DeliveriesClaimed, lambda report: self._on_batch(report.duration))
        telemetry.listen(AttemptsMade, self._on_attempts)
        telemetry.listen(DeliveriesSettled, self._on_settled)

    def __repr__(self) -> str:
        return f"<ProcessSignals over {len(self._past)} readings>"

    def start(self) -> None:
        """Begin to watch the event loop."""
        self._looper.start()

    async def stop(self) -> None:
        """End it."""
        await self._looper.stop()

    def read(self) -> dict[str, float]:
        """How the process is, and its rates since the oldest reading of the window."""
        now = clock.monotonic()
        times = os.times()
        memory = self._process.memory_info().rss
        totals = {**self._totals, "cpu": times.user + times.system}
        while len(self._past) > 1 and now - self._past[0][0] > WINDOW_SECONDS:
            self._past.popleft()
        since, before = self._past[0] if self._past else (now, totals)
        self._past.append((now, totals))
        rates = _rates(before, totals, now - since)
        lag, self._lag = self._lag, 0.0
        return {
            **rates,
            "memory": float(memory),
            "files": float(self._process.num_fds()),
            "file_limit": float(self._file_limit),
            "lag": lag,
            **self._own(),
        }

    async def _measure_lag(self) -> float | None:
        now = asyncio.get_running_loop().time()
        if self._last_turn is not None:
            self._lag = max(self._lag, now - self._last_turn - _LAG_SECONDS)
        self._last_turn = now
        return None

    def _on_accepted(self, report: EventsAccepted) -> None:
        self._totals["accepted"] += report.deliveries
        self._totals["accepting"] += report.duration
        self._totals["groups"] += 1

    def _on_attempts(self, report: AttemptsMade) -> None:
        self._totals["attempts"] += len(report.attempts)
        self._totals["retries"] += sum(attempt.accept_to_send is None for attempt in report.attempts)

    def _on_settled(self, report: DeliveriesSettled) -> None:
        self._totals["settled"] += sum(report.states.values())
        self._on_batch(report.duration)

    def _on_batch(self, duration: float) -> None:
        self._totals["storing"] += duration
        self._totals["batches"] += 1


def _rates(before: Mapping[str, float], after: Mapping[str, float], seconds: float) -> dict[str, float]:
    if seconds <= 0:
        return {}
    grown = {name: after[name] - before[name] for name in after}
    rates = {name: grown[name] / seconds for name in ("accepted", "settled", "attempts", "retries", "cpu")}
    if grown["groups"]:
        rates["accept_seconds"] = grown["accepting"] / grown["groups"]
    if grown["batches"]:
        rates["store_seconds"] = grown["storing"] / grown["batches"]
    return rates


def combined(
    nodes: Sequence[Node],
    *,
    backlog: Sequence[int],
    oldest: Sequence[float],
    store_workers: int | None,
    redis_workers: int | None = None,
    lost: Iterable[str] = (),
    last: LoadMetrics | None = None,
) -> LoadMetrics:
    """What all processes together tell, for the policy.

    `lost` names processes that fell silent without a word. What cannot be known while nothing is delivered, how long
    a delivery takes, is what it was `last`.
    """
    working = [node.signals for node in nodes if node.kind == "work" and not node.signals.get("draining")]
    ready = [signals for signals in working if signals.get("warm", 1.0)]
    telling = [signals for signals in ready if "settled" in signals]
    missing = [f"a heartbeat of {name}" for name in lost]
    if not any(node.kind == "serve" for node in nodes):
        missing.append("an API process")
    settled = sum(signals["settled"] for signals in telling)
    attempts = sum(signals["attempts"] for signals in telling)
    retries = sum(signals["retries"] for signals in telling)
    held = sum(signals.get("held", 0.0) for signals in telling)
    slots = max((signals["slots"] for signals in ready if signals.get("slots")), default=0.0)
    cpu = sum(signals["cpu"] for signals in telling)
    known = last or LoadMetrics(workers=0)
    first = attempts - retries
    return LoadMetrics(
        workers=len(ready),
        slots=int(slots) or known.slots,
        arrivals=sum(node.signals.get("accepted", 0.0) for node in nodes),
        retry_ratio=min(10.0, retries / first) if first > 0 else known.retry_ratio,
        backlog=tuple(backlog),
        oldest=tuple(oldest),
        # Little's law; of too few deliveries it tells nothing.
        hold_seconds=held / settled if settled >= 1 and held else known.hold_seconds,
        cpu_seconds=cpu / settled if settled >= 100 else known.cpu_seconds,
        utilisation=held / (slots * len(telling)) if slots and telling else 0.0,
        cpu=cpu / len(telling) if telling else 0.0,
        store_seconds=max((signals.get("store_seconds", 0.0) for signals in telling), default=0.0),
        store_workers=store_workers,
        redis_workers=redis_workers,
        missing=tuple(missing),
    )


def by_lane(figures: Mapping[int, float]) -> list[float]:
    """Figures by the number of their lane as a list of all lanes."""
    return [figures.get(lane, 0.0) for lane in range(len(LANES))]
