"""Sending: each message to a person leaves in a process of its own, which is ended when it takes too long.

A thread that waits for a name server, or for a gateway that trickles its answer, cannot be ended, and not all that
apprise sends with keeps to a time. A process can be: so no channel uses up what the others need, whatever it does.
"""

import asyncio
import contextlib
import os
import signal
import sys

import msgspec

from ringbearer.domain.alerts import Channel
from ringbearer.monitor import channels
from ringbearer.monitor.channels import ChannelFailed, Message

SECONDS = 12.0
"""All that one message may take, the start of its process included."""
AT_A_TIME = 8
"""Messages that are on their way at a time; each takes about 50 MB for as long as it does."""


class _Order(msgspec.Struct, frozen=True):
    """What the process is told: on its input, where no list of processes shows it."""

    channel: Channel
    address: str
    message: Message
    seconds: float


async def send(channel: Channel, address: str, message: Message) -> None:
    """Send a message; raises ChannelFailed when it was not taken, or nobody said in time that it was."""
    order = msgspec.json.encode(_Order(channel, address, message, SECONDS))
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "ringbearer.monitor.sending"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # what is said there may hold the address
            start_new_session=True,  # what ends this process by a signal to all of its terminal lets it finish
            env={name: value for name, value in os.environ.items() if not name.startswith("RINGBEARER_")},
        )
    except OSError as error:
        raise ChannelFailed(f"no process can be started for it: {error.strerror}") from None
    try:
        async with asyncio.timeout(SECONDS):
            said, _ = await process.communicate(order)
    except TimeoutError:
        raise ChannelFailed(f"it did not take the message within {SECONDS:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        raise ChannelFailed(said.decode(errors="replace") or "the process that sends it failed")


def main() -> int:
    """The process: send what the input says; tell on the output why not, never with the address."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=_Order)
    # Whoever started this may be killed before it ends it.
    signal.setitimer(signal.ITIMER_REAL, order.seconds)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            channels.send(order.channel, order.address, order.message)
    except ChannelFailed as error:
        sys.stdout.write(str(error))
    except Exception as error:
        sys.stdout.write(type(error).__name__)
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
