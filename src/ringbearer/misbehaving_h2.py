"""Receivers that misbehave over HTTP/2, as `misbehaving` has them for HTTP/1.1.

They need the package `h2`, and a TLS context that offers it.
"""

import contextlib
import itertools
import struct
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from ringbearer.misbehaving import READ, Behaviour, Peer

if TYPE_CHECKING:
    from h2.events import Event


class H2Peer:
    """A connection that speaks HTTP/2, well unless told otherwise."""

    def __init__(self, peer: Peer) -> None:
        from h2.config import H2Configuration
        from h2.connection import H2Connection

        self.peer = peer
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))

    async def start(self, **settings: int) -> None:
        """Send the server's preface, with settings by their names in `h2.settings.SettingCodes`."""
        from h2.settings import SettingCodes

        self.h2.initiate_connection()
        if settings:
            self.h2.update_settings({SettingCodes[name]: value for name, value in settings.items()})
        await self.flush()

    async def flush(self) -> None:
        """Send what the protocol has to say."""
        await self.peer.send(self.h2.data_to_send())

    async def events(self) -> "list[Event]":
        """What comes next; raises EOFError at the end of the connection."""
        data = await self.peer.reader.read(READ)
        if not data:
            raise EOFError
        found: list[Event] = self.h2.receive_data(data)
        for event in found:
            length = getattr(event, "flow_controlled_length", None)
            if length:
                self.h2.acknowledge_received_data(length, event.stream_id)  # type: ignore[attr-defined]
        await self.flush()
        return found

    async def request(self) -> int:
        """The stream of the next whole request."""
        from h2.events import RequestReceived, StreamEnded

        while True:
            for event in await self.events():
                if isinstance(event, RequestReceived):
                    self.peer.rogue.requests.append(_head(event.headers or ()))
                if isinstance(event, StreamEnded) and event.stream_id is not None:
                    return event.stream_id

    async def answer(self, stream: int, status: str = "200", body: bytes = b"ok") -> None:
        """A whole answer."""
        self.h2.send_headers(stream, [(":status", status), ("content-length", str(len(body)))])
        self.h2.send_data(stream, body, end_stream=True)
        await self.flush()


def _head(headers: Iterable[tuple[bytes | str, bytes | str]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % (_bytes(name), _bytes(value)) for name, value in headers)


def _bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _h2(behave: Callable[[H2Peer], Awaitable[None]]) -> Behaviour:
    async def behaviour(peer: Peer) -> None:
        from h2.exceptions import ProtocolError

        with contextlib.suppress(ProtocolError):  # the other end has broken off
            await behave(H2Peer(peer))

    behaviour.__name__ = behave.__name__
    behaviour.__doc__ = behave.__doc__
    return behaviour


@_h2
async def answers(peer: H2Peer) -> None:
    """200 to every request; its streams are answered in the order in which they end."""
    from h2.events import RequestReceived, StreamEnded

    await peer.start()
    while True:
        for event in await peer.events():
            if isinstance(event, RequestReceived):
                peer.peer.rogue.requests.append(_head(event.headers or ()))
            if isinstance(event, StreamEnded) and event.stream_id is not None:
                await peer.answer(event.stream_id)


@_h2
async def never_answers(peer: H2Peer) -> None:
    """Takes requests and stays silent."""
    await peer.start()
    while True:
        await peer.events()


@_h2
async def goes_away(peer: H2Peer) -> None:
    """GOAWAY instead of an answer, with an error, to every request."""
    await peer.start()
    stream = await peer.request()
    peer.h2.close_connection(error_code=2, last_stream_id=stream)  # INTERNAL_ERROR
    await peer.flush()


@_h2
async def refuses_and_goes_away(peer: H2Peer) -> None:
    """GOAWAY that says that no request was looked at, each time: an invitation to try again for ever."""
    await peer.start()
    await peer.request()
    peer.h2.close_connection(error_code=0, last_stream_id=0)
    await peer.flush()


@_h2
async def resets_streams(peer: H2Peer) -> None:
    """RST_STREAM with an error instead of an answer."""
    await peer.start()
    while True:
        peer.h2.reset_stream(await peer.request(), error_code=2)
        await peer.flush()


@_h2
async def refuses_streams(peer: H2Peer) -> None:
    """RST_STREAM with REFUSED_STREAM, each time: an invitation to try again for ever."""
    await peer.start()
    while True:
        peer.h2.reset_stream(await peer.request(), error_code=7)
        await peer.flush()


@_h2
async def takes_nothing(peer: H2Peer) -> None:
    """A flow-control window of 0: the body can never be sent."""
    await peer.start(INITIAL_WINDOW_SIZE=0)
    while True:
        await peer.events()


@_h2
async def floods_settings(peer: H2Peer) -> None:
    """SETTINGS without end, each of which wants to be acknowledged."""
    await peer.start()
    await peer.request()
    while True:
        await peer.peer.send(b"\0\0\0\x04\0\0\0\0\0" * 500)


@_h2
async def floods_pings(peer: H2Peer) -> None:
    """PING without end, each of which wants to be answered."""
    await peer.start()
    await peer.request()
    while True:
        await peer.peer.send(b"\0\0\x08\x06\0\0\0\0\0\0\0\0\0\0\0\0\0" * 500)


@_h2
async def floods_continuations(peer: H2Peer) -> None:
    """A header block that goes on in CONTINUATION frames without end."""
    await peer.start()
    stream = struct.pack(">I", await peer.request())
    await peer.peer.send(b"\0\0\x01\x01\0" + stream + b"\x88")  # HEADERS without END_HEADERS; :status 200
    while True:
        await peer.peer.send((b"\0\0\x01\x09\0" + stream + b"\x8c") * 500)


@_h2
async def endless_body(peer: H2Peer) -> None:
    """A body without end, as fast as the windows let it."""
    await peer.start()
    stream = await peer.request()
    peer.h2.send_headers(stream, [(":status", "200")])
    while True:
        window = min(peer.h2.local_flow_control_window(stream), peer.h2.max_outbound_frame_size)
        if window:
            peer.h2.send_data(stream, b"a" * window)
            await peer.flush()
        else:
            await peer.events()


@_h2
async def endless_early_hints(peer: H2Peer) -> None:
    """103 without end."""
    await peer.start()
    stream = await peer.request()
    for number in itertools.count():
        peer.h2.send_headers(stream, [(":status", "103"), ("link", f"</{number}>; rel=preload")])
        await peer.flush()


@_h2
async def garbage(peer: H2Peer) -> None:
    """Frames of random bytes after a good start."""
    await peer.start()
    await peer.request()
    await peer.peer.send(b"\xff" * 64)
    await peer.peer.gone()
