"""Tuning: what the processor finds out about itself, what it decides, and what came of it; the rules, as pure functions."""

import math
from collections.abc import Mapping, Sequence
from statistics import median

import msgspec

from ringbearer.domain.deliveries import Outcome

SPARE_FILES = 200
"""Open files that a process needs besides those of its exchanges: database, logs, sockets of the service."""
SLOW_FROM, STOP_AT = 0.8, 0.95
"""Parts of the memory cap: from the first on less is claimed, at the second nothing."""
HEADROOM = 1.5
"""How many connections are kept for each that was busy on average."""
_LEAST_CONNECTIONS, _MOST_CONNECTIONS = 64, 4_096  # in all; an idle one over TLS takes some 40 KB
_LEAST_RECOVERIES = 5
_SHORTEST_PAUSE, _LONGEST_PAUSE = 5.0, 120.0
_DEAD_BAND = 0.2  # a pause that would change by less stays


class ParallelismConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much a worker does at a time; None leaves it as it is.

    `processes`: worker processes, where something starts them; 0 lets the load decide. `couriers`: threads that send in
    each of them, from 1 to 16. `slots`: deliveries in flight, over all of them. `batch`: deliveries
    claimed at a time. `cpu_share`: the part of one core that each of those threads may use, from 0.05 to 1.
    """

    processes: int | None = None
    couriers: int | None = None
    slots: int | None = None
    batch: int | None = None
    cpu_share: float | None = None


class Parallelism(msgspec.Struct, frozen=True, kw_only=True):
    """How much a worker does at a time."""

    couriers: int
    slots: int
    batch: int
    cpu_share: float


class ParallelismResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, what is in force, and why that differs, if it does.

    `processes` are worker processes of the whole service, None while their number follows the load or nothing starts any.
    """

    before: Parallelism
    after: Parallelism
    processes_before: int | None
    processes_after: int | None
    reason: str


class BatchProcessingResult(msgspec.Struct, kw_only=True):
    """What became of a batch. `duration` in seconds, `most_in_flight` at any moment of it."""

    outcomes: list[Outcome]
    delivered: int
    retried: int
    dead: int
    put_back: int
    duration: float
    most_in_flight: int


class BatchPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One measured batch size: deliveries per second that came to an end, over so many of them."""

    size: int
    throughput: float
    deliveries: int


class OptimalBatchSize(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest batch size that reached the target, or the best, with the measured curve."""

    before: int
    after: int
    target: float
    reached: bool
    curve: list[BatchPoint]
    reason: str


class HostUse(msgspec.Struct):
    """What one receiver's connections were used for since it was last looked at; `busy` in seconds."""

    exchanges: int = 0
    connections: int = 0
    http2: int = 0
    busy: float = 0.0


class HostConnections(msgspec.Struct, frozen=True, kw_only=True):
    """One receiver's connections: `needed` is rate × time (Little 1961) with headroom.

    `open_before` and `open_after` count those that are open; idle ones beyond what is needed were closed.
    """

    host: str
    exchanges: int
    new_connections: int
    needed: int
    open_before: int
    open_after: int


class ConnectionOptimization(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured over `seconds`, how many connections are kept before and after, and what was made ready.

    `handshakes_saved` counts exchanges that needed no connection of their own. `closed` are idle connections that were
    closed, since their host needs fewer or they were idle for too long. `warmed` are names that were looked up ahead
    of the next exchange, `connected_ahead` are HTTP/2 connections that were begun ahead of it.
    """

    seconds: float
    exchanges: int
    reuse_ratio: float
    http2_share: float
    handshakes_saved: int
    kept_before: int
    kept_after: int
    closed: int
    warmed: int
    connected_ahead: int
    busiest: list[HostConnections]
    reason: str


class RetryOptimization(msgspec.Struct, frozen=True, kw_only=True):
    """How long endpoints stayed away, and the first pause of a circuit before and after; seconds."""

    recoveries: int
    median_recovery: float | None
    pause_before: float
    pause_after: float
    reason: str


class MemoryOptimization(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of memory of this process before and after, and what was let go."""

    before: int
    after: int
    limit: int
    handles_closed: int
    entries_dropped: int
    appetite: float
    reason: str


class HotSpot(msgspec.Struct, frozen=True, kw_only=True):
    """A function, and the part of all samples of the sending thread in which it ran."""

    function: str
    share: float


class CpuProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What the sending thread did over `seconds`; `idle` is the part of the samples in which it waited."""

    seconds: float
    samples: int
    process_cpu_share: float
    deliveries: int
    cpu_per_delivery: float | None
    """Microseconds of the whole process."""
    idle: float
    by_module: dict[str, float]
    hottest: list[HotSpot]


def appetite(memory: int, limit: int) -> float:
    """How much of the usual is claimed with so many bytes of memory in use: 1 below 80 % of the cap, 0 from 95 %."""
    if limit <= 0:
        return 1.0
    part = memory / limit
    return min(1.0, max(0.0, (STOP_AT - part) / (STOP_AT - SLOW_FROM)))


def affordable_slots(wanted: int, open_files: int) -> int:
    """As many of the wanted slots as the limit of open files allows; each exchange is an open file."""
    return max(1, min(wanted, open_files - SPARE_FILES))


def connections_needed(use: HostUse, seconds: float) -> int:
    """How many connections a receiver keeps busy, with headroom."""
    if not use.exchanges or seconds <= 0:
        return 0
    streams = 50 if use.http2 * 2 > use.exchanges else 1  # exchanges that share one connection
    return max(1, math.ceil(HEADROOM * use.busy / seconds / streams))


def most_connections(slots: int, open_files: int) -> int:
    """How many connections may be kept: more than there are slots, for there may be more hosts than that."""
    return max(_LEAST_CONNECTIONS, slots, min(_MOST_CONNECTIONS, open_files - SPARE_FILES - slots))


def connections_to_keep(needed: Mapping[str, int], slots: int, open_files: int) -> int:
    """How many connections in all, given what each host needs."""
    return min(max(sum(needed.values()), _LEAST_CONNECTIONS), most_connections(slots, open_files))


def first_pause(recoveries: Sequence[float], before: float) -> tuple[float, str]:
    """How long a circuit stays open at first, so that half of the endpoints are back by the first probe."""
    if len(recoveries) < _LEAST_RECOVERIES:
        return (
            before,
            f"{len(recoveries)} recoveries are too few to learn from; {_LEAST_RECOVERIES} are wanted",
        )
    wanted = min(max(median(recoveries), _SHORTEST_PAUSE), _LONGEST_PAUSE)
    if abs(wanted - before) < _DEAD_BAND * before:
        return before, "half of the endpoints that were away are back by the first probe already"
    return wanted, f"half of the endpoints that were away were back within {median(recoveries):.1f} s"


def smallest_batch(curve: Sequence[BatchPoint], target: float) -> tuple[int, bool]:
    """The smallest size that reached the target; when none did, the smallest within 5 % of the best."""
    reaching = [point.size for point in curve if point.throughput >= target]
    if reaching:
        return min(reaching), True
    best = max(point.throughput for point in curve)
    return min(point.size for point in curve if point.throughput >= 0.95 * best), False
