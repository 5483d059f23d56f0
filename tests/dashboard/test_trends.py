"""The measured past as charts and heat maps show it."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from ringbearer import clock
from ringbearer.calendar import Calendar
from ringbearer.dashboard import trends
from ringbearer.monitor.figures import Figures

SATURDAY = clock.from_datetime(datetime(2027, 6, 19, 12, tzinfo=UTC))


def test_spans_without_anything_are_there_too() -> None:
    step = trends.HOUR
    series = {SATURDAY: Figures(attempts=5, delivered=3, receiver=1, ours=1)}
    found = trends.points(series, since=SATURDAY - step - 1, until=SATURDAY + 1, step=step)
    assert [(p.delivered, p.failed, p.p95) for p in found] == [(0, 0, None), (0, 0, None), (3, 2, None)]
    assert found[-1].at == clock.to_datetime(SATURDAY)


def test_days_are_those_of_the_place() -> None:
    late = clock.from_datetime(datetime(2027, 6, 19, 23, tzinfo=UTC))
    series = {SATURDAY: 5, late: 2}
    assert trends.by_day(series, UTC) == {date(2027, 6, 19): 7}
    vienna = ZoneInfo("Europe/Vienna")
    assert trends.by_day(series, vienna) == {date(2027, 6, 19): 5, date(2027, 6, 20): 2}


def test_the_calendar_has_every_day_once_and_marks_peaks() -> None:
    today = date(2027, 6, 19)
    first, last = today - timedelta(days=30), today + timedelta(days=10)
    days = {today: 100, today - timedelta(days=1): 1}
    made = trends.calendar_map(days, Calendar(), first=first, today=today, last=last)
    assert len({(cell.column, cell.row) for cell in made.cells}) == len(made.cells)
    assert made.cells[-1].label.startswith("Tue 29 Jun 2027")
    by_label = {cell.label.split(":")[0]: cell for cell in made.cells}
    assert by_label["Sat 19 Jun 2027"].peak
    assert (by_label["Sat 19 Jun 2027"].level, by_label["Sat 19 Jun 2027"].row) == (4, 5)
    assert by_label["Fri 18 Jun 2027"].level == 1
    assert by_label["Thu 17 Jun 2027"].level == 0
    assert [cell.ahead for cell in made.cells].count(True) == 10


def test_the_week_shows_the_mean_of_what_was_measured() -> None:
    week = 7 * trends.DAY
    series = {SATURDAY: 10, SATURDAY - week: 20}
    made = trends.week_map(series, UTC)
    assert len(made.cells) == 168
    (cell,) = [cell for cell in made.cells if cell.count]
    assert (cell.row, cell.column, cell.count, cell.level) == (5, 12, 15, 4)
    assert trends.week_map({}, UTC).most == 0
