"""Trends: the measured past as charts and heat maps show it; pure functions over the monitor's figures."""

import math
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta, tzinfo

import msgspec

from ringbearer import clock
from ringbearer.calendar import Calendar
from ringbearer.monitor.figures import Figures

HOUR = 3_600 * clock.SECOND
DAY = 24 * HOUR
_LEVELS = 4


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in one span of time; durations in seconds."""

    at: datetime
    delivered: int
    failed: int
    p95: float | None


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A field of a heat map: where it stands, how dark it is (0 to 4), and what it says."""

    column: int
    row: int
    level: int
    count: int
    peak: bool
    label: str
    ahead: bool = False
    """Whether it is still to come."""


class Map(msgspec.Struct, frozen=True, kw_only=True):
    """A heat map; `columns` and `rows` name some of them, by their index."""

    cells: tuple[Cell, ...]
    columns: dict[int, str]
    rows: dict[int, str]
    most: int


def points(series: Mapping[int, Figures], *, since: int, until: int, step: int) -> list[Point]:
    """Every span of a time, also those in which nothing happened."""
    found = []
    for at in range(since // step * step, until, step):
        figures = series.get(at, Figures())
        found.append(
            Point(
                at=clock.to_datetime(at),
                delivered=figures.delivered,
                failed=figures.receiver + figures.ours,
                p95=figures.distribution("reach").p95,
            )
        )
    return found


def by_day(hours: Mapping[int, int], zone: tzinfo) -> dict[date, int]:
    """Counts of each local day, out of those by the hour."""
    days: dict[date, int] = {}
    for at, count in hours.items():
        day = clock.to_datetime(at).astimezone(zone).date()
        days[day] = days.get(day, 0) + count
    return days


def calendar_map(
    days: Mapping[date, int], calendar: Calendar, *, first: date, today: date, last: date
) -> Map:
    """Weeks as columns, Mondays on top; peak days are marked, also those that are still to come."""
    start = first - timedelta(days=first.weekday())
    most = max(days.values(), default=0)
    cells, columns = [], {}
    for offset in range((last - start).days + 1):
        day = start + timedelta(days=offset)
        column, row = divmod(offset, 7)
        if day.day <= 7 and row == 0:
            columns[column] = f"{day:%b}"
        about = calendar.day(day)
        count = days.get(day, 0)
        why = f", {', '.join(about.reasons)}" if about.peak else ""
        cells.append(
            Cell(
                column=column,
                row=row,
                level=_level(count, most),
                count=count,
                peak=about.peak,
                label=f"{day:%a %-d %b %Y}: {count:,}{why}" if day <= today else f"{day:%a %-d %b %Y}{why}",
                ahead=day > today,
            )
        )
    return Map(cells=tuple(cells), columns=columns, rows={0: "Mon", 2: "Wed", 5: "Sat"}, most=most)


def week_map(hours: Mapping[int, int], zone: tzinfo) -> Map:
    """Hours of the day as columns and days of the week as rows: the mean of each hour that was measured."""
    sums: dict[tuple[int, int], list[int]] = {}
    for at, count in hours.items():
        local = clock.to_datetime(at).astimezone(zone)
        sums.setdefault((local.weekday(), local.hour), []).append(count)
    means = {place: sum(counts) / len(counts) for place, counts in sums.items()}
    most = max(means.values(), default=0.0)
    names = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    cells = tuple(
        Cell(
            column=hour,
            row=day,
            level=_level(means.get((day, hour), 0.0), most),
            count=round(means.get((day, hour), 0.0)),
            peak=False,
            label=f"{names[day]} {hour:02d}:00: {means.get((day, hour), 0.0):,.0f} an hour",
        )
        for day in range(7)
        for hour in range(24)
    )
    columns = {hour: f"{hour:02d}" for hour in range(0, 24, 3)}
    return Map(cells=cells, columns=columns, rows=dict(enumerate(names)), most=round(most))


def together(groups: Iterable[Figures]) -> Figures:
    """The figures of all groups as one."""
    total = Figures()
    for figures in groups:
        total.merge(figures)
    return total


def local_day(now: int, zone: tzinfo) -> date:
    """The day that it is there."""
    return clock.to_datetime(now).astimezone(zone).date()


def _level(count: float, most: float) -> int:
    """The square root spreads what is small, so that an ordinary day is seen beside a peak."""
    return 0 if count <= 0 else max(1, math.ceil(_LEVELS * math.sqrt(count / most)))
