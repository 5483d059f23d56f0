"""What the rehearsal showed: their figures beside ours, as a table, as JSON, and as a page with charts."""

import html
import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import msgspec
from rich.table import Table

from bench.report import RESULTS
from bench.season_plan import is_saturday

_SUM = re.compile(r"^ringbearer_accept_to_send_seconds_sum (\S+)$", re.MULTILINE)
_COUNT = re.compile(r"^ringbearer_accept_to_send_seconds_count (\S+)$", re.MULTILINE)
_CACHE = re.compile(r"^ringbearer_cache_requests_total\{([^}]*)\} (\S+)$", re.MULTILINE)
_WIDTH, _HEIGHT, _PAD = 860, 160, 46


class Sample(msgspec.Struct, frozen=True):
    """How things stood at a moment, in seconds since the month began."""

    at: float
    arrived: int
    queued: int
    held: int
    utilisation: float
    workers: int
    wanted: int
    memory: float


class Day(msgspec.Struct, frozen=True):
    """One day of the month: deliveries whose first byte left in it, and how long after their acceptance."""

    day: int
    deliveries: int
    p95: float
    p99: float


class Season(msgspec.Struct, frozen=True, kw_only=True):
    """The figures. Durations in seconds, memory in bytes."""

    published: int
    arrived: int
    bad: int
    seconds: float
    rate: float
    average: float
    p95: float
    p99: float
    saturday_p95: float
    cache_hits: float
    scaled_up: int
    scaled_down: int
    reaction: float | None
    """From the spike's first event to the decision for more workers; None when there was none to be made."""
    most_workers: int
    peak_in_flight: int
    memory: float
    utilisation: float
    days: list[Day]
    samples: list[Sample]


def minus(after: Counter[float], before: Counter[float]) -> Counter[float]:
    """What a cumulated histogram gained."""
    return Counter({bound: count - before.get(bound, 0) for bound, count in after.items()})


def percentile(cumulated: Counter[float], share: float) -> float:
    """The value below which that share lies, by a straight line within its bucket; 0 of nothing."""
    bounds = sorted(cumulated)
    total = cumulated[bounds[-1]] if bounds else 0
    if not total:
        return 0.0
    wanted, low, below = share * total, 0.0, 0
    for bound in bounds:
        count = cumulated[bound]
        if count >= wanted:
            if bound == float("inf"):
                return low
            return low + (bound - low) * (wanted - below) / max(1, count - below)
        low, below = bound, count
    return low


def summarise(
    *,
    days: Sequence[tuple[int, Counter[float]]],
    whole: Counter[float],
    published: int,
    bad: int,
    arrived: int,
    seconds: float,
    samples: list[Sample],
    decisions: Sequence[tuple[float, int]],
    spike_at: float | None,
    metrics: str,
) -> Season:
    """The figures of what was seen; `decisions` are moments and numbers of workers, oldest first."""
    saturdays: Counter[float] = Counter()
    for day, histogram in days:
        if is_saturday(day):
            saturdays.update(histogram)
    changes = [(at, number - before) for (_, before), (at, number) in pairwise(decisions)]
    reactions = [
        at - spike_at for at, by in changes if spike_at is not None and by > 0 and 0 <= at - spike_at < 10
    ]
    total, count = (
        float(found[1]) if found else 0.0 for found in (_SUM.search(metrics), _COUNT.search(metrics))
    )
    busy = [sample.utilisation for sample in samples if sample.held]
    return Season(
        published=published,
        arrived=arrived,
        bad=bad,
        seconds=seconds,
        rate=arrived / seconds,
        average=total / count if count else 0.0,
        p95=percentile(whole, 0.95),
        p99=percentile(whole, 0.99),
        saturday_p95=percentile(saturdays, 0.95),
        cache_hits=_cache_hits(metrics),
        scaled_up=sum(by > 0 for _, by in changes),
        scaled_down=sum(by < 0 for _, by in changes),
        reaction=min(reactions, default=None),
        most_workers=max((sample.workers for sample in samples), default=0),
        peak_in_flight=max((sample.held for sample in samples), default=0),
        memory=max((sample.memory for sample in samples), default=0.0),
        utilisation=sum(busy) / len(busy) if busy else 0.0,
        days=[
            Day(
                day,
                max(histogram.values(), default=0),
                percentile(histogram, 0.95),
                percentile(histogram, 0.99),
            )
            for day, histogram in days
        ],
        samples=samples,
    )


def _cache_hits(metrics: str) -> float:
    """Of the look-ups in memory, the share that found something."""
    counted: Counter[str] = Counter()
    for labels, value in _CACHE.findall(metrics):
        if 'tier="l1"' in labels:
            counted["hit" if 'result="hit"' in labels else "miss"] += int(float(value))
    return counted["hit"] / max(1, counted.total())


def rows(season: Season) -> list[tuple[str, str, str]]:
    """What, theirs, ours."""
    reaction = (
        "no more workers were needed, or to be had" if season.reaction is None else f"{season.reaction:.1f} s"
    )
    return [
        ("deliveries", "1,247,832", f"{season.arrived:,}"),
        ("in", "30 days", f"{season.seconds:,.0f} s ({season.rate:,.0f}/s)"),
        ("average", "12.3 s", _duration(season.average)),
        ("P95", "28.7 s", _duration(season.p95)),
        ("P99", "42.1 s", _duration(season.p99)),
        ("P95 on Saturdays", "8.7 s", _duration(season.saturday_p95)),
        ("delivered", "99.94 %", f"{100 * min(1.0, season.arrived / max(1, season.published)):.2f} %"),
        ("found in the cache", "92.4 %", f"{100 * season.cache_hits:.2f} %"),
        (
            "scaled up, down",
            "47, 52",
            f"{season.scaled_up}, {season.scaled_down} (at most {season.most_workers} workers)",
        ),
        ("reaction to the spike", "45.2 s", reaction),
        ("most in flight", "2,847", f"{season.peak_in_flight:,}"),
        ("memory", "847 MB", f"{season.memory / 1e6:,.0f} MB (the largest process)"),
        ("utilisation", "68.3 %", f"{100 * season.utilisation:.1f} % of the slots"),
    ]


def table(season: Season, *, quick: bool) -> Table:
    """Theirs beside ours."""
    found = Table(title="30 days of a wedding season" + (" (quick: too short to be quoted)" if quick else ""))
    found.add_column("")
    found.add_column("their report", justify="right")
    found.add_column("this rehearsal", justify="right")
    for row in rows(season):
        found.add_row(*row)
    return found


def write(season: Season, backend: str, facts: dict[str, object], *, quick: bool) -> list[Path]:
    """Keep the figures and the page; their paths."""
    stamp = datetime.now(UTC)
    stem = f"{stamp:%Y-%m-%d}-season-{backend}{'-quick' if quick else ''}"
    document = {
        "at": stamp.isoformat(timespec="seconds"),
        "backend": backend,
        "quick": quick,
        "machine": facts,
        "season": season,
    }
    data, page = RESULTS / f"{stem}.json", RESULTS / f"{stem}.html"
    data.write_bytes(msgspec.json.encode(document) + b"\n")
    page.write_text(_page(season, backend, facts, stamp))
    return [data, page]


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"


# ── the page ────────────────────────────────────────────────────────────────────────────────────────────


def _page(season: Season, backend: str, facts: dict[str, object], stamp: datetime) -> str:
    samples = season.samples
    moments = [sample.at for sample in samples]
    rates = [(b.arrived - a.arrived) / max(0.01, b.at - a.at) for a, b in pairwise(samples)]
    charts = [
        _chart("Deliveries per second", [(moments[1:], rates)], "/s"),
        _chart("Queued", [(moments, [float(s.queued) for s in samples])], ""),
        _chart("In flight", [(moments, [float(s.held) for s in samples])], ""),
        _chart(
            "Workers: running, and wanted",
            [(moments, [float(s.workers) for s in samples]), (moments, [float(s.wanted) for s in samples])],
            "",
        ),
        _bars("P95 from acceptance to first byte, by day (Saturdays dark)", season.days),
        _chart("Memory of the largest process", [(moments, [s.memory / 1e6 for s in samples])], " MB"),
    ]
    body = "".join(
        f"<tr><th scope=row>{html.escape(name)}<td>{html.escape(theirs)}<td>{html.escape(ours)}</tr>"
        for name, theirs, ours in rows(season)
    )
    machine = ", ".join(f"{name} {facts[name]}" for name in ("processor", "cores", "python") if name in facts)
    return f"""<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>A wedding season, rehearsed</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse }} th, td {{ padding: .2rem 1rem .2rem 0; text-align: right }}
th[scope=row] {{ text-align: left; font-weight: normal }} svg {{ width: 100%; height: auto }}
text {{ font: 11px system-ui, sans-serif; fill: #555 }} h2 {{ font-size: 1rem; margin: 1.5rem 0 0 }}
</style>
<h1>A wedding season, rehearsed</h1>
<p>30 days in {season.seconds:,.0f} seconds on {html.escape(backend)}, {stamp:%Y-%m-%d}; {html.escape(machine)}.</p>
<table><tr><th><th>their report<th>this rehearsal</tr>{body}</table>
{"".join(charts)}
</html>
"""


def _frame(title: str, most: float, unit: str, inside: str) -> str:
    return (
        f"<h2>{html.escape(title)}</h2><svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role=img aria-label='{html.escape(title)}'>"
        f"<line x1={_PAD} y1={_HEIGHT - 20} x2={_WIDTH} y2={_HEIGHT - 20} stroke='#bbb'/>"
        f"<text x={_PAD - 4} y=18 text-anchor=end>{most:,.3g}{html.escape(unit)}</text>"
        f"<text x={_PAD - 4} y={_HEIGHT - 18} text-anchor=end>0</text>{inside}</svg>"
    )


def _scale(most_x: float, most_y: float) -> Callable[[float, float], tuple[float, float]]:
    def place(x: float, y: float) -> tuple[float, float]:
        right = _PAD + (_WIDTH - _PAD) * x / (most_x or 1.0)
        return right, (_HEIGHT - 20) - (_HEIGHT - 34) * y / (most_y or 1.0)

    return place


def _chart(title: str, lines: Sequence[tuple[Sequence[float], Sequence[float]]], unit: str) -> str:
    most_x = max((x for xs, _ in lines for x in xs), default=0.0)
    most_y = max((y for _, ys in lines for y in ys), default=0.0)
    place = _scale(most_x, most_y)
    drawn = ""
    for (xs, ys), color in zip(lines, ("#7a1f3d", "#1f5d7a"), strict=False):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, xs, ys))
        drawn += f"<polyline points='{points}' fill=none stroke='{color}' stroke-width=1.5 />"
    return _frame(title, most_y, unit, drawn)


def _bars(title: str, days: Sequence[Day]) -> str:
    most = max((day.p95 * 1e3 for day in days), default=0.0)
    place = _scale(float(len(days)), most)
    drawn = ""
    for day in days:
        left, top = place(day.day, day.p95 * 1e3)
        right, bottom = place(day.day + 0.8, 0.0)
        color = "#7a1f3d" if is_saturday(day.day) else "#d9a6b5"
        drawn += f"<rect x={left:.1f} y={top:.1f} width={right - left:.1f} height={bottom - top:.1f} fill='{color}' />"
    return _frame(title, most, " ms", drawn)
