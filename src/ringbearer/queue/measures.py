"""Measures: what a worker sees of its own queue, lane by lane, over the last seconds; one addition per batch."""

import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence

import msgspec

from ringbearer import clock
from ringbearer.domain.deliveries import Lease, Outcome, State
from ringbearer.domain.events import LANES

WINDOW_SECONDS = 10.0
"""Rates and waits are those of the last so many seconds."""
_MOST_WAITS = 512  # kept of each claim's lane: enough for a P95 of one claim in a hundred thousand


class LaneMeasure(msgspec.Struct, frozen=True, kw_only=True):
    """How one lane does. Rates per second, durations in seconds."""

    lane: str
    claimed_rate: float
    wait_p50: float
    wait_p95: float


class QueueMeasure(msgspec.Struct, frozen=True, kw_only=True):
    """How the worker's queue does. Rates per second, durations in seconds; None is not known yet."""

    seconds: float
    """How long what was measured took: at most the window."""
    claimed_rate: float
    settled_rate: float
    service: float | None
    """How long an exchange took, on average: the time for which a slot is held."""
    claim_seconds: float | None
    """The mean duration of a claim; `settle_seconds` is that of a settlement."""
    settle_seconds: float | None
    claim_batch: float | None
    """The mean number of deliveries in a claim."""
    lanes: tuple[LaneMeasure, ...]


class _Claim(msgspec.Struct, gc=False):
    at: float
    seconds: float
    waits: dict[int, list[float]]
    counts: dict[int, int]


class _Settlement(msgspec.Struct, gc=False):
    at: float
    seconds: float
    count: int
    exchanges: int
    held: int


class Measures:
    """Collects from the loop's thread, and is read from any."""

    def __init__(self) -> None:
        self._claims: deque[_Claim] = deque()
        self._settlements: deque[_Settlement] = deque()
        self._began = clock.monotonic()
        self._changed = threading.Condition()
        self._ended = False
        self.claimed = 0
        """Deliveries claimed since the start."""
        self.states: Counter[State] = Counter()
        """What deliveries became since the start."""

    def __repr__(self) -> str:
        return f"<Measures: {self.claimed} claimed, {self.states.total()} settled>"

    def on_claim(self, leases: Sequence[Lease], seconds: float, now: int) -> None:
        """A claim ended at a stored time, after so many seconds."""
        waits: dict[int, list[float]] = {}
        counts: dict[int, int] = {}
        for lease in leases:
            lane = lease.lane
            counts[lane] = counts.get(lane, 0) + 1
            if counts[lane] <= _MOST_WAITS:
                waits.setdefault(lane, []).append((now - lease.ready_at) / clock.SECOND)
        with self._changed:
            self.claimed += len(leases)
            self._claims.append(_Claim(clock.monotonic(), seconds, waits, counts))
            _drop_old(self._claims)

    def on_settled(self, outcomes: Sequence[Outcome], settled: set[str], seconds: float) -> None:
        """A settlement ended, after so many seconds; `settled` are the ids that changed."""
        states = Counter(o.state for o in outcomes if o.lease.delivery_id in settled)
        held = [o.record.duration for o in outcomes if o.record is not None]
        with self._changed:
            self.states.update(states)
            self._settlements.append(
                _Settlement(clock.monotonic(), seconds, len(outcomes), len(held), sum(held))
            )
            _drop_old(self._settlements)
            self._changed.notify_all()

    def end(self) -> None:
        """Nothing more comes: nobody need wait any longer."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, settled: int, *, timeout: float) -> bool:
        """Wait until so many deliveries have been settled since the start; whether they were in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self.states.total() >= settled, timeout)
            return self.states.total() >= settled

    def read(self) -> QueueMeasure:
        """How it went in the window."""
        now = clock.monotonic()
        with self._changed:
            claims = [c for c in self._claims if now - c.at <= WINDOW_SECONDS]
            settlements = [s for s in self._settlements if now - s.at <= WINDOW_SECONDS]
        seconds = max(0.001, min(WINDOW_SECONDS, now - self._began))
        exchanges = sum(s.exchanges for s in settlements)
        claimed = sum(sum(c.counts.values()) for c in claims)
        return QueueMeasure(
            seconds=seconds,
            claimed_rate=claimed / seconds,
            settled_rate=sum(s.count for s in settlements) / seconds,
            service=sum(s.held for s in settlements) / exchanges / clock.SECOND if exchanges else None,
            claim_seconds=_mean(c.seconds for c in claims),
            settle_seconds=_mean(s.seconds for s in settlements),
            claim_batch=claimed / len(claims) if claims else None,
            lanes=tuple(_lane(lane, claims, seconds) for lane in range(len(LANES))),
        )


def _lane(lane: int, claims: Iterable[_Claim], seconds: float) -> LaneMeasure:
    count = 0
    waits: list[float] = []
    for claim in claims:
        count += claim.counts.get(lane, 0)
        waits += claim.waits.get(lane, ())
    waits.sort()
    return LaneMeasure(
        lane=LANES[lane],
        claimed_rate=count / seconds,
        wait_p50=percentile(waits, 0.50),
        wait_p95=percentile(waits, 0.95),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest rank's value of what is in order; 0 of nothing."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return sum(listed) / len(listed) if listed else None


def _drop_old(kept: "deque[_Claim] | deque[_Settlement]") -> None:
    now = clock.monotonic()
    while kept and now - kept[0].at > WINDOW_SECONDS:
        kept.popleft()
