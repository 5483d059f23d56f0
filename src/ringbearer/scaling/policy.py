"""The policy: from load to a number of workers, as a pure function with a memory that it is handed.

    N = ceil( max( demand · W / (c · ρ),  demand · s / ρ ) ),   demand = λ(1 + r) + Σ B / T

λ deliveries accepted each second, r retries for each, B the runnable backlog of a lane and T the time in which it
shall be gone, W the time for which a delivery holds one of a worker's c slots (Little's law), s the processor time it
takes, ρ how busy a worker shall be. Up at once, within bounds; down slowly, late, and never on doubt.
"""

import math
from collections.abc import Sequence

import msgspec

from ringbearer.domain.events import LANES
from ringbearer.domain.scaling import Floors, LoadMetrics, ScalingPolicy

_SHRINK_SECONDS = 60.0
_URGENCY = 4.0  # a lane whose oldest delivery has waited for the whole drain time drains so many times faster
_STORE_SECONDS = 1.0  # a batch that takes the store longer: it is the bottleneck, more workers make it worse


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What was recommended and decided lately: pairs of a moment and the number from then on, oldest first."""

    recommended: tuple[tuple[float, int], ...] = ()
    decided: tuple[tuple[float, int], ...] = ()


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """How many workers there shall be, by which rule, and why."""

    desired: int
    current: int
    needed: int
    """What the load alone asks for."""
    rule: str
    reason: str
    demand: float
    """Deliveries per second that workers shall be able to make."""
    peak: bool
    floors: Floors


def decide(
    load: LoadMetrics, policy: ScalingPolicy, memory: Memory, *, now: float, peak: bool, floors: Floors
) -> tuple[Recommendation, Memory]:
    """How many workers there shall be now, and the memory for the next time; `now` is on a monotonic clock.

    The first time, with an empty memory, the workers that run are what was decided before.
    """
    current = memory.decided[-1][1] if memory.decided else load.workers
    doubts = load.missing or _lies(load)
    demand = 0.0 if doubts else demanded(load, policy)
    needed = current if doubts else _needed(load, policy, demand, peak)
    wished, rule, reason = _wished(load, policy, current, needed, demand, floors, doubts)
    recommended = _then(memory.recommended, now, wished)
    if policy.fixed is not None:
        desired = policy.fixed
    elif wished > current:
        desired, rule, reason = _up(
            wished, rule, reason, policy, memory, now=now, peak=peak, floors=floors, current=current
        )
    elif wished < current:
        desired, rule, reason = _down(wished, rule, reason, policy, memory, now=now, current=current)
    else:
        desired = current
    kept = Memory(
        recommended=_since(recommended, now - policy.calm_seconds),
        decided=_since(
            _then(memory.decided, now, desired), now - max(_SHRINK_SECONDS, policy.growth_seconds)
        ),
    )
    found = Recommendation(
        desired=desired,
        current=current,
        needed=needed,
        rule=rule,
        reason=reason,
        demand=demand,
        peak=peak,
        floors=floors,
    )
    return found, kept


def demanded(load: LoadMetrics, policy: ScalingPolicy) -> float:
    """Deliveries per second that there is need for: what comes in, and the backlog in its time."""
    arriving = load.arrivals * (1.0 + load.retry_ratio)
    return arriving + sum(
        count / max(drain - age, drain / _URGENCY)
        for count, age, drain in zip(load.backlog, load.oldest, policy.drain_seconds, strict=True)
    )


def reserved(policy: ScalingPolicy, *, peak: bool) -> float:
    """How busy workers shall be at most: on peak days less, so that growth begins earlier."""
    return min(policy.utilisation, policy.peak_utilisation) if peak else policy.utilisation


def _needed(load: LoadMetrics, policy: ScalingPolicy, demand: float, peak: bool) -> int:
    target = reserved(policy, peak=peak)
    by_slots = demand * load.hold_seconds / (load.slots * target)
    by_processor = demand * load.cpu_seconds / target
    return math.ceil(min(max(by_slots, by_processor), policy.maximum + 1) - 1e-9)


def _lies(load: LoadMetrics) -> tuple[str, ...]:
    """The names of signals that cannot be true."""
    figures: dict[str, float] = {
        "workers": load.workers,
        "arrivals": load.arrivals,
        "retry_ratio": load.retry_ratio,
        "hold_seconds": load.hold_seconds,
        "cpu_seconds": load.cpu_seconds,
        **{f"backlog of {lane}": count for lane, count in zip(LANES, load.backlog, strict=True)},
        **{f"age of {lane}": age for lane, age in zip(LANES, load.oldest, strict=True)},
    }
    lies = tuple(name for name, value in figures.items() if not (math.isfinite(value) and value >= 0))
    return lies if load.slots >= 1 else (*lies, "slots")


def _wished(
    load: LoadMetrics,
    policy: ScalingPolicy,
    current: int,
    needed: int,
    demand: float,
    floors: Floors,
    doubts: Sequence[str],
) -> tuple[int, str, str]:
    """The number before its pace is bounded."""
    if policy.fixed is not None:
        return policy.fixed, "fixed", f"the policy fixes the number at {policy.fixed}"
    rule, number = max(
        (
            ("load", needed),
            ("minimum", policy.minimum),
            ("forecast", floors.forecast),
            ("season", floors.season),
            ("relief", floors.relief),
        ),
        key=lambda named: named[1],
    )
    reason = {
        "load": f"{demand:,.0f} deliveries/s ask for {needed}",
        "minimum": f"the minimum is {policy.minimum}; the load asks for {needed}",
        "forecast": f"the forecast asks for {floors.forecast}, the load for {needed} so far",
        "relief": f"a service level burns too fast: {floors.relief} at least, the load asks for {needed}",
        "season": f"the season's plan asks for {floors.season}, the load for {needed} so far",
    }[rule]
    if doubts:
        rule, reason = "doubt", f"held, for signals are missing or cannot be true: {', '.join(doubts)}"
        number = max(number, current)
    ceiling = policy.maximum
    if number > ceiling:
        rule, number, reason = "maximum", ceiling, f"{reason}; the maximum is {ceiling}"
    # What runs already is not taken away for the store's sake: that would be shrinking on doubt.
    for name, room in (("the store", load.store_workers), ("Redis", load.redis_workers)):
        if room is not None and number > max(room, current):
            rule, number = "store", max(room, current)
            reason = f"{reason}; {name} has connections for {room}"
    if number > current and load.store_seconds > _STORE_SECONDS:
        rule, number = "store", current
        reason = (
            f"{reason}; the store takes {load.store_seconds:.1f} s for a batch, more workers would not help"
        )
    return number, rule, reason


def _up(
    wished: int,
    rule: str,
    reason: str,
    policy: ScalingPolicy,
    memory: Memory,
    *,
    now: float,
    peak: bool,
    floors: Floors,
    current: int,
) -> tuple[int, str, str]:
    """Grow at once, but for the pace. Floors are plans, not doubts: they stand at once."""
    growth = max(policy.growth, policy.peak_growth) if peak else policy.growth
    lately = [n for _, n in _since(memory.decided, now - policy.growth_seconds)]
    base = max(1, min([current, *lately]))
    allowed = max(math.floor(base * growth), base + 1, min(policy.maximum, _planned(policy, floors)))
    if wished <= allowed:
        return wished, rule, reason
    return (
        max(allowed, current),
        "pace",
        f"{reason}; at most {growth:g} times as many within {policy.growth_seconds:g} s",
    )


def _planned(policy: ScalingPolicy, floors: Floors) -> int:
    return max(policy.minimum, floors.forecast, floors.season, floors.relief)


def _down(
    wished: int, rule: str, reason: str, policy: ScalingPolicy, memory: Memory, *, now: float, current: int
) -> tuple[int, str, str]:
    """Shrink when all recommendations of the calm time say so, and slowly."""
    if current > policy.maximum:
        return policy.maximum, "maximum", f"the maximum is {policy.maximum}"
    calm = memory.recommended
    since = calm[0][0] if calm else now
    # The oldest that is kept is at least as old as the calm time when the memory is full.
    if now - since < policy.calm_seconds * 0.99:
        return current, "calm", f"{reason}; held until that has been so for {policy.calm_seconds:g} s"
    highest = max([wished, *(n for _, n in calm)])
    if highest >= current:
        return current, "calm", f"{reason}; held, for {highest} were needed within {policy.calm_seconds:g} s"
    lately = max([current, *(n for _, n in _since(memory.decided, now - _SHRINK_SECONDS))])
    slowest = lately - max(1, math.floor(lately * policy.shrink))
    if highest >= slowest:
        return highest, rule, reason
    return (
        min(current, slowest),
        "pace",
        f"{reason}; at most {policy.shrink:.0%} of the workers go within a minute",
    )


def _then(pairs: tuple[tuple[float, int], ...], now: float, number: int) -> tuple[tuple[float, int], ...]:
    """The pairs, and the number that holds from now on if it is another: calm for a day is remembered in one."""
    return pairs if pairs and pairs[-1][1] == number else (*pairs, (now, number))


def _since(pairs: Sequence[tuple[float, int]], moment: float) -> tuple[tuple[float, int], ...]:
    """The pairs from that moment on, and the last one before it, which held until then."""
    first = next((i for i, (at, _) in enumerate(pairs) if at > moment), len(pairs))
    return tuple(pairs[max(0, first - 1) :])
