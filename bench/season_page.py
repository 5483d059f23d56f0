"""The rehearsal as a page: one file without scripts or foreign parts, light or dark, with charts as inline SVG."""

import html
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise

import msgspec

from bench.season_plan import DAYS, SPIKE_DAY, is_saturday
from bench.season_report import Day, Season, duration, rows

_WIDTH, _HEIGHT = 920, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 8, 14, 26
_STYLE = """
:root { color-scheme: light dark; --paper: #f7f5f1; --sheet: #fff; --ink: #23211e; --soft: #615b52; --line: #e2ddd3;
  --lead: #1d6b63; --gold: #b98a2f; --saturday: #b98a2f1c; --bar: #9fc3bd }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --sheet: #1c2024; --ink: #ebe7df; --soft: #a8a296;
  --line: #2e343a; --lead: #6cc4b6; --gold: #d8ab54; --saturday: #d8ab5420; --bar: #3c6660 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 3rem }
h1 { font-size: 1.7rem; margin: 0 } h2 { font-size: 1.05rem; margin: 0 } p { margin: .3rem 0 0; color: var(--soft) }
section { background: var(--sheet); border: 1px solid var(--line); border-radius: .75rem; padding: 1rem 1.25rem;
  margin-top: 1.25rem }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1rem; margin-top: 1.25rem }
.tiles div { background: var(--sheet); border: 1px solid var(--line); border-radius: .75rem; padding: .8rem 1rem }
.tiles b { display: block; font-size: 1.55rem; line-height: 1.25; font-variant-numeric: tabular-nums }
.tiles span { color: var(--soft); font-size: .85rem }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; margin-top: .5rem }
th, td { padding: .35rem .75rem .35rem 0; text-align: right; border-top: 1px solid var(--line);
  font-variant-numeric: tabular-nums } thead th { border: 0; color: var(--soft); font-weight: 500; font-size: .85rem }
th[scope=row] { text-align: left; font-weight: 400 } td:last-child { font-weight: 600 }
svg { display: block; width: 100%; height: auto; margin-top: .5rem }
text { font: 12px system-ui, sans-serif; fill: var(--soft) } .grid { stroke: var(--line) }
.saturday { fill: var(--saturday) } .a { stroke: var(--lead) } .b { stroke: var(--gold) }
polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round } .area { fill: var(--lead); opacity: .12 }
.spike { stroke: var(--gold); stroke-dasharray: 3 3 } .bar { fill: var(--bar) } .bar.of-saturday { fill: var(--lead) }
.key { display: inline-block; width: .9rem; height: .2rem; border-radius: 1px; vertical-align: middle; margin: 0 .3rem 0 .8rem }
.key.a { background: var(--lead) } .key.b { background: var(--gold) }
footer { margin-top: 1.25rem; color: var(--soft); font-size: .85rem }
"""

_Place = Callable[[float, float], tuple[float, float]]


class _Line(msgspec.Struct, frozen=True):
    """One line of a chart; moments in seconds since the month began."""

    name: str
    moments: Sequence[float]
    values: Sequence[float]


def page(season: Season, backend: str, facts: dict[str, object], stamp: datetime) -> str:
    """The whole page."""
    samples = season.samples
    moments = [sample.at for sample in samples]
    rates = [(b.arrived - a.arrived) / max(0.01, b.at - a.at) for a, b in pairwise(samples)]
    charts = [
        _chart(
            season,
            "Deliveries per second",
            "What receivers answered; shaded: Saturdays; dashed: the hour with ten times as much.",
            [_Line("", moments[1:], rates)],
        ),
        _chart(
            season,
            "Queued",
            "Accepted, and not yet delivered.",
            [_Line("", moments, [float(s.queued) for s in samples])],
        ),
        _chart(
            season,
            "Workers",
            "Processes that deliver, and how many the scaler wanted.",
            [
                _Line("running", moments, [float(s.workers) for s in samples]),
                _Line("wanted", moments, [float(s.wanted) for s in samples]),
            ],
        ),
        _chart(
            season,
            "In flight",
            "Deliveries that workers held.",
            [_Line("", moments, [float(s.held) for s in samples])],
        ),
        _bars(season.days),
        _chart(
            season,
            "Memory",
            "Of the largest process, in MB.",
            [_Line("", moments, [s.memory / 1e6 for s in samples])],
        ),
    ]
    machine = ", ".join(f"{facts[name]}" for name in ("processor", "system") if name in facts)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>A wedding season, rehearsed</title><style>{_STYLE}</style>
<main>
<h1>A wedding season, rehearsed</h1>
<p>30 days of a season in {season.seconds:,.0f} seconds, through the real system with {html.escape(backend)} on
{html.escape(str(facts.get("cores", "?")))} cores. A day of the month took {season.seconds_a_day:.1f} seconds.</p>
<div class="tiles">{"".join(_tile(*tile) for tile in _tiles(season))}</div>
<section><h2>Their month, and the same month here</h2>
<div class="scroll"><table><thead><tr><th></th><th scope="col">their report</th><th scope="col">this rehearsal</th></tr></thead>
<tbody>{"".join(_row(*row) for row in rows(season))}</tbody></table></div></section>
{"".join(charts)}
<footer>{stamp:%-d %B %Y, %H:%M} UTC; {html.escape(machine)}; Python {html.escape(str(facts.get("python", "?")))};
load before the start {html.escape(f"{facts.get('load_average', 0):.2f}")}. The load generator and the receivers ran on
the same machine. By <code>make season</code>.</footer>
</main></html>
"""


def _tiles(season: Season) -> list[tuple[str, str]]:
    lost = season.published - season.arrived
    return [
        (f"{season.arrived:,}", "deliveries to 2,847 suppliers" if season.whole else "deliveries"),
        (f"{season.rate:,.0f}/s", "on average, until the last was delivered"),
        (duration(season.wedding_p95), "P95 of wedding-day events on Saturdays"),
        ("none" if lost <= 0 else f"{lost:,}", "published, and not delivered"),
    ]


def _tile(value: str, what: str) -> str:
    return f"<div><b>{html.escape(value)}</b><span>{html.escape(what)}</span></div>"


def _row(name: str, theirs: str, ours: str) -> str:
    return f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(theirs)}</td><td>{html.escape(ours)}</td></tr>'


def nice(most: float) -> float:
    """The least of 1, 2, 2.5 and 5 times a power of ten, and ten times that, that is not less; 1 for nothing."""
    if most <= 0:
        return 1.0
    power = 10.0 ** len(f"{int(most)}") / 10 if most >= 1 else 10.0 ** -len(f"{int(1 / most)}")
    return next(
        step * power for step in (1.0, 2.0, 2.5, 5.0, 10.0, 20.0) if step * power >= most * (1 - 1e-9)
    )


def _placing(most_x: float, most_y: float) -> _Place:
    def place(x: float, y: float) -> tuple[float, float]:
        right = _LEFT + (_WIDTH - _LEFT - _RIGHT) * x / (most_x or 1.0)
        return right, _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * y / (most_y or 1.0)

    return place


def _framed(
    title: str, told: str, place: _Place, most: float, unit: str, inside: str, names: Sequence[str]
) -> str:
    """A sheet with its chart: lines at nothing, half and all of it, what is drawn, and a key when there are several."""
    lines = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:,.6g}{unit}</text>'
        for value in (0.0, most / 2, most)
        for _, y in [place(0.0, value)]
    )
    key = "".join(
        f'<span class="key {"ab"[number]}"></span>{html.escape(name)}'
        for number, name in enumerate(names)
        if name
    )
    return (
        f"<section><h2>{html.escape(title)}</h2><p>{html.escape(told)}{key}</p>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">{lines}{inside}</svg></section>'
    )


def _chart(season: Season, title: str, told: str, lines: Sequence[_Line]) -> str:
    most_x = max((x for line in lines for x in line.moments), default=0.0)
    most_y = nice(max((y for line in lines for y in line.values), default=0.0))
    place = _placing(most_x, most_y)
    drawn = _days(season, place)
    bottom = place(0.0, 0.0)[1]
    for number, line in enumerate(lines):
        points = [place(x, y) for x, y in zip(line.moments, line.values, strict=True)]
        told_points = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        if points and len(lines) == 1:
            first, last = points[0][0], points[-1][0]
            drawn += (
                f'<polygon class="area" points="{first:.1f},{bottom} {told_points} {last:.1f},{bottom}"/>'
            )
        drawn += f'<polyline class="{"ab"[number]}" points="{told_points}"/>'
    return _framed(title, told, place, most_y, "", drawn, [line.name for line in lines])


def _days(season: Season, place: _Place) -> str:
    """Saturdays as bands, the spike as a line, and every fifth day's number below."""
    top, bottom = _TOP, _HEIGHT - _BOTTOM
    drawn = ""
    for day in season.days:
        left, _ = place(day.begins, 0.0)
        right, _ = place(day.begins + season.seconds_a_day, 0.0)
        if is_saturday(day.day):
            drawn += f'<rect class="saturday" x="{left:.1f}" y="{top}" width="{right - left:.1f}" height="{bottom - top}"/>'
        if day.day == SPIKE_DAY and season.spike_after is not None:
            x, _ = place(season.spike_after, 0.0)
            drawn += f'<line class="spike" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
        if day.day % 5 == 0 or day.day == DAYS - 1:
            drawn += f'<text x="{(left + right) / 2:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">day {day.day + 1}</text>'
    return drawn


def _bars(days: Sequence[Day]) -> str:
    """P95 of each day; in seconds when one of them took so long."""
    longest = max((day.p95 for day in days), default=0.0)
    scale, unit = (1.0, " s") if longest >= 1.0 else (1e3, " ms")
    most = nice(longest * scale)
    place = _placing(float(max(1, len(days))), most)
    drawn = ""
    for day in days:
        left, top = place(day.day + 0.1, day.p95 * scale)
        right, bottom = place(day.day + 0.9, 0.0)
        kind = "bar of-saturday" if is_saturday(day.day) else "bar"
        drawn += (
            f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" rx="2">'
            f"<title>day {day.day + 1}: {duration(day.p95)}, {day.deliveries:,} deliveries</title></rect>"
        )
        if day.day % 5 == 0 or day.day == len(days) - 1:
            drawn += f'<text x="{(left + right) / 2:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">day {day.day + 1}</text>'
    told = "P95 from acceptance to the first byte sent, of all deliveries of the day; Saturdays dark."
    return _framed("How long they waited", told, place, most, unit, drawn, [])
