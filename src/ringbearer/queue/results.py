"""Results: what the optimizer found, decided and changed."""

from datetime import datetime

import msgspec

from ringbearer.domain.times import Moment
from ringbearer.queue.bottlenecks import Bottleneck
from ringbearer.queue.measures import QueueMeasure
from ringbearer.queue.plan import QueuePlan
from ringbearer.queue.tuning import Situation
from ringbearer.rules import PriorityConfiguration
from ringbearer.season import SeasonScalingConfig, SeasonState


class OptimizationResult(msgspec.Struct, frozen=True, kw_only=True):
    """A tuning: what was measured, what the plan was and is, and why. Times in seconds."""

    before: QueuePlan
    after: QueuePlan
    changed: bool
    reasons: dict[str, str]
    situation: Situation | None
    """None when too little was delivered lately to tell."""
    expected_wait: float | None
    """For a free slot, by the model; null when more comes than goes."""
    reason: str


class BatchProcessingResult(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that was seen through. Durations in seconds."""

    claimed: int
    settled: int
    states: dict[str, int]
    """What deliveries became, with their numbers."""
    duration: float
    filled: bool
    """Whether as many came as were asked for, within the time."""
    measure: QueueMeasure


class PrioritizationResult(msgspec.Struct, frozen=True, kw_only=True):
    """New rules, and what they did to what was queued."""

    before: PriorityConfiguration
    after: PriorityConfiguration
    version: int
    examined: int
    moved: int
    """Deliveries that are in another lane now."""
    reason: str


class SeasonResult(msgspec.Struct, frozen=True, kw_only=True):
    """A season's plan, and what is asked for now because of it."""

    before: SeasonScalingConfig | None
    after: SeasonScalingConfig
    version: int
    state: SeasonState
    plan: QueuePlan
    """The queue's plan with what the season asks for."""
    next_warming: Moment | None
    reason: str


class LaneState(msgspec.Struct, frozen=True, kw_only=True):
    """How a lane stands."""

    lane: str
    ready: int
    leased: int
    scheduled: int
    oldest_age: float
    """Seconds; 0 when nothing is ready."""
    weight: int


class QueuePerformance(msgspec.Struct, frozen=True, kw_only=True):
    """How the queue stands, and what it follows."""

    lanes: tuple[LaneState, ...]
    parked_endpoints: int
    plan: QueuePlan
    season: SeasonState
    measure: QueueMeasure | None
    """What this process's own loop sees; null in a process without one."""
    bottlenecks: tuple[Bottleneck, ...]
    at: datetime


class BacklogAlert(msgspec.Struct, frozen=True, kw_only=True):
    """A lane's backlog that is over its threshold."""

    lane: str
    ready: int
    oldest_age: float
    reason: str


class BalanceResult(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of their slots that workers fill ahead; those that are not named fill what the plan says."""

    before: dict[str, float]
    after: dict[str, float]
    cpu: dict[str, float]
    reason: str


class PreWarmResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was made ready, each with the seconds that it took."""

    steps: dict[str, float]
    reason: str
