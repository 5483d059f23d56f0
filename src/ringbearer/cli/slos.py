"""Commands for service levels: how they are kept, and what is promised."""

from typing import Annotated

from cyclopts import App, Parameter

from ringbearer.cli import output
from ringbearer.cli.client import DEFAULT_CONNECTION, Connection, decode, path
from ringbearer.cli.options import Json, examples
from ringbearer.domain.events import Priority
from ringbearer.domain.suppliers import Tier
from ringbearer.errors import InvalidInput
from ringbearer.monitor.results import SlaCompliance
from ringbearer.monitor.slo import Compliance, Objective

app = App(
    name="slos",
    help="What is promised of deliveries, and how it is kept.",
    help_epilogue=examples(
        "ringbearer slos list --window 604800",
        "ringbearer slos set latency/urgent --lane urgent --target 0.995 --seconds 1 --peak-seconds 0.5",
        "ringbearer slos delete latency/bulk",
    ),
    default_parameter=Parameter(negative=()),
)

Id = Annotated[
    str, Parameter(help="The objective: its kind, latency or success, and a name: latency/urgent.")
]


@app.command(
    name="list", help_epilogue=examples("ringbearer slos list", "ringbearer slos list --window 2592000")
)
def list_objectives(
    *,
    window: Annotated[float, Parameter(help="Over how many seconds until now.")] = 86_400.0,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """List what is promised, how it was kept, and what is left of each error budget."""
    with connection.open() as client:
        answer = client.get(path("slos"), {"window": f"{window:g}"})
    if json:
        output.print_json(answer)
        return
    found = decode(answer, SlaCompliance)
    if found.peak:
        output.note("today is a peak day: its bounds are stricter")
    output.print_table(
        ("id", "promise", "target", "reached", "budget left", "counted"),
        [
            (
                each.objective,
                _promise(each),
                f"{each.target:.3%}",
                None if each.share is None else f"{each.share:.3%}",
                None if each.budget_left is None else f"{each.budget_left:.0%}",
                each.total,
            )
            for each in found.objectives
        ],
    )


@app.command(
    name="set",
    help_epilogue=examples(
        "ringbearer slos set latency/urgent --lane urgent --target 0.995 --seconds 1 --peak-seconds 0.5",
        "ringbearer slos set success/enterprise --tier enterprise --target 0.9999",
    ),
)
def put(
    objective: Id,
    /,
    *,
    target: Annotated[float, Parameter(help="The share that is to be good, from 0.5 to 0.99999.")],
    lane: Annotated[Priority | None, Parameter(help="Of this lane only.")] = None,
    tier: Annotated[Tier | None, Parameter(help="Of this tier only.")] = None,
    seconds: Annotated[
        float | None, Parameter(help="Of latency: until the first byte is sent, at most a day.")
    ] = None,
    peak_seconds: Annotated[
        float | None, Parameter(help="The same on peak days; as --seconds when it is left out.")
    ] = None,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Promise something, or change what is promised: all of it is said anew."""
    given = {
        "target": target,
        "lane": lane,
        "tier": tier,
        "seconds": seconds,
        "peak_seconds": peak_seconds,
    }
    body = {name: value for name, value in given.items() if value is not None}
    with connection.open() as client:
        answer = client.send("PUT", _path(objective), body)
    if json:
        output.print_json(answer)
        return
    made = decode(answer, Objective)
    latency = made.kind == "latency"
    output.print_fields(
        (
            ("id", made.id),
            ("lane", made.lane),
            ("tier", made.tier),
            ("target", f"{made.target:.3%}"),
            ("seconds", made.seconds if latency else None),
            ("on peak days", made.peak_seconds if latency else None),
        )
    )


@app.command(help_epilogue=examples("ringbearer slos delete latency/bulk"))
def delete(objective: Id, /, *, connection: Connection = DEFAULT_CONNECTION) -> None:
    """Promise this no longer."""
    with connection.open() as client:
        client.send("DELETE", _path(objective))
    output.note(f"{objective} is promised no longer")


def _path(objective: str) -> str:
    kind, slash, name = objective.partition("/")
    if not slash or not kind or not name or "/" in name:
        raise InvalidInput(
            f"{objective!r} is no objective; expected its kind and a name, such as latency/urgent", []
        )
    return path("slos", kind, name)


def _promise(each: Compliance) -> str:
    whose = " ".join(part for part in (each.tier, each.lane) if part) or "all"
    if each.seconds is None:
        return f"{whose}: no failure of ours"
    return f"{whose}: sent within {each.seconds:g} s"
