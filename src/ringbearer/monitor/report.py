"""The report of a month: what was delivered, how service levels were kept, and what of it was whose fault.

It is made of rollups, so its sums are exact and its percentiles within 1 %. A month is one in UTC.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import msgspec

from ringbearer import clock
from ringbearer.domain.times import Moment
from ringbearer.errors import InvalidInput
from ringbearer.monitor.burning import BurnBook
from ringbearer.monitor.figures import Figures, Reader
from ringbearer.monitor.slo import Compliance, Tally, compliance, tally
from ringbearer.storage.base import Storage

MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")
_DAY = 86_400 * clock.SECOND
_CODES = 15


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of the whole, of a day or of a supplier. Durations in seconds."""

    key: str
    attempts: int
    delivered: int
    failed_by_receiver: int
    failed_by_us: int
    dead: int
    """Deliveries that were given up."""
    delivered_share: float | None
    """Of the deliveries that came to an end: delivered, and not given up."""
    our_success: float | None
    """Of the attempts that no receiver made fail."""
    reach_p50: float | None
    reach_p95: float | None
    reach_p99: float | None
    """Ready ▸ first byte sent."""
    whole_p50: float | None
    whole_p95: float | None
    """Accepted ▸ settled, of what was delivered."""
    peak: bool = False


class Code(msgspec.Struct, frozen=True):
    """How often attempts failed with an error."""

    code: str
    failed: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A month; of one supplier when it names one, and then without suppliers, codes and objectives."""

    month: str
    since: Moment
    until: Moment
    """The end of the month, or when the report was made."""
    made_at: Moment
    complete: bool
    supplier_id: str | None
    total: Line
    days: list[Line]
    objectives: list[Compliance]
    codes: list[Code]
    suppliers: list[Line]
    """The busiest first."""


def bounds(month: str) -> tuple[int, int]:
    """Begin and end of a month as stored times; raises InvalidInput."""
    if not MONTH.fullmatch(month):
        raise InvalidInput(
            "expected a month such as 2027-06", [("/month", "expected a month such as 2027-06")]
        )
    first = datetime(int(month[:4]), int(month[5:]), 1, tzinfo=UTC)
    after = (first + timedelta(days=32)).replace(day=1)
    return clock.from_datetime(first), clock.from_datetime(after)


def month_before(now: int) -> str:
    """The month that was over last."""
    return f"{clock.to_datetime(now).replace(day=1) - timedelta(days=1):%Y-%m}"


def build(
    storage: Storage, book: BurnBook, month: str, *, now: int, supplier_id: str | None = None
) -> Report:
    """Make the report; blocks, and raises InvalidInput and StoreUnavailable."""
    since, end = bounds(month)
    until = min(end, max(now, since))
    reader = Reader(storage.rollups)
    dimension = "path" if supplier_id is None else "supplier"
    days = reader.series(dimension, since=since, until=until, step=_DAY, now=now, key=supplier_id)
    total = Figures()
    for figures in days.values():
        total.merge(figures)
    whole = supplier_id is None
    return Report(
        month=month,
        since=clock.to_datetime(since),
        until=clock.to_datetime(until),
        made_at=clock.to_datetime(now),
        complete=now >= end,
        supplier_id=supplier_id,
        total=_line("total", total),
        days=[
            _line(_date(at), days.get(at, Figures()), peak=book.is_peak(at))
            for at in range(since, until, _DAY)
        ],
        objectives=_objectives(reader, book, since, until, now) if whole else [],
        codes=_codes(reader, since, until, now) if whole else [],
        suppliers=_suppliers(reader, since, until, now) if whole else [],
    )


def _objectives(reader: Reader, book: BurnBook, since: int, until: int, now: int) -> list[Compliance]:
    """Each objective over the whole month, its peak days measured by their stricter bounds."""
    sums: dict[str, Tally] = {}
    objectives = book.objectives()
    for at in range(since, until, _DAY):
        paths = reader.grouped("path", since=at, until=min(at + _DAY, until), now=now)
        for each in objectives:
            good, total = tally(each, paths, peak=book.is_peak(at))
            before = sums.get(each.id, (0, 0))
            sums[each.id] = (before[0] + good, before[1] + total)
    return [compliance(each, sums.get(each.id, (0, 0))) for each in objectives]


def _codes(reader: Reader, since: int, until: int, now: int) -> list[Code]:
    found = reader.grouped("error", since=since, until=until, now=now)
    ordered = sorted(found.items(), key=lambda item: (-item[1].attempts, item[0]))
    return [Code(code, figures.attempts) for code, figures in ordered[:_CODES]]


def _suppliers(reader: Reader, since: int, until: int, now: int) -> list[Line]:
    found: Mapping[str, Figures] = reader.grouped("supplier", since=since, until=until, now=now)
    lines = [_line(key, figures) for key, figures in found.items()]
    return sorted(lines, key=lambda line: (-line.attempts, line.key))


def _date(at: int) -> str:
    day: date = clock.to_datetime(at).date()
    return day.isoformat()


def _line(key: str, figures: Figures, *, peak: bool = False) -> Line:
    reach, whole = figures.distribution("reach"), figures.distribution("whole")
    ended = figures.delivered + figures.dead
    ours = figures.delivered + figures.ours
    return Line(
        key=key,
        attempts=figures.attempts,
        delivered=figures.delivered,
        failed_by_receiver=figures.receiver,
        failed_by_us=figures.ours,
        dead=figures.dead,
        delivered_share=figures.delivered / ended if ended else None,
        our_success=figures.delivered / ours if ours else None,
        reach_p50=reach.p50,
        reach_p95=reach.p95,
        reach_p99=reach.p99,
        whole_p50=whole.p50,
        whole_p95=whole.p95,
        peak=peak,
    )
