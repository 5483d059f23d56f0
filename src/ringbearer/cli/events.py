"""The command `publish`: one event from options, or a file of events in batches."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Group, Parameter
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from ringbearer.cli import output
from ringbearer.cli.client import DEFAULT_CONNECTION, Client, Connection, ServiceError, decode, path
from ringbearer.cli.inputs import Chunk, chunks, open_lines, read_value
from ringbearer.cli.options import Json, examples
from ringbearer.domain.events import Priority
from ringbearer.errors import InvalidInput

EVENT = Group("Event", sort_key=10)

BATCH = Group("Many events", sort_key=20)

_PATIENCE = 10
"""Times that a batch is offered again when the service says that it has no room now."""
_LONGEST_WAIT = 30.0
"""Seconds between two offers at most, whatever the service asks."""
_BUSY = (429, 503)

app = App(
    name="publish",
    help_epilogue=examples(
        "ringbearer publish --supplier lumen-photo --type booking.confirmed --data '{\"booking\":7}'",
        "ringbearer publish --supplier lumen-photo --type form.submitted --data @form.json"
        " --idempotency-key form-81",
        "ringbearer publish --file events.ndjson",
        "generate-events | ringbearer publish --file -",
    ),
    default_parameter=Parameter(negative=()),
)


class Accepted(msgspec.Struct):
    """What the API answers to one event."""

    id: str
    deliveries: int = 0
    duplicate: bool = False


class Rejected(msgspec.Struct):
    """An event of a batch that was not taken: its place in the batch, from 0, and why."""

    index: int
    detail: str


class BatchAnswer(msgspec.Struct):
    """What the API answers to a batch; of several batches, their sum."""

    accepted: int = 0
    duplicates: int = 0
    rejected: list[Rejected] = []
    ids: list[str | None] = []


@app.default
def publish(
    *,
    supplier: Annotated[str | None, Parameter(group=EVENT, help="Id of the supplier to tell.")] = None,
    type_: Annotated[
        str | None, Parameter(name="--type", group=EVENT, help="What happened, such as booking.confirmed.")
    ] = None,
    data: Annotated[
        str | None,
        Parameter(group=EVENT, allow_leading_hyphen=True, help="The event's JSON; @FILE or - reads it."),
    ] = None,
    timestamp: Annotated[
        str | None, Parameter(group=EVENT, help="When it happened (RFC 3339). Default: now.")
    ] = None,
    idempotency_key: Annotated[
        str | None, Parameter(group=EVENT, help="The same key is accepted once.")
    ] = None,
    occasion_date: Annotated[
        str | None, Parameter(group=EVENT, help="The day it is about, YYYY-MM-DD.")
    ] = None,
    priority: Annotated[Priority | None, Parameter(group=EVENT, help="Its lane.")] = None,
    deliver_at: Annotated[
        str | None, Parameter(group=EVENT, help="Not to be sent before this time (RFC 3339).")
    ] = None,
    ordering_key: Annotated[
        str | None, Parameter(group=EVENT, help="Events of one key arrive in their order.")
    ] = None,
    tag: Annotated[list[str] | None, Parameter(group=EVENT, help="A tag; repeatable.")] = None,
    file: Annotated[
        Path | None,
        Parameter(
            group=BATCH,
            allow_leading_hyphen=True,
            help="Events to upload, one JSON object a line; - is standard input.",
        ),
    ] = None,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> int:
    """Hand over one event, or a file of them; the exit status is 1 when one was rejected."""
    event: dict[str, object] = {
        "supplier_id": supplier,
        "type": type_,
        "data": None if data is None else _json(read_value(data)),
        "timestamp": timestamp,
        "idempotency_key": idempotency_key,
        "occasion_date": occasion_date,
        "priority": priority,
        "deliver_at": deliver_at,
        "ordering_key": ordering_key,
        "tags": tag,
    }
    given = {name: value for name, value in event.items() if value is not None}
    with connection.open() as client:
        if file is None:
            return _publish_one(client, given, json)
        if given:
            raise InvalidInput("--file brings its own events: leave the options of a single event out")
        return _publish_file(client, file, json)


def upload(
    client: Client,
    batches: Iterable[Chunk],
    *,
    progress: Callable[[Chunk, BatchAnswer], None] = lambda _chunk, _answer: None,
    pause: Callable[[float], None] = time.sleep,
) -> tuple[BatchAnswer, list[tuple[int, str]]]:
    """Uploads the batches in order; the sum of the answers, and the line and reason of each rejected event.

    Waits and offers a batch again when the service has no room for it. Raises ServiceError when it gives up;
    the message says up to which line everything was handed over.
    """
    total = BatchAnswer(rejected=[], ids=[])
    lines: list[tuple[int, str]] = []
    events = last_line = 0
    for chunk in batches:
        try:
            answer = _offer(client, chunk, pause)
        except ServiceError as error:
            raise _stopped(error, last_line) from error
        lines += [(chunk.numbers[one.index], one.detail) for one in answer.rejected]
        total.accepted += answer.accepted
        total.duplicates += answer.duplicates
        total.rejected += [Rejected(one.index + events, one.detail) for one in answer.rejected]
        total.ids += answer.ids
        events += len(chunk.numbers)
        last_line = chunk.numbers[-1]
        progress(chunk, answer)
    return total, lines


def _offer(client: Client, chunk: Chunk, pause: Callable[[float], None]) -> BatchAnswer:
    for _ in range(_PATIENCE):
        try:
            return decode(client.send_lines(path("events", "batch"), chunk.body), BatchAnswer)
        except ServiceError as error:
            if error.status not in _BUSY:
                raise
            pause(min(error.retry_after or 1.0, _LONGEST_WAIT))
    return decode(client.send_lines(path("events", "batch"), chunk.body), BatchAnswer)


def _stopped(error: ServiceError, last_line: int) -> ServiceError:
    where = f"handed over up to line {last_line}" if last_line else "nothing was handed over"
    again = "events with an idempotency key are taken once, so such a file may be uploaded again"
    return ServiceError(f"{error}\n  {where}; {again}", error.status, error.retry_after)


def _publish_one(client: Client, event: dict[str, object], json: bool) -> int:
    missing = [f"--{name}" for name, key in _REQUIRED.items() if key not in event]
    if missing:
        raise InvalidInput(f"an event needs {', '.join(missing)}; a file of events is given with --file")
    answer = client.send("POST", path("events"), event)
    if json:
        output.print_json(answer)
        return 0
    accepted = decode(answer, Accepted)
    output.print_fields(
        (
            ("id", accepted.id),
            ("deliveries", accepted.deliveries),
            ("duplicate", "yes: it was accepted before" if accepted.duplicate else None),
        )
    )
    return 0


_REQUIRED = {"supplier": "supplier_id", "type": "type", "data": "data"}


def _publish_file(client: Client, file: Path, json: bool) -> int:
    stream = open_lines(file)
    size = file.stat().st_size if file.is_file() else None
    with stream, _progress() as progress:
        task = progress.add_task("uploading", total=size)
        total, lines = upload(
            client,
            chunks(stream),
            progress=lambda chunk, _answer: progress.advance(task, chunk.consumed),
        )
        progress.update(task, total=size or 0, completed=size or 0)
    if json:
        output.print_json(msgspec.json.encode(total))
    else:
        output.print_fields(
            (("accepted", total.accepted), ("duplicates", total.duplicates), ("rejected", len(lines)))
        )
    for number, detail in lines:
        output.note(f"line {number}: {detail}")
    return 1 if lines else 0


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=output.console(stderr=True),
    )


def _json(text: bytes) -> msgspec.Raw:
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidInput(f"--data is not JSON: {error}") from error
    return msgspec.Raw(text)
