"""The courier: HTTP exchanges by libcurl, thousands at a time, on one thread that never waits for one of them.

Sockets are watched by epoll. libcurl reports a kept-alive connection as unwatched between two exchanges; it
stays registered all the same, since taking it out and in again costs two system calls per exchange.
"""

import contextlib
import logging
import select
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping

import certifi
import msgspec
import pycurl

from ringbearer import clock
from ringbearer.delivery.handle import Handle, Order, Settings
from ringbearer.delivery.names import Found, Names, Place
from ringbearer.delivery.outcome import Exchange
from ringbearer.delivery.pool import Pool
from ringbearer.delivery.returns import Return, ambiguous, timing_of, told_by_proxy, unsent
from ringbearer.delivery.tuning import HostUse
from ringbearer.delivery.ways import UNKNOWN, Way, take_way

_log = logging.getLogger(__name__)
_CONNECT_SECONDS = 5.0  # for connecting and TLS together
_EVENTS = 512
_NAMES_SECONDS = 0.1  # between two looks at who has waited too long for a name
_MAX_REMEMBERED = 50_000  # URLs whose receivers speak HTTP/2
_WATCH = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}
_READABLE = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
_WEIRD_SERVER_REPLY = 8  # CURLE_WEIRD_SERVER_REPLY
_AHEAD = object()
"""Stands where an order's token does, of a connection that is made ahead of the next exchange."""


class Courier:
    """Makes up to `slots` exchanges at a time. Not thread-safe: one thread owns it.

    `refuse` is asked before each connection, with the concrete address that is about to be dialled; what it
    returns is the reason not to. `ca_file` replaces the bundled certificate authorities.

    With a `proxy` every exchange goes through a tunnel that it is asked for (CONNECT), to an address that was
    resolved here and that `refuse` had nothing against: the proxy gets no name to resolve otherwise.

    Connections are kept for the next exchange with the same scheme, host and port, whoever's endpoint that is:
    libcurl pools by nothing else. Two suppliers share one only if they name the same receiver; a request and
    its answer stay together (an answer that nobody asked for ends its connection), no cookies or credentials
    are kept, and each address was examined when it was dialled. What one of them can do to the other there is
    what the receiver itself could.
    """

    def __init__(
        self,
        *,
        slots: int,
        refuse: Callable[[str], str | None],
        ca_file: str | None = None,
        proxy: str | None = None,
    ) -> None:
        self._slots = slots
        self._settings = Settings(refuse=refuse, ca_file=ca_file or certifi.where(), proxy=proxy or "")
        self._names = Names()
        self._ended: list[Return] = []
        self._free: deque[Handle] = deque()
        self._all: dict[pycurl.Curl, Handle] = {}
        self._epoll = select.epoll()
        self._watched: dict[int, int] = {}
        self._pool = Pool(self._epoll)
        self._bells: set[int] = set()
        self._silent: set[int] = set()  # bells that wake, and of which nobody is told
        self._single: set[int] = set()  # descriptors of connections that carry one exchange at a time
        self._speaking_http2: set[str] = set()
        self._due: float | None = None
        self._uses: dict[str, HostUse] = {}
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, slots)
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self.in_flight = 0
        self.watch(self._names.descriptor, rings=False)

    def __repr__(self) -> str:
        return f"<Courier with {self.in_flight} of {self._slots} slots in use>"

    def watch(self, descriptor: int, *, rings: bool = True) -> None:
        """Let `poll` end early when this descriptor becomes readable, and tell of it if it `rings`.

        May be called again for the same number, and must be when it belongs to another file by now.
        """
        self._bells.add(descriptor)
        (self._silent.discard if rings else self._silent.add)(descriptor)
        self._watched.pop(descriptor, None)  # what had this number before is closed
        self._pool.closed(descriptor)
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
        place = self._names.place(order.url)
        if not place.named:
            self._begin(order, place, None, clock.now(), order.timeout)
        elif (found := self._names.find(place.host)) is None:
            self._names.wait(place.host, order, clock.now())
        elif found.addresses:
            self._begin(order, place, found, clock.now(), order.timeout)
        else:
            self._ended.append(unsent(order, clock.now(), found))
        self.in_flight += 1

    def _begin(
        self,
        order: Order,
        place: Place,
        found: Found | None,
        now: int,
        seconds: float,
        *,
        waited: float = 0.0,
    ) -> None:
        """Begin an exchange that counts from `now`, a stored time; it has `seconds`, after it `waited` for a name."""
        by_proxy: str | None = None
        if self._settings.proxy:
            by_proxy, reason = self._allowed(place, found)
            if by_proxy is None:
                self._ended.append(unsent(order, now, None, blocked=reason))
                return
        slot = self._free.popleft() if self._free else self._new_handle()
        slot.empty()
        curl = slot.curl
        milliseconds = max(1, int(seconds * 1000))
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
            if milliseconds != slot.milliseconds:
                curl.setopt(pycurl.TIMEOUT_MS, milliseconds)
                curl.setopt(pycurl.CONNECTTIMEOUT_MS, min(milliseconds, int(_CONNECT_SECONDS * 1000)))
                slot.milliseconds = milliseconds
            if by_proxy is not None:
                curl.setopt(pycurl.CONNECT_TO, [f"::{by_proxy}:{place.port}"])
            elif found is not None and not self._names.told(place, found):
                curl.setopt(pycurl.RESOLVE, self._names.telling(place, found))
            slot.started_at, slot.resolved = now, waited
            if order.token is _AHEAD:
                curl.setopt(pycurl.PREREQFUNCTION, _no_request)
                curl.setopt(pycurl.FRESH_CONNECT, 1)  # not one that was closed a moment ago
            self._multi.add_handle(curl)
        except Exception:  # something in it that libcurl does not take
            slot.way = UNKNOWN
            self._let_go(slot, order)
            raise
        slot.order = order

    def _allowed(self, place: Place, found: Found | None) -> tuple[str | None, str | None]:
        """The first address that the proxy may be asked for, or the reason why there is none."""
        reason = None
        for address in (place.host,) if found is None else found.addresses:
            reason = self._settings.refuse(address.strip("[]"))
            if reason is None:
                return (f"[{address}]" if ":" in address and address[0] != "[" else address), None
        return None, reason

    def poll(self, timeout: float) -> tuple[list[Return], bool]:
        """Drive everything for at most `timeout` seconds: what came to an end, and whether a watched one rang."""
        now = clock.monotonic()
        if self._due is not None:
            timeout = max(0.0, min(timeout, self._due - now))
        if self._names.busy:
            timeout = min(timeout, _NAMES_SECONDS)
        if self._ended:
            timeout = 0.0
        rang = False
        events = self._epoll.poll(timeout, _EVENTS)
        # First what nobody waits for, so that what begins now begins on connections that were silent till now.
        for descriptor, happened in events:
            if descriptor in self._pool:
                if happened & _READABLE:
                    self._disown(descriptor)
                else:  # still watched for writing, which it always may be
                    self._watched[descriptor] = pycurl.POLL_IN
                    self._epoll.modify(descriptor, select.EPOLLIN)
            elif descriptor in self._bells:
                rang = rang or descriptor not in self._silent
        if self._names.busy:
            self._go_on()
        if self._due is not None and clock.monotonic() >= self._due:
            self._due = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        for descriptor, happened in events:
            if descriptor in self._watched and descriptor not in self._pool:
                mask = pycurl.CSELECT_IN if happened & _READABLE else 0
                if happened & select.EPOLLOUT:
                    mask |= pycurl.CSELECT_OUT
                self._multi.socket_action(descriptor, mask)
        ended, self._ended = self._ended, []
        self.in_flight -= len(ended)
        return ended + self._finished(), rang

    def _go_on(self) -> None:
        """Begin what waited for a name, or end it."""
        now = clock.now()
        for waiting, found in self._names.collect():
            order = waiting.order
            left = order.timeout - (now - waiting.since) / clock.SECOND
            if not found.addresses or left <= 0:
                self._ended.append(unsent(order, waiting.since, found))
                continue
            try:
                place = self._names.place(order.url)
                self._begin(order, place, found, waiting.since, left, waited=order.timeout - left)
            except Exception as error:  # libcurl does not take it; the others go on
                _log.exception("an order could not be begun after its name was resolved")
                failed = msgspec.structs.replace(found, failure=type(error).__name__)
                self._ended.append(unsent(order, waiting.since, failed))

    def take_uses(self) -> dict[str, HostUse]:
        """What connections were used for since the last time, by URL."""
        uses, self._uses = self._uses, {}
        return uses

    def keep_connections(self, number: int) -> None:
        """Keep at most so many connections open that are not in use."""
        self._multi.setopt(pycurl.M_MAXCONNECTS, number)

    def fit(self, needed: Mapping[str, int]) -> int:
        """Close idle connections beyond what hosts need, and those idle for too long; returns how many.

        `needed` is by `Place.authority`, of the hosts that have traffic.
        """
        self.open()
        closing = self._pool.spare(needed)
        for descriptor in closing:
            self._disown(descriptor, ours=True)
        return len(closing)

    def open(self) -> Counter[str]:
        """How many connections are open, by `Place.authority`."""
        opened = self._pool.open()
        for descriptor in self._pool.idle:  # by the look they are watched for reading alone
            self._watched[descriptor] = pycurl.POLL_IN
        return opened

    def close_unused(self, keep: int) -> int:
        """Close handles that are not in use, but for so many; returns how many that were."""
        closed = 0
        while len(self._free) > keep:
            handle = self._free.pop()
            del self._all[handle.curl]
            handle.curl.close()
            closed += 1
        return closed

    def place(self, url: str) -> Place:
        """Where a URL leads."""
        return self._names.place(url)

    def warm(self, urls: Iterable[str]) -> int:
        """Look up the names of URLs ahead of the next exchange; returns how many are not known yet."""
        places = {self._names.place(url) for url in urls}
        return sum(place.named and self._names.find(place.host) is None for place in places)

    def connect_ahead(self, url: str, way: Way | None) -> bool:
        """Begin a connection that the next exchanges with that URL can share; returns whether one was begun.

        Only over HTTP/2 can that be: libcurl hands on no other connection that carried no request. It stops after the
        handshakes, before a byte of HTTP is sent; the receiver sees a connection, and no request. Nothing is begun where
        a connection is open, or the name is not known yet.
        """
        if url not in self._speaking_http2 or (way is not None and way.http_version == "1.1"):
            return False
        place = self._names.place(url)
        found = self._names.find(place.host) if place.named else None
        if self.open()[place.authority] or (place.named and (found is None or not found.addresses)):
            return False
        order = Order(token=_AHEAD, url=url, headers=["expect:"], body=b"", timeout=_CONNECT_SECONDS, way=way)
        ended = len(self._ended)
        self._begin(order, place, found, clock.now(), order.timeout)
        if len(self._ended) > ended:  # the proxy may not be asked for it
            self._ended.pop()
            return False
        return True

    def abandon(self) -> list[Order]:
        """Break off everything in flight; returns the orders, whose outcome is unknown."""
        orders = [*self._names.abandon(), *(returned.order for returned in self._ended)]
        self._ended.clear()
        for slot in list(self._all.values()):
            if (order := slot.order) is not None:
                self._multi.remove_handle(slot.curl)
                slot.order = None
                self._let_go(slot, order)
                if order.token is not _AHEAD:
                    orders.append(order)
        self.in_flight = 0
        return orders

    def close(self) -> None:
        """Break off everything and close all connections."""
        self.abandon()
        for slot in self._all.values():
            slot.curl.close()
            slot.close_opened()
        self._names.close()
        self._multi.close()
        self._epoll.close()

    # ── results ─────────────────────────────────────────────────────────────────────────────────────────

    def _new_handle(self) -> Handle:
        made = Handle(self._settings, self._connected)
        self._all[made.curl] = made
        return made

    def _connected(self, descriptor: int, order: Order | None, stream: bool) -> None:
        """A socket was opened; QUIC's is no `stream`."""
        self._watched.pop(descriptor, None)  # what had this number before is closed
        self._pool.closed(descriptor)
        self._single.discard(descriptor)
        if not stream:
            return
        if order is None or order.token is not _AHEAD:  # of those, only what speaks HTTP/2 stays
            self._single.add(descriptor)
        if order is not None:
            self._pool.opened(descriptor, self._names.place(order.url).authority)

    def _finished(self) -> list[Return]:
        returns = []
        queued = 1
        while queued:
            queued, succeeded, failed = self._multi.info_read()
            returns += [self._return(curl, 0, "") for curl in succeeded]
            returns += [
                self._return(curl, code, message)
                for curl, code, message in failed
                if not self._set_right(curl, code)
            ]
        return returns

    def _set_right(self, curl: pycurl.Curl, code: int) -> bool:
        """Whether an exchange that failed so is none, or was begun anew."""
        slot = self._all[curl]
        if (
            slot.order is not None and slot.order.token is _AHEAD
        ):  # the connection stays, or did not come about
            self._multi.remove_handle(curl)
            self._let_go(slot, slot.order)
            return True
        return code == pycurl.E_SEND_ERROR and self._tried_again(curl)

    def _let_go(self, slot: Handle, order: Order) -> None:
        """Keep a handle for the next order; one that makes no requests is of no more use."""
        if order.token is _AHEAD:
            del self._all[slot.curl]
            slot.curl.close()
        else:
            self._free.append(slot)

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
        slot.milliseconds = max(1, int(left * 1000))
        curl.setopt(pycurl.TIMEOUT_MS, slot.milliseconds)
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
        if code == 0 and ambiguous(slot.headers):
            code, message = _WEIRD_SERVER_REPLY, "both Transfer-Encoding and Content-Length"
        reused = bool(status) and curl.getinfo(pycurl.NUM_CONNECTS) == 0
        timing = timing_of(curl, order.url, slot.resolved) if slot.dialled else None
        ours = ""
        if self._settings.proxy and code:
            code, message, ours = told_by_proxy(curl, code, message)
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
            ours=ours,
            timing=timing,
        )
        use = self._uses.get(order.url)
        if use is None:
            if len(self._uses) >= _MAX_REMEMBERED:
                self._uses.clear()
            use = self._uses[order.url] = HostUse()
        use.exchanges += 1
        use.connections += not reused
        use.busy += duration / clock.SECOND
        if slot.headers and slot.headers[0].startswith((b"HTTP/2", b"HTTP/3")):
            use.http2 += 1
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
            self._pool.rests(descriptor)
            return
        known = self._watched.get(descriptor)
        if known == what and descriptor not in self._pool:
            return
        self._pool.works(descriptor)
        self._bells.discard(descriptor)  # one that was closed, and had the number before
        self._watched[descriptor] = what
        if known is None:
            self._register(descriptor, what)
            return
        if known == what and self._pool.knows(descriptor):
            return  # it was idle, and is watched still
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

    def _disown(self, descriptor: int, *, ours: bool = False) -> None:
        """An idle connection became readable: closed by its server, or it says what nobody asked for.

        Or nobody needs it (`ours`). libcurl looks for that at most once a second, and would take it for the answer to
        its next request (seen with 8.23). After the shutdown nothing can be sent there, and the request goes to another
        one. In HTTP/2 every answer names its request, and a server may speak at any time: there libcurl sorts it out.
        """
        self._pool.closed(descriptor)
        del self._watched[descriptor]
        self._unregister(descriptor)
        if ours or descriptor in self._single:
            with contextlib.suppress(OSError):  # closed by the other end
                borrowed = socket.socket(fileno=descriptor)
                try:
                    borrowed.shutdown(socket.SHUT_RDWR)
                finally:
                    borrowed.detach()

    def _unregister(self, descriptor: int) -> None:
        with contextlib.suppress(OSError, ValueError):  # closed already
            self._epoll.unregister(descriptor)


def _no_request(*_: object) -> int:
    """The handshakes are done; that was all (CURLOPT_PREREQFUNCTION)."""
    return int(pycurl.PREREQFUNC_ABORT)
