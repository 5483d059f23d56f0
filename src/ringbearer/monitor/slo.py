"""Service levels: what was promised, how much may go wrong, and how fast that is being used up.

An objective is a share of good ones: deliveries whose first byte went out in time, or attempts that did not fail by
our fault. What receivers cause counts for neither side. The budget is the share that may be bad; the burn rate is
how many times faster than allowed it is used up. Rules and factors are those of Google's SRE Workbook, chapter 5.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from ringbearer import clock
from ringbearer.monitor.figures import Figures

Tally = tuple[int, int]
"""Good ones and all."""

_HOUR = 3_600.0
_DAY = 24 * _HOUR
BUDGET_SECONDS = 30 * _DAY
"""The period that a budget is for."""
LEAST = 100
"""Fewer than so many in a rule's short window prove nothing."""


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """A promise for a lane, a tier or all (None). `seconds` is the bound of a latency objective."""

    id: str
    kind: Literal["latency", "success"]
    target: float
    lane: str | None = None
    tier: str | None = None
    seconds: float = 0.0
    peak_seconds: float = 0.0
    """The bound on peak days."""


OBJECTIVES: tuple[Objective, ...] = (
    Objective(id="latency/urgent", kind="latency", lane="urgent", target=0.99, seconds=1, peak_seconds=0.5),
    Objective(id="latency/high", kind="latency", lane="high", target=0.99, seconds=5, peak_seconds=2.5),
    Objective(id="latency/normal", kind="latency", lane="normal", target=0.99, seconds=30, peak_seconds=10),
    Objective(id="latency/bulk", kind="latency", lane="bulk", target=0.95, seconds=300, peak_seconds=300),
    Objective(
        id="latency/enterprise", kind="latency", tier="enterprise", target=0.99, seconds=10, peak_seconds=5
    ),
    Objective(id="latency/premium", kind="latency", tier="premium", target=0.99, seconds=20, peak_seconds=10),
    Objective(
        id="latency/standard", kind="latency", tier="standard", target=0.95, seconds=30, peak_seconds=30
    ),
    Objective(id="success/all", kind="success", target=0.999),
)


class BurnRule(msgspec.Struct, frozen=True):
    """Fires when the budget burns `factor` times too fast over both windows, in seconds."""

    factor: float
    long: float
    short: float
    fast: bool
    """Whether it is worth waking somebody."""


BURN_RULES: tuple[BurnRule, ...] = (
    BurnRule(14.4, _HOUR, 300, True),
    BurnRule(6, 6 * _HOUR, 1_800, True),
    BurnRule(3, _DAY, 2 * _HOUR, False),
    BurnRule(1, 3 * _DAY, 6 * _HOUR, False),
)
PEAK_BURN_RULES: tuple[BurnRule, ...] = (
    BurnRule(7.2, _HOUR, 300, True),
    BurnRule(3, 6 * _HOUR, 1_800, True),
    BurnRule(1.5, _DAY, 2 * _HOUR, False),
    BurnRule(1, 3 * _DAY, 6 * _HOUR, False),
)
"""Half of the factors: on a peak day there is no quiet time in which a budget recovers."""


class Burn(msgspec.Struct, frozen=True, kw_only=True):
    """How one objective stands with one rule. `ratio` is the smaller of both rates over the factor: 1 fires."""

    objective: str
    factor: float
    long_seconds: float
    short_seconds: float
    long_rate: float
    short_rate: float
    fast: bool
    ratio: float


def tally(objective: Objective, paths: Mapping[str, Figures], *, peak: bool = False) -> Tally:
    """How many of these figures, by lane/tier/outcome, are good, and how many count."""
    good = total = 0
    for path, figures in paths.items():
        lane, tier, _ = path.split("/")
        if objective.lane not in (None, lane) or objective.tier not in (None, tier):
            continue
        if objective.kind == "latency":
            reach = figures.stage("reach")
            total += reach.count
            good += reach.within(objective.peak_seconds if peak else objective.seconds)
        else:
            total += figures.attempts - figures.receiver
            good += figures.delivered
    return good, total


def rate(objective: Objective, counted: Tally) -> float:
    """The burn rate: 1 uses up exactly the budget; 0 when nothing counts."""
    good, total = counted
    return (total - good) / total / (1 - objective.target) if total else 0.0


def burns(
    objectives: Sequence[Objective],
    tallies: Mapping[int, Mapping[str, Tally]],
    *,
    now: int,
    peak: bool = False,
) -> list[Burn]:
    """Each objective with each rule; `tallies` by the start of their span (a stored time) and objective."""
    found = []
    for rule in PEAK_BURN_RULES if peak else BURN_RULES:
        long = _summed(tallies, now - int(rule.long * clock.SECOND))
        short = _summed(tallies, now - int(rule.short * clock.SECOND))
        for objective in objectives:
            counted = short.get(objective.id, (0, 0))
            rates = rate(objective, long.get(objective.id, (0, 0))), rate(objective, counted)
            found.append(
                Burn(
                    objective=objective.id,
                    factor=rule.factor,
                    long_seconds=rule.long,
                    short_seconds=rule.short,
                    long_rate=rates[0],
                    short_rate=rates[1],
                    fast=rule.fast,
                    ratio=min(rates) / rule.factor if counted[1] >= LEAST else 0.0,
                )
            )
    return found


def _summed(tallies: Mapping[int, Mapping[str, Tally]], since: int) -> dict[str, Tally]:
    found: dict[str, Tally] = {}
    for at, by_objective in tallies.items():
        if at >= since:
            for name, (good, total) in by_objective.items():
                before = found.get(name, (0, 0))
                found[name] = (before[0] + good, before[1] + total)
    return found


def worst(found: Iterable[Burn], *, fast: bool) -> dict[str, float]:
    """The highest ratio of each objective among the rules that wake somebody, or those that do not."""
    highest: dict[str, float] = {}
    for burn in found:
        if burn.fast is fast:
            highest[burn.objective] = max(burn.ratio, highest.get(burn.objective, 0.0))
    return highest


class Compliance(msgspec.Struct, frozen=True, kw_only=True):
    """How an objective was kept over a window. `budget_left` is a share; negative when it is overdrawn."""

    objective: str
    kind: str
    lane: str | None
    tier: str | None
    target: float
    seconds: float | None
    good: int
    total: int
    share: float | None
    kept: bool | None
    budget_left: float | None


def compliance(objective: Objective, counted: Tally, *, peak: bool = False) -> Compliance:
    """What a tally says of an objective; None where nothing counts."""
    good, total = counted
    share = good / total if total else None
    seconds = objective.peak_seconds if peak else objective.seconds
    return Compliance(
        objective=objective.id,
        kind=objective.kind,
        lane=objective.lane,
        tier=objective.tier,
        target=objective.target,
        seconds=seconds if objective.kind == "latency" else None,
        good=good,
        total=total,
        share=share,
        kept=None if share is None else share >= objective.target,
        budget_left=None if share is None else 1 - rate(objective, counted),
    )
