"""What the rehearsal showed: their figures beside ours."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import msgspec
from rich.table import Table

from bench.season_plan import DELIVERIES, is_saturday

_SUM = re.compile(r"^ringbearer_accept_to_send_seconds_sum (\S+)$", re.MULTILINE)
_COUNT = re.compile(r"^ringbearer_accept_to_send_seconds_count (\S+)$", re.MULTILINE)
_CACHE = re.compile(r"^ringbearer_cache_requests_total\{([^}]*)\} (\S+)$", re.MULTILINE)


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
    begins: float
    """In seconds since the month began."""
    deliveries: int
    p95: float
    p99: float


class Season(msgspec.Struct, frozen=True, kw_only=True):
    """The figures. Durations in seconds, memory in bytes."""

    published: int
    arrived: int
    bad: int
    refused: int
    seconds: float
    rate: float
    average: float
    p95: float
    p99: float
    saturday_p95: float
    wedding_p95: float
    """Of the urgent events alone, which are about a wedding of that day: a quarter of all on Saturdays."""
    cache_hits: float
    scaled_up: int
    scaled_down: int
    spike_after: float | None
    """When the tenfold hour began, in seconds since the month did."""
    seconds_a_day: float
    reaction: float | None
    """From the spike's first event to the decision for more workers; None when there was none to be made."""
    most_workers: int
    peak_in_flight: int
    memory: float
    utilisation: float
    days: list[Day]
    samples: list[Sample]

    @property
    def whole(self) -> bool:
        """Whether it was the month in full."""
        return self.published == DELIVERIES


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
    days: Sequence[tuple[int, float, Counter[float]]],
    whole: Counter[float],
    published: int,
    bad: int,
    refused: int,
    arrived: int,
    began: float,
    seconds: float,
    seconds_a_day: float,
    wedding_p95: float,
    samples: list[Sample],
    decisions: Sequence[tuple[float, int]],
    spike_at: float | None,
    metrics: str,
) -> Season:
    """The figures of what was seen since the moment `began`.

    `days` are the number of each, the moment at which it began and its histogram; `decisions` are moments and numbers
    of workers, oldest first; `wedding_p95` is that of the urgent lane.
    """
    saturdays: Counter[float] = Counter()
    for day, _, histogram in days:
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
        refused=refused,
        seconds=seconds,
        rate=arrived / seconds,
        average=total / count if count else 0.0,
        p95=percentile(whole, 0.95),
        p99=percentile(whole, 0.99),
        saturday_p95=percentile(saturdays, 0.95),
        wedding_p95=wedding_p95,
        cache_hits=_cache_hits(metrics),
        scaled_up=sum(by > 0 for _, by in changes),
        scaled_down=sum(by < 0 for _, by in changes),
        spike_after=None if spike_at is None else spike_at - began,
        seconds_a_day=seconds_a_day,
        reaction=min(reactions, default=None),
        most_workers=max((sample.workers for sample in samples), default=0),
        peak_in_flight=max((sample.held for sample in samples), default=0),
        memory=max((sample.memory for sample in samples), default=0.0),
        utilisation=sum(busy) / len(busy) if busy else 0.0,
        days=[
            Day(
                day,
                at - began,
                max(histogram.values(), default=0),
                percentile(histogram, 0.95),
                percentile(histogram, 0.99),
            )
            for day, at, histogram in days
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
        ("average", "12.3 s", duration(season.average)),
        ("P95", "28.7 s", duration(season.p95)),
        ("P99", "42.1 s", duration(season.p99)),
        ("P95 on Saturdays, of all", "8.7 s", duration(season.saturday_p95)),
        ("P95 on Saturdays, of wedding-day events", "", duration(season.wedding_p95)),
        ("delivered", "99.94 %", f"{100 * min(1.0, season.arrived / max(1, season.published)):.2f} %"),
        ("batches refused for want of room, and sent again", "", f"{season.refused:,}"),
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


def duration(seconds: float) -> str:
    """In seconds, or in milliseconds when it is less than one."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"
