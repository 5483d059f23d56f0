"""The courier: HTTP exchanges by libcurl, thousands at a time, on one thread that never waits for one of them."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping

import certifi
import msgspec
import pycurl

from ringbearer import clock
from ringbearer.delivery import heads
from ringbearer.delivery.handle import Handle, Order, Settings
from ringbearer.delivery.names import Found, Names, Place
from ringbearer.delivery.outcome import Exchange
from ringbearer.delivery.returns import Return, timing_of, told_by_proxy, unsent
from ringbearer.delivery.sockets import Sockets
from ringbearer.delivery.tuning import HostUse
from ringbearer.delivery.ways import UNKNOWN, Way, take_way

_log = logging.getLogger(__name__)
_CONNECT_SECONDS = 5.0  # for connecting and TLS together
_NAMES_SECONDS = 0.1  # between two looks at who has waited too long for a name
_MAX_REMEMBERED = 50_000  # URLs whose receivers speak HTTP/2
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
        self._sockets = Sockets()
        self._speaking_http2: set[str] = set()
        self._uses: dict[str, HostUse] = {}
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._sockets.wanted)
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
        self._sockets.watch(descriptor, rings=rings)

    def unwatch(self, descriptor: int) -> None:
        """The opposite of `watch`; a descriptor that is closed already is fine."""
        self._sockets.unwatch(descriptor)

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
        slot = self._free.pop() if self._free else self._new_handle()
        slot.empty()
        curl = slot.curl
        try:
            if order.url != slot.url:
                curl.setopt(pycurl.URL, order.url)
                slot.url = order.url
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
            if seconds != slot.seconds:
                curl.setopt(pycurl.TIMEOUT_MS, max(1, int(seconds * 1000)))
                curl.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, int(min(seconds, _CONNECT_SECONDS) * 1000)))
                slot.seconds = seconds
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
            slot.way, slot.url = UNKNOWN, ""
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
        if self._names.busy:
            timeout = min(timeout, _NAMES_SECONDS)
        # Asked for once a turn, libcurl's next deadline costs less than a callback that tells of it thrice an exchange.
        due = self._multi.timeout()
        if self._ended:
            timeout = 0.0
        elif due >= 0:
            timeout = min(timeout, due / 1000)
        heard, rang = self._sockets.wait(timeout)
        if self._names.busy:
            self._go_on()
        act, resting = self._multi.socket_action, self._sockets.resting
        if due == 0 or (
            due > 0 and not heard
        ):  # else whoever is told of a socket looks at all deadlines, too
            act(pycurl.SOCKET_TIMEOUT, 0)
        for descriptor, mask in heard:
            if descriptor not in resting:
                act(descriptor, mask)
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
        return self._sockets.fit(needed)

    def open(self) -> Counter[str]:
        """How many connections are open, by `Place.authority`."""
        return self._sockets.open()

    def close_unused(self, keep: int) -> int:
        """Close handles that are not in use, but for so many; returns how many that were."""
        closed = 0
        while len(self._free) > keep:
            handle = self._free.popleft()  # the one not used for longest
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
        order = Order(token=_AHEAD, url=url, headers=[], body=b"", timeout=_CONNECT_SECONDS, way=way)
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
        self._sockets.close()

    # ── results ─────────────────────────────────────────────────────────────────────────────────────────

    def _new_handle(self) -> Handle:
        made = Handle(self._settings, self._connected)
        self._all[made.curl] = made
        return made

    def _connected(self, descriptor: int, order: Order | None, stream: bool) -> None:
        """A socket was opened; QUIC's is no `stream`."""
        self._sockets.opened(
            descriptor,
            None if order is None else self._names.place(order.url).authority,
            stream=stream,
            single=order is None or order.token is not _AHEAD,  # of those, only what speaks HTTP/2 stays
        )

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
        if slot.again or slot.head or curl.getinfo(pycurl.NUM_CONNECTS) > 0:
            return False
        left = order.timeout - curl.getinfo(pycurl.TOTAL_TIME)
        self._multi.remove_handle(curl)
        slot.empty()
        slot.again = True
        curl.setopt(pycurl.FRESH_CONNECT, 1)
        slot.seconds = left
        curl.setopt(pycurl.TIMEOUT_MS, max(1, int(left * 1000)))
        self._multi.add_handle(curl)
        return True

    def _return(self, curl: pycurl.Curl, code: int, message: str) -> Return:
        slot = self._all[curl]
        order = slot.order
        assert order is not None
        ask = curl.getinfo
        duration = int(ask(pycurl.TOTAL_TIME) * clock.SECOND)
        status: int = ask(pycurl.RESPONSE_CODE)
        answer = bytes(slot.head)
        head = heads.read(answer)
        if code == 0 and head.ambiguous:
            code, message = _WEIRD_SERVER_REPLY, "both Transfer-Encoding and Content-Length"
        first_byte = None
        if status or ask(pycurl.REQUEST_SIZE) > 0:
            first_byte = slot.started_at + int(ask(pycurl.PRETRANSFER_TIME) * clock.SECOND)
        reused = status != 0 and not slot.dialled
        ours = ""
        if code and self._settings.proxy:
            code, message, ours = told_by_proxy(curl, code, message)
        exchange = Exchange(
            started_at=slot.started_at,
            duration=duration,
            status=status,
            curl_code=code,
            curl_message=slot.trouble or message,
            head=answer,
            body=bytes(slot.body),
            # One refused address among several is no reason, as long as another one could be dialled.
            blocked=None if slot.dialled else slot.blocked,
            os_errno=int(ask(pycurl.OS_ERRNO)) if code == pycurl.E_COULDNT_CONNECT else 0,
            ours=ours,
            timing=timing_of(curl, order.url, slot.resolved) if slot.dialled else None,
        )
        use = self._uses.get(order.url)
        if use is None:
            if len(self._uses) >= _MAX_REMEMBERED:
                self._uses.clear()
            use = self._uses[order.url] = HostUse()
        use.exchanges += 1
        use.connections += not reused
        use.busy += duration / clock.SECOND
        if head.shared:
            use.http2 += 1
            self._sockets.shared(ask(pycurl.ACTIVESOCKET))
            if len(self._speaking_http2) < _MAX_REMEMBERED:
                self._speaking_http2.add(order.url)
        elif self._speaking_http2:
            self._speaking_http2.discard(order.url)
        self._multi.remove_handle(curl)
        slot.order = None
        self._free.append(slot)
        self.in_flight -= 1
        return Return(order, exchange, first_byte, reused)


def _no_request(*_: object) -> int:
    """The handshakes are done; that was all (CURLOPT_PREREQFUNCTION)."""
    return int(pycurl.PREREQFUNC_ABORT)
