"""What is measured: each scenario runs on a fresh start of the service and returns named figures."""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from bench import load, sending
from bench.load import Plan
from bench.receiver import Receiver
from bench.system import KEY, SUPPLIERS, System, Use

Tell = Callable[[str], None]


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How large everything is."""

    seconds: float
    batches: int
    open_seconds: float
    backlog: int
    small: int
    window: float
    courier: int


FULL = Size(
    seconds=10, batches=100_000, open_seconds=20, backlog=1_000_000, small=30_000, window=15, courier=60_000
)
QUICK = Size(
    seconds=3, batches=10_000, open_seconds=5, backlog=50_000, small=10_000, window=3, courier=10_000
)

_CLIENTS = 256
_BATCH = 100
_BATCH_CLIENTS = 4
_RATE = 1_000.0
_LOAD_BATCH = 500
_DRAIN_SECONDS = 180.0
_plan = partial(Plan, key=KEY, suppliers=SUPPLIERS)

Figures = dict[str, float]


def run_all(system: System, receiver: Receiver, size: Size, tell: Tell) -> Figures:
    """Every scenario on one installation."""
    figures: Figures = {}
    for scenario in (singles, batches, steady, bare, backlog):
        began = time.monotonic()
        found = scenario(system, receiver, size)
        figures |= {f"{scenario.__name__}.{name}": value for name, value in found.items()}
        tell(f"  {scenario.__name__}: {time.monotonic() - began:.0f} s")
    figures["courier.ratio"] = figures["batches.delivered_rate"] / figures["bare.rate"]
    return figures


def singles(system: System, receiver: Receiver, size: Size) -> Figures:
    """Single events, each client publishing its next when the last was answered, as fast as that goes."""
    with system.running():
        _warm_up(system, receiver)
        before = system.use()
        began = time.time()
        result = load.publish(
            _plan(port=system.port, kind="closed", seconds=size.seconds, connections=_CLIENTS)
        )
        delivered = _delivered_rate(system, receiver, began)
        return {
            "accepted_rate": result.requests / result.seconds,
            "delivered_rate": delivered,
            "bad": result.bad,
            "p50_ms": result.p50 * 1e3,
            "p95_ms": result.p95 * 1e3,
            "p99_ms": result.p99 * 1e3,
            **_costs(before, system.use(), receiver.counts().total),
        }


def batches(system: System, receiver: Receiver, size: Size) -> Figures:
    """Events by the hundred in one request."""
    with system.running():
        _warm_up(system, receiver)
        before = system.use()
        began = time.time()
        result = load.publish(
            _plan(
                port=system.port,
                kind="batch",
                seconds=_DRAIN_SECONDS,
                connections=_BATCH_CLIENTS,
                batch=_BATCH,
                events=size.batches,
            )
        )
        delivered = _delivered_rate(system, receiver, began)
        return {
            "accepted_rate": result.requests * _BATCH / result.seconds,
            "delivered_rate": delivered,
            "bad": result.bad,
            "p99_ms": result.p99 * 1e3,
            **_costs(before, system.use(), receiver.counts().total),
        }


def steady(system: System, receiver: Receiver, size: Size) -> Figures:
    """1,000 events per second, whatever the answers do: how long from acceptance to the first byte sent."""
    with system.running():
        _warm_up(system, receiver)
        before, histogram = system.use(), system.accept_to_send()
        result = load.publish(
            _plan(port=system.port, kind="open", seconds=size.open_seconds, connections=_CLIENTS, rate=_RATE)
        )
        system.drain(_DRAIN_SECONDS)
        moved = system.accept_to_send()
        moved.subtract(histogram)
        counts = receiver.counts(delays=True)
        figures: Figures = {"bad": result.bad, "p99_of_202_ms": result.p99 * 1e3}
        for share in (0.5, 0.95, 0.99):
            name = f"p{share * 100:.0f}"
            figures[f"accept_to_send_{name}_ms"] = percentile(moved, share) * 1e3
            at = min(len(counts.delays) - 1, int(share * len(counts.delays)))
            figures[f"publish_to_arrival_{name}_ms"] = counts.delays[at] * 1e3
        return figures | _costs(before, system.use(), counts.total)


def bare(system: System, receiver: Receiver, size: Size) -> Figures:
    """The courier alone against the same receiver."""
    result = sending.measure(receiver.port, size.courier)
    receiver.start_anew()
    return {"rate": result.rate, "cpu_us": result.cpu}


def backlog(system: System, receiver: Receiver, size: Size) -> Figures:
    """How fast workers deliver from a short queue and from a very long one, and what memory that takes."""
    figures: Figures = {"queued": size.backlog}
    for name, count in (("short", size.small), ("long", size.backlog)):
        with system.running(workers=0):
            began = time.monotonic()
            load.publish(
                _plan(
                    port=system.port,
                    kind="batch",
                    seconds=_DRAIN_SECONDS * 3,
                    connections=_BATCH_CLIENTS,
                    batch=_LOAD_BATCH,
                    events=count,
                )
            )
            figures[f"{name}_accepted_rate"] = count / (time.monotonic() - began)
            figures |= {f"{name}_loading_{what}_rss_mb": use.peak for what, use in system.use().items()}
        receiver.start_anew()
        with system.running():
            figures[f"{name}_rate"] = _rate_over(receiver, count, size.window)
            figures |= {f"{name}_{what}_rss_mb": use.peak for what, use in system.use().items()}
            if name == "short":
                system.drain(_DRAIN_SECONDS)
    figures["ratio"] = figures["long_rate"] / figures["short_rate"]
    return figures


def percentile(cumulated: Counter[float], share: float) -> float:
    """The value below which that share lies, interpolated within its bucket; cumulated counts by upper bound."""
    bounds = sorted(cumulated)
    wanted = share * cumulated[bounds[-1]] if bounds else 0.0
    low, below = 0.0, 0
    for bound in bounds:
        count = cumulated[bound]
        if count >= wanted and count > below:
            if bound == float("inf"):
                return low
            return low + (bound - low) * (wanted - below) / (count - below)
        low, below = bound, count
    return low


def _warm_up(system: System, receiver: Receiver) -> None:
    load.publish(_plan(port=system.port, kind="closed", seconds=1.0, connections=32))
    system.drain(_DRAIN_SECONDS)
    receiver.start_anew()


def _delivered_rate(system: System, receiver: Receiver, began: float) -> float:
    """Deliveries per second from the beginning until nothing was left."""
    system.drain(_DRAIN_SECONDS)
    counts = receiver.counts()
    return counts.total / (counts.last - began)


def _rate_over(receiver: Receiver, queued: int, window: float) -> float:
    """Deliveries per second over the window that begins with the first tenth, or until most are gone."""
    for _ in _polls(60):
        if receiver.counts().total >= min(2_000, queued // 10):
            break
    first, began = receiver.counts().total, time.monotonic()
    for _ in _polls(window):
        if receiver.counts().total >= 0.9 * queued:
            break
    return (receiver.counts().total - first) / (time.monotonic() - began)


def _polls(seconds: float) -> Iterator[int]:
    deadline = time.monotonic() + seconds
    for number in itertools.count():
        if time.monotonic() > deadline:
            return
        yield number
        time.sleep(0.05)


def _costs(before: dict[str, Use], after: dict[str, Use], deliveries: int) -> Figures:
    """CPU microseconds per delivery, and memory, of each kind of process."""
    figures: Figures = {"deliveries": deliveries}
    for name, use in after.items():
        spent = use.cpu - before[name].cpu if name in before else use.cpu
        figures[f"{name}_cpu_us"] = spent / max(1, deliveries) * 1e6
        figures[f"{name}_rss_mb"] = use.rss
    return figures
