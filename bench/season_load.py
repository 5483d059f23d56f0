"""The publishers of the rehearsed month: a process that sends each slice's events in its time, whatever the answers do.

What is refused for want of room, with a 503, is sent again a moment later, as a client does that means it.

Prints a line of JSON as each day begins, and one at the end.
"""

import asyncio
import sys
import time
from collections import deque
from typing import cast

import msgspec
import uvloop

from bench.season_plan import Slice

_BATCH = 100
_CONNECTIONS = 8
_PIPELINED = 16  # requests of one connection on their way; the service takes up to a hundred
_TYPES = (
    "client.created",
    "form.submitted",
    "journey.completed",
    "wedding.date_changed",
    "photo.gallery_ready",
    "venue.availability_updated",
    "booking.confirmed",
    "payment.received",
)
_PADDING = "x" * 200
_LAST_ANSWER_SECONDS = 60.0
_AGAIN_SECONDS = 0.5


class Job(msgspec.Struct, frozen=True):
    """What to publish, where."""

    port: int
    key: str
    suppliers: int
    slices: list[Slice]


class Mark(msgspec.Struct, frozen=True):
    """A day begins (or the month ends, with day -1). Times are seconds since the epoch."""

    day: int
    at: float
    published: int
    bad: int
    refused: int = 0
    spike_at: float | None = None


class _Publisher(asyncio.Protocol):
    """One connection; requests wait in its turn."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._sent: deque[bytes] = deque()
        self._later: deque[bytes] = deque()
        self.waiting = 0
        self.bad = 0
        self.refused = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes) -> None:
        """Publish; answers come in order."""
        self.waiting += 1
        self._write(request)

    def _write(self, request: bytes) -> None:
        assert self._transport is not None
        if len(self._sent) >= _PIPELINED:
            self._later.append(request)
            return
        self._sent.append(request)
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            whole = end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
            if len(self._buffer) < whole:
                return
            body = self._buffer[end + 4 : whole]
            self._buffer = self._buffer[whole:]
            self._answered(self._sent.popleft(), head.split(b" ", 2)[1], body)
            if self._later:
                self._write(self._later.popleft())

    def _answered(self, request: bytes, status: bytes, body: bytes) -> None:
        if status == b"503":
            self.refused += 1
            asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._write, request)
            return
        self.bad += status != b"202" or b'"rejected":[]' not in body
        self.waiting -= 1

    def connection_lost(self, error: Exception | None) -> None:
        self.bad += self.waiting
        self.waiting = 0


class _Month:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.published = 0
        self._head = (
            "POST /v1/events/batch HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {job.key}\r\nContent-Type: application/x-ndjson\r\nContent-Length: "
        ).encode()

    def request(self, count: int, *, saturday: bool) -> bytes:
        """So many events in one request."""
        body = b"\n".join(self._event(saturday) for _ in range(count))
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)

    def _event(self, saturday: bool) -> bytes:
        number = self.published
        self.published += 1
        # On Saturdays a quarter is about a wedding of that day; a tenth of everything can wait.
        priority = "urgent" if saturday and number % 4 == 0 else "bulk" if number % 10 == 9 else "normal"
        return (
            f'{{"supplier_id":"b{number * 7919 % self.job.suppliers}","type":"{_TYPES[number % 8]}",'
            f'"priority":"{priority}","data":{{"n":{number},"text":"{_PADDING}"}}}}'
        ).encode()


async def _run(job: Job) -> None:
    loop = asyncio.get_running_loop()
    lines = [
        (await loop.create_connection(_Publisher, "127.0.0.1", job.port))[1] for _ in range(_CONNECTIONS)
    ]
    month, began, due, day = _Month(job), time.perf_counter(), 0.0, -1
    spike_at: float | None = None
    for piece in job.slices:
        if piece.day != day:
            day = piece.day
            _tell(Mark(day, time.time(), month.published, sum(line.bad for line in lines)))
        if piece.spike:
            spike_at = time.time()
        requests = max(1, -(-piece.deliveries // _BATCH))
        for number in range(requests):
            first, last = (piece.deliveries * n // requests for n in (number, number + 1))
            moment = began + due + piece.seconds * number / requests
            if (pause := moment - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            if last > first:
                line = min(lines, key=lambda each: each.waiting)
                line.send(month.request(last - first, saturday=piece.saturday))
                if number % 8 == 7:
                    await asyncio.sleep(0)  # answers are read although it is late
        due += piece.seconds
    deadline = time.perf_counter() + _LAST_ANSWER_SECONDS
    while any(line.waiting for line in lines) and time.perf_counter() < deadline:  # noqa: ASYNC110  as in `load`
        await asyncio.sleep(0.01)
    bad = sum(line.bad + line.waiting for line in lines)
    refused = sum(line.refused for line in lines)
    _tell(Mark(-1, time.time(), month.published, bad, refused, spike_at))


def _tell(mark: Mark) -> None:
    print(msgspec.json.encode(mark).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(_run(msgspec.json.decode(sys.stdin.buffer.read(), type=Job)))
