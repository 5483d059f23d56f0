"""The command `receive`: shows each webhook in one line and misbehaves when told to."""

import asyncio
import signal
from typing import Annotated

import msgspec
from cyclopts import App, Group, Parameter

from ringbearer import clock
from ringbearer.cli import output
from ringbearer.cli.options import OUTPUT, duration, examples
from ringbearer.testing import Received, Receiver

MISBEHAVIOUR = Group("Misbehaviour", sort_key=20)

app = App(
    name="receive",
    help_epilogue=examples(
        "ringbearer receive --port 9000 --secret whsec_…",
        "ringbearer receive --port 9000 --fail 503 --every 5",
        "ringbearer receive --port 9000 --slow 2s --json",
    ),
    default_parameter=Parameter(negative=()),
)


@app.default
def receive(
    *,
    port: Annotated[int, Parameter(help="Port to listen on; 0 takes a free one.")] = 0,
    host: Annotated[str, Parameter(help="Address to listen on.")] = "127.0.0.1",
    secret: Annotated[
        list[str] | None, Parameter(help="Verify with this whsec_… or public key whpk_…; repeatable.")
    ] = None,
    fail: Annotated[
        int | None, Parameter(group=MISBEHAVIOUR, help="Answer with this status instead of 200.")
    ] = None,
    every: Annotated[int, Parameter(group=MISBEHAVIOUR, help="Fail every so many requests only.")] = 1,
    slow: Annotated[
        str, Parameter(group=MISBEHAVIOUR, help="Wait before answering, such as 2s or 250ms.")
    ] = "0s",
    json: Annotated[
        bool, Parameter(name="--json", group=OUTPUT, help="Print each request as a line of JSON.")
    ] = False,
    quiet: Annotated[bool, Parameter(group=OUTPUT, help="Print the summary only.")] = False,
) -> None:
    """Receive webhooks while developing, until interrupted."""
    summary = Summary()

    def show(received: Received) -> None:
        summary.add(received)
        if not quiet:
            print(as_json(received) if json else as_line(received), flush=True)

    receiver = Receiver(
        secret=secret or (),
        fail=fail,
        every=every,
        slow=duration(slow),
        host=host,
        port=port,
        keep=0,
        on_receive=show,
    )
    asyncio.run(_until_interrupted(receiver))
    output.note(str(summary))


class Summary:
    """Counts what came."""

    def __init__(self) -> None:
        self.total = 0
        self.verified = 0
        self.unverified = 0
        self.refused = 0

    def add(self, received: Received) -> None:
        """Counts one request."""
        self.total += 1
        self.verified += received.verified is True
        self.unverified += received.verified is False
        self.refused += received.status >= 400

    def __str__(self) -> str:
        return (
            f"{self.total} received, {self.verified} verified, "
            f"{self.unverified} with a wrong signature, {self.refused} refused"
        )


def as_line(received: Received) -> str:
    """One request for people: local time, id, type, attempt, signature, answer."""
    local = clock.to_datetime(received.at).astimezone()
    seen = {True: "verified", False: "SIGNATURE WRONG", None: "not verified (no --secret)"}[received.verified]
    parts = (
        f"{local:%H:%M:%S}.{local.microsecond // 1000:03d}",
        received.id or "(no webhook-id)",
        received.type or "(no type)",
        f"attempt {received.attempt or '?'}",
        seen,
        f"→ {received.status}",
    )
    return output.plain("  ".join(parts)).replace("\n", "\\n")


def as_json(received: Received) -> str:
    """One request for programs: everything that was received; the body as text."""
    fields = msgspec.structs.asdict(received)
    fields["at"] = clock.to_datetime(received.at)
    fields["body"] = received.body.decode(errors="replace")
    return msgspec.json.encode(fields).decode()


async def _until_interrupted(receiver: Receiver) -> None:
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    async with receiver:
        output.note(f"receiving on {receiver.url} (Ctrl-C ends it)")
        await interrupted.wait()
