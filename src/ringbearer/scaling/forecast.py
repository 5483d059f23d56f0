"""The forecast of deliveries per hour, from an hourly history, by the method that the history is long enough for.

| history | method |
|---|---|
| a year or more | regression of the logarithm: hour of the week, trend, and yearly Fourier terms that Saturdays and Fridays have of their own; older weeks weigh less, outliers are held down (Huber's weights) |
| five weeks or more | ratio model: the recent level, times each hour's usual share of its week (medians) |
| a week or more | seasonal naive: as in the same hour a week before |
| less | the mean so far |

A method for which the history is long enough gives way to a simpler one, or to the ratio model that adapts to the last
two days, when that would have been clearly better in the last four weeks.

What the calendar says of a day (its multiplier) is divided out before and multiplied back on after: a planned peak is
expected although no other day was like it, and one of the past is not expected to come back. Everything here is a
pure function of arrays; hours are whole hours since the epoch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Method = Literal["regression", "ratio", "adaptive ratio", "seasonal naive", "mean"]
Series = NDArray[np.float64]

HOURS_OF_WEEK = 168
_YEAR_HOURS = 8_766.0
_REGRESSION_HOURS = 52 * HOURS_OF_WEEK
_RATIO_HOURS = 5 * HOURS_OF_WEEK
_LEVEL_WEEKS = 3  # the level is that of the last weeks, the latest counting most
_PROFILE_WEEKS = 8
_LATELY_HOURS = 48
_FADE_HOURS = 36.0  # a deviation of the last two days is expected to halve in so long
_FOURIER = 3  # pairs for all days
_FOURIER_DAYS = 2  # pairs for Saturdays and Fridays each
_HALF_LIFE_WEEKS = 40.0
_HUBER = 1.5  # standard deviations: beyond, an hour counts less
_ROUNDS = 3
_RIDGE = 1e-3
_EPOCH_HOUR_OF_WEEK = 72  # 1970-01-01 was a Thursday: the third day after Monday
_BACKTEST_WEEKS = 4
_SAFE_MOST = 3.0
_MOST = 1e12  # deliveries in an hour; beyond, it is no count
_MATTERS = 0.25  # of the mean


class TrafficPattern(msgspec.Struct, frozen=True, kw_only=True):
    """Deliveries for each hour of the past, without a gap; `first_hour` in whole hours since the epoch."""

    first_hour: int
    counts: Sequence[float]


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What is expected of the hours after a history, and how far that could be trusted lately."""

    first_hour: int
    expected: list[float]
    method: Method
    error: float | None
    """Of the last weeks, each forecast from what was known a week before: Σ|actual - forecast| / Σ actual. None
    while there is too little to tell."""
    safety: float
    """Nine of ten of those hours came to less than so many times the forecast; at least 1."""
    tested_from: int
    """The first hour of those weeks, with what was forecast and what came true."""
    tested: list[tuple[float, float]]


Multiplier = Callable[[NDArray[np.int64]], Series]
"""The calendar: how many times an ordinary day's load each hour is to be expected to have."""


def ordinary(hours: NDArray[np.int64]) -> Series:
    """A calendar without any peak."""
    return np.ones(len(hours))


def forecast(pattern: TrafficPattern, hours: int, *, multiplier: Multiplier = ordinary) -> Forecast:
    """The coming hours after the pattern's end."""
    counts = _clean(pattern.counts)
    past = pattern.first_hour + np.arange(len(counts))
    methods = _methods_for(len(counts))
    tests = {method: _backtest(method, counts, past, multiplier) for method in methods}
    method = _chosen(methods, tests)
    expected = _predict(method, counts, past, hours, multiplier)
    actual, predicted = tests[method]
    return Forecast(
        first_hour=pattern.first_hour + len(counts),
        expected=[float(value) for value in expected],
        method=method,
        error=weighted_error(actual, predicted) if len(actual) else None,
        safety=_safety(actual, predicted),
        tested_from=pattern.first_hour + len(counts) - len(actual),
        tested=[(float(p), float(a)) for p, a in zip(predicted, actual, strict=True)],
    )


def weighted_error(actual: Series, predicted: Series) -> float:
    """Σ|actual - predicted| / Σ actual."""
    total = float(actual.sum())
    return float(np.abs(actual - predicted).sum()) / total if total else 0.0


def _clean(counts: Sequence[float]) -> Series:
    found = np.asarray(counts, dtype=np.float64)
    return np.clip(np.where(np.isfinite(found), found, 0.0), 0.0, _MOST)


def _methods_for(hours: int) -> list[Method]:
    """The methods that so long a history is enough for, the one that sees farthest first."""
    if hours >= _REGRESSION_HOURS:
        return ["regression", "adaptive ratio", "ratio", "seasonal naive"]
    if hours >= _RATIO_HOURS:
        return ["ratio", "adaptive ratio", "seasonal naive"]
    return ["seasonal naive"] if hours >= HOURS_OF_WEEK else ["mean"]


def _chosen(methods: Sequence[Method], tests: Mapping[Method, tuple[Series, Series]]) -> Method:
    """The first, unless another was clearly better of late."""
    errors = {
        method: weighted_error(*tests[method]) if method == methods[0] else _clearly(*tests[method])
        for method in methods
    }
    return min(methods, key=errors.__getitem__)


def _clearly(actual: Series, predicted: Series) -> float:
    """The error of a method that is to be taken only if it was clearly better."""
    return weighted_error(actual, predicted) * 1.05 + 0.005


def _predict(
    method: Method, counts: Series, past: NDArray[np.int64], hours: int, multiplier: Multiplier
) -> Series:
    if not len(counts):
        return np.zeros(hours)
    future = past[-1] + 1 + np.arange(hours)
    base = counts / multiplier(past)
    if method == "regression":
        found = _regression(base, past, future)
    elif method == "ratio":
        found = _ratio(base, past, future)
    elif method == "adaptive ratio":
        found = _adaptive(base, past, future)
    elif method == "seasonal naive":
        found = base[len(base) - HOURS_OF_WEEK + np.arange(hours) % HOURS_OF_WEEK]
    else:
        found = np.full(hours, base.mean())
    return np.asarray(found * multiplier(future), dtype=np.float64)


def _regression(base: Series, past: NDArray[np.int64], future: NDArray[np.int64]) -> Series:
    logs = np.log1p(base)
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
    fitted = np.expm1(np.clip(design[recent] @ coefficients, 0.0, 50.0))
    correction = _clipped_ratio(base[recent], fitted)
    return np.expm1(np.clip(coming @ coefficients, 0.0, 50.0)) * correction


def _clipped_ratio(actual: Series, fitted: Series) -> float:
    """Sum over sum without the hours that are farthest off, so that one wild day does not move all."""
    kept = fitted > 0
    if not kept.any():
        return 1.0
    ratio = actual[kept] / fitted[kept]
    low, high = np.quantile(ratio, [0.02, 0.98])
    inside = (ratio >= low) & (ratio <= high)
    total = float(fitted[kept][inside].sum())
    return float(np.clip(actual[kept][inside].sum() / total, 0.5, 2.0)) if total else 1.0


def _features(hours: NDArray[np.int64], origin: int) -> Series:
    """Hour of the week, trend, and the year's waves for all days and for Saturdays and Fridays apart."""
    slot = _hour_of_week(hours)
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


def _ratio(base: Series, past: NDArray[np.int64], future: NDArray[np.int64]) -> Series:
    weeks = min(_PROFILE_WEEKS, len(base) // HOURS_OF_WEEK)
    recent = base[-weeks * HOURS_OF_WEEK :].reshape(weeks, HOURS_OF_WEEK)
    levels = recent.mean(axis=1)
    shares = recent / np.maximum(levels, 1e-9)[:, None]
    profile = np.median(shares, axis=0)
    profile *= HOURS_OF_WEEK / max(profile.sum(), 1e-9)
    latest = levels[-_LEVEL_WEEKS:]
    level = float(np.average(latest, weights=2.0 ** np.arange(len(latest))))
    slots = _hour_of_week(past[-weeks * HOURS_OF_WEEK :][:HOURS_OF_WEEK])
    by_slot = np.zeros(HOURS_OF_WEEK)
    by_slot[slots] = profile
    return level * by_slot[_hour_of_week(future)]


def _adaptive(base: Series, past: NDArray[np.int64], future: NDArray[np.int64]) -> Series:
    """The latest weeks count most, hour by hour; the level of the last two days fades out over some more."""
    weeks = min(_PROFILE_WEEKS, len(base) // HOURS_OF_WEEK)
    recent = base[-weeks * HOURS_OF_WEEK :].reshape(weeks, HOURS_OF_WEEK)
    profile = np.average(recent, axis=0, weights=2.0 ** np.arange(weeks))
    by_slot = np.zeros(HOURS_OF_WEEK)
    by_slot[_hour_of_week(past[-HOURS_OF_WEEK:])] = profile
    usual = float(by_slot[_hour_of_week(past[-_LATELY_HOURS:])].sum())
    now = float(np.clip(base[-_LATELY_HOURS:].sum() / usual, 0.25, 4.0)) if usual else 1.0
    fading = 0.5 ** ((future - past[-1]) / _FADE_HOURS)
    return np.asarray(by_slot[_hour_of_week(future)] * now**fading, dtype=np.float64)


def _hour_of_week(hours: NDArray[np.int64]) -> NDArray[np.int64]:
    return (hours + _EPOCH_HOUR_OF_WEEK) % HOURS_OF_WEEK


def _backtest(
    method: Method, counts: Series, past: NDArray[np.int64], multiplier: Multiplier
) -> tuple[Series, Series]:
    """The last weeks, actual and as each would have been forecast from what was known before it began."""
    actual, predicted = [], []
    for week in range(_BACKTEST_WEEKS, 0, -1):
        end = len(counts) - week * HOURS_OF_WEEK
        if end < HOURS_OF_WEEK:
            continue
        actual.append(counts[end : end + HOURS_OF_WEEK])
        predicted.append(_predict(method, counts[:end], past[:end], HOURS_OF_WEEK, multiplier))
    if not actual:
        return np.zeros(0), np.zeros(0)
    return np.concatenate(actual), np.concatenate(predicted)


def _safety(actual: Series, predicted: Series) -> float:
    kept = predicted > 0
    if kept.sum() < HOURS_OF_WEEK / 2:
        return 1.5  # nothing is known yet of how wrong it is
    # Hours with next to nothing in them are wrong by large factors, and matter to nobody.
    kept &= predicted >= _MATTERS * predicted[kept].mean()
    return float(np.clip(np.quantile(actual[kept] / predicted[kept], 0.9), 1.0, _SAFE_MOST))
