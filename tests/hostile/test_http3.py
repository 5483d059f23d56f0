"""HTTP/3 against a real QUIC server: spoken where it is asked for, pooled, and examined like everything else."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, QuicEvent

from hostile.certificates import Authority, Issued
from hostile.driving import BODY, HEADERS, Ended, Sender, conclude
from ringbearer.delivery.guard import Guard
from ringbearer.delivery.handle import Order
from ringbearer.delivery.ways import Way
from tools import turn

_LONG = 30.0


class QuicReceiver:
    """Answers every request over HTTP/3 with 200, on a thread of its own."""

    def __init__(self, issued: Issued, directory: Path) -> None:
        issued.context(directory)
        (self._file,) = directory.glob(f"{issued.chain[0].serial_number:x}-*.pem")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="quic")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}/"
        self.connections = 0
        self.bodies: list[bytes] = []

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(_LONG)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_LONG)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=False)
        configuration.load_cert_chain(self._file, self._file)
        self._server = await serve(
            "127.0.0.1", self.port, configuration=configuration, create_protocol=self._connected
        )

    async def _end(self) -> None:
        self._server.close()
        for _ in range(3):  # transports are closed by callbacks
            await turn()

    def _connected(self, *arguments: Any, **options: Any) -> QuicConnectionProtocol:
        self.connections += 1
        return _Connection(self, *arguments, **options)


class _Connection(QuicConnectionProtocol):
    def __init__(self, receiver: QuicReceiver, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._receiver = receiver
        self._http: H3Connection | None = None
        self._bodies: dict[int, bytes] = {}

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self._http = H3Connection(self._quic)
        if self._http is None:
            return
        for happened in self._http.handle_event(event):
            if isinstance(happened, HeadersReceived | DataReceived):
                if isinstance(happened, DataReceived):
                    self._bodies[happened.stream_id] = (
                        self._bodies.get(happened.stream_id, b"") + happened.data
                    )
                if happened.stream_ended:
                    self._answer(self._http, happened.stream_id)

    def _answer(self, http: H3Connection, stream: int) -> None:
        self._receiver.bodies.append(self._bodies.pop(stream, b""))
        http.send_headers(stream, [(b":status", b"200"), (b"content-length", b"2")])
        http.send_data(stream, b"ok", end_stream=True)
        self.transmit()


@pytest.fixture(scope="module")
def receiver(authority: Authority, certificates: Path) -> Iterator[QuicReceiver]:
    """A receiver that speaks HTTP/3 alone."""
    with QuicReceiver(authority.issue("127.0.0.1"), certificates) as running:
        yield running


def _send(sender: Sender, url: str, way: Way | None, count: int = 1) -> list[Ended]:
    for _ in range(count):
        sender.courier.submit(Order(token="", url=url, headers=[*HEADERS], body=BODY, timeout=_LONG, way=way))
    ended: list[Ended] = []
    while len(ended) < count:
        ended += [conclude(each) for each in sender.courier.poll(_LONG)[0]]
    return ended


def test_http_3_is_spoken_where_it_is_asked_for_and_its_connection_kept(
    receiver: QuicReceiver, ca_file: str
) -> None:
    way = Way(http_version="3")
    with Sender(ca_file=ca_file) as sender:
        first = _send(sender, receiver.url, way)
        rest = [each for _ in range(3) for each in _send(sender, receiver.url, way, 5)]
    assert {each.exchange.head.partition(b"\n")[0] for each in first + rest} == {b"HTTP/3 200 \r"}
    assert all(each.reused for each in rest)
    assert receiver.connections == 1
    assert receiver.bodies == [BODY] * 16


def test_nobody_is_spoken_to_over_quic_unasked(receiver: QuicReceiver, ca_file: str) -> None:
    before = receiver.connections
    with Sender(ca_file=ca_file) as sender:
        assert _send(sender, receiver.url, None)[0].code == "connection_refused"
    assert receiver.connections == before


def test_certificates_are_checked_over_quic_too(receiver: QuicReceiver) -> None:
    with Sender() as sender:
        (ended,) = _send(sender, receiver.url, Way(http_version="3"))
    assert ended.record.status_code is None
    assert ended.code is not None


def test_addresses_are_examined_before_quic_too(receiver: QuicReceiver, ca_file: str) -> None:
    before = receiver.connections
    with Sender(ca_file=ca_file, refuse=Guard().check_address) as sender:
        (ended,) = _send(sender, receiver.url, Way(http_version="3"))
    assert ended.code == "blocked_address"
    assert receiver.connections == before
