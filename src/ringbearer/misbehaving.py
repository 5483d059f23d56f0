"""Receivers that misbehave on purpose, for tests of senders: real sockets, one named behaviour each.

    Rogues          runs any number of them on 127.0.0.1, on a thread of its own
    Rogue           one of them: where it listens, and what it was sent
    Behaviour       what one does with a connection: an async function that is given a Peer

    with Rogues() as rogues:
        rogue = rogues.serve(endless_body)
        ...send to rogue.url...

Behaviours that need an argument are made by a function: `says(b"HTTP/1.1 200 OK...")`. Those of HTTP/2 are in
`misbehaving_h2`.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Self

_START_SECONDS = 10
READ = 64 * 1024
"""Bytes that are read at a time."""
_BLOCK = 16 * 1024
_MAX_REQUEST = 4 * 1024 * 1024

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_OK_CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Peer:
    """One connection to a rogue, as its behaviour sees it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rogue: "Rogue", number: int
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.rogue = rogue
        self.number = number
        """Which of the rogue's connections it is, from 1."""

    async def request(self) -> bytes:
        """The next request, head and body; raises EOFError when none comes any more."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = min(int(line.partition(b":")[2]), _MAX_REQUEST)
        whole = head + await self.reader.readexactly(length)
        self.rogue.requests.append(whole)
        return whole

    async def send(self, data: bytes) -> None:
        """Send, and wait until the other end has taken most of it; raises ConnectionError when it is gone."""
        self.writer.write(data)
        await self.writer.drain()
        await asyncio.sleep(
            0
        )  # drain alone lets nobody else run, not even what would tell that the peer is gone
        self.rogue.sent += len(data)
        if self.writer.is_closing():
            raise ConnectionResetError

    async def gone(self) -> None:
        """Wait until the other end closes."""
        while await self.reader.read(READ):
            pass

    def reset(self) -> None:
        """Break the connection off with RST."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Peer], Awaitable[None]]
"""What is done with a connection; when it returns, the connection is closed."""


class Rogue:
    """One receiver. What it was sent may be read from any thread."""

    def __init__(self, port: int, *, tls: bool) -> None:
        self.port = port
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/"
        self.connections = 0
        self.requests: list[bytes] = []
        self.sent = 0
        """Bytes that it could get rid of."""
        self.server_names: list[str | None] = []
        """The name in each TLS handshake (SNI), None where there was none."""
        self.done = threading.Event()
        """Set when its behaviour came to the end of something, for a test to wait for."""

    def __repr__(self) -> str:
        return f"<Rogue {self.url} connections={self.connections} requests={len(self.requests)}>"


class Rogues:
    """A thread with an event loop, on which rogues are served until the `with` block ends."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_complain)
        self._thread = threading.Thread(target=self._run, name="rogues")
        self._servers: list[asyncio.Server] = []
        self._busy: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_START_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def serve(
        self,
        behaviour: Behaviour,
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> Rogue:
        """Listen on a free port, or on the given one; connections are accepted when this returns."""
        return asyncio.run_coroutine_threadsafe(self._serve(behaviour, tls, host, port), self._loop).result(
            _START_SECONDS
        )

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _serve(self, behaviour: Behaviour, tls: ssl.SSLContext | None, host: str, port: int) -> Rogue:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=1024)
        rogue = Rogue(listener.getsockname()[1], tls=tls is not None)
        if tls is not None:
            tls.sni_callback = lambda _socket, name, _context: rogue.server_names.append(name)

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            rogue.connections += 1
            task = asyncio.current_task()
            assert task is not None
            self._busy.add(task)
            task.add_done_callback(self._busy.discard)
            try:
                # Cancelled: the block has ended. asyncio would log it, since nobody awaits this task.
                with contextlib.suppress(
                    OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError
                ):
                    await behaviour(Peer(reader, writer, rogue, rogue.connections))
            finally:
                writer.close()

        self._servers.append(
            await asyncio.start_server(connected, sock=listener, ssl=tls, limit=_MAX_REQUEST)
        )
        return rogue

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._busy):
            task.cancel()
        await asyncio.gather(*self._busy, return_exceptions=True)
        await asyncio.sleep(0)  # transports are closed by callbacks


@contextlib.contextmanager
def blackhole() -> Iterator[str]:
    """A URL on which connecting neither succeeds nor fails: a listener that never accepts, its backlog full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # more than fit; the last ones hang as any later one does
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Connections break here by design; everything else is told as usual."""
    if not isinstance(context.get("exception"), OSError):
        loop.default_exception_handler(context)


# ── good ones, to compare with ──────────────────────────────────────────────────────────────────────────────


async def answers(peer: Peer) -> None:
    """200 to every request, and the connection is kept."""
    while True:
        await peer.request()
        await peer.send(OK)


def says(answer: bytes, *, close: bool = True) -> Behaviour:
    """Answers each request with exactly these bytes, then closes the connection or keeps it."""

    async def behave(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(answer)
            if close:
                return

    return behave


def greets(banner: bytes) -> Behaviour:
    """Speaks first, as SSH and SMTP do, and never again."""

    async def behave(peer: Peer) -> None:
        await peer.send(banner)
        await peer.gone()

    return behave


# ── slow ones ───────────────────────────────────────────────────────────────────────────────────────────────


async def never_answers(peer: Peer) -> None:
    """Takes the request and stays silent. Without TLS on an https URL: a handshake that never begins."""
    await peer.gone()


def trickles(start: bytes, *, pause: float) -> Behaviour:
    """Takes the request, says `start`, then one byte after each pause, for ever."""

    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(start)
        while True:
            await asyncio.sleep(pause)
            await peer.send(b"a")

    return behave


def trickles_handshake(*, pause: float) -> Behaviour:
    """Promises a long TLS handshake record and sends it byte by byte. Served without TLS, for an https URL."""

    async def behave(peer: Peer) -> None:
        await peer.reader.read(READ)
        await peer.send(
            b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb\x03\x03"
        )  # a record of a ServerHello of 16 KiB
        while True:
            await asyncio.sleep(pause)
            await peer.send(b"\0")

    return behave


def handshakes(context: ssl.SSLContext) -> Behaviour:
    """Does a TLS handshake and sends the alert when it fails, which asyncio's servers leave out; then answers.

    Served without TLS, for an https URL.
    """

    async def behave(peer: Peer) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        for step in (tls.do_handshake, lambda: tls.read(READ), lambda: tls.write(OK)):
            while True:
                try:
                    step()
                except ssl.SSLWantReadError:
                    await peer.send(outgoing.read())
                    incoming.write(await peer.reader.read(READ))
                except ssl.SSLError:
                    await peer.send(outgoing.read())
                    await peer.gone()
                    return
                else:
                    await peer.send(outgoing.read())
                    break

    return behave


# ── those without end ───────────────────────────────────────────────────────────────────────────────────────


def _floods(start: bytes, block: bytes) -> Behaviour:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(start)
        while True:
            await peer.send(block)

    return behave


endless_chunks = _floods(_OK_CHUNKED, b"%x\r\n%b\r\n" % (_BLOCK, b"a" * _BLOCK))
"""A chunked body without end."""
endless_body = _floods(b"HTTP/1.1 200 OK\r\n\r\n", b"a" * _BLOCK)
"""A body without length and without end."""
endless_failure = _floods(b"HTTP/1.1 500 No\r\n\r\n", b"a" * _BLOCK)
"""The same after a 500."""
colossal_body = _floods(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n", b"a" * _BLOCK)
"""10^12 bytes are announced, and delivered."""
endless_headers = _floods(b"HTTP/1.1 200 OK\r\n", b"x-more: and more\r\n" * 100)
"""Header lines without end."""
endless_header_line = _floods(b"HTTP/1.1 200 OK\r\nx-long: ", b"a" * _BLOCK)
"""One header line without end."""
endless_trailers = _floods(_OK_CHUNKED + b"2\r\nok\r\n0\r\n", b"x-more: and more\r\n" * 100)
"""A whole body, then trailers without end."""
endless_continue = _floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
"""100 Continue without end."""
endless_early_hints = _floods(b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n" * 100)
"""103 Early Hints without end."""
endless_chunk_extension = _floods(_OK_CHUNKED + b"1;x=", b"a" * _BLOCK)
"""A chunk whose extension never ends."""


def bomb(*codings: str, mebibytes: int = 16) -> bytes:
    """An answer of zeros that is small as long as nobody decodes it; `codings` of gzip and deflate, applied in order."""
    body = b"\0" * (mebibytes * 1024 * 1024)
    for coding in codings:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31 if coding == "gzip" else 15)
        body = packer.compress(body) + packer.flush()
    names = ", ".join(codings).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-encoding: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        names,
        len(body),
        body,
    )


# ── those that break off, or say too much ───────────────────────────────────────────────────────────────────


async def resets(peer: Peer) -> None:
    """RST as soon as the connection is there."""
    peer.reset()


async def resets_after_request(peer: Peer) -> None:
    """RST instead of an answer."""
    await peer.request()
    peer.reset()


async def resets_in_body(peer: Peer) -> None:
    """RST in the middle of a body."""
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    await asyncio.sleep(0.05)  # so that what was sent is read before the RST throws it away
    peer.reset()


async def hangs_up(peer: Peer) -> None:
    """Closes the connection instead of an answer."""
    await peer.request()


async def answers_twice(peer: Peer) -> None:
    """Two answers to the first request in one piece; 204 to the requests after it."""
    await peer.request()
    await peer.send(OK + b"HTTP/1.1 299 Smuggled\r\ncontent-length: 0\r\n\r\n")
    peer.rogue.done.set()
    while True:
        await peer.request()
        await peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")


async def answers_again_later(peer: Peer) -> None:
    """A good answer on a kept connection and, a moment later, one to a request that nobody made."""
    await peer.request()
    await peer.send(OK)
    if peer.number == 1:
        await asyncio.sleep(0.05)  # the first answer is a whole one by then
        await peer.send(b"HTTP/1.1 299 Smuggled\r\ncontent-length: 0\r\n\r\n")
        peer.rogue.done.set()
    while True:
        await peer.request()
        await peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")


def answers_once(answer: bytes = OK) -> Behaviour:
    """One good answer that promises a kept connection, which is then closed all the same."""

    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        peer.writer.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):  # over TLS the other end would have to agree
                await peer.writer.wait_closed()
        peer.rogue.done.set()

    return behave
