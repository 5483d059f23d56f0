"""Models of a weekly course: from the hours of a history to the hours after it, as pure functions of arrays.

A history has one value for each hour of a place's own clock, without a gap; hours are counted from that clock's own
1970-01-01, which was a Thursday. Each model is asked with at least a week of them, the mean with any.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float64]
Hours = NDArray[np.int64]
Model = Callable[[Series, Hours, Hours], Series]
"""From the values of a history and its hours to the values of the given hours after it."""

HOURS_OF_WEEK = 168
_EPOCH_HOUR_OF_WEEK = 72  # 1970-01-01 was a Thursday: the third day after Monday
_YEAR_HOURS = 8_766.0
_LEVEL_WEEKS = 3  # the level is that of the last weeks, the latest counting most
_FOURIER = 3  # pairs for all days
_FOURIER_DAYS = 2  # pairs for Saturdays and Fridays each
_HALF_LIFE_WEEKS = 40.0
_HUBER = 1.5  # standard deviations: beyond, an hour counts less
_ROUNDS = 3
_RIDGE = 1e-3
_LARGEST = 50.0  # of a logarithm
_SMOOTHED_WEEKS = 26
_TRIED_WEEKS = 4
_PACES = np.asarray(
    [
        (level, season, trend)
        for level in (0.003, 0.01, 0.03, 0.1, 0.25)
        for season in (0.1, 0.25, 0.45)
        for trend in (0.0, 0.02)
    ]
)
"""What part of an hour's surprise the level, the season and, of the level's, the trend take over."""
_PACE_TRUST = 8
_DAMPING = 0.98
_SURPRISE = 0.7  # of a logarithm: twice as much as expected


def hour_of_week(hours: Hours) -> Hours:
    """0 is Monday from midnight to one."""
    return (hours + _EPOCH_HOUR_OF_WEEK) % HOURS_OF_WEEK


def mean(known: Series, past: Hours, future: Hours) -> Series:
    """Always the mean."""
    return np.full(len(future), known.mean())


def seasonal_naive(known: Series, past: Hours, future: Hours) -> Series:
    """As in the same hour of the week before."""
    found: Series = known[len(known) - HOURS_OF_WEEK + (future - past[-1] - 1) % HOURS_OF_WEEK]
    return found


# ── exponential smoothing ───────────────────────────────────────────────────────────────────────────────


def smoothing(known: Series, past: Hours, future: Hours) -> Series:
    """Level, damped trend and season of the logarithm, by several paces at once (Holt, Winters; Gardner, 1985).

    How quickly each of them follows is not known beforehand: the last weeks are foretold by every pace, and those that
    were right have the say.
    """
    logs = np.log1p(known[-_SMOOTHED_WEEKS * HOURS_OF_WEEK :])
    weeks = len(logs) // HOURS_OF_WEEK
    ends = {len(logs) - week * HOURS_OF_WEEK for week in range(1, min(_TRIED_WEEKS, weeks - 1) + 1)}
    steps = np.arange(HOURS_OF_WEEK)
    errors = np.zeros(len(_PACES))
    state = _Smoothed(logs[: min(2, weeks) * HOURS_OF_WEEK])
    for hour, value in enumerate(logs):
        if hour in ends:
            foretold = state.ahead(hour, steps)
            actual = np.expm1(logs[hour : hour + HOURS_OF_WEEK])
            errors += np.abs(foretold - actual[:, None]).sum(axis=0)
        state.learn(hour, value)
    least = max(float(errors.min()), 1e-9)
    weights = (least / np.maximum(errors, least)) ** _PACE_TRUST
    found: Series = state.ahead(len(logs), future - past[-1] - 1) @ (weights / weights.sum())
    return found


class _Smoothed:
    """The state of every pace, side by side."""

    def __init__(self, first: Series) -> None:
        weeks = first.reshape(-1, HOURS_OF_WEEK)
        self._level = np.full(len(_PACES), weeks.mean())
        self._trend = np.zeros(len(_PACES))
        self._season = np.repeat((weeks.mean(axis=0) - weeks.mean())[:, None], len(_PACES), axis=1)
        self._of_level, self._of_season, self._of_trend = _PACES.T

    def learn(self, hour: int, value: float) -> None:
        """Take the next hour in; one that is far off moves no more than one that is less so."""
        before = self._level + _DAMPING * self._trend
        season = self._season[hour % HOURS_OF_WEEK]
        error = np.clip(value - before - season, -_SURPRISE, _SURPRISE)
        self._level = before + self._of_level * error
        self._trend = _DAMPING * self._trend + self._of_level * self._of_trend * error
        self._season[hour % HOURS_OF_WEEK] = season + self._of_season * error

    def ahead(self, hour: int, steps: Hours) -> Series:
        """What each pace foretells of the hours that come so many steps after the next, which is `hour`."""
        grown = _DAMPING * (1.0 - _DAMPING ** (steps + 1)) / (1.0 - _DAMPING)
        logs = self._level + np.outer(grown, self._trend) + self._season[(hour + steps) % HOURS_OF_WEEK]
        return _from_logs(logs)


# ── regression ──────────────────────────────────────────────────────────────────────────────────────────


def regression(known: Series, past: Hours, future: Hours) -> Series:
    """Of the logarithm, on the hour of the week, a trend and the year's waves; robust, the latest weeks count most."""
    logs = np.log1p(known)
    origin = int(past[-1])
    design, coming = _features(past, origin), _features(future, origin)
    age = (origin - past) / (HOURS_OF_WEEK * _HALF_LIFE_WEEKS)
    weights = 0.5**age
    coefficients: Series = np.zeros(design.shape[1])
    robust: Series = np.ones(len(logs))
    for _ in range(_ROUNDS):
        weighted = design * (weights * robust)[:, None]
        normal = weighted.T @ design + _RIDGE * np.eye(design.shape[1])
        coefficients = np.asarray(np.linalg.solve(normal, weighted.T @ logs), dtype=np.float64)
        residuals = logs - design @ coefficients
        spread = 1.4826 * float(np.median(np.abs(residuals))) or 1e-9
        robust = np.minimum(1.0, _HUBER * spread / np.maximum(np.abs(residuals), 1e-12))
    # A mean of logarithms is not the logarithm of a mean: Duan's smearing (1983) puts back what is lost, here level by
    # level of the recent weeks, by which a drift of the level is made good, too.
    recent = slice(-_LEVEL_WEEKS * HOURS_OF_WEEK, None)
    correction = _level(known[recent], _from_logs(design[recent] @ coefficients))
    return _from_logs(coming @ coefficients) * correction


def _level(actual: Series, fitted: Series) -> float:
    """Sum over sum without the hours that are farthest off, so that one wild day does not move all."""
    kept = fitted > 0
    if not kept.any():
        return 1.0
    shares = actual[kept] / fitted[kept]
    low, high = np.quantile(shares, [0.02, 0.98])
    inside = (shares >= low) & (shares <= high)
    total = float(fitted[kept][inside].sum())
    return float(np.clip(actual[kept][inside].sum() / total, 0.5, 2.0)) if total else 1.0


def _from_logs(logs: Series) -> Series:
    return np.expm1(np.clip(logs, 0.0, _LARGEST))


def _features(hours: Hours, origin: int) -> Series:
    """Hour of the week, trend, and the year's waves for all days and for Saturdays and Fridays apart."""
    slot = hour_of_week(hours)
    weekly = np.zeros((len(hours), HOURS_OF_WEEK))
    weekly[np.arange(len(hours)), slot] = 1.0
    day = slot // 24
    columns = [(hours - origin) / _YEAR_HOURS]
    angle = 2.0 * np.pi * hours / _YEAR_HOURS
    for order in range(1, _FOURIER + 1):
        columns += [np.sin(order * angle), np.cos(order * angle)]
    for weekday in (5, 4):
        holds = (day == weekday).astype(np.float64)
        for order in range(1, _FOURIER_DAYS + 1):
            columns += [holds * np.sin(order * angle), holds * np.cos(order * angle)]
    return np.hstack([weekly, np.stack(columns, axis=1)])
