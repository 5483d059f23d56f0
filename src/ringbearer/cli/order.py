"""Commands for what the queue follows: `queue`, `priorities`, `season` and `calendar`."""

from datetime import date
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from ringbearer import clock
from ringbearer.calendar import Calendar, CalendarConfiguration, PeakDay, Preset
from ringbearer.cli import output
from ringbearer.cli.client import DEFAULT_CONNECTION, Connection, decode, path
from ringbearer.cli.inputs import read_value
from ringbearer.cli.options import Json, examples
from ringbearer.domain.times import Moment
from ringbearer.errors import InvalidInput
from ringbearer.queue.bottlenecks import Bottleneck
from ringbearer.queue.plan import QueuePlan
from ringbearer.queue.results import LaneState
from ringbearer.rules import PriorityConfiguration
from ringbearer.season import RehearsedHour, SeasonScalingConfig, SeasonState

Document = Annotated[str, Parameter(help="JSON itself, @FILE for a file, or - for standard input.")]


class _Queue(msgspec.Struct):
    lanes: list[LaneState]
    parked_endpoints: int
    plan: QueuePlan
    season: SeasonState
    bottlenecks: list[Bottleneck]


class _Priorities(msgspec.Struct):
    version: int
    configuration: PriorityConfiguration


class _Season(msgspec.Struct):
    version: int
    plan: SeasonScalingConfig | None
    state: SeasonState
    next_warming: Moment | None


class _Rehearsal(msgspec.Struct):
    hours: list[RehearsedHour]


class _Peaks(msgspec.Struct):
    preset: str
    peaks: list[PeakDay]


# ── the queue ───────────────────────────────────────────────────────────────────────────────────────────────

queue = App(
    name="queue",
    help="How the lanes stand, what the queue follows, and what limits it.",
    help_epilogue=examples("ringbearer queue show", "ringbearer queue set @plan.json"),
    default_parameter=Parameter(negative=()),
)


@queue.command(name="show", help_epilogue=examples("ringbearer queue show", "ringbearer queue show --json"))
def show_queue(*, json: Json = False, connection: Connection = DEFAULT_CONNECTION) -> None:
    """Show the lanes and the plan in force."""
    with connection.open() as client:
        _print_queue(client.get(path("queue")), json)


@queue.command(
    name="set",
    help_epilogue=examples(
        "ringbearer queue set '{\"weights\": [8, 4, 2, 2]}'", "ringbearer queue set @plan.json"
    ),
)
def set_queue(plan: Document, /, *, json: Json = False, connection: Connection = DEFAULT_CONNECTION) -> None:
    """Replace the plan; what is left out gets its default."""
    with connection.open() as client:
        _print_queue(client.send("PUT", path("queue"), _document(plan)), json)


def _print_queue(answer: bytes, json: bool) -> None:
    if json:
        output.print_json(answer)
        return
    found = decode(answer, _Queue)
    rows = [
        (lane.lane, lane.weight, lane.ready, lane.leased, lane.scheduled, output.span(lane.oldest_age))
        for lane in found.lanes
    ]
    output.print_table(("lane", "weight", "ready", "with workers", "scheduled", "oldest waits"), rows)
    plan = found.plan
    output.print_fields(
        (
            ("batch size", plan.batch_size),
            ("prefetch", f"{plan.prefetch:.0%} of the slots"),
            ("between claims", output.span(plan.max_wait)),
            ("tuned by itself", "yes" if plan.automatic else "no"),
            ("parked endpoints", found.parked_endpoints or None),
            ("season", f"{found.season.phase}: {found.season.reason}"),
            *((f"limits: {b.stage}", b.evidence) for b in found.bottlenecks),
        )
    )


# ── priorities ──────────────────────────────────────────────────────────────────────────────────────────────

priorities = App(
    name="priorities",
    help="The rules that choose lanes, and the weights of tiers.",
    help_epilogue=examples("ringbearer priorities show", "ringbearer priorities set @rules.json"),
    default_parameter=Parameter(negative=()),
)


@priorities.command(
    name="show", help_epilogue=examples("ringbearer priorities show", "ringbearer priorities show --json")
)
def show_priorities(*, json: Json = False, connection: Connection = DEFAULT_CONNECTION) -> None:
    """Show the rules; the first that fits decides."""
    with connection.open() as client:
        _print_priorities(client.get(path("priorities")), json)


@priorities.command(
    name="set",
    help_epilogue=examples(
        'ringbearer priorities set \'{"rules": [{"name": "photos", "lane": "bulk", "event_types": ["photo.*"]}]}\'',
        "ringbearer priorities set @rules.json",
    ),
)
def set_priorities(
    rules: Document, /, *, json: Json = False, connection: Connection = DEFAULT_CONNECTION
) -> None:
    """Replace the rules; what is queued follows within seconds."""
    with connection.open() as client:
        _print_priorities(client.send("PUT", path("priorities"), _document(rules)), json)


def _print_priorities(answer: bytes, json: bool) -> None:
    if json:
        output.print_json(answer)
        return
    found = decode(answer, _Priorities).configuration
    rows: list[tuple[object, ...]] = []
    for rule in found.rules:
        conditions = [
            f"{name} {', '.join(map(str, values))}"
            for name, values in (
                ("type", rule.event_types),
                ("tier", rule.tiers),
                ("tag", rule.tags),
                ("asked for", rule.priorities),
            )
            if values
        ]
        if rule.occasion_within_days is not None:
            conditions.append(f"occasion within {rule.occasion_within_days} days")
        rows.append((rule.name, rule.lane, "; ".join(conditions) or "always"))
    rows.append(("", found.default, "else"))
    output.print_table(("rule", "lane", "when"), rows)
    weights = ", ".join(f"{tier} {weight:g}" for tier, weight in found.weights().items())
    output.print_fields((("weights of tiers", weights),))


# ── the season ──────────────────────────────────────────────────────────────────────────────────────────────

season = App(
    name="season",
    help="What changes by itself in the season and on its peak days.",
    help_epilogue=examples(
        "ringbearer season show",
        "ringbearer season set @summer.json",
        "ringbearer season rehearse 2027-06-19",
    ),
    default_parameter=Parameter(negative=()),
)


@season.command(name="show", help_epilogue=examples("ringbearer season show"))
def show_season(*, json: Json = False, connection: Connection = DEFAULT_CONNECTION) -> None:
    """Show the plan, and what it asks for now."""
    with connection.open() as client:
        _print_season(client.get(path("season")), json)


@season.command(
    name="set",
    help_epilogue=examples(
        "ringbearer season set @summer.json",
        'ringbearer season set \'{"name": "summer", "starts_on": "2027-05-01", "ends_on": "2027-10-31"}\'',
    ),
)
def set_season(plan: Document, /, *, json: Json = False, connection: Connection = DEFAULT_CONNECTION) -> None:
    """Replace the plan; every process follows it within a second."""
    with connection.open() as client:
        _print_season(client.send("PUT", path("season"), _document(plan)), json)


@season.command(name="rehearse", help_epilogue=examples("ringbearer season rehearse 2027-06-19"))
def rehearse(
    day: Annotated[date, Parameter(help="The day, as 2027-06-19.")],
    /,
    *,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Show hour by hour what the plan would ask for on a day. Nothing is done."""
    with connection.open() as client:
        answer = client.get(path("season", "rehearsal"), {"date": day.isoformat()})
    if json:
        output.print_json(answer)
        return
    rows = [
        (
            hour.local[11:],
            hour.state.phase,
            f"{hour.state.multiplier:g}",
            hour.state.worker_floor,
            "/".join(map(str, hour.state.weights)) if hour.state.weights else "as usual",
            ", ".join(hour.warm),
            "; ".join(hour.changes),
        )
        for hour in decode(answer, _Rehearsal).hours
    ]
    output.print_table(("hour", "phase", "load", "workers at least", "shares", "warming", "changes"), rows)


def _print_season(answer: bytes, json: bool) -> None:
    if json:
        output.print_json(answer)
        return
    found = decode(answer, _Season)
    plan, state = found.plan, found.state
    if plan is not None:
        output.print_fields(
            (
                ("season", plan.name),
                ("from", plan.starts_on),
                ("to", plan.ends_on),
                ("where", ", ".join(plan.timezones)),
                ("calendar", plan.calendar.preset),
                ("workers at least", f"{plan.worker_floor}, on peak days {plan.peak_worker_floor}"),
                ("shares on peak days", "/".join(map(str, plan.peak_weights))),
            )
        )
    output.print_fields(
        (
            ("now", f"{state.phase}: {state.reason}"),
            ("load", f"{state.multiplier:g} times the ordinary"),
            ("next warming", output.exactly(found.next_warming)),
        )
    )


# ── the calendar ────────────────────────────────────────────────────────────────────────────────────────────

calendar = App(
    name="calendar",
    help="The coming peak days.",
    help_epilogue=examples(
        "ringbearer calendar --days 60 --timezone Europe/Paris", "ringbearer calendar --preset retail"
    ),
    default_parameter=Parameter(negative=()),
)


@calendar.default
def show_calendar(
    *,
    days: Annotated[int, Parameter(help="Days to look ahead.")] = 60,
    timezone: Annotated[str, Parameter(help="Where, as Europe/Paris.")] = "UTC",
    preset: Annotated[
        Preset | None, Parameter(help="A preset's peaks instead of the service's; asks no service.")
    ] = None,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Show the coming peak days of the season's calendar, or of a preset."""
    if preset is not None:
        now = clock.to_datetime(clock.now())
        peaks = Calendar(CalendarConfiguration(preset=preset)).coming(now, days, timezone)
        answer = msgspec.json.encode({"preset": preset, "peaks": peaks})
    else:
        with connection.open() as client:
            answer = client.get(path("calendar"), {"days": str(days), "timezone": timezone})
    if json:
        output.print_json(answer)
        return
    found = decode(answer, _Peaks)
    rows = [
        (f"{peak.date:%a %Y-%m-%d}", f"{peak.multiplier:g}", ", ".join(peak.reasons)) for peak in found.peaks
    ]
    output.print_table(("day", "load", "why"), rows)
    if not rows:
        output.note(f"no peak in the next {days} days ({found.preset})")


def _document(text: str) -> object:
    try:
        return msgspec.json.decode(read_value(text))
    except msgspec.DecodeError as error:
        raise InvalidInput(f"that is not JSON: {error}") from None
