"""What a client may ask of a connection before its request is whole: time, bytes, and company of other connections.

uvicorn waits for the end of a request as long as its client likes, its parser takes a head of any size, and what it
cannot read it answers in plain text. An open port needs more than that.

    idle             first byte                      last byte       answered         idle
    ├ as long as     ├ PATIENCE, and a second for    ├ as long as    ├ PATIENCE to    ├ …
      keep-alive       each LEAST_RATE bytes; 408      we need         read it, once
                                                                       it is closed
"""

import logging
import resource
from asyncio import BaseTransport
from collections.abc import Iterable, Mapping
from typing import ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ringbearer import clock
from ringbearer.api.problems import Refusal, answer_to
from ringbearer.domain.events import MAX_BATCH_BYTES

MAX_HEAD_BYTES = 64 * 1024
"""Of a request's line and headers; more is answered with 431."""
MAX_REQUEST_BYTES = 2 * MAX_BATCH_BYTES
"""Of one request with all that stands around its body; more ends the connection."""
PATIENCE = 30.0
"""Seconds that a request may take to arrive, and that a closed connection may take to read its answer."""
LEAST_RATE = 8 * 1024
"""Bytes of a request that buy it one more second."""
MAX_PIPELINED = 100
"""Requests of a connection that wait for an earlier one's answer; one more ends the connection after those."""
MAX_CONNECTIONS = 10_000
"""Open at a time in one process; one more is answered with 503 and closed."""
SWEEP_SECONDS = 5
"""How often connections are looked at."""

_SPARE_FILES = 200  # the database's, logs, and sockets of our own
_UPGRADING = frozenset({b"upgrade", b"http2-settings"})
_HEAD_TOO_LARGE = f"expected at most {MAX_HEAD_BYTES} bytes of request line and headers"
_log = logging.getLogger(__name__)


class _Stop(Exception):
    """Breaks off the parser, and what its client is answered; never leaves this module."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol within those limits. What it refuses, it answers with a problem, and closes.

    Whoever handles the parser's callbacks calls `begin_message`, `end_head` and `end_message` first, and sets `in_head` to
    False when there is a cycle for the request.
    """

    most: ClassVar[int] = MAX_CONNECTIONS
    """Connections at a time."""

    arrived = 0
    """Bytes of the request that is arriving."""
    since: float | None = None
    """When its first byte was there; None between two requests."""
    closing_since: float | None = None
    in_head = False
    """Whether the head of a request is arriving: nobody answers that request yet."""
    _again: bytes | None = None
    _deaf = False

    def connection_made(self, transport: BaseTransport) -> None:
        """Wait for the first request as long as for each further one, if there is room at all."""
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn wants a Transport, which it is
        if len(self.connections) > self.most:
            self.refuse(503, f"{self.most} connections are open, which is the most", {"retry-after": "1"})
            return
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        """Read on; what is no HTTP, or too much of it, ends the connection."""
        if self._deaf:
            return
        self.arrived += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as pause:
            self._read_again(data[pause.args[0] :])
        except httptools.HttpParserError as error:
            why = error.__context__
            if isinstance(why, _Stop):
                self.refuse(why.status, str(why))
            else:
                self.refuse(400, f"expected an HTTP/1.1 request; the parser says: {str(error)[:200]}")
        else:
            if self.arrived > MAX_HEAD_BYTES:
                self._check_size()

    def begin_message(self) -> None:
        """The first byte of a request is there."""
        self._unset_keepalive_if_required()
        self.since = clock.monotonic()
        self.in_head = True

    def end_head(self) -> bool:
        """The head is there; False when the request is read once more, as one that asks for no other protocol.

        Clients may ask for HTTP/2 or a WebSocket with any request (Java's do) and have to take an answer in
        HTTP/1.1. The parser lets such a request end with its head, and would take the body for the next request.
        """
        if self.arrived > MAX_HEAD_BYTES:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > MAX_HEAD_BYTES:
                raise _Stop(431, _HEAD_TOO_LARGE)
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _Stop(429, f"expected at most {MAX_PIPELINED} requests before their answers are read")
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._again = self._head_without_upgrade()
            return False
        return True

    def check_version(self) -> None:
        """Refuse a request of HTTP/0.9, which has neither headers nor an end."""
        if self.parser.get_http_version() == "0.9":
            raise _Stop(400, "expected an HTTP/1.1 request; this is one of HTTP/0.9")

    def end_message(self) -> bool:
        """The last byte is there; False when it was that of a request which is read once more."""
        if self._again is not None:
            return False
        self.since = None
        self.arrived = 0
        return True

    def look(self, now: float) -> None:
        """Give up a client that takes too long to send its request, or to read the last answer."""
        if self.transport.is_closing():
            self.closing_since = self.closing_since or now
            if now - self.closing_since > PATIENCE:
                self.transport.abort()
        elif self.since is not None and now - self.since > PATIENCE + self.arrived / LEAST_RATE:
            self.refuse(408, f"the request was not whole after {now - self.since:.0f} s; send it faster")

    def refuse(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        """Answer with a problem and close. A request that waits for its answer is answered first."""
        self._deaf = True
        cycle = self.cycle
        answered = cycle is None or cycle.response_complete
        in_body = self.since is not None and not self.in_head
        if not answered and not in_body:
            cycle.keep_alive = False  # which closes the connection after the answer
            return
        # A second answer to one request, or one before its turn, would be taken for another request's.
        in_turn = not self.pipeline and not getattr(cycle, "response_started", False)
        if (answered and not in_body) or (not answered and in_turn):
            self._write(status, detail, headers or {})
        self.transport.close()

    def _write(self, status: int, detail: str, headers: Mapping[str, str]) -> None:
        answer = answer_to(Refusal(status, detail, {"connection": "close", **headers}))
        given = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        lines = [b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *given)]
        head = b"HTTP/1.1 %d \r\n%bcontent-length: %d\r\n\r\n" % (status, b"".join(lines), len(answer.body))
        self.transport.write(head + answer.body)

    def _check_size(self) -> None:
        if self.in_head:
            self.refuse(431, _HEAD_TOO_LARGE)
        elif self.arrived > MAX_REQUEST_BYTES:
            self.refuse(413, f"expected at most {MAX_REQUEST_BYTES} bytes in one request")

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            said = value
            if name == b"connection":
                tokens = value.split(b",")
                said = b",".join(token for token in tokens if token.strip().lower() not in _UPGRADING)
            if name not in _UPGRADING:
                lines.append(b"%b: %b" % (name, said))
        return b"\r\n".join([*lines, b"", b""])

    def _read_again(self, rest: bytes) -> None:
        head, self._again = self._again, None
        if head is None:  # CONNECT, which ends with its head as well
            self.refuse(400, "expected a request to this service, which is no proxy")
            return
        self.parser = httptools.HttpRequestParser(self)
        self.arrived = 0
        self.data_received(head + rest)


def most_connections() -> int:
    """How many connections this process may have open: not more than files are left for them."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(MAX_CONNECTIONS, files - _SPARE_FILES))


def sweep(connections: Iterable[object], now: float) -> None:
    """Look at every connection of a server; call it each SWEEP_SECONDS."""
    known = [connection for connection in connections if isinstance(connection, BoundedProtocol)]
    if known and len(known) >= known[0].most:
        _log.warning("as many connections are open as may be; more are refused", extra={"open": len(known)})
    for connection in known:
        connection.look(now)
