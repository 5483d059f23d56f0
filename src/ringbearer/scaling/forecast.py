"""The forecast of deliveries per hour, from an hourly history, by the models that the history is long enough for.

| history | models |
|---|---|
| a year or more | that of the next line, and a regression of the logarithm: hour of the week, trend, and yearly Fourier terms that Saturdays and Fridays have of their own; older weeks weigh less, outliers are held down (Huber's weights) |
| four weeks or more | exponential smoothing of the logarithm: level, damped trend and hour of the week, by several paces at once |
| a week or more | seasonal naive: as in the same hour a week before |
| less | the mean so far |

Each model foretells the last four weeks anew, each of them from what was known before it began. The forecast is their
mean, weighted by how right they were: a combination is rarely worse than the best of its parts, and it need not be
known beforehand which that is (Bates and Granger, 1969). Of what is farther off than a week, the regression gets a
greater part with each week: the season is coming, whatever the level of today.

Hours are those of a place: where clocks change, its days keep their shape. What the calendar says of a day (its
multiplier) is divided out before and multiplied back on after: a planned peak is expected although no other day was
like it, and one of the past is not expected to come back. Everything here is a pure function of arrays; hours are
whole hours since the epoch, in UTC.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from ringbearer.scaling import models
from ringbearer.scaling.models import HOURS_OF_WEEK, Hours, Model, Series

_REGRESSION_HOURS = 52 * HOURS_OF_WEEK
_SMOOTHING_HOURS = 4 * HOURS_OF_WEEK
_BACKTEST_WEEKS = 4
_SAFE_MOST = 3.0
_MOST = 1e12  # deliveries in an hour; beyond, it is no count
_MATTERS = 0.25  # of the mean
_TRUST = 8  # weights fall with this power of the error: a model that is a tenth worse has half of the say
_HEARD = 0.05  # who has less than such a part of the best one's weight is not asked


class TrafficPattern(msgspec.Struct, frozen=True, kw_only=True):
    """Deliveries for each hour of the past, without a gap; `first_hour` in whole hours since the epoch."""

    first_hour: int
    counts: Sequence[float]


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What is expected of the hours after a history, and how far that could be trusted lately."""

    first_hour: int
    expected: list[float]
    weights: dict[str, float]
    """What part each model has in it, the greatest first."""
    error: float | None
    """Of the last weeks, each forecast from what was known a week before: Σ|actual - forecast| / Σ actual. None
    while there is too little to tell."""
    safety: float
    """Nine of ten of those hours came to less than so many times the forecast; at least 1."""
    tested_from: int
    """The first hour of those weeks, with what was forecast and what came true."""
    tested: list[tuple[float, float]]

    @property
    def method(self) -> str:
        """The models that have a part in it, by their names."""
        return " + ".join(self.weights)


Multiplier = Callable[[Hours], Series]
"""The calendar: how many times an ordinary day's load each hour is to be expected to have."""
Clockwork = Callable[[Hours], Hours]
"""A place's clock: the hour that it is there, counted like hours in UTC, at each hour in UTC."""


def ordinary(hours: Hours) -> Series:
    """A calendar without any peak."""
    return np.ones(len(hours))


def utc(hours: Hours) -> Hours:
    """The clock of a place where it is UTC."""
    return hours


@dataclass(frozen=True)
class _Course:
    """A history and the hours after it: counts of the past only, multipliers and local hours of both."""

    counts: Series
    factors: Series
    local: Hours

    def predict(self, model: Model, end: int, hours: int) -> Series:
        """What the model foretells of so many hours from `end` on, if it knows what was before."""
        if not end:
            return np.zeros(hours)
        known, first = by_local_hour(self.counts[:end] / self.factors[:end], self.local[:end])
        past = first + np.arange(len(known))
        after = slice(end, end + hours)
        return np.asarray(model(known, past, self.local[after]) * self.factors[after], dtype=np.float64)


def forecast(
    pattern: TrafficPattern, hours: int, *, multiplier: Multiplier = ordinary, clockwork: Clockwork = utc
) -> Forecast:
    """The coming hours after the pattern's end."""
    counts = _clean(pattern.counts)
    known = len(counts)
    # The back-test may look further ahead than the forecast, but never beyond the history.
    every = pattern.first_hour + np.arange(known + hours)
    course = _Course(counts, multiplier(every), clockwork(every))
    chosen = _models_for(known)
    weeks = _test_weeks(known)
    actual = [counts[end : end + HOURS_OF_WEEK] for end in weeks]
    foretold = {
        name: [course.predict(model, end, HOURS_OF_WEEK) for end in weeks] for name, model in chosen.items()
    }
    weights = _weights(foretold, actual)
    # Each week as it would have been foretold by weights that the others gave: else it would have helped itself.
    tested = [
        _mixed(
            _weights(foretold, actual, without=week), {name: each[week] for name, each in foretold.items()}
        )
        for week in range(len(weeks))
    ]
    true, predicted = _joined(actual), _joined(tested)
    expected = _mixed(weights, {name: course.predict(model, known, hours) for name, model in chosen.items()})
    return Forecast(
        first_hour=pattern.first_hour + known,
        expected=[float(value) for value in expected],
        weights=weights,
        error=weighted_error(true, predicted) if len(true) else None,
        safety=_safety(true, predicted),
        tested_from=pattern.first_hour + known - len(true),
        tested=[(float(p), float(a)) for p, a in zip(predicted, true, strict=True)],
    )


def weighted_error(actual: Series, predicted: Series) -> float:
    """Σ|actual - predicted| / Σ actual."""
    total = float(actual.sum())
    return float(np.abs(actual - predicted).sum()) / total if total else 0.0


def by_local_hour(values: Series, local: Hours) -> tuple[Series, int]:
    """One value for each hour of the local clock, and the first of these hours.

    An hour that the clock shows twice has the mean of both; one that it leaves out is like the hour before.
    """
    first = int(local.min())
    places = local - first
    times = np.bincount(places)
    found = np.bincount(places, weights=values) / np.maximum(times, 1)
    for gap in np.flatnonzero(times == 0):
        found[gap] = found[gap - 1]
    return found, first


def _clean(counts: Sequence[float]) -> Series:
    found = np.asarray(counts, dtype=np.float64)
    return np.clip(np.where(np.isfinite(found), found, 0.0), 0.0, _MOST)


def _models_for(hours: int) -> dict[str, Model]:
    """The models that so long a history is enough for, the one that sees farthest first."""
    if hours >= _REGRESSION_HOURS:
        return {"regression": models.regression, "smoothing": models.smoothing}
    if hours >= _SMOOTHING_HOURS:
        return {"smoothing": models.smoothing}
    return {"seasonal naive": models.seasonal_naive} if hours >= HOURS_OF_WEEK else {"mean": models.mean}


def _test_weeks(known: int) -> list[int]:
    """Where each of the weeks begins that are foretold anew: those before which a week is known."""
    ends = (known - week * HOURS_OF_WEEK for week in range(_BACKTEST_WEEKS, 0, -1))
    return [end for end in ends if end >= HOURS_OF_WEEK]


def _weights(
    foretold: Mapping[str, Sequence[Series]], actual: Sequence[Series], *, without: int | None = None
) -> dict[str, float]:
    """What part each model gets by how right it was in these weeks, the greatest first; they add up to 1."""
    weeks = [week for week in range(len(actual)) if week != without]
    if not weeks:
        return {next(iter(foretold)): 1.0}
    true = _joined([actual[week] for week in weeks])
    errors = {
        name: weighted_error(true, _joined([each[week] for week in weeks])) for name, each in foretold.items()
    }
    least = max(min(errors.values()), 1e-6)
    heard = {
        name: weight
        for name, error in errors.items()
        if (weight := (least / max(error, least)) ** _TRUST) >= _HEARD
    }
    total = sum(heard.values())
    return {name: heard[name] / total for name in sorted(heard, key=heard.__getitem__, reverse=True)}


def _mixed(weights: Mapping[str, float], predictions: Mapping[str, Series]) -> Series:
    """The weighted mean. What is farther off than the tested week is left, more and more, to who sees farthest."""
    farthest = next(iter(predictions.values()))
    beyond = np.maximum(0, np.arange(len(farthest)) - HOURS_OF_WEEK) / HOURS_OF_WEEK
    found = farthest.copy()
    for name, weight in weights.items():
        found += weight * 0.5**beyond * (predictions[name] - farthest)
    return found


def _joined(weeks: Sequence[Series]) -> Series:
    return np.concatenate(weeks) if weeks else np.zeros(0)


def _safety(actual: Series, predicted: Series) -> float:
    kept = predicted > 0
    if kept.sum() < HOURS_OF_WEEK / 2:
        return 1.5  # nothing is known yet of how wrong it is
    # Hours with next to nothing in them are wrong by large factors, and matter to nobody.
    kept &= predicted >= _MATTERS * predicted[kept].mean()
    return float(np.clip(np.quantile(actual[kept] / predicted[kept], 0.9), 1.0, _SAFE_MOST))
