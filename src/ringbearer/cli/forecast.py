"""The command `forecast`: the coming days as bars in the terminal, with the error of the last weeks."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, tzinfo
from itertools import groupby
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from ringbearer.calendar import zone
from ringbearer.cli import output
from ringbearer.cli.client import DEFAULT_CONNECTION, Connection, decode, path
from ringbearer.cli.options import Json, examples
from ringbearer.domain.times import Moment

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_WIDTH = 30

app = App(
    name="forecast",
    help="What is to come: deliveries by day and hour, and the workers they ask for.",
    help_epilogue=examples("ringbearer forecast --days 14", "ringbearer forecast --days 3 --json"),
    default_parameter=Parameter(negative=()),
)


class Hour(msgspec.Struct):
    """What is expected of an hour, and the workers that it asks for."""

    at: Moment
    expected: float
    upper: float
    workers: int


class _Answer(msgspec.Struct):
    method: str
    place: str
    history_hours: int
    error: float | None
    safety: float
    mode: str
    reason: str
    hours: list[Hour]


@app.default
def forecast(
    *,
    days: Annotated[int, Parameter(help="Days to come, at most 60.")] = 14,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Draw the deliveries that are expected in the coming days, by the clock of the season plan's first time zone."""
    with connection.open() as client:
        answer = client.get(path("forecast"), {"days": str(days)})
    if json:
        output.print_json(answer)
        return
    found = decode(answer, _Answer)
    output.print_table(
        ("day", "deliveries", "", "by hour", "workers"), list(rows(found.hours, zone(found.place)))
    )
    output.note(f"{found.reason}; days and hours are those of {found.place}")


def rows(hours: Sequence[Hour], place: tzinfo) -> Iterable[tuple[str, str, str, str, str]]:
    """A row for each day: its name, deliveries, a bar, its hours as a line, and the most workers."""
    grouped = [(day, list(of_day)) for day, of_day in groupby(hours, key=lambda hour: _day(hour.at, place))]
    most = max((sum(hour.expected for hour in of_day) for _, of_day in grouped), default=0.0)
    highest = max((hour.expected for hour in hours), default=0.0)
    for day, of_day in grouped:
        total = sum(hour.expected for hour in of_day)
        missing = of_day[0].at.astimezone(place).hour
        line = " " * missing + "".join(_level(hour.expected, highest) for hour in of_day)
        yield (
            f"{day:%a %d %b}",
            f"{total:,.0f}",
            "█" * (round(_WIDTH * total / most) if most else 0),
            line,
            str(max(hour.workers for hour in of_day)),
        )


def _day(moment: datetime, place: tzinfo) -> date:
    return moment.astimezone(place).date()


def _level(value: float, highest: float) -> str:
    return _EIGHTHS[min(8, round(8 * value / highest))] if highest else _EIGHTHS[0]
