"""Words of scaling: what is measured, what is wished for, what was decided and why."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ringbearer.domain.times import Moment

MOST_WORKERS = 1_000

Workers = Annotated[int, Meta(ge=0, le=MOST_WORKERS)]
Share = Annotated[float, Meta(ge=0.05, le=0.7)]
ForecastMode = Literal["act", "advise"]
DrainSeconds = Annotated[
    tuple[Annotated[float, Meta(gt=0, le=86_400)], ...], Meta(min_length=4, max_length=4)
]
Growth = Annotated[float, Meta(ge=1.1, le=10)]


class ScalingPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the number of workers follows the load. Durations are in seconds."""

    minimum: Workers = 1
    maximum: Annotated[int, Meta(ge=1, le=MOST_WORKERS)] = 64
    utilisation: Share = 0.7
    """How busy workers shall be at most, on average: the reserve for what nobody foresees."""
    peak_utilisation: Share = 0.4
    """The same on peak days: more reserve means that growth begins earlier."""
    drain_seconds: DrainSeconds = (5.0, 15.0, 60.0, 300.0)
    """In what time a backlog shall be gone: urgent, high, normal, bulk."""
    growth: Growth = 2.0
    """Within `growth_seconds` the number at most multiplies by this."""
    peak_growth: Growth = 4.0
    growth_seconds: Annotated[float, Meta(ge=1, le=600)] = 15.0
    calm_seconds: Annotated[float, Meta(ge=10, le=86_400)] = 300.0
    """Fewer workers only after all recommendations of this time asked for fewer."""
    shrink: Annotated[float, Meta(gt=0, le=1)] = 0.25
    """This share of the workers, and at least one, may go within a minute."""
    fixed: Workers | None = None
    """Exactly so many, whatever the load is; null for automatic."""
    forecast: ForecastMode = "act"
    """`act`: there are as many workers as the forecast of the coming minutes asks for, before they are needed.
    `advise`: the forecast is only shown, with its error."""


class LoadMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """What the number of workers follows, over all processes. Rates are per second, durations in seconds."""

    workers: int
    """Worker processes that are ready to deliver."""
    slots: int = 1_024
    """Deliveries that one worker holds at a time."""
    arrivals: float = 0.0
    """Deliveries accepted."""
    retry_ratio: float = 0.0
    """Retries for each first attempt."""
    backlog: tuple[int, ...] = (0, 0, 0, 0)
    """Ready deliveries by lane, without those that may not be sent: the runnable backlog."""
    oldest: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    """Age of the oldest ready delivery by lane."""
    hold_seconds: float = 0.05
    """How long a delivery holds a slot."""
    cpu_seconds: float = 0.0
    """Processor time of a worker for one delivery; 0 while unknown."""
    utilisation: float = 0.0
    """Slots in use, as a share."""
    cpu: float = 0.0
    """Processor time that workers take, as a share of one processor each."""
    store_seconds: float = 0.0
    """How long the store takes for a batch: beyond a second it is the bottleneck, and more workers do harm."""
    store_workers: int | None = None
    """So many workers the store has connections for; None while that is no limit."""
    redis_workers: int | None = None
    """So many workers Redis has connections for; None while that is no limit."""
    missing: tuple[str, ...] = ()
    """Signals that should be there and are not: while there are any, the number does not shrink."""


class Floors(msgspec.Struct, frozen=True, kw_only=True):
    """So many workers there shall be at least, although the load does not ask for them yet."""

    forecast: int = 0
    season: int = 0
    relief: int = 0
    """While a service level burns too fast."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One decision on the number of workers, or one change of the policy, with all that it was made from."""

    id: str
    at: Moment
    actor: str
    """`scaler`, or the id of the key that changed the policy."""
    current: int
    desired: int
    rule: str
    """Which rule had the last word."""
    reason: str
    inputs: dict[str, object]
