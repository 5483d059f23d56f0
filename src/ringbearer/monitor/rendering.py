"""The report for people and spreadsheets: a page with charts that reads well on paper too, and comma-separated lines."""

import csv
import io
from collections.abc import Sequence
from functools import cache

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from ringbearer import __version__
from ringbearer.monitor.report import Line, Report

_WIDTH, _HEIGHT = 720, 160
_FIELDS = [field.name for field in msgspec.structs.fields(Line) if field.name != "peak"]


def as_csv(report: Report) -> str:
    """One line for the total, each day and each supplier; `kind` says which."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["month", "kind", *_FIELDS])
    for kind, lines in (("total", [report.total]), ("day", report.days), ("supplier", report.suppliers)):
        for line in lines:
            values = (getattr(line, field) for field in _FIELDS)
            writer.writerow([report.month, kind, *(_cell(value) for value in values)])
    return out.getvalue()


def as_html(report: Report) -> str:
    """One page without any other file: tables, and charts as inline SVG."""
    return _template().render(
        report=report,
        version=__version__,
        charts=[
            _bars("Deliveries a day", report.days, [line.delivered for line in report.days], "{:,.0f}"),
            _bars(
                "95 of 100 first attempts went out within (s)",
                report.days,
                [line.reach_p95 or 0.0 for line in report.days],
                "{:.3g}",
            ),
            _bars(
                "Attempts that failed, whoever's fault it was",
                report.days,
                [line.failed_by_receiver + line.failed_by_us for line in report.days],
                "{:,.0f}",
            ),
        ],
    )


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str) and value[:1] in "=+-@":
        return "'" + value  # else a spreadsheet would take it for a formula
    return "" if value is None else value


class _Bar(msgspec.Struct, frozen=True):
    x: float
    y: float
    width: float
    height: float
    title: str
    peak: bool


class _Chart(msgspec.Struct, frozen=True):
    title: str
    top: str
    bars: list[_Bar]
    first: str
    last: str
    width: int = _WIDTH
    height: int = _HEIGHT


def _bars(title: str, days: Sequence[Line], values: Sequence[float], form: str) -> _Chart:
    most = max(values, default=0.0)
    step = _WIDTH / max(1, len(days))
    bars = []
    for n, (day, value) in enumerate(zip(days, values, strict=True)):
        height = _HEIGHT * value / most if most else 0.0
        bars.append(
            _Bar(
                x=round(n * step + step * 0.1, 1),
                y=round(_HEIGHT - height, 1),
                width=round(step * 0.8, 1),
                height=round(height, 1),
                title=f"{day.key}: {form.format(value)}{' (peak day)' if day.peak else ''}",
                peak=day.peak,
            )
        )
    return _Chart(
        title=title,
        top=form.format(most),
        bars=bars,
        first=days[0].key if days else "",
        last=days[-1].key if days else "",
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.3f} %"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("ringbearer.monitor"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["share"] = _share
    environment.filters["seconds"] = _seconds
    return environment.get_template("report.html")
