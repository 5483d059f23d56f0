"""The forecast: each method sees what it is for, no history breaks it, and its error is its own."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.forecast import synthetic
from ringbearer.cli.forecast import Hour, rows
from ringbearer.scaling.forecast import (
    TrafficPattern,
    by_local_hour,
    forecast,
    ordinary,
    weighted_error,
)
from ringbearer.scaling.foresight import local_hours
from ringbearer.scaling.models import HOURS_OF_WEEK, Hours, Series

MONDAY = int(datetime(2027, 3, 1, tzinfo=UTC).timestamp()) // 3_600


def weekly(weeks: int, *, saturday: float = 3.0, level: float = 100.0) -> Series:
    """Every week alike: days with a noon, Saturdays with more."""
    hours = np.arange(weeks * HOURS_OF_WEEK)
    day, hour = hours % HOURS_OF_WEEK // 24, hours % 24
    return level * (1.0 + np.sin(np.pi * hour / 24)) * np.where(day == 5, saturday, 1.0)


def made(counts: Sequence[float] | Series, hours: int = HOURS_OF_WEEK, first: int = MONDAY) -> Series:
    found = forecast(TrafficPattern(first_hour=first, counts=list(counts)), hours)
    assert found.first_hour == first + len(counts)
    return np.asarray(found.expected)


@pytest.mark.parametrize(
    ("weeks", "method", "most"),
    [(1, "seasonal naive", 1e-9), (6, "smoothing", 1e-9), (53, "smoothing", 1e-9)],
)
def test_what_repeats_each_week_is_foreseen_by_every_method(weeks: int, method: str, most: float) -> None:
    counts = weekly(weeks)
    found = forecast(TrafficPattern(first_hour=MONDAY, counts=counts.tolist()), HOURS_OF_WEEK)
    assert found.method == method
    assert weighted_error(weekly(1), np.asarray(found.expected)) <= most
    if weeks > 4:
        assert found.error is not None
        assert found.error <= most
        assert 1.0 <= found.safety <= 1.05
        assert len(found.tested) == 4 * HOURS_OF_WEEK
        assert found.tested_from == MONDAY + (weeks - 4) * HOURS_OF_WEEK


def test_a_day_without_a_week_behind_it_is_the_mean() -> None:
    assert made([10.0, 20.0, 30.0], 2).tolist() == [20.0, 20.0]
    assert made([], 3).tolist() == [0.0, 0.0, 0.0]


def test_the_level_is_followed_and_a_wild_day_overlooked() -> None:
    growing = weekly(8) * np.repeat(np.linspace(1.0, 1.7, 8), HOURS_OF_WEEK)
    growing[3 * HOURS_OF_WEEK + 24 : 3 * HOURS_OF_WEEK + 48] *= 20  # a Tuesday, weeks ago
    found = made(growing)
    assert weighted_error(weekly(1) * 1.7, found) < 0.1


def test_a_level_that_rose_yesterday_is_kept_and_one_that_is_noise_is_not() -> None:
    """What happened at such times before says how quickly to follow."""
    random = np.random.default_rng(3)
    steps = np.repeat(
        np.where(np.arange(70) // 10 % 2, 2.0, 1.0), 24
    )  # every ten days up or down, and so it stays
    risen = made(weekly(10) * steps * np.exp(random.normal(0, 0.02, 10 * HOURS_OF_WEEK)))
    assert weighted_error(weekly(1) * steps[-1], risen) < 0.15
    noise = made(weekly(10) * np.exp(random.normal(0, 0.3, 70)).repeat(24))
    assert weighted_error(weekly(1), noise) < 0.2


def test_the_regression_knows_saturdays_of_the_season_from_last_year() -> None:
    """A year and a half of it, up to the eve of the second season: weeks alike know nothing of what comes."""
    counts, first = synthetic()
    end = 70 * HOURS_OF_WEEK
    coming = slice(end + 6 * HOURS_OF_WEEK, end + 10 * HOURS_OF_WEEK)
    made_then = forecast(TrafficPattern(first_hour=first, counts=counts[:end].tolist()), 10 * HOURS_OF_WEEK)
    assert set(made_then.weights) == {"regression", "smoothing"}
    assert sum(made_then.weights.values()) == pytest.approx(1.0)
    found = np.asarray(made_then.expected)[6 * HOURS_OF_WEEK :]
    naive = np.tile(counts[end - HOURS_OF_WEEK : end], 4)
    saturdays = (first + np.arange(coming.start, coming.stop) + 72) % HOURS_OF_WEEK // 24 == 5
    ours = weighted_error(counts[coming][saturdays], found[saturdays])
    assert ours < 0.6 * weighted_error(counts[coming][saturdays], naive[saturdays])


def test_a_planned_peak_is_foreseen_and_a_past_one_is_not_expected_again() -> None:
    counts = weekly(6)
    tuesday = slice(5 * HOURS_OF_WEEK + 24, 5 * HOURS_OF_WEEK + 48)
    counts[tuesday] *= 5
    peaks = {(MONDAY + tuesday.start) // 24: 5.0, (MONDAY + 6 * HOURS_OF_WEEK + 48) // 24: 4.0}

    def planned(hours: NDArray[np.int64]) -> Series:
        return np.asarray([peaks.get(int(hour) // 24, 1.0) for hour in hours])

    pattern = TrafficPattern(first_hour=MONDAY, counts=counts.tolist())
    found = np.asarray(forecast(pattern, HOURS_OF_WEEK, multiplier=planned).expected)
    expected = weekly(1)
    expected[48:72] *= 4
    assert weighted_error(expected, found) < 1e-6


def test_the_error_is_that_of_forecasts_made_before_the_weeks_were_known() -> None:
    """Weeks of noise alone: whoever looked at them would claim to foresee them."""
    random = np.random.default_rng(1)
    counts = random.uniform(50, 150, 8 * HOURS_OF_WEEK)
    found = forecast(TrafficPattern(first_hour=MONDAY, counts=counts.tolist()), 1)
    assert found.error is not None
    assert 0.2 < found.error < 0.5
    assert found.safety > 1.2
    covered = np.mean([actual <= expected * found.safety for expected, actual in found.tested])
    assert 0.8 < covered <= 1.0


def test_where_clocks_change_the_days_keep_their_shape() -> None:
    """Two weeks of a shop that opens at nine, in Berlin, around the end of March and the end of October."""
    for year, month, day in ((2027, 3, 15), (2027, 10, 18)):  # clocks change on the second Sunday after
        first = int(datetime(year, month, day, tzinfo=UTC).timestamp()) // 3_600
        hours = first + np.arange(4 * HOURS_OF_WEEK)
        local = local_hours(hours, "Europe/Berlin")
        counts = np.where((local % 24 >= 9) & (local % 24 < 18), 100.0, 5.0)
        known = 13 * 24  # to the eve of the change
        pattern = TrafficPattern(first_hour=first, counts=counts[:known].tolist())

        def clockwork(asked: Hours) -> Hours:
            return local_hours(asked, "Europe/Berlin")

        there = np.asarray(forecast(pattern, 7 * 24, clockwork=clockwork).expected)
        assert weighted_error(counts[known : known + 7 * 24], there) < 1e-9
        in_utc = np.asarray(forecast(pattern, 7 * 24).expected)
        assert weighted_error(counts[known : known + 7 * 24], in_utc) > 0.1


def test_an_hour_that_the_clock_shows_twice_or_not_at_all_has_one_value() -> None:
    values, first = by_local_hour(np.asarray([1.0, 2.0, 4.0, 8.0, 16.0]), np.asarray([7, 8, 8, 10, 11]))
    assert first == 7
    assert values.tolist() == [1.0, 3.0, 3.0, 8.0, 16.0]


@hypothesis_settings(max_examples=60)
@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=400),
    st.integers(0, 1_000_000),
    st.integers(1, 400),
)
def test_whatever_history_it_gets_it_answers_with_numbers(
    counts: list[float], first: int, hours: int
) -> None:
    found = forecast(TrafficPattern(first_hour=first, counts=counts), hours, multiplier=ordinary)
    assert len(found.expected) == hours
    assert all(np.isfinite(value) and value >= 0 for value in found.expected)
    assert 1.0 <= found.safety <= 3.0


def test_the_terminal_draws_days_by_the_clock_of_the_place() -> None:
    """Around the end of March in Berlin: the day of 23 hours has its own row, the first one begins where it is."""
    began = datetime(2027, 3, 27, 10, tzinfo=UTC)
    hours = [
        {"at": began + timedelta(hours=n), "expected": float(100 + n), "upper": 200.0, "workers": 1 + n // 30}
        for n in range(40)
    ]
    drawn = list(rows(msgspec.convert(hours, list[Hour]), ZoneInfo("Europe/Berlin")))
    assert [day for day, *_ in drawn] == ["Sat 27 Mar", "Sun 28 Mar", "Mon 29 Mar"]
    saturday, sunday, monday = drawn
    assert saturday[1] == f"{sum(range(100, 113)):,}"
    assert (len(saturday[3]), saturday[3][:11]) == (24, " " * 11)
    assert len(sunday[3]) == 23
    assert sunday[2] == "█" * 30, "the fullest day"
    assert monday[3][-1] == "█", "the fullest hour"
    assert [workers for *_, workers in drawn] == ["1", "2", "2"]
