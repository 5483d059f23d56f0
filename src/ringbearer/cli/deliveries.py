"""Commands for deliveries: list, show, retry, replay."""

from dataclasses import dataclass
from typing import Annotated

import msgspec
from cyclopts import App, Group, Parameter

from ringbearer.cli import output
from ringbearer.cli.client import DEFAULT_CONNECTION, Connection, Page, decode, path
from ringbearer.cli.options import All, Json, Limit, examples, moment
from ringbearer.domain.deliveries import Delivery, DeliveryDetail, State, Timing
from ringbearer.errors import InvalidInput

app = App(
    name="deliveries",
    help="What became of each event at each endpoint.",
    help_epilogue=examples("ringbearer deliveries list --state dead", "ringbearer deliveries show dlv_0197…"),
    default_parameter=Parameter(negative=()),
)

FILTER = Group("Filter", sort_key=10)


@Parameter(name="*", group=FILTER)
@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which deliveries; None is any."""

    supplier: Annotated[str | None, Parameter(name="--supplier", help="Of this supplier.")] = None
    endpoint: Annotated[str | None, Parameter(name="--endpoint", help="To this endpoint, ep_….")] = None
    event: Annotated[str | None, Parameter(name="--event", help="Of this event, evt_….")] = None
    event_type: Annotated[str | None, Parameter(name="--type", help="Of events of this type.")] = None
    state: Annotated[State | None, Parameter(name="--state", help="In this state.")] = None
    after: Annotated[
        str | None, Parameter(name="--after", help="Accepted since this time (RFC 3339) or age (2h, 7d).")
    ] = None
    before: Annotated[str | None, Parameter(name="--before", help="Accepted before this time or age.")] = None

    def parameters(self) -> dict[str, str]:
        """What was given, in the words of the API; InvalidInput when a time is malformed."""
        found = {
            "supplier_id": self.supplier,
            "endpoint_id": self.endpoint,
            "event_id": self.event,
            "event_type": self.event_type,
            "state": None if self.state is None else self.state.value,
            "after": None if self.after is None else moment(self.after),
            "before": None if self.before is None else moment(self.before),
        }
        return {name: value for name, value in found.items() if value is not None}


class Replay(msgspec.Struct):
    """What the API answers to a replay."""

    matched: int
    replay_id: str | None = None


@app.command(
    name="list",
    help_epilogue=examples(
        "ringbearer deliveries list --state dead",
        "ringbearer deliveries list --supplier lumen-photo --after 2h --all --json",
    ),
)
def list_deliveries(
    *,
    which: Filter = Filter(),
    limit: Limit = 50,
    all_: All = False,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """List deliveries."""
    with connection.open() as client:
        answer = client.items(path("deliveries"), which.parameters(), limit=None if all_ else limit)
    if json:
        output.print_json(answer)
        return
    page = decode(answer, Page[Delivery])
    output.print_table(
        ("id", "supplier", "event type", "state", "tries", "due", "created"),
        [
            (
                delivery.id,
                delivery.supplier_id,
                delivery.event_type,
                delivery.state.value,
                delivery.attempt_count,
                output.when(delivery.due_at),
                output.when(delivery.created_at),
            )
            for delivery in page.items
        ],
    )
    output.note_more(page.next)


@app.command(help_epilogue=examples("ringbearer deliveries show dlv_0197…"))
def show(
    delivery: Annotated[str, Parameter(help="Id of the delivery, dlv_….")],
    /,
    *,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Show one delivery with its attempts."""
    with connection.open() as client:
        answer = client.get(path("deliveries", delivery))
    if json:
        output.print_json(answer)
    else:
        _print(decode(answer, DeliveryDetail))


@app.command(help_epilogue=examples("ringbearer deliveries retry dlv_0197… dlv_0198…"))
def retry(
    *deliveries: Annotated[str, Parameter(name="delivery", help="Ids of deliveries, dlv_….")],
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Make deliveries due now."""
    if not deliveries:
        raise InvalidInput("which delivery? Give at least one id")
    with connection.open() as client:
        for delivery in deliveries:
            client.send("POST", path("deliveries", delivery, "retry"))
            output.note(f"{delivery} is due now")


@app.command(
    help_epilogue=examples(
        "ringbearer deliveries replay --supplier lumen-photo --state dead",
        "ringbearer deliveries replay --endpoint ep_0197… --after 7d",
    )
)
def replay(
    *, which: Filter = Filter(), json: Json = False, connection: Connection = DEFAULT_CONNECTION
) -> None:
    """Send dead letters again, or what --state says, paced so that live traffic goes first."""
    parameters = which.parameters()
    if not parameters:
        raise InvalidInput("a replay needs at least one filter, such as --state dead")
    with connection.open() as client:
        answer = client.send("POST", path("deliveries", "replay"), parameters)
    if json:
        output.print_json(answer)
        return
    found = decode(answer, Replay)
    output.print_fields((("matched", found.matched), ("replay", found.replay_id)))


def _print(delivery: DeliveryDetail) -> None:
    output.print_fields(
        (
            ("id", delivery.id),
            ("state", delivery.state.value),
            ("reason", delivery.reason),
            ("event", f"{delivery.event_id} ({delivery.event_type})"),
            ("supplier", delivery.supplier_id),
            ("endpoint", delivery.endpoint_id),
            ("priority", delivery.priority),
            ("due", output.exactly(delivery.due_at)),
            ("created", output.exactly(delivery.created_at)),
            ("finished", output.exactly(delivery.finished_at)),
        )
    )
    if delivery.attempts:
        print()
        output.print_table(
            ("try", "started", "status", "took", "connection", "error", "answer"),
            [
                (
                    attempt.number,
                    output.exactly(attempt.started_at),
                    attempt.status_code,
                    output.span(attempt.duration),
                    _connection(attempt.timing),
                    attempt.error,
                    attempt.response_body,
                )
                for attempt in delivery.attempts
            ],
        )


def _connection(timing: Timing | None) -> str | None:
    """How long the parts of a connection took that was begun for an attempt; a dash where one did not come to its end."""
    if timing is None:
        return None
    parts = (("name", timing.name), ("connect", timing.connect), ("tls", timing.tls))
    return ", ".join(
        f"{part} {'–' if took is None else output.span(took)}" for part, took in parts if took != 0.0
    )
