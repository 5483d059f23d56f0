"""The courier: HTTP exchanges by libcurl, thousands at a time, on one thread that never waits for one of them.

Sockets are watched by epoll. libcurl reports a kept-alive connection as unwatched between two exchanges; it
stays registered all the same, since taking it out and in again costs two system calls per exchange.
"""

import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence

import certifi
import msgspec
import pycurl

from ringbearer import clock
from ringbearer.delivery.outcome import Exchange
from ringbearer.delivery.ways import UNKNOWN, Way, take_way
from ringbearer.domain.endpoints import Grant

MAX_ANSWER = 64 * 1024
"""Bytes of an answer's body that are read before the connection is given up."""
MAX_HEADERS = 64 * 1024
"""Bytes of header lines that are read, those of interim answers and trailers too; libcurl alone takes 6 MB."""
_CONNECT_SECONDS = 5.0  # for name resolution, connecting and TLS together
_KEPT_ALIVE_SECONDS = 110
_CONNECTION_SECONDS = 600  # then it is made anew, so that a receiver that moved is followed by its name
_UNHEARD_SECONDS = 30  # a connection whose other end acknowledges nothing for so long is dead
_EVENTS = 512
_MAX_REMEMBERED = 50_000  # URLs whose receivers speak HTTP/2
_WATCH = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}
_READABLE = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
_BAD = pycurl.SOCKET_BAD
_WEIRD_SERVER_REPLY = 8  # CURLE_WEIRD_SERVER_REPLY


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


class Return(msgspec.Struct, gc=False):
    """An order that came to an end, with what came of it.

    `first_byte_at` is when the request began to go out (a stored time), None when it never did.
    """

    order: Order
    exchange: Exchange
    first_byte_at: int | None
    reused: bool


class _Slot:
    """One easy handle with its buffers and callbacks, used again and again."""

    __slots__ = (
        "again",
        "blocked",
        "body",
        "connected",
        "curl",
        "dialled",
        "header_bytes",
        "headers",
        "opened",
        "order",
        "refuse",
        "started_at",
        "trouble",
        "waits",
        "way",
    )

    def __init__(
        self, curl: pycurl.Curl, refuse: Callable[[str], str | None], connected: Callable[[int], None]
    ) -> None:
        self.curl = curl
        self.refuse = refuse
        self.connected = connected
        self.headers: list[bytes] = []
        self.header_bytes = 0
        self.body = bytearray()
        self.order: Order | None = None
        self.started_at = 0
        self.blocked: str | None = None
        self.trouble = ""
        self.dialled = False
        self.opened: socket.socket | None = None
        self.waits = False
        self.again = False
        self.way: Way | None = None

    def empty(self) -> None:
        """Forget the last exchange."""
        self.headers.clear()
        self.header_bytes = 0
        self.body.clear()
        self.blocked = None
        self.trouble = ""
        self.dialled = False

    def take_header(self, line: bytes) -> int | None:
        self.header_bytes += len(line)
        if self.header_bytes > MAX_HEADERS:
            return 0
        self.headers.append(line)
        return None

    def take_body(self, chunk: bytes) -> int | None:
        # MAXFILESIZE would stop at once when a long answer is announced, and nothing of it could be shown.
        body = self.body
        body += chunk
        if len(body) <= MAX_ANSWER:
            return None
        del body[MAX_ANSWER:]
        return 0

    def dial(self, _purpose: int, address: tuple[int, int, int, Sequence[object]]) -> "socket.socket | int":
        family, kind, protocol, target = address
        reason = self.refuse(str(target[0]))
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
        if self.opened is None or self.opened.type == socket.SOCK_STREAM:
            self.connected(descriptor)
        self.close_opened()
        return 0

    def close_opened(self) -> None:
        if self.opened is not None:
            self.opened.close()
            self.opened = None


class Courier:
    """Makes up to `slots` exchanges at a time. Not thread-safe: one thread owns it.

    `refuse` is asked before each connection, with the concrete address that is about to be dialled; what it
    returns is the reason not to. `ca_file` replaces the bundled certificate authorities.

    Connections are kept for the next exchange with the same scheme, host and port, whoever's endpoint that is:
    libcurl pools by nothing else. Two suppliers share one only if they name the same receiver; a request and
    its answer stay together (an answer that nobody asked for ends its connection), no cookies or credentials
    are kept, and each address was examined when it was dialled. What one of them can do to the other there is
    what the receiver itself could.
    """

    def __init__(
        self, *, slots: int, refuse: Callable[[str], str | None], ca_file: str | None = None
    ) -> None:
        self._slots = slots
        self._refuse = refuse
        self._ca_file = ca_file or certifi.where()
        self._free: deque[_Slot] = deque()
        self._all: dict[pycurl.Curl, _Slot] = {}
        self._epoll = select.epoll()
        self._watched: dict[int, int] = {}
        self._idle: set[int] = set()
        self._bells: set[int] = set()
        self._single: set[int] = set()  # descriptors of connections that carry one exchange at a time
        self._speaking_http2: set[str] = set()
        self._due: float | None = None
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, slots)
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self.in_flight = 0

    def __repr__(self) -> str:
        return f"<Courier with {self.in_flight} of {self._slots} slots in use>"

    def watch(self, descriptor: int) -> None:
        """Let `poll` end early when this descriptor becomes readable.

        May be called again for the same number, and must be when it belongs to another file by now.
        """
        self._bells.add(descriptor)
        self._watched.pop(descriptor, None)  # what had this number before is closed
        self._idle.discard(descriptor)
        try:
            self._epoll.register(descriptor, select.EPOLLIN)
        except FileExistsError:
            self._epoll.modify(descriptor, select.EPOLLIN)

    def unwatch(self, descriptor: int) -> None:
        """The opposite of `watch`; a descriptor that is closed already is fine."""
        if descriptor in self._bells:  # else a connection has the number by now
            self._bells.discard(descriptor)
            self._unregister(descriptor)

    def submit(self, order: Order) -> None:
        """Begin an exchange; the caller keeps `in_flight` below the number of slots.

        Raises, and has begun nothing, when libcurl does not take the order.
        """
        slot = self._free.popleft() if self._free else self._new_slot()
        slot.empty()
        curl = slot.curl
        milliseconds = max(1, int(order.timeout * 1000))
        try:
            curl.setopt(pycurl.URL, order.url)
            curl.setopt(pycurl.HTTPHEADER, order.headers)
            curl.setopt(pycurl.POSTFIELDS, order.body)
            # Only there is it right to wait for a connection that others can share: over HTTP/1.1 libcurl would
            # let everybody wait until the first exchange has an answer, however long that takes.
            wait = order.url in self._speaking_http2 and (
                order.way is None or order.way.http_version != "1.1"
            )
            if order.way is not slot.way:
                take_way(curl, order.way)
                slot.way = order.way
            if slot.again:
                curl.setopt(pycurl.FRESH_CONNECT, 0)
                slot.again = False
            if wait is not slot.waits:
                curl.setopt(pycurl.PIPEWAIT, wait)
                slot.waits = wait
            curl.setopt(pycurl.TIMEOUT_MS, milliseconds)
            curl.setopt(pycurl.CONNECTTIMEOUT_MS, min(milliseconds, int(_CONNECT_SECONDS * 1000)))
            slot.started_at = clock.now()
            self._multi.add_handle(curl)
        except Exception:  # something in it that libcurl does not take
            slot.way = UNKNOWN
            self._free.append(slot)
            raise
        slot.order = order
        self.in_flight += 1

    def poll(self, timeout: float) -> tuple[list[Return], bool]:
        """Drive everything for at most `timeout` seconds: what came to an end, and whether a watched one rang."""
        now = clock.monotonic()
        if self._due is not None:
            timeout = max(0.0, min(timeout, self._due - now))
        rang = False
        events = self._epoll.poll(timeout, _EVENTS)
        # First what nobody waits for, so that what begins now begins on connections that were silent till now.
        for descriptor, happened in events:
            if descriptor in self._idle:
                if happened & _READABLE:
                    self._disown(descriptor)
                else:  # still watched for writing, which it always may be
                    self._watched[descriptor] = pycurl.POLL_IN
                    self._epoll.modify(descriptor, select.EPOLLIN)
            elif descriptor in self._bells:
                rang = True
        if self._due is not None and clock.monotonic() >= self._due:
            self._due = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        for descriptor, happened in events:
            if descriptor in self._watched and descriptor not in self._idle:
                mask = pycurl.CSELECT_IN if happened & _READABLE else 0
                if happened & select.EPOLLOUT:
                    mask |= pycurl.CSELECT_OUT
                self._multi.socket_action(descriptor, mask)
        return self._finished(), rang

    def abandon(self) -> list[Order]:
        """Break off everything in flight; returns the orders, whose outcome is unknown."""
        orders = []
        for slot in self._all.values():
            if slot.order is not None:
                self._multi.remove_handle(slot.curl)
                orders.append(slot.order)
                slot.order = None
                self._free.append(slot)
        self.in_flight = 0
        return orders

    def close(self) -> None:
        """Break off everything and close all connections."""
        self.abandon()
        for slot in self._all.values():
            slot.curl.close()
            slot.close_opened()
        self._multi.close()
        self._epoll.close()

    # ── results ─────────────────────────────────────────────────────────────────────────────────────────

    def _finished(self) -> list[Return]:
        returns = []
        queued = 1
        while queued:
            queued, succeeded, failed = self._multi.info_read()
            returns += [self._return(curl, 0, "") for curl in succeeded]
            returns += [
                self._return(curl, code, message)
                for curl, code, message in failed
                if not (code == pycurl.E_SEND_ERROR and self._tried_again(curl))
            ]
        return returns

    def _tried_again(self, curl: pycurl.Curl) -> bool:
        """Repeat, on a connection of its own, what failed to go out on a kept one; libcurl does so only at times."""
        slot = self._all[curl]
        order = slot.order
        assert order is not None
        if slot.again or slot.headers or curl.getinfo(pycurl.NUM_CONNECTS) > 0:
            return False
        left = order.timeout - curl.getinfo(pycurl.TOTAL_TIME)
        self._multi.remove_handle(curl)
        slot.empty()
        slot.again = True
        curl.setopt(pycurl.FRESH_CONNECT, 1)
        curl.setopt(pycurl.TIMEOUT_MS, max(1, int(left * 1000)))
        self._multi.add_handle(curl)
        return True

    def _return(self, curl: pycurl.Curl, code: int, message: str) -> Return:
        slot = self._all[curl]
        order = slot.order
        assert order is not None
        duration = int(curl.getinfo(pycurl.TOTAL_TIME) * clock.SECOND)
        began = curl.getinfo(pycurl.PRETRANSFER_TIME)
        status = curl.getinfo(pycurl.RESPONSE_CODE)
        went_out = bool(status) or curl.getinfo(pycurl.REQUEST_SIZE) > 0
        if code == 0 and _ambiguous(slot.headers):
            code, message = _WEIRD_SERVER_REPLY, "both Transfer-Encoding and Content-Length"
        reused = bool(status) and curl.getinfo(pycurl.NUM_CONNECTS) == 0
        exchange = Exchange(
            started_at=slot.started_at,
            duration=duration,
            status=status,
            curl_code=code,
            curl_message=slot.trouble or message,
            header_lines=slot.headers.copy(),
            body=bytes(slot.body),
            # One refused address among several is no reason, as long as another one could be dialled.
            blocked=None if slot.dialled else slot.blocked,
            os_errno=int(curl.getinfo(pycurl.OS_ERRNO)) if code == pycurl.E_COULDNT_CONNECT else 0,
        )
        if slot.headers and slot.headers[0].startswith((b"HTTP/2", b"HTTP/3")):
            self._single.discard(curl.getinfo(pycurl.ACTIVESOCKET))
            if len(self._speaking_http2) < _MAX_REMEMBERED:
                self._speaking_http2.add(order.url)
        elif self._speaking_http2:
            self._speaking_http2.discard(order.url)
        self._multi.remove_handle(curl)
        slot.order = None
        self._free.append(slot)
        self.in_flight -= 1
        first_byte = slot.started_at + int(began * clock.SECOND) if went_out else None
        return Return(order, exchange, first_byte, reused)

    # ── libcurl's callbacks ─────────────────────────────────────────────────────────────────────────────

    def _on_socket(self, what: int, descriptor: int, _multi: object, _data: object) -> None:
        if what == pycurl.POLL_REMOVE:
            self._idle.add(descriptor)
            return
        known = self._watched.get(descriptor)
        if known == what and descriptor not in self._idle:
            return
        self._idle.discard(descriptor)
        self._bells.discard(descriptor)  # one that was closed, and had the number before
        self._watched[descriptor] = what
        if known is None:
            self._register(descriptor, what)
            return
        try:  # the number may belong to another socket by now, which epoll does not know
            self._epoll.modify(descriptor, _WATCH[what])
        except FileNotFoundError:
            self._register(descriptor, what)

    def _register(self, descriptor: int, what: int) -> None:
        try:
            self._epoll.register(descriptor, _WATCH[what])
        except FileExistsError:
            self._epoll.modify(descriptor, _WATCH[what])

    def _on_timer(self, milliseconds: int) -> None:
        self._due = None if milliseconds < 0 else clock.monotonic() + milliseconds / 1000

    def _disown(self, descriptor: int) -> None:
        """An idle connection became readable: closed by its server, or it says what nobody asked for.

        libcurl looks for that at most once a second, and would take it for the answer to its next request
        (seen with 8.23). After the shutdown nothing can be sent there, and the request goes to another one. In
        HTTP/2 every answer names its request, and a server may speak at any time: there libcurl sorts it out.
        """
        self._idle.discard(descriptor)
        del self._watched[descriptor]
        self._unregister(descriptor)
        if descriptor in self._single:
            with contextlib.suppress(OSError):  # closed by the other end
                borrowed = socket.socket(fileno=descriptor)
                try:
                    borrowed.shutdown(socket.SHUT_RDWR)
                finally:
                    borrowed.detach()

    def _unregister(self, descriptor: int) -> None:
        with contextlib.suppress(OSError, ValueError):  # closed already
            self._epoll.unregister(descriptor)

    # ── handles ─────────────────────────────────────────────────────────────────────────────────────────

    def _new_slot(self) -> _Slot:
        curl = pycurl.Curl()
        slot = _Slot(curl, self._refuse, self._single.add)
        self._all[curl] = slot
        for option, value in (
            (pycurl.POST, 1),
            (pycurl.NOSIGNAL, 1),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.FOLLOWLOCATION, 0),
            (pycurl.PATH_AS_IS, 1),  # dots and all, as it was registered
            (pycurl.PROXY, ""),  # an empty proxy: none, whatever the environment says
            (pycurl.NETRC, pycurl.NETRC_IGNORED),
            (pycurl.SSL_VERIFYPEER, 1),
            (pycurl.SSL_VERIFYHOST, 2),
            (pycurl.CAINFO, self._ca_file),
            (pycurl.MAXAGE_CONN, _KEPT_ALIVE_SECONDS),
            (pycurl.MAXLIFETIME_CONN, _CONNECTION_SECONDS),
            (pycurl.TCP_NODELAY, 1),
            (pycurl.HEADERFUNCTION, slot.take_header),
            (pycurl.WRITEFUNCTION, slot.take_body),
            (pycurl.OPENSOCKETFUNCTION, slot.dial),
            (pycurl.SOCKOPTFUNCTION, slot.duplicated),
        ):
            curl.setopt(option, value)
        take_way(curl, None)
        return slot


def _ambiguous(lines: list[bytes]) -> bool:
    """Whether an answer tells its length in two ways, which RFC 9112, section 6.3, wants treated as an error."""
    text = b"".join(lines).lower()
    return b"\ntransfer-encoding:" in text and b"\ncontent-length:" in text
