"""Foresight: the forecast of this installation's own traffic, and the workers that it asks for before they are needed."""

import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np

from ringbearer import clock
from ringbearer.calendar import zone
from ringbearer.domain.scaling import LoadMetrics, ScalingPolicy
from ringbearer.scaling.forecast import Forecast, TrafficPattern, forecast
from ringbearer.scaling.models import HOURS_OF_WEEK, Hours, Series
from ringbearer.scaling.policy import reserved
from ringbearer.scaling.results import ForecastHour, PastHour, ScalingPrediction, TestedHour
from ringbearer.season import Season, SeasonScalingConfig
from ringbearer.storage.base import Storage
from ringbearer.storage.forecasts import Foretold
from ringbearer.storage.rollups import Level

_HOUR = 3_600
MOST_DAYS = 60
_KEPT_HOURS = 57 * HOURS_OF_WEEK  # 400 days: beyond, rollups are gone
_FRESH_SECONDS = 600.0
_AHEAD_SECONDS = 600  # workers for what comes so soon are there now
_KNOWN_HOURS = HOURS_OF_WEEK  # with less than a week behind it, a forecast moves nothing
_KEPT_AHEAD = (
    24  # an hour's forecast is written down when it is so many hours away, and held against what comes
)
_SHOWN_HOURS = 14 * 24
_NONE = timedelta()


class _Made(msgspec.Struct, frozen=True, kw_only=True):
    """A forecast, what it was made of, and the monotonic moment at which that was last seen to be so still."""

    until: int
    plan: SeasonScalingConfig | None
    looked_at: float
    pattern: TrafficPattern
    forecast: Forecast


class Foresight:
    """Forecasts from the store's rollups, anew after each hour, by the season's calendar and clock.

    Blocks; thread-safe. Raises StoreUnavailable.
    """

    def __init__(self, storage: Storage, season: Callable[[], Season]) -> None:
        self._storage = storage
        self._season = season
        self._lock = threading.Lock()
        self._made: _Made | None = None
        self._kept_until = 0

    def __repr__(self) -> str:
        return (
            "<Foresight, nothing forecast yet>"
            if self._made is None
            else f"<Foresight {self._made.forecast.method}>"
        )

    def history(self) -> TrafficPattern:
        """The deliveries of each whole hour that is summed up, the gaps filled with nothing."""
        rollups = self._storage.rollups
        until = self._known_until()
        since = max(0, until - _KEPT_HOURS * Level.HOUR.span)
        rows = rollups.read(Level.HOUR, "flow", since=since, until=until, key="deliveries")
        if not rows:
            return TrafficPattern(first_hour=until // Level.HOUR.span, counts=())
        first = min(row.at for row in rows) // Level.HOUR.span
        counts = np.zeros(until // Level.HOUR.span - first)
        for row in rows:
            counts[row.at // Level.HOUR.span - first] += row.attempts
        return TrafficPattern(first_hour=first, counts=counts.tolist())

    def forecast(self, pattern: TrafficPattern | None = None) -> tuple[TrafficPattern, Forecast]:
        """The coming days after the pattern, or after the installation's own history."""
        if pattern is not None:
            return pattern, self._foretell(pattern)
        made = self._made
        if made is None or clock.monotonic() - made.looked_at > _FRESH_SECONDS:
            made = self._renewed()
        return made.pattern, made.forecast

    def refresh(self, *, now: datetime) -> None:
        """Forecast anew when there is another hour to go by or another plan, so that nobody who asks waits for it.

        What is expected of the coming day is written down once an hour; what was said of an hour before stands.
        """
        made = self._renewed()
        pattern, found = made.pattern, made.forecast
        this = int(now.timestamp()) // _HOUR
        if self._kept_until > this + _KEPT_AHEAD:
            return
        if len(pattern.counts) >= _KNOWN_HOURS:
            made_at = clock.from_datetime(now)
            coming = range(this + 1, this + 1 + _KEPT_AHEAD)
            self._storage.forecasts.keep(
                [
                    Foretold(_stored(hour), made_at, expected, expected * found.safety)
                    for hour in coming
                    if 0 <= hour - found.first_hour < len(found.expected)
                    for expected in [found.expected[hour - found.first_hour]]
                ]
            )
            self._storage.forecasts.prune(before=_stored(this - _KEPT_HOURS))
        self._kept_until = this + 1 + _KEPT_AHEAD

    def _renewed(self) -> "_Made":
        """The last one while it is still true, else a new one, which takes seconds when there is a year behind it."""
        with self._lock:
            until, plan, made = self._known_until(), self._season().plan, self._made
            if made is None or (made.until, made.plan) != (until, plan):
                own = self.history()
                made = _Made(until=until, plan=plan, looked_at=0.0, pattern=own, forecast=self._foretell(own))
            self._made = msgspec.structs.replace(made, looked_at=clock.monotonic())
            return self._made

    def _known_until(self) -> int:
        """Until when hours are summed up, a stored time."""
        return self._storage.rollups.marks().get(Level.HOUR, 0)

    def floor(self, load: LoadMetrics, policy: ScalingPolicy, *, now: datetime) -> int:
        """The workers that the coming minutes ask for by the forecast; 0 while it is not to be acted on."""
        if policy.forecast != "act":
            return 0
        pattern, found = self.forecast()
        if len(pattern.counts) < _KNOWN_HOURS:
            return 0
        second = now.timestamp()
        hours = {int(second) // _HOUR, int(second + _AHEAD_SECONDS) // _HOUR}
        coming = [hour - found.first_hour for hour in hours]
        return max(
            (
                self._workers(found, index, load, policy)
                for index in coming
                if 0 <= index < len(found.expected)
            ),
            default=0,
        )

    def _workers(self, found: Forecast, index: int, load: LoadMetrics, policy: ScalingPolicy) -> int:
        """How many workers that hour of the forecast asks for, with the reserve that its day shall have."""
        peak = self._season().state(_moment(found.first_hour + index)).phase == "peak"
        return workers_for(found.expected[index] * found.safety / _HOUR, load, policy, peak=peak)

    def prediction(
        self,
        load: LoadMetrics,
        policy: ScalingPolicy,
        *,
        days: int,
        now: datetime,
        pattern: TrafficPattern | None = None,
    ) -> ScalingPrediction:
        """What is to come from this hour on, or after the pattern when one is given."""
        history, found = self.forecast(pattern)
        start = (
            found.first_hour if pattern is not None else max(found.first_hour, int(now.timestamp()) // _HOUR)
        )
        first = start - found.first_hour
        hours = [
            ForecastHour(
                at=_moment(found.first_hour + index),
                expected=found.expected[index],
                upper=found.expected[index] * found.safety,
                workers=max(policy.minimum, self._workers(found, index, load, policy)),
            )
            for index in range(first, min(first + days * 24, len(found.expected)))
        ]
        past = [] if pattern is not None else self._past(history, now)
        tested = [
            TestedHour(at=_moment(found.tested_from + index), expected=expected, actual=actual)
            for index, (expected, actual) in enumerate(found.tested)
        ]
        return ScalingPrediction(
            method=found.method,
            place=self._season().place,
            history_hours=len(history.counts),
            error=found.error,
            safety=found.safety,
            mode=policy.forecast,
            current_workers=load.workers,
            hours=hours,
            past=past,
            tested=tested,
            reason=_reason(found, len(history.counts), policy),
        )

    def _foretell(self, pattern: TrafficPattern) -> Forecast:
        season = self._season()

        def clockwork(hours: Hours) -> Hours:
            return local_hours(hours, season.place)

        def multiplier(hours: Hours) -> Series:
            return _multipliers(local_hours(hours, season.place), season)

        return forecast(pattern, MOST_DAYS * 24, multiplier=multiplier, clockwork=clockwork)

    def _past(self, history: TrafficPattern, now: datetime) -> list[PastHour]:
        """The last days as they were foretold, beside what the history has of them."""
        until = int(now.timestamp()) // _HOUR
        kept = self._storage.forecasts.read(since=_stored(until - _SHOWN_HOURS), until=_stored(until))
        found = []
        for each in kept:
            index = each.at // _stored(1) - history.first_hour
            known = 0 <= index < len(history.counts)
            found.append(
                PastHour(
                    at=clock.to_datetime(each.at),
                    made_at=clock.to_datetime(each.made_at),
                    expected=each.expected,
                    upper=each.upper,
                    actual=history.counts[index] if known else None,
                )
            )
        return found


def local_hours(hours: Hours, place: str) -> Hours:
    """The hour that it is in that time zone at the begin of each hour in UTC, counted like hours since the epoch."""
    where = zone(place)
    offsets = [(datetime.fromtimestamp(int(hour) * _HOUR, where).utcoffset() or _NONE) for hour in hours]
    seconds = np.asarray([offset.total_seconds() for offset in offsets], dtype=np.int64)
    return np.asarray((hours * _HOUR + seconds) // _HOUR, dtype=np.int64)


def _multipliers(local: Hours, season: Season) -> Series:
    """How many times an ordinary day's load the season's plan expects of each hour's day; asked once a day, at noon."""
    days, of_hours = np.unique(local // 24, return_inverse=True)
    where = zone(season.place)
    noons = [datetime.fromtimestamp((int(day) * 24 + 12) * _HOUR, UTC).replace(tzinfo=where) for day in days]
    return np.asarray([season.state(noon).multiplier for noon in noons], dtype=np.float64)[of_hours]


def workers_for(rate: float, load: LoadMetrics, policy: ScalingPolicy, *, peak: bool) -> int:
    """How many workers so many deliveries a second ask for, if each takes as long as they do now."""
    rate *= 1.0 + load.retry_ratio
    needed = max(rate * load.hold_seconds / load.slots, rate * load.cpu_seconds) / reserved(policy, peak=peak)
    return math.ceil(min(needed, policy.maximum) - 1e-9)


def _stored(hour: int) -> int:
    return hour * _HOUR * clock.SECOND


def _moment(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * _HOUR, UTC)


def _reason(found: Forecast, hours: int, policy: ScalingPolicy) -> str:
    trust = (
        "how wrong it is cannot be told yet"
        if found.error is None
        else f"lately it was {found.error:.0%} off, and nine of ten hours stayed below {found.safety:.2f} times it"
    )
    effect = "workers are there before it asks for them" if policy.forecast == "act" else "it is only shown"
    if policy.forecast == "act" and hours < _KNOWN_HOURS:
        effect = "it moves nothing before a week is known"
    return f"{found.method} over {hours} hours; {trust}; {effect}"
