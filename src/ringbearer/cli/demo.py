"""The command `demo`: a wedding day in a minute, with a receiver that fails, and a count of what arrived."""

import asyncio
import contextlib
import math
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ringbearer import clock
from ringbearer.cli import output, stage
from ringbearer.cli.client import Client, Page, decode, path
from ringbearer.cli.events import BatchAnswer, upload
from ringbearer.cli.inputs import Chunk, chunks, open_lines
from ringbearer.cli.options import OUTPUT, examples
from ringbearer.domain.deliveries import FINISHED, Delivery, State
from ringbearer.domain.events import NewEvent
from ringbearer.errors import ConfigurationError, InvalidInput
from ringbearer.testing import Received, Receiver

DEFAULT_EVENTS = Path("examples/wedding_day.ndjson")
CHUNK = 100
"""Events in a request; small enough that one sees them go."""
REFUSALS = 60
OUTAGE = 12.0
"""Seconds that the outage lasts at most: less than the shortest sum of the short retry schedule."""
DELIVERY_TIMEOUT = 120.0
_SETTLE_TIMEOUT = 15.0
_RECEIVERS = 3

app = App(
    name="demo",
    help_epilogue=examples("ringbearer demo", "ringbearer demo --events examples/wedding_day.ndjson --json"),
    default_parameter=Parameter(negative=()),
)


class Latency(msgspec.Struct, frozen=True):
    """Percentiles in seconds."""

    p50: float
    p95: float
    p99: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the day."""

    accepted: int
    expected: int
    """Deliveries that the subscriptions ask for."""
    delivered: int
    refused: int
    retried_attempts: int
    dead: int
    duplicates_seen: int
    signatures_verified: int
    signatures_wrong: int
    accept_to_received: Latency
    """From acceptance to the first request at the receiver, refused or not."""
    accept_to_taken: Latency
    """From acceptance to the first request that was answered with 200."""
    failures: list[str]


class Day(msgspec.Struct, frozen=True):
    """What is played: the lines to upload, the same events as words, and the suppliers they are for."""

    chunks: list[Chunk]
    events: list[NewEvent]
    suppliers: dict[str, dict[str, object]]


@app.default
def demo(
    *,
    events: Annotated[Path, Parameter(help="Events to publish, one JSON object a line.")] = DEFAULT_EVENTS,
    json: Annotated[bool, Parameter(name="--json", group=OUTPUT, help="Print the result as JSON.")] = False,
) -> int:
    """Play a wedding day; the exit status is 0 only when everything arrived and was verified."""
    signature_checker("whsec_AAAA")
    day = read_day(events)
    try:
        report = asyncio.run(_play(day))
    except asyncio.CancelledError:
        output.note("interrupted; the service is ended")
        return 128 + signal.SIGTERM
    if json:
        output.print_json(msgspec.json.encode(report))
    else:
        _print(report)
    for failure in report.failures:
        output.note(f"failed: {failure}")
    return 1 if report.failures else 0


def signature_checker(secret: str) -> stage.Check:
    """A check by the package `standardwebhooks`, which shares no code with the service that signs.

    Raises ConfigurationError when it is not installed.
    """
    try:
        from standardwebhooks import Webhook, WebhookVerificationError
    except ImportError:
        raise ConfigurationError(
            "the demonstration checks signatures with the package standardwebhooks, which is not installed: "
            "pip install standardwebhooks"
        ) from None
    webhook = Webhook(secret)

    def check(body: bytes, headers: dict[str, str]) -> bool:
        try:
            webhook.verify(body, headers)
        except (WebhookVerificationError, ValueError):
            return False
        return True

    return check


def read_day(file: Path) -> Day:
    """The events of the file, and its suppliers: those of `suppliers.ndjson` beside it, or bare ids.

    Raises InvalidInput when a line is not an event.
    """
    if not file.is_file():
        raise InvalidInput(
            f"{file} does not exist: run this in a checkout of the source, or pass --events FILE"
        )
    with open_lines(file) as stream:
        parts = list(chunks(stream, events=CHUNK))
    try:
        decoder = msgspec.json.Decoder(NewEvent)
        events = [event for part in parts for event in decoder.decode_lines(part.body)]
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"{file}: {error}") from error
    return Day(parts, events, _suppliers(file.with_name("suppliers.ndjson"), events))


def percentiles(microseconds: Sequence[int]) -> Latency:
    """P50, P95 and P99 by nearest rank, in seconds; zeros when there is nothing."""
    ordered = sorted(microseconds) or [0]

    def rank(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] / clock.SECOND

    return Latency(rank(0.50), rank(0.95), rank(0.99))


def _suppliers(file: Path, events: Sequence[NewEvent]) -> dict[str, dict[str, object]]:
    known: dict[str, dict[str, object]] = {}
    if file.is_file():
        for line in msgspec.json.Decoder(dict[str, object]).decode_lines(file.read_bytes()):
            known[str(line.pop("id"))] = line
    return {
        supplier_id: known.get(supplier_id, {}) for supplier_id in sorted({e.supplier_id for e in events})
    }


async def _play(day: Day) -> Report:
    loop = asyncio.get_running_loop()
    playing = asyncio.current_task()
    assert playing is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, playing.cancel)
    ledger = stage.Ledger()
    with tempfile.TemporaryDirectory(prefix="ringbearer-demo-") as directory, _progress() as progress:
        async with contextlib.AsyncExitStack() as stack:
            receivers = [
                await stack.enter_async_context(Receiver(keep=0, on_receive=ledger.note))
                for _ in range(_RECEIVERS - 1)
            ]
            failing = await stack.enter_async_context(_failing_receiver(ledger))
            progress.console.print("starting the service …")
            service = await stack.enter_async_context(stage.OwnService(Path(directory)))
            progress.console.print(f"the service runs at {service.url} (process {service.pid})")
            with Client(service.url, service.key) as client:
                return await _deliver(client, day, [*receivers, failing], failing, ledger, progress)


def _failing_receiver(ledger: stage.Ledger) -> Receiver:
    def note(received: Received) -> None:
        ledger.note(received)
        outage.note(received)

    receiver = Receiver(keep=0, on_receive=note)
    outage = stage.Outage(receiver, requests=REFUSALS, seconds=OUTAGE)
    return receiver


async def _deliver(
    client: Client,
    day: Day,
    receivers: Sequence[Receiver],
    failing: Receiver,
    ledger: stage.Ledger,
    progress: Progress,
) -> Report:
    hooks = await asyncio.to_thread(
        stage.register, client, day.suppliers, receivers, failing, ledger, signature_checker
    )
    progress.console.print(
        f"{len(day.suppliers)} suppliers with {len(hooks)} endpoints on {len(receivers)} receivers; "
        f"one refuses its first {REFUSALS} requests"
    )
    answer = await _publish(client, day, progress)
    ids = [event_id or "" for event_id in answer.ids]
    named = [(id_, event.supplier_id, event.type) for id_, event in zip(ids, day.events, strict=False)]
    expected = stage.expected_pairs(named, hooks)
    await _arrive(ledger, expected, progress)
    deliveries = await _settled(client)
    return _report(day, answer, expected, ledger, deliveries)


async def _publish(client: Client, day: Day, progress: Progress) -> BatchAnswer:
    task = progress.add_task("published", total=len(day.events))

    def advance(chunk: Chunk, _answer: BatchAnswer) -> None:
        progress.advance(task, len(chunk.numbers))

    answer, _ = await asyncio.to_thread(upload, client, day.chunks, progress=advance)
    return answer


async def _arrive(ledger: stage.Ledger, expected: set[stage.Pair], progress: Progress) -> None:
    task = progress.add_task("delivered", total=len(expected), completed=ledger.taken)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DELIVERY_TIMEOUT):
            while ledger.taken < len(expected):
                await ledger.changed()
                progress.update(task, completed=ledger.taken)


async def _settled(client: Client) -> list[Delivery]:
    """The deliveries as the service tells, as soon as all are finished, or as they are after a while."""
    deliveries: list[Delivery] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SETTLE_TIMEOUT):
            while True:
                answer = await asyncio.to_thread(client.items, path("deliveries"), limit=None)
                deliveries = decode(answer, Page[Delivery]).items
                if all(delivery.state in FINISHED for delivery in deliveries):
                    break
                await asyncio.sleep(0.25)
    return deliveries


def _report(
    day: Day,
    answer: BatchAnswer,
    expected: set[stage.Pair],
    ledger: stage.Ledger,
    deliveries: Sequence[Delivery],
) -> Report:
    accepted_at = {(d.event_id, d.endpoint_id): clock.from_datetime(d.created_at) for d in deliveries}
    known = [(arrival, accepted_at[pair]) for pair, arrival in ledger.arrivals.items() if pair in accepted_at]
    return Report(
        accepted=answer.accepted,
        expected=len(expected),
        delivered=sum(1 for pair in expected if pair in ledger.arrivals and ledger.arrivals[pair].taken),
        refused=ledger.refused,
        retried_attempts=sum(max(0, delivery.attempt_count - 1) for delivery in deliveries),
        dead=sum(delivery.state == State.DEAD for delivery in deliveries),
        duplicates_seen=ledger.duplicates,
        signatures_verified=ledger.verified,
        signatures_wrong=ledger.unverified,
        accept_to_received=percentiles([arrival.first_at - start for arrival, start in known]),
        accept_to_taken=percentiles(
            [arrival.taken_at - start for arrival, start in known if arrival.taken_at is not None]
        ),
        failures=list(_failures(day, answer, expected, ledger, deliveries)),
    )


def _failures(
    day: Day,
    answer: BatchAnswer,
    expected: set[stage.Pair],
    ledger: stage.Ledger,
    deliveries: Sequence[Delivery],
) -> Iterator[str]:
    if answer.accepted != len(day.events) or len(answer.ids) != len(day.events):
        yield (
            f"of {len(day.events)} events {answer.accepted} were accepted, "
            f"{answer.duplicates} called duplicates and {len(answer.rejected)} rejected"
        )
    missing = [pair for pair in expected if pair not in ledger.arrivals or not ledger.arrivals[pair].taken]
    if missing:
        event_id, endpoint_id = missing[0]
        yield f"{len(missing)} deliveries did not arrive, such as {event_id} at {endpoint_id}"
    stray = ledger.arrivals.keys() - expected
    if stray:
        yield f"{len(stray)} deliveries arrived that nobody asked for"
    if ledger.unverified:
        yield f"{ledger.unverified} requests had a wrong signature"
    undelivered = [delivery for delivery in deliveries if delivery.state != State.DELIVERED]
    if undelivered or len(deliveries) != len(expected):
        yield (
            f"the service lists {len(deliveries)} deliveries, {len(undelivered)} of them not delivered; "
            f"{len(expected)} were expected"
        )


def _print(report: Report) -> None:
    output.print_fields(
        (
            ("accepted events", report.accepted),
            ("deliveries expected", report.expected),
            ("delivered", report.delivered),
            ("refused with 503", report.refused),
            ("retried attempts", report.retried_attempts),
            ("dead", report.dead),
            ("duplicates seen", report.duplicates_seen),
            ("signatures verified", f"{report.signatures_verified}, wrong: {report.signatures_wrong}"),
            ("accept → received", _spans(report.accept_to_received)),
            ("accept → taken", _spans(report.accept_to_taken)),
        )
    )


def _spans(latency: Latency) -> str:
    parts = (("P50", latency.p50), ("P95", latency.p95), ("P99", latency.p99))
    return "   ".join(f"{name} {output.span(seconds)}" for name, seconds in parts)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=output.console(stderr=True),
    )
