"""Seasonal patterns: weeks of a wedding season, with a Saturday's swell, an outage and a burst to be found in them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringbearer.monitor.seasonal import LEAST, SCORE, Hour, patterns, score

BEGAN = datetime(2027, 5, 3, tzinfo=UTC)  # a Monday
WEEKS = 8
END = BEGAN + timedelta(weeks=WEEKS)


def saturday(moment: datetime) -> bool:
    return moment.weekday() == 5


def season(**odd: int) -> dict[datetime, Hour]:
    """Ordinary hours have 100 to 340 by their hour of the day, Saturdays three times as many, ± 3 %."""
    hours = {}
    for n in range(WEEKS * 168):
        at = BEGAN + timedelta(hours=n)
        usual = (100 + 10 * at.hour) * (3 if saturday(at) else 1)
        hours[at] = Hour(
            at=at, delivered=int(usual * (1 + 0.03 * ((n * 7919) % 21 - 10) / 10)), reach_p95=0.1
        )
    for name, delivered in odd.items():
        at = datetime.strptime(name, "at_%Y_%m_%d_%H").replace(tzinfo=UTC)
        hours[at] = Hour(at=at, delivered=delivered)
    return hours


def test_a_season_without_surprises_has_none() -> None:
    found = patterns(season(), since=BEGAN, until=END, peak=saturday)
    assert found.anomalies == []
    assert found.hours == WEEKS * 168
    assert len(found.week) == 168
    assert {b.weeks for b in found.week} == {WEEKS}
    assert [b.hour_of_week for b in found.week if b.peak] == list(range(120, 144))
    assert found.peak_factor == pytest.approx(3, rel=0.05)
    noon = next(b for b in found.week if b.hour_of_week == 12)
    assert noon.delivered == pytest.approx(220, rel=0.04)
    assert noon.reach_p95 == pytest.approx(0.1)


def test_an_outage_and_a_burst_stand_out_and_nothing_else() -> None:
    odd = season(at_2027_06_02_14=0, at_2027_06_19_11=2_400)
    found = patterns(odd, since=BEGAN, until=END, peak=saturday)
    assert [(a.at, a.peak, a.score > 0) for a in found.anomalies] == [
        (datetime(2027, 6, 19, 11, tzinfo=UTC), True, True),
        (datetime(2027, 6, 2, 14, tzinfo=UTC), False, False),
    ]
    assert found.anomalies[1].expected == pytest.approx(240, rel=0.04)


def test_a_peak_day_on_a_weekday_is_measured_apart() -> None:
    def with_a_holiday(moment: datetime) -> bool:
        return saturday(moment) or f"{moment:%m-%d}" == "05-31"

    hours = season()
    for n in range(24):
        at = datetime(2027, 5, 31, n, tzinfo=UTC)
        hours[at] = Hour(at=at, delivered=hours[at].delivered * 5)
    ordinary = patterns(hours, since=BEGAN, until=END, peak=saturday)
    assert len(ordinary.anomalies) == 24
    assert patterns(hours, since=BEGAN, until=END, peak=with_a_holiday).anomalies == []


def test_hours_without_anything_count_as_nothing() -> None:
    hours = season()
    gone = datetime(2027, 6, 3, 10, tzinfo=UTC)
    del hours[gone]
    assert [a.at for a in patterns(hours, since=BEGAN, until=END, peak=saturday).anomalies] == [gone]


def test_days_of_the_year_are_whole_days() -> None:
    found = patterns(season(), since=BEGAN + timedelta(hours=5), until=END, peak=saturday)
    assert len(found.year) == WEEKS * 7 - 1
    assert found.year[0].day_of_year == "05-04"
    assert {day.day_of_year for day in found.year if day.peak} >= {"05-08", "06-19"}


_values = st.lists(st.floats(0, 1e6), min_size=LEAST, max_size=30)


@given(_values, st.floats(0, 1e6))
def test_the_score_has_the_sign_of_the_distance(others: list[float], value: float) -> None:
    found = score(value, others)
    middle = sorted(others)[len(others) // 2] if len(others) % 2 else None
    assert found is not None
    if middle is not None:
        assert (found > 0) == (value > middle) or value == middle or abs(found) < 1e-6


@given(st.integers(10, 1_000), st.integers(3, 20))
def test_one_wild_value_does_not_hide_the_next(usual: int, count: int) -> None:
    others = [float(usual)] * (count - 1) + [usual * 1_000.0]
    found = score(usual * 100.0, others)
    assert found is not None
    assert found > SCORE


def test_too_few_are_no_baseline() -> None:
    assert score(1e9, [1.0] * (LEAST - 1)) is None
