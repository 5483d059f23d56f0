"""Names: the addresses behind host names, many looked up at a time, none of which holds up another.

libcurl looks names up on a few threads: ten that hang would stop all others. c-ares asks over sockets instead, tells
how long an answer is good for, and what kind of failure it was. A look-up that fails while the name server answers
others, or the question for the root, is the receiver's; one that fails while the name server is silent is ours.

An answer is used until its time to live is over, and for 30 s more while it is asked for anew; when no name server
can tell a newer one, for up to an hour (after RFC 8767). Each address is examined when it is dialled, however old it is.
"""

import contextlib
import os
import threading
from collections import OrderedDict, deque
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec
import pycares

from ringbearer import clock
from ringbearer.delivery.handle import Order

DEADLINE = 4.0
"""Seconds until an exchange gives up waiting for a name; with what finds out whose fault it is, 5 at most."""
_QUERY_SECONDS, _QUERY_TRIES = 1.0, 2  # 1 s, then 2 s more
_PROBE_SECONDS = 0.8
_PROBE_AFTER = 0.4  # seconds of silence
_BETWEEN_PROBES = 1.5
_HEARD_SECONDS = 5.0  # a name server that answered so lately is there
_SHORTEST, _LONGEST = 5.0, 300.0  # seconds, into which times to live are clamped
_AGAIN = 30.0
_STALE = 3_600.0
_MISSING = 5.0  # seconds for which a name that does not exist is remembered
_MOST = 20_000
_ANSWERED = frozenset({pycares.errno.ARES_ENOTFOUND, pycares.errno.ARES_ENODATA})


class Place(msgspec.Struct, frozen=True, gc=False):
    """The host and port of a URL; `named`: the host is a name, no address."""

    host: str
    port: int
    named: bool

    @property
    def authority(self) -> str:
        """Host and port as one text."""
        return f"{self.host}:{self.port}"


class Found(msgspec.Struct, gc=False):
    """What is known of a name; times are monotonic. Without addresses, `failure` says why there are none."""

    addresses: tuple[str, ...]
    good_until: float
    stale_until: float
    number: int
    failure: str = ""
    ours: bool = False
    """The failure is our name server's, not the name's."""
    late: bool = False
    """No answer came in time."""


class Waiting(msgspec.Struct, gc=False):
    """An order that waits for a name. `until` is monotonic, `since` a stored time."""

    order: Order
    since: int
    until: float


class Names:
    """A bounded memory of names, and the questions under way. Belongs to one thread."""

    def __init__(self, *, servers: list[str] | None = None) -> None:
        self._servers = servers
        self._channel: pycares.Channel | None = None
        self._probes: pycares.Channel | None = None
        self._places: dict[str, Place] = {}
        self._known: OrderedDict[str, Found] = OrderedDict()
        self._told: OrderedDict[Place, int] = OrderedDict()
        self._asking: dict[str, float] = {}
        self._undecided: dict[str, tuple[str, bool]] = {}
        self._waiting: dict[str, deque[Waiting]] = {}
        self._answers: deque[tuple[str, tuple[str, ...], float, int]] = deque()
        self._number = 0
        self._closed = False
        self._open = threading.Lock()  # what is still answered at the end finds nobody
        self._heard_at = float("-inf")
        self._probing = False
        self._next_probe = float("-inf")
        self._silent = False
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Becomes readable when something was answered."""

    def __repr__(self) -> str:
        return f"<Names with {len(self._known)} known and {len(self._asking)} asked for>"

    @property
    def busy(self) -> bool:
        """Whether somebody waits, and `collect` wants to be called a few times a second."""
        return bool(self._waiting)

    # ── asking ──────────────────────────────────────────────────────────────────────────────────────────

    def place(self, url: str) -> Place:
        """Where a URL leads."""
        place = self._places.get(url)
        if place is None:
            if len(self._places) >= _MOST:
                self._places.clear()
            place = self._places[url] = _place(url)
        return place

    def find(self, host: str) -> Found | None:
        """What is known of a name and still good; None when it has to be waited for."""
        found = self._known.get(host)
        now = clock.monotonic()
        if found is not None and now < found.good_until + (_AGAIN if found.addresses else 0.0):
            if now >= found.good_until:
                self._ask(host, now)
            return found
        self._ask(host, now)
        return None

    def wait(self, host: str, order: Order, since: int) -> None:
        """Keep an order until its name was answered."""
        until = clock.monotonic() + min(order.timeout, DEADLINE)
        self._waiting.setdefault(host, deque()).append(Waiting(order, since, until))

    def told(self, place: Place, found: Found) -> bool:
        """Whether these addresses of a place were told to libcurl already; they are from now on."""
        if self._told.get(place) == found.number:
            return True
        self._told[place] = found.number
        return False

    def telling(self, place: Place, found: Found) -> list[str]:
        """What to tell libcurl: these addresses, and a place that it may forget when there are too many."""
        told = [f"{place.host}:{place.port}:{','.join(found.addresses)}"]
        if len(self._told) > _MOST:
            gone, _ = self._told.popitem(last=False)
            told.append(f"-{gone.host}:{gone.port}")
        return told

    def _ask(self, host: str, now: float) -> None:
        if host in self._asking or host in self._undecided:
            return
        if self._channel is None:
            self._channel = pycares.Channel(
                timeout=_QUERY_SECONDS, tries=_QUERY_TRIES, servers=self._servers, rotate=False
            )
        self._asking[host] = now

        def answered(result: pycares.AddrInfoResult | None, error: int | None) -> None:
            nodes = [] if result is None else result.nodes
            addresses = tuple(_text(node.addr[0]) for node in nodes)
            self._answer(host, addresses, min((node.ttl for node in nodes), default=0), error or 0)

        self._channel.getaddrinfo(host, None, type=1, callback=answered)

    def _probe(self, now: float) -> None:
        """Ask for the root's name servers, which every name server knows."""
        if self._probing or now < self._next_probe:
            return
        self._probing, self._next_probe = True, now + _BETWEEN_PROBES
        if self._probes is None:
            self._probes = pycares.Channel(timeout=_PROBE_SECONDS, tries=1, servers=self._servers)

        def answered(_result: object, error: int | None) -> None:
            self._answer("", (), 0.0, error or 0)

        self._probes.query(".", pycares.QUERY_TYPE_NS, callback=answered)

    def _answer(self, host: str, addresses: tuple[str, ...], ttl: float, error: int) -> None:
        """Called on the thread of c-ares."""
        with self._open:
            if not self._closed:
                self._answers.append((host, addresses, ttl, error))
                os.eventfd_write(self.descriptor, 1)

    # ── answers ─────────────────────────────────────────────────────────────────────────────────────────

    def collect(self) -> list[tuple[Waiting, Found]]:
        """The orders that need not wait any more, each with what is known of its name."""
        now = clock.monotonic()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)
        while self._answers:
            host, addresses, ttl, error = self._answers.popleft()
            if not host:
                self._probed(error, now)
            else:
                self._take(host, addresses, ttl, error, now)
        oldest = next(iter(self._asking.values()), now)
        if now - oldest > _PROBE_AFTER < now - self._heard_at:
            self._probe(now)
        done = []
        for host in list(self._waiting):
            found = self._known.get(host)
            asked = host in self._undecided or host in self._asking
            if found is not None and asked and now >= found.good_until:
                found = None
            done += self._due(host, found, now)
        return done

    def _due(self, host: str, found: Found | None, now: float) -> list[tuple[Waiting, Found]]:
        line = self._waiting[host]
        if found is not None:
            del self._waiting[host]
            return [(waiting, found) for waiting in line]
        if self._probing:  # whose fault it is will be known in less than a second
            return []
        late = [waiting for waiting in line if waiting.until <= now]
        if len(late) == len(line):
            del self._waiting[host]
        elif late:
            self._waiting[host] = deque(waiting for waiting in line if waiting.until > now)
        return [(waiting, self._too_late(host, now)) for waiting in late]

    def _too_late(self, host: str, now: float) -> Found:
        return self._stale(host, now) or Found((), now, now, 0, "Resolving timed out", self._silent, True)

    def _take(self, host: str, addresses: tuple[str, ...], ttl: float, error: int, now: float) -> None:
        asked = self._asking.pop(host, now)
        if addresses or error in _ANSWERED:
            self._heard_at, self._silent = now, False
        if addresses:
            good_until = now + min(max(ttl, _SHORTEST), _LONGEST)
            self._remember(host, Found(addresses, good_until, good_until + _STALE, self._next()))
        elif error in _ANSWERED or error == 0:
            reason = f"Could not resolve host: {host}"
            self._remember(host, Found((), now + _MISSING, now, self._next(), reason))
        else:
            late = error == pycares.errno.ARES_ETIMEOUT
            reason = "Resolving timed out" if late else f"Could not resolve host: {host}"
            self._undecided[host] = (f"{reason} ({_reason(error)})", late)
            if self._heard_at > (asked if late else now - _HEARD_SECONDS):
                self._decide(now, ours=False)
            elif self._probing or now >= self._next_probe:
                self._probe(now)
            else:  # it was asked a moment ago
                self._decide(now, ours=self._silent)

    def _probed(self, error: int, now: float) -> None:
        self._probing = False
        self._silent = error != 0 and error not in _ANSWERED and now - self._heard_at > _PROBE_SECONDS
        if not self._silent:
            self._heard_at = max(self._heard_at, now - _HEARD_SECONDS / 2)
        self._decide(now, ours=self._silent)

    def _decide(self, now: float, *, ours: bool) -> None:
        for host, (reason, late) in self._undecided.items():
            stale = self._stale(host, now)
            if stale is None:
                self._remember(host, Found((), now, now, self._next(), reason, ours, late))
            else:
                stale.good_until = now + _SHORTEST - _AGAIN  # used now, and asked for anew soon
        self._undecided.clear()

    def _stale(self, host: str, now: float) -> Found | None:
        found = self._known.get(host)
        return found if found is not None and found.addresses and now < found.stale_until else None

    def _remember(self, host: str, found: Found) -> None:
        known = self._known.get(host)
        if known is not None and known.addresses == found.addresses:
            found.number = known.number  # nothing that libcurl has to be told
        self._known[host] = found
        self._known.move_to_end(host)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)

    def _next(self) -> int:
        self._number += 1
        return self._number

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────

    def abandon(self) -> list[Order]:
        """Take all orders that wait."""
        orders = [waiting.order for line in self._waiting.values() for waiting in line]
        self._waiting.clear()
        return orders

    def close(self) -> None:
        """Ask nothing more."""
        with self._open:
            self._closed = True
        for channel in (self._channel, self._probes):
            if channel is not None:
                channel.close()
        os.close(self.descriptor)


def _place(url: str) -> Place:
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        ip_address(host)
    except ValueError:
        return Place(host, port, True)
    return Place(host, port, False)


def _text(address: object) -> str:
    """An address as c-ares tells it, in bytes, as libcurl wants it."""
    text = address.decode() if isinstance(address, bytes) else ""
    return f"[{text}]" if ":" in text else text


def _reason(error: int) -> str:
    text: object = pycares.errno.strerror(error)
    return text.decode() if isinstance(text, bytes) else str(text)
