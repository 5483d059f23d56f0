"""Foresight: the forecast of this installation's own traffic, and the workers that it asks for before they are needed."""

import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from ringbearer import clock
from ringbearer.domain.scaling import LoadMetrics, ScalingPolicy
from ringbearer.scaling.forecast import (
    HOURS_OF_WEEK,
    Forecast,
    Series,
    TrafficPattern,
    forecast,
)
from ringbearer.scaling.results import ForecastHour, ScalingPrediction, TestedHour
from ringbearer.storage.base import Storage
from ringbearer.storage.rollups import Level

_HOUR = 3_600
MOST_DAYS = 60
_KEPT_HOURS = 57 * HOURS_OF_WEEK  # 400 days: beyond, rollups are gone
_FRESH_SECONDS = 600.0
_AHEAD_SECONDS = 600  # workers for what comes so soon are there now
_KNOWN_HOURS = HOURS_OF_WEEK  # with less than a week behind it, a forecast moves nothing

DayMultiplier = Callable[[datetime], float]
"""The calendar's multiplier of the day that a moment belongs to."""


class Foresight:
    """Forecasts from the store's rollups, anew every ten minutes. Blocks; thread-safe."""

    def __init__(self, storage: Storage, multiplier: DayMultiplier) -> None:
        self._storage = storage
        self._multiplier = multiplier
        self._lock = threading.Lock()
        self._made: tuple[float, TrafficPattern, Forecast] | None = None

    def __repr__(self) -> str:
        return (
            "<Foresight, nothing forecast yet>"
            if self._made is None
            else f"<Foresight {self._made[2].method}>"
        )

    def history(self) -> TrafficPattern:
        """The deliveries of each whole hour that is summed up, the gaps filled with nothing."""
        rollups = self._storage.rollups
        until = rollups.marks().get(Level.HOUR, 0)
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
            return pattern, forecast(pattern, MOST_DAYS * 24, multiplier=self._of_hours)
        with self._lock:
            now = clock.monotonic()
            if self._made is None or now - self._made[0] > _FRESH_SECONDS:
                own = self.history()
                self._made = now, own, forecast(own, MOST_DAYS * 24, multiplier=self._of_hours)
            return self._made[1], self._made[2]

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
                workers_for(found.expected[index] * found.safety / _HOUR, load, policy)
                for index in coming
                if 0 <= index < len(found.expected)
            ),
            default=0,
        )

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
                workers=max(
                    policy.minimum, workers_for(found.expected[index] * found.safety / _HOUR, load, policy)
                ),
            )
            for index in range(first, min(first + days * 24, len(found.expected)))
        ]
        tested = [
            TestedHour(at=_moment(found.tested_from + index), expected=expected, actual=actual)
            for index, (expected, actual) in enumerate(found.tested)
        ]
        return ScalingPrediction(
            method=found.method,
            history_hours=len(history.counts),
            error=found.error,
            safety=found.safety,
            mode=policy.forecast,
            current_workers=load.workers,
            hours=hours,
            tested=tested,
            reason=_reason(found, len(history.counts), policy),
        )

    def _of_hours(self, hours: NDArray[np.int64]) -> Series:
        """The calendar's multipliers of these hours; asked once a day, for a day at noon."""
        days, where = np.unique(hours // 24, return_inverse=True)
        found = [self._multiplier(datetime.fromtimestamp((int(day) * 24 + 12) * _HOUR, UTC)) for day in days]
        return np.asarray(found, dtype=np.float64)[where]


def workers_for(rate: float, load: LoadMetrics, policy: ScalingPolicy) -> int:
    """How many workers so many deliveries a second ask for, if each takes as long as they do now."""
    rate *= 1.0 + load.retry_ratio
    needed = max(rate * load.hold_seconds / load.slots, rate * load.cpu_seconds) / policy.utilisation
    return math.ceil(min(needed, policy.maximum) - 1e-9)


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
