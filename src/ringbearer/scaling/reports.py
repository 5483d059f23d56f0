"""Reports: what the record of decisions amounts to."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from ringbearer import clock
from ringbearer.domain.scaling import Decision
from ringbearer.scaling.connections import ConnectionHealth
from ringbearer.scaling.results import PerformanceReport, ResourceMetrics


def changes(decisions: Sequence[Decision], *, since: int) -> list[Decision]:
    """The decisions from that stored time on, oldest first; they are given newest first."""
    return [each for each in reversed(decisions) if clock.from_datetime(each.at) >= since]


def report(
    decisions: Sequence[Decision],
    *,
    since: int,
    resources: ResourceMetrics,
    health: ConnectionHealth,
    steps: Sequence[str],
    forecast_error: float | None,
) -> PerformanceReport:
    """The report over these decisions, oldest first."""
    scaled = [each for each in decisions if each.rule != "policy"]
    moves = [(after.desired - before.desired, after.rule) for before, after in pairwise(scaled)]
    up = sum(by > 0 for by, _ in moves)
    down = sum(by < 0 for by, _ in moves)
    numbers = [each.desired for each in scaled] or [resources.load.workers]
    return PerformanceReport(
        since=clock.to_datetime(since),
        scaled_up=up,
        scaled_down=down,
        fewest=min(numbers),
        most=max(numbers),
        rules=dict(Counter(rule for by, rule in moves if by)),
        policy_changes=len(decisions) - len(scaled),
        steps=tuple(steps),
        resources=resources,
        connections=health,
        forecast_error=forecast_error,
        summary=(
            f"{up} times up, {down} times down, between {min(numbers)} and {max(numbers)} workers; "
            f"{resources.load.workers} now, {resources.utilisation:.0%} of their slots in use"
        ),
    )
