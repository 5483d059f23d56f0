"""What the monitor's methods return. Durations are in seconds, times are aware datetimes in UTC."""

import msgspec

from ringbearer import clock
from ringbearer.domain.alerts import Alert, Rule, Severity
from ringbearer.domain.times import Moment
from ringbearer.monitor.figures import Figures, Percentiles
from ringbearer.monitor.recorder import STAGES
from ringbearer.monitor.slo import Burn, Compliance


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one group over a window."""

    key: str
    attempts: int
    delivered: int
    failed_by_receiver: int
    failed_by_us: int
    first_attempts: int
    dead: int
    success: float | None
    """The share of attempts that delivered."""
    attempts_per_second: float
    stages: dict[str, Percentiles]
    """By stage: claim, start, answer, settle, reach (ready ▸ first byte sent), whole (accepted ▸ settled)."""


def measured(key: str, figures: Figures, window: int) -> Measured:
    """Figures as they are shown; `window` in microseconds."""
    return Measured(
        key=key,
        attempts=figures.attempts,
        delivered=figures.delivered,
        failed_by_receiver=figures.receiver,
        failed_by_us=figures.ours,
        first_attempts=figures.first,
        dead=figures.dead,
        success=figures.success,
        attempts_per_second=figures.attempts / max(window / clock.SECOND, 1e-6),
        stages={name: figures.distribution(name) for name in STAGES},
    )


class DeliveryTimes(msgspec.Struct, frozen=True, kw_only=True):
    """How many attempts were counted in, and how long each stage took in the window."""

    taken: int
    window: float
    attempts: int
    stages: dict[str, Percentiles]


class LaneTimes(msgspec.Struct, frozen=True, kw_only=True):
    """One lane: what waits now, and how long deliveries waited in the window."""

    lane: str
    waiting: int
    in_flight: int
    oldest_age: float
    wait: Percentiles
    """Ready ▸ claimed."""
    reach: Percentiles
    """Ready ▸ first byte sent, of first attempts."""
    whole: Percentiles
    """Accepted ▸ settled, of what was delivered."""


class CommitTimes(msgspec.Struct, frozen=True, kw_only=True):
    """How long the store took, by batch."""

    accept: Percentiles
    claim: Percentiles
    settle: Percentiles


class ProcessingTimeMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """How the queue is worked off."""

    window: float
    lanes: list[LaneTimes]
    commits: CommitTimes


class ThroughputPoint(msgspec.Struct, kw_only=True):
    """One minute."""

    at: Moment
    accepted: int = 0
    attempts: int = 0
    delivered: int = 0


class ThroughputMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Rates over the window, and its minutes."""

    window: float
    accepted_per_second: float
    attempts_per_second: float
    delivered_per_second: float
    peak: ThroughputPoint | None
    minutes: list[ThroughputPoint]


class FailureCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many attempts failed with a code, or at an endpoint."""

    key: str
    failed: int


class ErrorRates(msgspec.Struct, frozen=True, kw_only=True):
    """What failed in the window. `error_rate` is a share of attempts; None without attempts."""

    window: float
    attempts: int
    error_rate: float | None
    receiver: int
    ours: int
    dead: int
    by_lane: dict[str, float]
    by_code: list[FailureCount]
    worst_endpoints: list[FailureCount]


class SlaCompliance(msgspec.Struct, frozen=True, kw_only=True):
    """How service levels were kept over a window, and how fast budgets burn now."""

    since: Moment
    until: Moment
    peak: bool
    """Whether today is a peak day, with its stricter bounds."""
    objectives: list[Compliance]
    burns: list[Burn]


class DegradationThreshold(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as a degradation; None is not looked at."""

    p95_reach: float | None = None
    """Seconds from ready to first byte sent that 5 % of a lane's deliveries may exceed."""
    error_rate: float | None = None
    """The share of attempts that may fail."""
    queue_age: float | None = None
    """Seconds that the oldest ready delivery of a lane may have waited."""
    severity: Severity = "warning"


class DegradationAlerts(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of degradation before and now, the alerts that began at this look, and all that fire."""

    before: list[Rule]
    after: list[Rule]
    began: list[Alert]
    firing: list[Alert]
    reason: str


_DEGRADED = (
    ("p95_reach", "degraded_latency", "5 % of {group} deliveries waited for {value} s or longer"),
    ("error_rate", "degraded_success", "a share of {value} of the attempts failed"),
    ("queue_age", "degraded_queue", "the oldest {group} delivery has waited for {value} s"),
)


def degradation_rules(threshold: DegradationThreshold) -> list[Rule]:
    """The thresholds as alert rules; they end at nine tenths of their threshold."""
    found = []
    for metric, name, summary in _DEGRADED:
        value: float | None = getattr(threshold, metric)
        if value is not None:
            found.append(
                Rule(
                    id=name,
                    summary=summary,
                    metric=metric,
                    threshold=value,
                    clear=value * 0.9,
                    severity=threshold.severity,
                )
            )
    return found


class Dashboard(msgspec.Struct, frozen=True, kw_only=True):
    """How the service does, on one page."""

    at: Moment
    times: DeliveryTimes
    throughput: ThroughputMetrics
    queue: ProcessingTimeMetrics
    errors: ErrorRates
    levels: SlaCompliance
    alerts: list[Alert]
    """Those that fire."""
    processes: list[tuple[str, int]]
    """How many processes of each kind are alive."""
    breakers_open: int
