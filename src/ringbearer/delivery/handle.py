"""Handles: what libcurl is told once and for all, and where an answer goes."""

import socket
from collections.abc import Callable, Sequence

import msgspec
import pycurl

from ringbearer.delivery.pool import LONGEST_IDLE
from ringbearer.delivery.ways import Way, take_way
from ringbearer.domain.endpoints import Grant

MAX_ANSWER = 64 * 1024
"""Bytes of an answer's body that are read before the connection is given up."""
MAX_HEADERS = 64 * 1024
"""Bytes of header lines that are read, those of interim answers and trailers too; libcurl alone takes 6 MB."""
_CONNECTION_SECONDS = 600  # then it is made anew, so that a receiver that moved is followed by its name
_UNHEARD_SECONDS = 30  # a connection whose other end acknowledges nothing for so long is dead
_BAD = pycurl.SOCKET_BAD
_BUFFER = 16 * 1024  # the least: libcurl takes 64 KiB for each request otherwise
_SUPPRESS_CONNECT_HEADERS = 265  # CURLOPT_SUPPRESS_CONNECT_HEADERS, for which pycurl has no name


class Order(msgspec.Struct, gc=False):
    """One exchange to make: `token` comes back with its result. `timeout` in seconds, for all of it.

    `way` is None for the usual one. With a `grant` it needs a bearer token, which a TokenCourier adds.
    """

    token: object
    url: str
    headers: list[str]
    body: bytes
    timeout: float
    way: Way | None = None
    grant: Grant | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same for all exchanges of a courier.

    `refuse` is asked before each connection, with the concrete address that is about to be dialled; what it
    returns is the reason not to. With a `proxy` only that is dialled, and `refuse` is asked elsewhere.
    """

    refuse: Callable[[str], str | None]
    ca_file: str
    proxy: str = ""

    def __repr__(self) -> str:
        return f"<Settings {'with' if self.proxy else 'without'} a proxy>"


class Handle:
    """One easy handle with its buffers and callbacks, used again and again."""

    __slots__ = (
        "again",
        "blocked",
        "body",
        "connected",
        "curl",
        "dialled",
        "head",
        "opened",
        "order",
        "resolved",
        "seconds",
        "settings",
        "started_at",
        "trouble",
        "url",
        "waits",
        "way",
    )

    def __init__(self, settings: Settings, connected: "Callable[[int, Order | None, bool], None]") -> None:
        self.curl = pycurl.Curl()
        self.settings = settings
        self.connected = connected
        self.head = bytearray()
        self.body = bytearray()
        self.url = ""
        self.order: Order | None = None
        self.started_at = 0
        self.blocked: str | None = None
        self.trouble = ""
        self.dialled = False
        self.opened: socket.socket | None = None
        self.waits = False
        self.seconds = 0.0
        self.resolved = 0.0
        self.again = False
        self.way: Way | None = None
        self._set_up()

    def _set_up(self) -> None:
        settings = self.settings
        for option, value in (
            (pycurl.POST, 1),
            (pycurl.NOSIGNAL, 1),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.FOLLOWLOCATION, 0),
            (pycurl.PATH_AS_IS, 1),  # dots and all, as it was registered
            (pycurl.PROXY, settings.proxy),  # an empty one: none, whatever the environment says
            (pycurl.NOPROXY, ""),
            (pycurl.HTTPPROXYTUNNEL, 1),
            (_SUPPRESS_CONNECT_HEADERS, 1),
            (pycurl.NETRC, pycurl.NETRC_IGNORED),
            (pycurl.SSL_VERIFYPEER, 1),
            (pycurl.SSL_VERIFYHOST, 2),
            (pycurl.CAINFO, settings.ca_file),
            (pycurl.MAXAGE_CONN, int(LONGEST_IDLE)),
            (pycurl.MAXLIFETIME_CONN, _CONNECTION_SECONDS),
            (pycurl.TCP_NODELAY, 1),
            (pycurl.UPLOAD_BUFFERSIZE, _BUFFER),
            (pycurl.HEADERFUNCTION, _into(self.head, MAX_HEADERS)),
            (pycurl.WRITEFUNCTION, _into(self.body, MAX_ANSWER)),
            (pycurl.OPENSOCKETFUNCTION, self.dial),
            (pycurl.SOCKOPTFUNCTION, self.duplicated),
        ):
            self.curl.setopt(option, value)
        take_way(self.curl, None)

    def empty(self) -> None:
        """Forget the last exchange."""
        self.head.clear()
        self.body.clear()
        self.blocked = None
        self.trouble = ""
        self.dialled = False

    def dial(self, _purpose: int, address: tuple[int, int, int, Sequence[object]]) -> "socket.socket | int":
        family, kind, protocol, target = address
        reason = None if self.settings.proxy else self.settings.refuse(str(target[0]))
        if reason is not None:
            self.blocked = reason
            return _BAD
        self.close_opened()
        try:
            opened = socket.socket(family, kind, protocol)
            self.opened = opened
            if kind == socket.SOCK_STREAM:  # QUIC has a clock of its own
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNHEARD_SECONDS * 1000)
        except OSError as error:  # too many open files, say; what is raised here would only be printed
            self.trouble = f"no socket: {error.strerror}"
            return _BAD
        self.dialled = True
        return opened

    def duplicated(self, descriptor: int, _purpose: int) -> int:
        """pycurl gave libcurl a duplicate of the socket, which is all that should be left of it."""
        stream = self.opened is None or self.opened.type == socket.SOCK_STREAM
        self.connected(descriptor, self.order, stream)
        self.close_opened()
        return 0

    def close_opened(self) -> None:
        if self.opened is not None:
            self.opened.close()
            self.opened = None


def _into(kept: bytearray, most: int) -> Callable[[bytes], int | None]:
    """What takes what libcurl hands over, up to so many bytes; more ends the exchange.

    MAXFILESIZE would do so as soon as a long answer is announced, and nothing of it could be shown.
    """
    extend = kept.extend

    def take(chunk: bytes) -> int | None:
        extend(chunk)
        if len(kept) <= most:
            return None
        del kept[most:]
        return 0

    return take
