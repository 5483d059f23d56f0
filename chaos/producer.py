"""The producer: a process that publishes over HTTP, and writes down what it tried and what it was promised.

Before a request goes out, the event is on the disk as `tried`; after the answer as `accepted`, `refused`, or
`unknown` when no answer came. Events with an idempotency key are tried again until there is an answer, and
some of them once more afterwards. Events with an ordering key are published one after the other.
It ends when its standard input does, with what is under way finished.
"""

import asyncio
import contextlib
import random
import subprocess
import sys
from pathlib import Path
from typing import Literal, Self

import msgspec
import uvloop

from chaos.journal import Journal


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is started with.

    `ordered` are the suppliers whose events may have an ordering key. `pause` is what each client waits on
    average between two events.
    """

    port: int
    key: str
    journal: str
    seed: int
    suppliers: list[str]
    ordered: list[str]
    clients: int
    pause: float


class Said(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line: what was tried, or what came of it. `uid` is the producer's own name of the event."""

    what: Literal["tried", "accepted", "refused", "unknown"]
    uid: str
    supplier: str = ""
    key: str | None = None
    ordering: str | None = None
    sequence: int = 0
    event: str = ""
    deliveries: int = 0
    duplicate: bool = False
    detail: str = ""


class Answer(msgspec.Struct):
    """What a 202 says."""

    id: str
    deliveries: int
    duplicate: bool


class _NoAnswer(Exception):
    pass


_ANSWER_SECONDS = 10.0
_AGAIN_SECONDS = 0.2
_BUSY = 503
_decode = msgspec.json.Decoder(Answer).decode


class _Client:
    """One connection, used for one event at a time."""

    def __init__(self, start: Start, number: int, journal: Journal, stopping: asyncio.Event) -> None:
        self._start = start
        self._name = f"{start.seed}-{number}"
        self._random = random.Random(f"{start.seed}/{number}")
        self._journal = journal
        self._stopping = stopping
        self._count = 0
        self._sequences = {f"{self._name}-{letter}": 0 for letter in "ab"}
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self) -> None:
        while not self._stopping.is_set():
            chance = self._random.random()
            self._count += 1
            uid = f"u-{self._name}-{self._count}"
            event = Said(what="tried", uid=uid, supplier=self._random.choice(self._start.suppliers))
            if chance < 0.7:
                event.key = f"k-{uid}"
            if chance < 0.3:
                event.ordering = self._random.choice(list(self._sequences))
                event.sequence = self._sequences[event.ordering] = self._sequences[event.ordering] + 1
                # One supplier per ordering key: the order is kept per endpoint.
                names = self._start.ordered
                event.supplier = names[hash_of(event.ordering) % len(names)]
            await self._journal.write(event)
            answered = await self._publish(event)
            if answered and event.key is not None and self._random.random() < 0.2:
                await self._publish(event)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._start.pause * 2 * self._random.random()):
                    await self._stopping.wait()
        self._hang_up()

    async def _publish(self, event: Said) -> bool:
        """Try until there is an answer, or once when a repetition could make a second event."""
        while True:
            try:
                status, body = await self._request(event)
            except _NoAnswer as error:
                said = Said(what="unknown", uid=event.uid, detail=str(error))
            else:
                if status == 202:
                    answer = _decode(body)
                    await self._journal.write(
                        Said(
                            what="accepted",
                            uid=event.uid,
                            event=answer.id,
                            deliveries=answer.deliveries,
                            duplicate=answer.duplicate,
                        )
                    )
                    return True
                said = Said(what="refused", uid=event.uid, detail=f"{status} {body[:200]!r}")
                if status < 500:
                    await self._journal.write(said)
                    return False
            await self._journal.write(said)
            if event.key is None or self._stopping.is_set():
                return False
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _request(self, event: Said) -> tuple[int, bytes]:
        document: dict[str, object] = {
            "supplier_id": event.supplier,
            "type": "booking.confirmed",
            "data": {
                "uid": event.uid,
                "ordering": event.ordering,
                "sequence": event.sequence,
                "text": "é✓" * 20,
            },
        }
        if event.key is not None:
            document["idempotency_key"] = event.key
        if event.ordering is not None:
            document["ordering_key"] = event.ordering
        body = msgspec.json.encode(document)
        head = (
            f"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._start.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._start.port)
                reader, writer = self._streams
                writer.write(head.encode() + body)
                return await _read_answer(reader)
        except (OSError, EOFError, TimeoutError) as error:
            self._hang_up()
            raise _NoAnswer(repr(error)) from None

    def _hang_up(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(head.partition("content-length:")[2].partition("\r\n")[0])
    return int(head.split(" ", 2)[1]), await reader.readexactly(length)


def hash_of(text: str) -> int:
    """The same number for the same text in every process."""
    return int.from_bytes(text.encode()[-8:], "big") % 1_000_003


async def _produce(start: Start) -> None:
    journal = Journal(Path(start.journal))
    stopping = asyncio.Event()
    clients = [_Client(start, number, journal, stopping) for number in range(start.clients)]
    running = [asyncio.create_task(client.run()) for client in clients]
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    stopping.set()
    await asyncio.gather(*running)
    journal.close()


class Producer:
    """The process, seen from outside; a context manager that stops it."""

    def __init__(self, start: Start) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "chaos.producer", msgspec.json.encode(start).decode()],
            stdin=subprocess.PIPE,
        )

    def stop(self) -> None:
        """Publish nothing more; returns when what is under way has its answer. Raises when it had failed."""
        self._process.communicate(timeout=60)
        if self._process.returncode != 0:
            raise RuntimeError(f"the producer ended with {self._process.returncode}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.poll() is None:
            self._process.communicate(timeout=60)


if __name__ == "__main__":
    uvloop.run(_produce(msgspec.json.decode(sys.argv[1], type=Start)))
