"""The calendar of peak days: weekdays, seasons, holidays and single dates, each day with a multiplier of load.

A day is a day of a time zone: it begins at local midnight, and may have 23 or 25 hours.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

from ringbearer.errors import InvalidInput

Preset = Literal["wedding", "retail", "none"]
Multiplier = Annotated[float, Meta(gt=0, le=1_000)]
MonthDay = Annotated[str, Meta(pattern=r"^(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$")]
MAX_COMING_DAYS = 1_500

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAY = timedelta(days=1)


class WeekdayPeak(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A day of the week on which more happens than on the others."""

    weekday: Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
    multiplier: Multiplier = 3.0


class Season(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of every year, both days within it; one that ends before it starts goes over New Year."""

    name: str
    first: MonthDay
    last: MonthDay
    multiplier: Multiplier = 1.0

    def holds(self, day: date) -> bool:
        """Whether that day is within it."""
        here = f"{day:%m-%d}"
        if self.first <= self.last:
            return self.first <= here <= self.last
        return here >= self.first or here <= self.last


class DatePeak(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A single day. Its multiplier stands instead of all others; with 1 it is an ordinary day."""

    date: date
    multiplier: Multiplier
    name: str = "planned"


class CalendarConfiguration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What makes a day a peak. What a preset says is kept, and what stands here is added to it."""

    preset: Preset = "wedding"
    weekdays: tuple[WeekdayPeak, ...] = ()
    seasons: tuple[Season, ...] = ()
    dates: tuple[DatePeak, ...] = ()
    country: str | None = None
    """Its public holidays are peaks: a code of ISO 3166-1, as GB."""
    subdivision: str | None = None
    """A part of the country with holidays of its own, by its code of ISO 3166-2 without the country, as SCT."""
    holiday_multiplier: Multiplier = 1.5


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """A day of the calendar: how much more is to be expected than on an ordinary day, and why."""

    date: date
    multiplier: float
    peak: bool
    reasons: tuple[str, ...] = ()


class PeakDay(Day, frozen=True, kw_only=True):
    """A peak day of a time zone, with the moments at which it begins and ends, in UTC."""

    timezone: str
    starts_at: datetime
    ends_at: datetime


_PRESETS: dict[Preset, tuple[tuple[WeekdayPeak, ...], tuple[Season, ...]]] = {
    "wedding": (
        (WeekdayPeak(weekday="saturday", multiplier=3.0),),
        (
            Season(name="wedding season", first="05-01", last="10-31", multiplier=1.5),
            Season(name="high season", first="06-01", last="09-30", multiplier=2.0),
        ),
    ),
    "retail": ((), (Season(name="before Christmas", first="11-15", last="12-23", multiplier=1.5),)),
    "none": ((), ()),
}
_RETAIL_WEEK = {-4: 2.0, -3: 2.0, -2: 2.5, -1: 4.0, 0: 8.0, 1: 4.0, 2: 4.0, 3: 6.0}
"""Multipliers of Black Friday's week by the distance in days: from its Monday until the Monday after."""


class Calendar:
    """Says of any moment what kind of day it is there. Raises InvalidInput for what does not exist."""

    def __init__(self, configuration: CalendarConfiguration | None = None) -> None:
        self.configuration = configuration or CalendarConfiguration()
        weekdays, seasons = _PRESETS[self.configuration.preset]
        every = weekdays + self.configuration.weekdays
        self._weekdays = {_WEEKDAYS.index(peak.weekday): peak for peak in every}  # the last word counts
        self._seasons = seasons + self.configuration.seasons
        self._dates = {peak.date: peak for peak in self.configuration.dates}
        self._holidays: dict[int, dict[date, str]] = {}
        if self.configuration.country is not None:
            self._holidays_of(2027)  # so that an unknown country is told at once

    def __repr__(self) -> str:
        return f"<Calendar {self.configuration.preset}>"

    def day(self, day: date) -> Day:
        """What is to be expected of a day."""
        planned = self._dates.get(day)
        if planned is not None:
            peak = planned.multiplier > 1
            return Day(date=day, multiplier=planned.multiplier, peak=peak, reasons=(planned.name,))
        seasons = [season for season in self._seasons if season.holds(day)]
        special = list(self._special(day))
        most = max(seasons, key=lambda season: season.multiplier, default=None)
        multiplier = (most.multiplier if most else 1.0) * max((m for _, m in special), default=1.0)
        reasons = tuple(name for name, _ in special) + ((most.name,) if most else ())
        return Day(date=day, multiplier=multiplier, peak=any(m > 1 for _, m in special), reasons=reasons)

    def is_peak(self, moment: datetime, timezone: str) -> bool:
        """Whether it is a peak day there; `moment` knows its zone."""
        return self.day(local_date(moment, timezone)).peak

    def multiplier(self, moment: datetime, timezone: str) -> float:
        """How many times the load of an ordinary day is to be expected there."""
        return self.day(local_date(moment, timezone)).multiplier

    def coming(self, moment: datetime, days: int, timezone: str) -> list[PeakDay]:
        """The peak days among that many days, the one of `moment` being the first."""
        if not 0 <= days <= MAX_COMING_DAYS:
            raise InvalidInput(f"days must be between 0 and {MAX_COMING_DAYS}, got {days}")
        first = local_date(moment, timezone)
        found = []
        for offset in range(days):
            day = self.day(first + offset * _DAY)
            if day.peak:
                found.append(
                    PeakDay(
                        date=day.date,
                        multiplier=day.multiplier,
                        peak=True,
                        reasons=day.reasons,
                        timezone=timezone,
                        starts_at=midnight(day.date, timezone),
                        ends_at=midnight(day.date + _DAY, timezone),
                    )
                )
        return found

    def _special(self, day: date) -> Iterator[tuple[str, float]]:
        """What lifts a day above its season."""
        weekday = self._weekdays.get(day.weekday())
        if weekday is not None:
            yield weekday.weekday.capitalize(), weekday.multiplier
        if self.configuration.preset == "retail":
            distance = (day - _black_friday(day.year)).days
            if distance in _RETAIL_WEEK:
                yield "Black Friday" if distance == 0 else "Black Friday's week", _RETAIL_WEEK[distance]
        if self.configuration.country is not None:
            holiday = self._holidays_of(day.year).get(day)
            if holiday is not None:
                yield holiday, self.configuration.holiday_multiplier

    def _holidays_of(self, year: int) -> dict[date, str]:
        known = self._holidays.get(year)
        if known is None:
            country = self.configuration.country or ""
            known = self._holidays[year] = _holidays(country, self.configuration.subdivision, year)
        return known


def zone(name: str) -> ZoneInfo:
    """The time zone; raises InvalidInput when there is none of that name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a directory's name is an OSError
        raise InvalidInput(f"{name!r} is not a time zone; expected a name such as Europe/Paris") from None


def local_date(moment: datetime, timezone: str) -> date:
    """The date there at a moment that knows its zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone")
    return moment.astimezone(zone(timezone)).date()


def midnight(day: date, timezone: str) -> datetime:
    """When a day begins there, in UTC; where clocks leap over midnight, the first moment after the leap."""
    return datetime.combine(day, time(), tzinfo=zone(timezone)).astimezone(UTC)


@lru_cache(16)
def _black_friday(year: int) -> date:
    """The day after the fourth Thursday of November."""
    first = date(year, 11, 1)
    return first + timedelta(days=(3 - first.weekday()) % 7 + 21 + 1)


def _holidays(country: str, subdivision: str | None, year: int) -> dict[date, str]:
    import holidays  # takes a while to import, and most calendars name no country

    try:
        found = holidays.country_holidays(country, subdiv=subdivision, years=year)
    except NotImplementedError:
        raise InvalidInput(
            f"no holidays are known of {country}{f'-{subdivision}' if subdivision else ''}; "
            "expected a country's code such as GB, and a subdivision's such as SCT"
        ) from None
    return dict(found)
