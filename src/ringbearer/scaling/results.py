"""What the scaling manager's methods answer: what it found, decided and changed."""

import msgspec

from ringbearer.domain.scaling import LoadMetrics, ScalingPolicy
from ringbearer.domain.times import Moment
from ringbearer.scaling.connections import ConnectionHealth


class ScalingResult(msgspec.Struct, frozen=True, kw_only=True):
    """One decision and what followed from it."""

    before: int
    after: int
    needed: int
    """What the load alone asks for."""
    rule: str
    reason: str
    target: str
    shares: dict[str, int]
    """How many workers each machine that Ringbearer runs itself on was told to run, by node."""
    applied: bool
    """False when another leader has decided meanwhile: then nothing was changed."""
    load: LoadMetrics


class ProcessResources(msgspec.Struct, frozen=True, kw_only=True):
    """One process: its own figures, see `scaling/signals.py`."""

    id: str
    kind: str
    host: str
    pid: int
    version: str
    seconds_since_beat: float
    signals: dict[str, float]


class ResourceMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """All processes, and what they take together. Memory in bytes, `cpu` in processors."""

    processes: list[ProcessResources]
    cpu: float
    memory: int
    files: int
    slots: int
    held: int
    utilisation: float
    """Of the workers' slots."""
    worst_lag: float
    host_cpu: float
    """Of all processors of this machine, whoever uses them, as a share."""
    host_memory: float
    """Of this machine's memory, as a share."""
    store_connections: int | None
    """How many more the store takes; None where that is no limit."""
    redis_connections: int | None
    """How many more Redis takes; None where there is none, or no limit."""
    redis_memory: float | None
    """The part of Redis's memory that is free; None where there is none, or no limit."""
    load: LoadMetrics


class ForecastHour(msgspec.Struct, frozen=True, kw_only=True):
    """What is expected of an hour. Deliveries in the hour; `upper` holds nine times of ten."""

    at: Moment
    expected: float
    upper: float
    workers: int


class TestedHour(msgspec.Struct, frozen=True, kw_only=True):
    """What was forecast of a past hour a week before, and what came true."""

    at: Moment
    expected: float
    actual: float


class PastHour(msgspec.Struct, frozen=True, kw_only=True):
    """What was forecast of an hour, at most a day before it came, and what came true; None while that is not known."""

    at: Moment
    made_at: Moment
    expected: float
    upper: float
    actual: float | None


class ScalingPrediction(msgspec.Struct, frozen=True, kw_only=True):
    """What is to come, and how far that could be trusted lately."""

    method: str
    """The models that have a part in it, the one of the greatest part first."""
    place: str
    """The time zone whose clock the days and weeks of the models follow."""
    history_hours: int
    error: float | None
    """Σ|actual - forecast| / Σ actual over the last weeks, each forecast from what was known a week before."""
    safety: float
    """What the expected number is multiplied with before workers are reckoned from it."""
    mode: str
    """`act`: the forecast is a floor for the number of workers; `advise`: it is only shown."""
    current_workers: int
    hours: list[ForecastHour]
    past: list[PastHour]
    """The last days, as they were foretold while they were to come; empty after a pattern that was given."""
    tested: list[TestedHour]
    reason: str


class PerformanceReport(msgspec.Struct, frozen=True, kw_only=True):
    """How scaling did in the last time, and how things stand."""

    since: Moment
    scaled_up: int
    scaled_down: int
    fewest: int
    most: int
    rules: dict[str, int]
    """How many changes of the number each rule had the last word in."""
    policy_changes: int
    steps: tuple[str, ...]
    """Of relief, that are in force for a service level."""
    resources: ResourceMetrics
    connections: ConnectionHealth
    forecast_error: float | None
    summary: str


class PolicyChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the policy."""

    before: ScalingPolicy
    after: ScalingPolicy
    changed: dict[str, tuple[object, object]]
    reason: str
