"""Receivers for tests and development: real servers on this machine that check what they are sent.

    LocalServer     any ASGI application on a free port of 127.0.0.1
    Receiver        takes webhooks, verifies their signatures, and misbehaves when told to

They stand in for nothing: the bytes go over real sockets, and the signatures are checked as any other
implementation of Standard Webhooks would check them, without asking the code that made them.
"""

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import socket
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, MutableMapping, Sequence
from typing import Self, cast

import msgspec
import uvicorn
import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ringbearer import clock
from ringbearer.errors import ConfigurationError

TOLERANCE = 300
"""Seconds that a signature's timestamp may differ from this machine's clock (Standard Webhooks' advice)."""
MAX_BODY_BYTES = 1024 * 1024
"""Larger bodies are answered with 413 and not kept; an event's data is at most 256 KiB."""
KEEP_BYTES = 64 * 1024 * 1024
"""Bodies kept in memory by one receiver; the oldest go first."""

_STOP_AFTER = 1
"""Seconds that requests under way may still take when a server ends; then they are cut."""
_KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: senders with a pool should not have to dial anew."""

Message = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]
"""An ASGI 3 application."""


class LocalServer:
    """Serves an ASGI application for the time of an `async with` block.

    Port 0 takes any free port. The socket listens before the block is entered, so the first request needs no
    waiting. Raises ConfigurationError when the address cannot be taken.
    """

    def __init__(self, application: Application, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._application = application
        self._host = host
        self._port = port
        self._server: _EmbeddedServer | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The address without a slash at its end; known inside the block."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    async def __aenter__(self) -> Self:
        listener = _listen(self._host, self._port)
        self._port = listener.getsockname()[1]
        self._server = _EmbeddedServer(
            uvicorn.Config(
                self._application,
                interface="asgi3",
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=_STOP_AFTER,
            )
        )
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._server is not None
        assert self._serving is not None
        self._server.should_exit = True
        await self._serving


class _EmbeddedServer(uvicorn.Server):
    """A server that leaves the process's signals to the program it is part of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """One request as a receiver saw it. `at` is a stored time (microseconds)."""

    at: int
    id: str
    """The header `webhook-id`; empty when it is missing."""
    type: str
    """The event type in the body; empty when the body has none."""
    attempt: int
    """The header `ringbearer-attempt`; 0 when it is missing."""
    path: str
    headers: dict[str, str]
    """Names in small letters."""
    body: bytes
    """Decompressed when it came as gzip or zstd."""
    verified: bool | None
    """Whether a signature was right; None when the receiver has no secret to check with."""
    status: int
    """What it is answered."""


class Receiver:
    """Takes webhooks on `url`, whatever their path, and keeps the newest `keep` of them in `received`.

    `secret` is one or several of `whsec_…` (HMAC) and `whpk_…` (Ed25519 public key); any right signature
    verifies. With `fail` set, every `every`-th request is answered with that status and the others with 200;
    an unverified request is answered like a verified one, so that a test can look at both. `slow` is the time
    in seconds from the request to its answer. `fail`, `every` and `slow` may be changed at any time.
    `on_receive` is called with each request before it is answered.

    Raises ConfigurationError for a malformed secret, `every` below 1, or an address that cannot be taken.
    """

    def __init__(
        self,
        *,
        secret: str | Iterable[str] = (),
        fail: int | None = None,
        every: int = 1,
        slow: float = 0.0,
        host: str = "127.0.0.1",
        port: int = 0,
        keep: int = 10_000,
        on_receive: Callable[[Received], None] | None = None,
    ) -> None:
        if every < 1:
            raise ConfigurationError(f"every must be at least 1, not {every}")
        self.fail = fail
        self.every = every
        self.slow = slow
        self.total = 0
        """Requests so far, also those no longer kept."""
        self._verifiers = [_verifier(text) for text in ([secret] if isinstance(secret, str) else secret)]
        self._on_receive = on_receive
        self._kept: deque[Received] = deque()
        self._kept_bytes = 0
        self._keep = keep
        self._arrived = asyncio.Event()
        self._server = LocalServer(self._application, host=host, port=port)

    def __repr__(self) -> str:
        return f"<Receiver {self.url} total={self.total} fail={self.fail} every={self.every}>"

    @property
    def url(self) -> str:
        """The address without a slash at its end; known inside the `async with` block."""
        return self._server.url

    @property
    def received(self) -> list[Received]:
        """What came, oldest first."""
        return list(self._kept)

    def trust(self, secret: str) -> None:
        """Verifies with this secret too, from the next request on; ConfigurationError when malformed."""
        self._verifiers.append(_verifier(secret))

    async def wait_for(self, total: int) -> list[Received]:
        """Returns what was received as soon as there were `total` requests in all."""
        while self.total < total:
            await self._arrived.wait()
        return self.received

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._server.__aexit__(*exception)

    async def _application(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = _headers(cast("Iterable[tuple[bytes, bytes]]", scope["headers"]))
        body = await _body(receive)
        if body is not None:
            body = _decoded(body, headers.get("content-encoding"))
        if body is None:
            await _answer(send, 413, "larger than 1 MiB, or not what content-encoding says")
            return
        status = self._next_status()
        self._note(
            Received(
                at=clock.now(),
                id=headers.get("webhook-id", ""),
                type=_event_type(body),
                attempt=_number(headers.get("ringbearer-attempt", "")) or 0,
                path=str(scope["path"]),
                headers=headers,
                body=body,
                verified=self._verify(headers, body),
                status=status,
            )
        )
        if self.slow > 0:
            await asyncio.sleep(self.slow)
        await _answer(send, status, "ok" if status < 400 else "told to fail")

    def _next_status(self) -> int:
        self.total += 1
        return self.fail if self.fail is not None and self.total % self.every == 0 else 200

    def _verify(self, headers: Mapping[str, str], body: bytes) -> bool | None:
        return _signed(self._verifiers, headers, body, clock.now()) if self._verifiers else None

    def _note(self, received: Received) -> None:
        self._kept.append(received)
        self._kept_bytes += len(received.body)
        while len(self._kept) > self._keep or self._kept_bytes > KEEP_BYTES:
            self._kept_bytes -= len(self._kept.popleft().body)
        if self._on_receive is not None:
            self._on_receive(received)
        self._arrived.set()
        self._arrived = asyncio.Event()


def verify(
    secrets: str | Iterable[str], headers: Mapping[str, str], body: bytes, *, now: int | None = None
) -> bool:
    """Whether one of the secrets made one of the signatures over exactly these bytes, within the tolerance.

    Header names are expected in small letters; `now` is a stored time, the present one by default. Raises
    ConfigurationError for a malformed secret; anything wrong with the request is only False.
    """
    verifiers = [_verifier(text) for text in ([secrets] if isinstance(secrets, str) else secrets)]
    return _signed(verifiers, headers, body, clock.now() if now is None else now)


Verifier = Callable[[str, bytes, bytes], bool]
"""Takes the signature's version, the signature and the signed content."""


def _signed(verifiers: Sequence[Verifier], headers: Mapping[str, str], body: bytes, now: int) -> bool:
    message_id = headers.get("webhook-id", "")
    stamp = headers.get("webhook-timestamp", "")
    seconds = _number(stamp)
    if not message_id or seconds is None or abs(now - seconds * clock.SECOND) > TOLERANCE * clock.SECOND:
        return False
    content = f"{message_id}.{stamp}.".encode() + body
    return any(
        check(version, signature, content)
        for version, signature in _signatures(headers.get("webhook-signature", ""))
        for check in verifiers
    )


def _signatures(header: str) -> Generator[tuple[str, bytes], None, None]:
    for part in header.split(" "):
        version, _, text = part.partition(",")
        with contextlib.suppress(binascii.Error, ValueError):
            yield version, base64.b64decode(text, validate=True)


def _verifier(secret: str) -> Verifier:
    prefix, _, text = secret.partition("_")
    try:
        material = base64.b64decode(text, validate=True)
        if prefix == "whsec" and material:
            return _hmac_verifier(material)
        if prefix == "whpk":
            return _ed25519_verifier(Ed25519PublicKey.from_public_bytes(material))
    except (binascii.Error, ValueError) as error:
        raise ConfigurationError(f"the secret {prefix}_… is malformed: {error}") from error
    raise ConfigurationError("a secret is whsec_… (HMAC) or whpk_… (Ed25519 public key), then base64")


def _hmac_verifier(secret: bytes) -> Verifier:
    def check(version: str, signature: bytes, content: bytes) -> bool:
        expected = hmac.digest(secret, content, hashlib.sha256)
        return version == "v1" and hmac.compare_digest(expected, signature)

    return check


def _ed25519_verifier(public_key: Ed25519PublicKey) -> Verifier:
    def check(version: str, signature: bytes, content: bytes) -> bool:
        if version != "v1a":
            return False
        try:
            public_key.verify(signature, content)
        except InvalidSignature:
            return False
        return True

    return check


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else None


class _Typed(msgspec.Struct):
    type: str = ""


def _event_type(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Typed).type
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


async def _body(receive: Receive) -> bytes | None:
    """The request's body, or None when it is larger than MAX_BODY_BYTES or its sender went away."""
    parts = bytearray()
    more = True
    while more:
        message = await receive()
        parts += cast("bytes", message.get("body", b""))
        if message["type"] == "http.disconnect" or len(parts) > MAX_BODY_BYTES:
            return None
        more = bool(message.get("more_body", False))
    return bytes(parts)


def _decoded(body: bytes, encoding: str | None) -> bytes | None:
    """The body as it was before it was compressed: what is signed. None when it is not, or too large."""
    try:
        if encoding == "gzip":
            unzip = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            body = unzip.decompress(body, MAX_BODY_BYTES)
            return body if unzip.eof else None
        if encoding == "zstd" and zstandard.frame_content_size(body) <= MAX_BODY_BYTES:
            return zstandard.ZstdDecompressor().decompress(body, max_output_size=MAX_BODY_BYTES)
    except (zlib.error, zstandard.ZstdError):
        return None
    return body if encoding is None else None


async def _answer(send: Send, status: int, text: str) -> None:
    content = text.encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    listener.setblocking(False)
    return listener
