"""Commands for shapes of events: list, put, delete."""

from typing import Annotated

from cyclopts import App, Parameter

from ringbearer.cli import output
from ringbearer.cli.client import DEFAULT_CONNECTION, Connection, Page, decode, path
from ringbearer.cli.inputs import read_value
from ringbearer.cli.options import All, Json, Limit, examples
from ringbearer.storage.shapes import Shape

app = App(
    name="shapes",
    help="How the data of an event type looked in an older version, for endpoints that pinned it.",
    help_epilogue=examples(
        "ringbearer shapes put booking.confirmed 2026-01 '{id: booking.id, date: booking.date}'",
        "ringbearer endpoints update lumen-photo ep_0197… --event-version 2026-01",
    ),
    default_parameter=Parameter(negative=()),
)

EventType = Annotated[str, Parameter(help="Type of the events, such as booking.confirmed.")]
Version = Annotated[str, Parameter(help="Version, such as 2026-01.")]


@app.command(name="list", help_epilogue=examples("ringbearer shapes list"))
def list_shapes(
    *, limit: Limit = 50, all_: All = False, json: Json = False, connection: Connection = DEFAULT_CONNECTION
) -> None:
    """List the shapes of all versions."""
    with connection.open() as client:
        answer = client.items(path("event-types", "versions"), limit=None if all_ else limit)
    if json:
        output.print_json(answer)
        return
    page = decode(answer, Page[Shape])
    output.print_table(
        ("event type", "version", "expression", "changed"),
        [(s.event_type, s.version, s.expression, output.when(s.updated_at)) for s in page.items],
    )
    output.note_more(page.next)


@app.command(
    help_epilogue=examples(
        "ringbearer shapes put booking.confirmed 2026-01 '{id: booking.id, date: booking.date}'",
        "ringbearer shapes put booking.confirmed 2026-01 @booking.jmespath",
    )
)
def put(
    event_type: EventType,
    version: Version,
    expression: Annotated[
        str, Parameter(allow_leading_hyphen=True, help="JMESPath over the data; @FILE or - reads it.")
    ],
    /,
    *,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Say what makes a version's data out of the data as published."""
    body = {"expression": read_value(expression).decode().strip()}
    with connection.open() as client:
        answer = client.send("PUT", _path(event_type, version), body)
    if json:
        output.print_json(answer)
    else:
        output.note(f"{event_type} has a shape in version {version}")


@app.command(help_epilogue=examples("ringbearer shapes delete booking.confirmed 2026-01"))
def delete(
    event_type: EventType, version: Version, /, *, connection: Connection = DEFAULT_CONNECTION
) -> None:
    """Forget a shape: events of that type go as they are published."""
    with connection.open() as client:
        client.send("DELETE", _path(event_type, version))
    output.note(f"{event_type} has no shape in version {version} any more")


def _path(event_type: str, version: str) -> str:
    return path("event-types", event_type, "versions", version)
