"""The recording receiver: a process that writes each webhook down on the disk before it answers it.

Started with a port, a journal and the secrets; told how to behave by lines of JSON on its standard input, each
acknowledged by a line on its standard output. It ends with its standard input.
"""

import asyncio
import contextlib
import hashlib
import random
import subprocess
import sys
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Self, cast

import msgspec
import uvloop

from chaos.journal import Journal
from ringbearer import clock
from ringbearer.testing import verify


class Manners(msgspec.Struct, frozen=True):
    """How the receiver behaves: shares of requests that are failed, cut off, or never answered."""

    fail: float = 0.0
    reset: float = 0.0
    hang: float = 0.0
    down: bool = False
    """Nobody listens, and connections are cut."""


POLITE = Manners()


class Start(msgspec.Struct, frozen=True):
    """What the process is started with."""

    port: int
    journal: str
    secret: str
    seed: int
    timeless: bool = False
    """Take signatures of whatever time: for senders whose clocks are told wrong times."""


class Seen(msgspec.Struct, kw_only=True):
    """One request, as it was written down before it was answered.

    `answer` is a status, or 0 for a connection that was cut or left hanging. An entry with the number of an
    earlier one and `answer` 0 takes that one's answer back: the sender had gone before it could be sent.
    """

    number: int
    id: str
    attempt: int
    path: str
    uid: str
    ordering: str | None
    sequence: int
    at: float
    digest: str
    verified: bool
    answer: int


class _Data(msgspec.Struct):
    uid: str = ""
    ordering: str | None = None
    sequence: int = 0


class _Body(msgspec.Struct):
    data: _Data


_decode = msgspec.json.Decoder(_Body).decode
_HANG_SECONDS = 60.0
_FAILURES = (500, 502, 503, 504)


class _Connection(asyncio.Protocol):
    """HTTP/1.1 as far as a webhook needs it: one request at a time, with a Content-Length."""

    def __init__(self, receiver: "_Receiver") -> None:
        self._receiver = receiver
        self._buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._receiver.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._receiver.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (h.partition(":") for h in head[1:])}
            whole = end + 4 + int(headers.get("content-length", "0"))
            if len(self._buffer) < whole:
                return
            body, self._buffer = self._buffer[end + 4 : whole], self._buffer[whole:]
            self._receiver.spawn(self._receiver.take(self, head[0].split(" ")[1], headers, body))


class _Receiver:
    def __init__(self, start: Start) -> None:
        self._start = start
        self._journal = Journal(Path(start.journal))
        self._random = random.Random(start.seed)
        self._manners = POLITE
        self._server: asyncio.Server | None = None
        self._numbers = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections: set[_Connection] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self) -> None:
        await self._behave(POLITE)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        print("ready", flush=True)
        while line := await reader.readline():
            await self._behave(msgspec.json.decode(line, type=Manners))
            print("so be it", flush=True)
        await self._behave(Manners(down=True))
        self._journal.close()

    async def _behave(self, manners: Manners) -> None:
        self._manners = manners
        if manners.down and self._server is not None:
            self._server.close()
            self._server = None
            for connection in list(self.connections):
                if connection.transport is not None:
                    connection.transport.abort()
        elif not manners.down and self._server is None:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: _Connection(self), "127.0.0.1", self._start.port, backlog=1024
            )

    def _now(self, headers: Mapping[str, str]) -> int | None:
        stamp = headers.get("webhook-timestamp", "")
        return int(stamp) * clock.SECOND if self._start.timeless and stamp.isdecimal() else None

    async def take(self, connection: _Connection, path: str, headers: dict[str, str], body: bytes) -> None:
        """Write down, then answer."""
        transport = connection.transport
        assert transport is not None
        answer, then = self._decide()
        self._numbers += 1
        try:
            data = _decode(body).data
        except msgspec.MsgspecError:
            data = _Data()
        seen = Seen(
            number=self._numbers,
            id=headers.get("webhook-id", ""),
            attempt=int(headers.get("ringbearer-attempt", "0")),
            path=path,
            uid=data.uid,
            ordering=data.ordering,
            sequence=data.sequence,
            at=time.time(),
            digest=hashlib.sha256(body).hexdigest()[:32],
            verified=verify(self._start.secret, headers, body, now=self._now(headers)),
            answer=answer,
        )
        await self._journal.write(seen)
        if then == "reset":
            transport.abort()
        elif then == "hang":
            await asyncio.sleep(_HANG_SECONDS)
            transport.abort()
        elif transport.is_closing():
            if answer == 200:
                seen.answer = 0
                await self._journal.write(seen)
        else:
            transport.write(f"HTTP/1.1 {answer} Told\r\nContent-Length: 2\r\n\r\nok".encode())

    def _decide(self) -> tuple[int, str]:
        manners, chance = self._manners, self._random.random()
        if manners.down or chance < manners.reset:
            return 0, "reset"
        if chance < manners.reset + manners.hang:
            return 0, "hang"
        if chance < manners.reset + manners.hang + manners.fail:
            return self._random.choice(_FAILURES), "answer"
        return 200, "answer"


class Receiver:
    """The process, seen from outside; a context manager."""

    def __init__(self, start: Start) -> None:
        self.port = start.port
        self._process = subprocess.Popen(
            [sys.executable, "-m", "chaos.receiver", msgspec.json.encode(start).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._expect(b"ready\n")

    def behave(self, manners: Manners) -> None:
        """Behave like this from now on; returns when it does."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(manners) + b"\n")
        self._process.stdin.flush()
        self._expect(b"so be it\n")

    def _expect(self, line: bytes) -> None:
        assert self._process.stdout is not None
        if (got := self._process.stdout.readline()) != line:
            raise RuntimeError(f"the receiver said {got!r} instead of {line!r}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=10)


if __name__ == "__main__":
    uvloop.run(_Receiver(msgspec.json.decode(sys.argv[1], type=Start)).run())
