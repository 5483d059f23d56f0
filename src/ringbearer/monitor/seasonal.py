"""Seasonal patterns: what is usual for an hour of the week and a day of the year, and what stands out against it.

An hour's baseline is the median of the same hour of the week in the weeks before, on peak days apart from others; its
spread is the median absolute deviation (MAD), which a few wild values do not move. The robust score is
0.6745 · (value - median) / MAD (Iglewicz and Hoaglin, 1993); from 3.5 on, an hour stands out.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import msgspec
import numpy as np

from ringbearer.domain.times import Moment

SCORE = 3.5
LEAST = 3
"""Fewer hours of a kind are no baseline."""
_NORMAL = 0.6745  # the MAD of a normal distribution, in standard deviations
_HOUR = timedelta(hours=1)
_SHOWN = 50


class Hour(msgspec.Struct, frozen=True, kw_only=True):
    """What one hour was: deliveries done, and the 95th percentile of ready ▸ sent in seconds."""

    at: Moment
    delivered: int
    reach_p95: float | None = None


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """What is usual for an hour of the week (0 is Monday, 00:00 UTC), on peak or ordinary days."""

    hour_of_week: int
    peak: bool
    weeks: int
    """How many such hours there were."""
    delivered: float
    spread: float
    reach_p95: float | None


class DayBaseline(msgspec.Struct, frozen=True, kw_only=True):
    """What was delivered on a day of the year, over the years that are kept."""

    day_of_year: str
    delivered: float
    years: int
    peak: bool


class Anomaly(msgspec.Struct, frozen=True, kw_only=True):
    """An hour that stands out against its baseline."""

    at: Moment
    peak: bool
    delivered: int
    expected: float
    score: float
    """Positive when there was more than usual."""


class SeasonalPatterns(msgspec.Struct, frozen=True, kw_only=True):
    """How traffic repeats itself, and where it does not."""

    since: Moment
    until: Moment
    hours: int
    """Hours that were looked at."""
    week: list[Baseline]
    year: list[DayBaseline]
    peak_factor: float | None
    """How many times an ordinary day's deliveries a peak day has, by medians."""
    anomalies: list[Anomaly]
    """The latest first."""


def patterns(
    hours: Mapping[datetime, Hour],
    *,
    since: datetime,
    until: datetime,
    peak: Callable[[datetime], bool],
    days: Mapping[datetime, int] | None = None,
) -> SeasonalPatterns:
    """The patterns of the hours in [since, until); those without anything delivered may be left out of `hours`.

    `days` says what was delivered on each day of a longer time; without it the days of these hours are taken.
    """
    every: list[tuple[Hour, bool]] = []
    at = since.replace(minute=0, second=0, microsecond=0)
    if at < since:
        at += _HOUR
    while at + _HOUR <= until:
        every.append((hours.get(at, Hour(at=at, delivered=0)), peak(at)))
        at += _HOUR
    kinds: dict[tuple[int, bool], list[Hour]] = {}
    for hour, is_peak in every:
        kinds.setdefault((_of_week(hour.at), is_peak), []).append(hour)
    whole = _days(every) if days is None else {day: (done, peak(_noon(day))) for day, done in days.items()}
    return SeasonalPatterns(
        since=since,
        until=until,
        hours=len(every),
        week=[_baseline(kind, found) for kind, found in sorted(kinds.items())],
        year=_year(whole),
        peak_factor=_factor(whole),
        anomalies=_anomalies(every, kinds),
    )


def score(value: float, others: list[float]) -> float | None:
    """The robust score of a value against others of its kind; None when those are no baseline.

    Where all others are (nearly) the same, a spread of a tenth of their median, and of at least 1, is taken.
    """
    if len(others) < LEAST:
        return None
    middle = float(np.median(others))
    spread = float(np.median(np.abs(np.array(others) - middle)))
    return _NORMAL * (value - middle) / max(spread, 0.1 * middle * _NORMAL, 1.0)


def _baseline(kind: tuple[int, bool], found: list[Hour]) -> Baseline:
    delivered = np.array([hour.delivered for hour in found], float)
    middle = float(np.median(delivered))
    reach = [hour.reach_p95 for hour in found if hour.reach_p95 is not None]
    return Baseline(
        hour_of_week=kind[0],
        peak=kind[1],
        weeks=len(found),
        delivered=middle,
        spread=float(np.median(np.abs(delivered - middle))),
        reach_p95=float(np.median(reach)) if reach else None,
    )


def _anomalies(every: list[tuple[Hour, bool]], kinds: Mapping[tuple[int, bool], list[Hour]]) -> list[Anomaly]:
    found = []
    for hour, is_peak in every:
        others = [
            float(other.delivered) for other in kinds[_of_week(hour.at), is_peak] if other.at != hour.at
        ]
        scored = score(hour.delivered, others)
        if scored is not None and abs(scored) >= SCORE:
            expected = float(np.median(others))
            found.append(
                Anomaly(at=hour.at, peak=is_peak, delivered=hour.delivered, expected=expected, score=scored)
            )
    return sorted(found, key=lambda anomaly: anomaly.at, reverse=True)[:_SHOWN]


def _days(every: list[tuple[Hour, bool]]) -> dict[datetime, tuple[int, bool]]:
    """Whole days by their first hour: what was delivered, and whether it was a peak."""
    found: dict[datetime, list[tuple[Hour, bool]]] = {}
    for hour, is_peak in every:
        found.setdefault(hour.at.replace(hour=0), []).append((hour, is_peak))
    return {
        day: (sum(hour.delivered for hour, _ in hours), hours[12][1])
        for day, hours in found.items()
        if len(hours) == 24
    }


def _year(days: Mapping[datetime, tuple[int, bool]]) -> list[DayBaseline]:
    found: dict[str, list[tuple[int, bool]]] = {}
    for day, value in days.items():
        found.setdefault(f"{day:%m-%d}", []).append(value)
    return [
        DayBaseline(
            day_of_year=name,
            delivered=float(np.median([delivered for delivered, _ in values])),
            years=len(values),
            peak=values[-1][1],
        )
        for name, values in sorted(found.items())
    ]


def _factor(days: Mapping[datetime, tuple[int, bool]]) -> float | None:
    peak = [delivered for delivered, is_peak in days.values() if is_peak]
    ordinary = [delivered for delivered, is_peak in days.values() if not is_peak]
    usual = float(np.median(ordinary)) if ordinary else 0.0
    return float(np.median(peak)) / usual if peak and usual else None


def _noon(day: datetime) -> datetime:
    return day.replace(hour=12)


def _of_week(at: datetime) -> int:
    return at.weekday() * 24 + at.hour
