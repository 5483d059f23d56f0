"""The calendar knows the kind of every day, in every time zone, also when clocks are changed."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringbearer.calendar import (
    Calendar,
    CalendarConfiguration,
    DatePeak,
    Preset,
    Season,
    WeekdayPeak,
    local_date,
    midnight,
)
from ringbearer.errors import InvalidInput

ZONES = (
    "UTC",
    "Europe/Paris",
    "America/New_York",
    "America/Sao_Paulo",  # clocks leapt at midnight
    "Asia/Kathmandu",  # a quarter of an hour
    "Australia/Lord_Howe",  # changes by half an hour
    "Pacific/Apia",  # left out a whole day
    "Pacific/Kiritimati",
)
zones = st.sampled_from(ZONES)
dates = st.dates(date(2012, 1, 1), date(2035, 12, 31))
moments = st.integers(1_325_376_000, 2_082_758_400).map(lambda second: datetime.fromtimestamp(second, UTC))
presets = st.sampled_from(("wedding", "retail", "none"))


def test_saturday_is_a_wedding_day_where_the_supplier_is() -> None:
    calendar = Calendar()
    friday_evening = datetime(2027, 6, 18, 22, 30, tzinfo=UTC)
    assert calendar.is_peak(friday_evening, "Europe/Paris")
    assert not calendar.is_peak(friday_evening, "UTC")
    assert not calendar.is_peak(friday_evening, "America/New_York")
    assert calendar.is_peak(friday_evening, "Pacific/Auckland")


def test_the_season_multiplies_what_its_saturdays_are() -> None:
    calendar = Calendar()
    assert calendar.day(date(2027, 6, 19)).multiplier == 6.0
    assert calendar.day(date(2027, 5, 8)).multiplier == 4.5
    assert calendar.day(date(2027, 1, 9)).multiplier == 3.0
    assert calendar.day(date(2027, 6, 16)).multiplier == 2.0
    assert not calendar.day(date(2027, 6, 16)).peak
    assert calendar.day(date(2027, 6, 19)).reasons == ("Saturday", "high season")


def test_black_friday_is_found_in_every_year() -> None:
    calendar = Calendar(CalendarConfiguration(preset="retail"))
    for day in (date(2025, 11, 28), date(2026, 11, 27), date(2027, 11, 26), date(2029, 11, 23)):
        assert calendar.day(day).reasons[0] == "Black Friday"
        peaks = calendar.coming(midnight(day - timedelta(days=10), "UTC"), 20, "UTC")
        assert [p.date - day for p in peaks] == [timedelta(days=n) for n in range(-4, 4)]


def test_a_season_over_new_year_holds_both_of_its_parts() -> None:
    season = Season(name="winter", first="12-20", last="01-06")
    held = [day for day in (date(2027, 12, 20), date(2028, 1, 6), date(2028, 1, 7)) if season.holds(day)]
    assert held == [date(2027, 12, 20), date(2028, 1, 6)]


def test_what_the_configuration_adds_counts_beside_its_preset() -> None:
    calendar = Calendar(
        CalendarConfiguration(
            weekdays=(WeekdayPeak(weekday="friday", multiplier=2.0),),
            dates=(
                DatePeak(date=date(2027, 6, 19), multiplier=1, name="a strike"),
                DatePeak(date=date(2027, 6, 21), multiplier=9, name="the fair"),
            ),
            country="GB",
            subdivision="SCT",
        )
    )
    assert calendar.day(date(2027, 6, 18)).peak
    assert not calendar.day(date(2027, 6, 19)).peak
    assert calendar.day(date(2027, 6, 21)).reasons == ("the fair",)
    assert "Saint Andrew's Day" in " ".join(calendar.day(date(2027, 11, 30)).reasons)


@pytest.mark.parametrize(("country", "subdivision"), [("XX", None), ("GB", "XYZ")])
def test_unknown_holidays_are_told_at_once(country: str, subdivision: str | None) -> None:
    with pytest.raises(InvalidInput, match="no holidays are known"):
        Calendar(CalendarConfiguration(country=country, subdivision=subdivision))


@pytest.mark.parametrize("name", ["Europe/Nowhere", "", "../etc/passwd", "Europe", "\0"])
def test_unknown_time_zones_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="is not a time zone"):
        Calendar().is_peak(datetime(2027, 1, 1, tzinfo=UTC), name)


@given(moments, zones)
def test_every_moment_lies_within_its_own_day(moment: datetime, name: str) -> None:
    day = local_date(moment, name)
    assert midnight(day, name) <= moment < midnight(day + timedelta(days=1), name)


@given(dates, zones)
def test_a_day_begins_when_the_one_before_ends(day: date, name: str) -> None:
    """Days have 23 to 25 hours; only where a date was left out is one of them empty."""
    length = midnight(day + timedelta(days=1), name) - midnight(day, name)
    left_out = name == "Pacific/Apia"
    assert left_out or timedelta(hours=23) <= length <= timedelta(hours=25)
    assert length == timedelta() or local_date(midnight(day, name), name) == day


@given(moments, zones, presets, st.integers(0, 400))
def test_the_coming_peaks_are_those_that_the_calendar_would_say_day_by_day(
    moment: datetime, name: str, preset: Preset, days: int
) -> None:
    calendar = Calendar(CalendarConfiguration(preset=preset))
    coming = calendar.coming(moment, days, name)
    first = local_date(moment, name)
    expected = [d for n in range(days) if calendar.day(d := first + timedelta(days=n)).peak]
    assert [peak.date for peak in coming] == expected
    for peak in coming:
        if peak.starts_at < peak.ends_at:
            last = peak.ends_at - timedelta(microseconds=1)
            assert calendar.is_peak(peak.starts_at, name)
            assert calendar.is_peak(last, name)
            assert calendar.multiplier(last, name) == peak.multiplier
    assert preset != "none" or coming == []


@given(dates, presets)
def test_a_peak_is_more_than_the_season_around_it(day: date, preset: Preset) -> None:
    found = Calendar(CalendarConfiguration(preset=preset)).day(day)
    assert found.multiplier >= 1
    assert not found.peak or found.multiplier > 1
