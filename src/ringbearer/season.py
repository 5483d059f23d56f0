"""The season plan: what changes by itself in the season and on its peak days, and changes back."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ringbearer.calendar import Calendar, CalendarConfiguration, Multiplier, local_date, midnight, zone
from ringbearer.domain.suppliers import Tier
from ringbearer.errors import InvalidInput

Weight = Annotated[int, Meta(ge=1, le=1_000)]
Weights = tuple[Weight, Weight, Weight, Weight]
"""Shares of urgent, high, normal and bulk."""
Phase = Literal["ordinary", "season", "peak"]
_Workers = Annotated[int, Meta(ge=0, le=256)]
_Hour = Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
_MAX_ZONES = 50
_HOURS_OF_A_DAY = 26  # more than the longest day has


class SeasonScalingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The plan of a season. Without dates it is always in force."""

    name: Annotated[str, Meta(min_length=1, max_length=100)] = "season"
    starts_on: date | None = None
    ends_on: date | None = None
    """The last day of it."""
    expected_multiplier: Multiplier = 1.0
    """How many times the ordinary load is expected in the season, besides what the calendar says of its days."""
    timezones: tuple[str, ...] = ("UTC",)
    """Where it is followed: it is a peak while it is one in any of them."""
    calendar: CalendarConfiguration = CalendarConfiguration()
    worker_floor: _Workers = 1
    """Workers that the season keeps at least; peak days keep `peak_worker_floor`."""
    peak_worker_floor: _Workers = 1
    peak_weights: Weights = (16, 4, 2, 1)
    """Shares of the lanes on a peak day."""
    peak_prefetch: Annotated[float, Meta(ge=0.1, le=1.0)] = 0.75
    """The part of a worker's slots that is filled ahead on a peak day."""
    peak_threshold_factor: Annotated[float, Meta(ge=0.1, le=10)] = 0.5
    """What thresholds of backlog and waiting are multiplied with on a peak day: less than one tells earlier."""
    tier_reserves: dict[Tier, Annotated[float, Meta(ge=0.1, le=100)]] = {}
    """What the weights of tiers are multiplied with in the season. While all have work, a tier of weight w with n
    busy suppliers is sure of n · w of the sum of all."""
    warm_at: tuple[_Hour, ...] = ("05:00",)
    """Local times of peak days at which caches are warmed."""


class SeasonState(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan asks for at a moment; None leaves a thing as it is."""

    phase: Phase = "ordinary"
    multiplier: float = 1.0
    worker_floor: int = 0
    weights: Weights | None = None
    prefetch: float | None = None
    threshold_factor: float = 1.0
    tier_reserves: dict[Tier, float] = {}
    reason: str = "there is no season plan"


class RehearsedHour(msgspec.Struct, frozen=True, kw_only=True):
    """One hour of a rehearsal: what would be asked for, and what would change as it begins."""

    starts_at: datetime
    local: str
    state: SeasonState
    warm: tuple[str, ...] = ()
    """Moments within the hour at which caches would be warmed."""
    changes: tuple[str, ...] = ()


def check(plan: SeasonScalingConfig) -> None:
    """Raises InvalidInput with every problem of the plan that its types do not exclude."""
    problems = []
    if plan.starts_on is not None and plan.ends_on is not None and plan.ends_on < plan.starts_on:
        problems.append(("/ends_on", f"expected a day not before {plan.starts_on.isoformat()}"))
    if not 1 <= len(plan.timezones) <= _MAX_ZONES:
        problems.append(("/timezones", f"expected 1 to {_MAX_ZONES} time zones"))
    for index, name in enumerate(plan.timezones[:_MAX_ZONES]):
        try:
            zone(name)
        except InvalidInput as error:
            problems.append((f"/timezones/{index}", str(error)))
    try:
        Calendar(plan.calendar)
    except InvalidInput as error:
        problems.append(("/calendar/country", str(error)))
    if problems:
        raise InvalidInput(problems[0][1], problems)


class Season:
    """A plan, ready to be asked; None is no plan, which leaves everything as it is."""

    def __init__(self, plan: SeasonScalingConfig | None = None) -> None:
        self.plan = plan
        self.calendar = Calendar(plan.calendar if plan is not None else None)

    def __repr__(self) -> str:
        return f"<Season {self.plan.name if self.plan is not None else None!r}>"

    @property
    def place(self) -> str:
        """The time zone that days and hours are told in: the plan's first, UTC without one."""
        return self.plan.timezones[0] if self.plan is not None else "UTC"

    def state(self, moment: datetime) -> SeasonState:
        """What the plan asks for at a moment that knows its zone."""
        plan = self.plan
        if plan is None:
            return SeasonState()
        inside = [name for name in plan.timezones if _within(plan, local_date(moment, name))]
        if not inside:
            return SeasonState(reason=f"{plan.name} is not on")
        days = {name: self.calendar.day(local_date(moment, name)) for name in inside}
        name, day = max(days.items(), key=lambda item: (item[1].peak, item[1].multiplier))
        multiplier = plan.expected_multiplier * day.multiplier
        ordinary = SeasonState(
            phase="season",
            multiplier=multiplier,
            worker_floor=plan.worker_floor,
            tier_reserves=plan.tier_reserves,
            reason=f"{plan.name} is on",
        )
        if not day.peak:
            return ordinary
        return msgspec.structs.replace(
            ordinary,
            phase="peak",
            worker_floor=max(plan.worker_floor, plan.peak_worker_floor),
            weights=plan.peak_weights,
            prefetch=plan.peak_prefetch,
            threshold_factor=plan.peak_threshold_factor,
            reason=f"{', '.join(day.reasons)} in {name}",
        )

    def next_warming(self, moment: datetime) -> datetime | None:
        """The next moment, after this one, at which caches are to be warmed, within eight days."""
        return min(self._warmings(moment, days=8), default=None)

    def rehearse(self, day: date) -> list[RehearsedHour]:
        """What would happen on a day of its place, hour by hour; nothing is done."""
        name = self.place
        end = midnight(day + timedelta(days=1), name)
        starts = [
            start
            for hour in range(_HOURS_OF_A_DAY)
            if (start := midnight(day, name) + timedelta(hours=hour)) < end
        ]
        before = self.state(starts[0] - timedelta(microseconds=1))
        warmings = self._warmings(starts[0] - timedelta(microseconds=1), days=2)
        hours = []
        for start in starts:
            state = self.state(start)
            within = [w for w in warmings if start <= w < min(end, start + timedelta(hours=1))]
            hours.append(
                RehearsedHour(
                    starts_at=start,
                    local=f"{start.astimezone(zone(name)):%Y-%m-%d %H:%M}",
                    state=state,
                    warm=tuple(f"{w.astimezone(zone(name)):%H:%M}" for w in sorted(within)),
                    changes=tuple(changes(before, state)),
                )
            )
            before = state
        return hours

    def _warmings(self, moment: datetime, *, days: int) -> list[datetime]:
        """The moments of warming after this one, on peak days among so many days."""
        if self.plan is None:
            return []
        found = []
        for name in self.plan.timezones:
            for peak in self.calendar.coming(moment, days, name):
                if _within(self.plan, peak.date):
                    found += [_at(peak.date, hour, name) for hour in self.plan.warm_at]
        return sorted({warming for warming in found if warming > moment})


def changes(before: SeasonState, after: SeasonState) -> Sequence[str]:
    """What differs, each as a short sentence."""
    return [
        f"{name.replace('_', ' ')}: {_shown(old)} → {_shown(new)}"
        for name in ("phase", "multiplier", "worker_floor", "weights", "prefetch", "threshold_factor")
        if (old := getattr(before, name)) != (new := getattr(after, name))
    ]


def _within(plan: SeasonScalingConfig, day: date) -> bool:
    return (plan.starts_on is None or plan.starts_on <= day) and (plan.ends_on is None or day <= plan.ends_on)


def _at(day: date, hour: str, timezone: str) -> datetime:
    local = datetime.combine(day, datetime.strptime(hour, "%H:%M").time(), tzinfo=zone(timezone))  # noqa: DTZ007
    return local.astimezone(UTC)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "/".join(map(str, value))
    return "as usual" if value is None else str(value)
