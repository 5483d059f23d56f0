"""A season plan says what changes on its days, in each of its time zones, and that it changes back."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringbearer.calendar import CalendarConfiguration
from ringbearer.errors import InvalidInput
from ringbearer.season import Season, SeasonScalingConfig, SeasonState, changes, check

PLAN = SeasonScalingConfig(
    name="summer",
    starts_on=date(2027, 5, 1),
    ends_on=date(2027, 10, 31),
    expected_multiplier=2.0,
    timezones=("Europe/Paris", "America/New_York"),
    worker_floor=2,
    peak_worker_floor=6,
    tier_reserves={"enterprise": 2.0},
    warm_at=("05:00", "09:30"),
)


moments = st.integers(1_767_225_600, 1_861_920_000).map(lambda second: datetime.fromtimestamp(second, UTC))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_without_a_plan_nothing_is_asked_for() -> None:
    assert Season().state(at("2027-06-19T12:00")) == SeasonState()
    assert Season().next_warming(at("2027-06-19T12:00")) is None


def test_a_peak_begins_at_midnight_of_the_first_zone_and_ends_at_that_of_the_last() -> None:
    season = Season(PLAN)
    phases = {
        text: season.state(at(text)).phase
        for text in (
            "2027-06-18T21:59",
            "2027-06-18T22:00",
            "2027-06-20T03:59",
            "2027-06-20T04:00",
            "2027-04-24T12:00",
            "2027-11-06T12:00",
        )
    }
    assert list(phases.values()) == ["season", "peak", "peak", "season", "ordinary", "ordinary"]


def test_a_peak_day_asks_for_other_shares_and_more_workers() -> None:
    state = Season(PLAN).state(at("2027-06-19T12:00"))
    assert (state.worker_floor, state.weights, state.multiplier) == (6, (16, 4, 2, 1), 12.0)
    assert state.tier_reserves == {"enterprise": 2.0}
    assert "Saturday" in state.reason


@pytest.mark.parametrize(
    ("plan", "pointer"),
    [
        (SeasonScalingConfig(starts_on=date(2027, 5, 2), ends_on=date(2027, 5, 1)), "/ends_on"),
        (SeasonScalingConfig(timezones=()), "/timezones"),
        (SeasonScalingConfig(timezones=("UTC", "Mars/Base")), "/timezones/1"),
        (SeasonScalingConfig(calendar=CalendarConfiguration(country="XX")), "/calendar/country"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(plan: SeasonScalingConfig, pointer: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check(plan)
    assert [where for where, _ in caught.value.problems] == [pointer]


def test_a_rehearsal_tells_every_change_at_its_hour_and_when_caches_are_warmed() -> None:
    hours = Season(PLAN).rehearse(date(2027, 6, 19))
    assert [hour.local[-5:] for hour in hours] == [f"{n:02d}:00" for n in range(24)]
    assert hours[0].changes[0] == "phase: season → peak"
    assert all(not hour.changes for hour in hours[1:])
    assert {hour.local[-5:]: hour.warm for hour in hours if hour.warm}["05:00"] == ("05:00",)
    sunday = Season(PLAN).rehearse(date(2027, 6, 20))
    assert [hour.local[-5:] for hour in sunday if hour.changes] == ["06:00"]  # midnight in New York
    assert sunday[6].changes[0] == "phase: peak → season"


@pytest.mark.parametrize(("day", "hours"), [(date(2027, 3, 28), 23), (date(2027, 10, 31), 25)])
def test_a_rehearsed_day_has_the_hours_that_it_has(day: date, hours: int) -> None:
    rehearsed = Season(SeasonScalingConfig(timezones=("Europe/Paris",))).rehearse(day)
    assert len(rehearsed) == hours
    assert {hour.local[:10] for hour in rehearsed} == {day.isoformat()}


def test_without_a_plan_a_rehearsal_shows_that_nothing_happens() -> None:
    hours = Season().rehearse(date(2027, 6, 19))
    assert len(hours) == 24
    assert all(hour.state == SeasonState() and not hour.changes and not hour.warm for hour in hours)


@given(moments)
def test_the_next_warming_is_ahead_and_on_a_peak_day(moment: datetime) -> None:
    season = Season(PLAN)
    warming = season.next_warming(moment)
    if warming is not None:
        assert moment < warming <= moment + timedelta(days=9)
        assert season.state(warming).phase == "peak"


@given(moments)
def test_what_changes_is_told_and_nothing_else(moment: datetime) -> None:
    season = Season(PLAN)
    here, later = season.state(moment), season.state(moment + timedelta(days=1))
    assert changes(here, here) == []
    assert bool(changes(here, later)) == ((here.phase, here.multiplier) != (later.phase, later.multiplier))
