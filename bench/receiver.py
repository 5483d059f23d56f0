"""The receiver of the benchmark: a process that answers 200 at once, counts, and keeps a histogram of delays.

An event's data may hold the moment when its publisher sent it, as `"sent":1234567890.123456`; the delay from
that moment to the arrival is counted. `GET /` answers the counts as JSON, `DELETE /` starts them anew.
"""

import asyncio
import subprocess
import sys
import time
from typing import Self, cast

import httpx
import msgspec
import uvloop

from chaos.service import wait_for

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"
_SENT = b'"sent":'
_END = b"\r\n\r\n"


class Counts(msgspec.Struct):
    """What arrived since the last start. Times are seconds since the epoch, delays seconds, sorted."""

    total: int = 0
    first: float = 0.0
    last: float = 0.0
    delays: list[float] = []


_counts = Counts()


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        answers = 0
        while (end := buffer.find(_END)) >= 0:
            head = buffer[:end].lower()
            if not head.startswith(b"post"):
                self._control(head)
                buffer = buffer[end + 4 :]
                continue
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            whole = end + 4 + length
            if len(buffer) < whole:
                break
            answers += 1
            sent = buffer.find(_SENT, end, whole)
            if sent >= 0:
                stamp = buffer[sent + len(_SENT) : whole].partition(b",")[0].rstrip(b"}")
                _counts.delays.append(time.time() - float(stamp))
            buffer = buffer[whole:]
        self._buffer = buffer
        if answers:
            now = time.time()
            _counts.first = _counts.first or now
            _counts.last = now
            _counts.total += answers
            assert self._transport is not None
            self._transport.write(_OK * answers)

    def _control(self, head: bytes) -> None:
        body = b"{}"
        if head.startswith(b"delete"):
            _counts.total, _counts.first, _counts.last = 0, 0.0, 0.0
            _counts.delays.clear()
        else:
            _counts.delays.sort()
            with_delays = b"delays" in head.split(b"\r\n", 1)[0]
            body = msgspec.json.encode(
                _counts if with_delays else Counts(_counts.total, _counts.first, _counts.last)
            )
        assert self._transport is not None
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


class Receiver:
    """The process, seen from outside; a context manager."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.receiver", str(port)], stdin=subprocess.PIPE
        )
        self.pid = self._process.pid
        self._client = httpx.Client(base_url=self.url, trust_env=False, timeout=30)

    def counts(self, *, delays: bool = False) -> Counts:
        """What arrived since the last start."""
        answer = self._client.get("/delays" if delays else "/")
        return msgspec.json.decode(answer.content, type=Counts)

    def start_anew(self) -> None:
        """Count from zero."""
        self._client.delete("/")

    def __enter__(self) -> Self:
        wait_for(self._answers, 20, "the receiver")
        return self

    def _answers(self) -> bool:
        try:
            self.counts()
        except httpx.HTTPError:
            return False
        return True

    def __exit__(self, *exception: object) -> None:
        self._client.close()
        self._process.communicate(timeout=20)


async def _receive(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", port, backlog=4096)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    server.close()


if __name__ == "__main__":
    uvloop.run(_receive(int(sys.argv[1])))
