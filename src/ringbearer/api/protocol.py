"""The connection's protocol: single events skip ASGI, since every event of the busiest day comes through here.

uvicorn's own protocol makes a scope, a cycle and a task per request, which costs more than accepting the event.
A plain `POST /v1/events` with a Content-Length is answered here without any of them; everything else, and
whatever is unusual (chunked bodies, 100-continue, pipelining), goes uvicorn's way to the same handlers.
"""

from http import HTTPStatus
from typing import cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from ringbearer.api.connections import BoundedProtocol, most_connections
from ringbearer.api.ingest import MAX_EVENT_BYTES, Ingest

_PATH = b"/v1/events"
_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class _EventCycle:
    """One event on a connection; stands where uvicorn keeps its cycle, with the same attributes."""

    __slots__ = (
        "body",
        "disconnected",
        "headers",
        "keep_alive",
        "message_event",
        "more_body",
        "protocol",
        "response_complete",
    )

    def __init__(self, protocol: "EventProtocol", headers: dict[bytes, bytes], keep_alive: bool) -> None:
        self.protocol = protocol
        self.headers = headers
        self.keep_alive = keep_alive
        self.body = b""
        self.more_body = True
        self.response_complete = False
        self.disconnected = False
        self.message_event = self

    def set(self) -> None:
        """uvicorn's signal that a part of the body is there: read on, where it stopped after 64 KiB.

        It waits for its cycle to take what came so far; here the end of the body, whose length is known to be
        within the limit, is all that matters.
        """
        self.protocol.flow.resume_reading()

    def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Write the response in one piece."""
        if self.response_complete or self.disconnected:
            return
        self.response_complete = True
        parts = [_STATUS[status]]
        parts += [b"%b: %b\r\n" % header for header in self.protocol.server_state.default_headers]
        parts += [b"%b: %b\r\n" % header for header in headers]
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"content-length: %d\r\n\r\n%b" % (len(body), body))
        self.protocol.transport.write(b"".join(parts))
        if not self.keep_alive:
            self.protocol.transport.close()
        self.protocol.on_response_complete()


class EventProtocol(BoundedProtocol):
    """The bounded protocol with a shorter way for single events. `ingest` is set by `protocol_for`."""

    ingest: Ingest

    def on_message_begin(self) -> None:
        """Keep the request's head; the scope is made when it turns out to be needed."""
        self.begin_message()
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """Choose the way."""
        if not self.end_head():
            return
        if self.url == _PATH and self.parser.get_method() == b"POST" and self._is_plain():
            headers = dict(self.headers)
            length = headers.get(b"content-length")
            if (
                length is not None
                and int(length) <= MAX_EVENT_BYTES
                and b"transfer-encoding" not in headers
                and len(headers) == len(self.headers)  # of those that come twice, the other way takes care
            ):
                cycle = _EventCycle(self, headers, self.parser.should_keep_alive())
                self.cycle = cast(RequestResponseCycle, cycle)
                self.in_head = False
                return
        self.check_version()
        url, headers_read, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url = url
        self.headers.extend(headers_read)
        self.expect_100_continue = expects
        super().on_headers_complete()
        self.in_head = False
        self.headers = []  # trailers, which come after the body, are no headers

    def on_message_complete(self) -> None:
        """Hand the event over."""
        if not self.end_message():
            return
        cycle = cast(object, self.cycle)
        if isinstance(cycle, _EventCycle):
            self.ingest.begin(cycle.headers, cycle.body, cycle.answer)
        else:
            super().on_message_complete()

    def _is_plain(self) -> bool:
        idle = self.cycle is None or self.cycle.response_complete
        # A client that reads no answers gets no more than one buffer of them: the other way waits until it does.
        return idle and not self.expect_100_continue and not self.flow.write_paused


def protocol_for(ingest: Ingest) -> type[EventProtocol]:
    """The protocol class for a server with this ingest."""
    return type("EventProtocol", (EventProtocol,), {"ingest": ingest, "most": most_connections()})
