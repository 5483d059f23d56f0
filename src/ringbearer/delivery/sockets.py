"""Sockets: what epoll watches for a courier: connections at work, connections at rest, and bells.

libcurl reports a kept-alive connection as unwatched between two exchanges; it stays registered all the same, since
taking it out and in again costs two system calls per exchange.
"""

import contextlib
import select
import socket
from collections import Counter
from collections.abc import Mapping

import pycurl

from ringbearer import clock
from ringbearer.delivery.pool import Pool

_EVENTS = 512
_REMOVE = pycurl.POLL_REMOVE
_WATCH = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}
_READABLE = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
_IN, _OUT = pycurl.CSELECT_IN, pycurl.CSELECT_OUT


class Sockets:
    """The descriptors of one courier, and its epoll. Belongs to its thread.

    `resting` are connections that carry nothing, the longest idle first, each with since when (monotonic).
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, int] = {}
        self._pool = Pool(self._epoll)
        self.resting = self._pool.idle
        self._hosts = self._pool.hosts
        self._bells: set[int] = set()
        self._silent: set[int] = set()  # bells that wake, and of which nobody is told
        self._single: set[int] = set()  # connections that carry one exchange at a time
        self._now = clock.monotonic()

    def __repr__(self) -> str:
        return f"<Sockets, {len(self._watched)} watched, {len(self.resting)} at rest>"

    # ── bells ───────────────────────────────────────────────────────────────────────────────────────────

    def watch(self, descriptor: int, *, rings: bool = True) -> None:
        """Let `wait` end early when this descriptor becomes readable, and tell of it if it `rings`.

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

    # ── connections ─────────────────────────────────────────────────────────────────────────────────────

    def opened(self, descriptor: int, host: str | None, *, stream: bool, single: bool) -> None:
        """A connection was begun; QUIC's is no `stream`. `single`: it may turn out to carry one exchange at a time."""
        self._watched.pop(descriptor, None)  # what had this number before is closed
        self._pool.closed(descriptor)
        self._single.discard(descriptor)
        if not stream:
            return
        if single:
            self._single.add(descriptor)
        if host is not None:
            self._pool.opened(descriptor, host)

    def shared(self, descriptor: int) -> None:
        """That connection carries many exchanges at a time."""
        self._single.discard(descriptor)

    def wanted(self, what: int, descriptor: int, _multi: object, _data: object) -> None:
        """libcurl's callback: what it wants to be told of a connection (CURLMOPT_SOCKETFUNCTION).

        Called twice for each exchange; what is looked up here rather than asked for saves 1 µs of it.
        """
        resting = self.resting
        if what == _REMOVE:
            resting[descriptor] = self._now
            return
        known = self._watched.get(descriptor)
        rested = resting.pop(descriptor, None) is not None
        if known == what and (not rested or descriptor in self._hosts):
            return  # it is watched so already
        self._bells.discard(descriptor)  # one that was closed, and had the number before
        self._watched[descriptor] = what
        if known is None:
            self._register(descriptor, what)
            return
        try:  # the number may belong to another socket by now, which epoll does not know
            self._epoll.modify(descriptor, _WATCH[what])
        except FileNotFoundError:
            self._register(descriptor, what)

    def wait(self, timeout: float) -> tuple[list[tuple[int, int]], bool]:
        """Wait at most so many seconds: what libcurl is to be told, by descriptor, and whether a bell rang.

        Of connections at rest it is not told: one that says what nobody asked for is given up, so that what begins now
        begins on connections that were silent till now.
        """
        events = self._epoll.poll(timeout, _EVENTS)
        self._now = clock.monotonic()
        resting, watched = self.resting, self._watched
        heard: list[tuple[int, int]] = []
        rang = False
        for descriptor, happened in events:
            if descriptor in resting:
                if happened & _READABLE:
                    self._disown(descriptor)
                else:  # still watched for writing, which it always may be
                    watched[descriptor] = pycurl.POLL_IN
                    self._epoll.modify(descriptor, select.EPOLLIN)
            elif descriptor in watched:
                mask = _IN if happened & _READABLE else 0
                heard.append((descriptor, mask | _OUT if happened & select.EPOLLOUT else mask))
            elif descriptor in self._bells:
                rang = rang or descriptor not in self._silent
        return heard, rang

    def open(self) -> Counter[str]:
        """How many connections are open, by host."""
        opened = self._pool.open()
        for descriptor in self.resting:  # by the look they are watched for reading alone
            self._watched[descriptor] = pycurl.POLL_IN
        return opened

    def fit(self, needed: Mapping[str, int]) -> int:
        """Close connections at rest beyond what hosts need, and those idle for too long; returns how many."""
        self.open()
        closing = self._pool.spare(needed)
        for descriptor in closing:
            self._disown(descriptor, ours=True)
        return len(closing)

    def close(self) -> None:
        """Watch nothing more."""
        self._epoll.close()

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

    def _register(self, descriptor: int, what: int) -> None:
        try:
            self._epoll.register(descriptor, _WATCH[what])
        except FileExistsError:
            self._epoll.modify(descriptor, _WATCH[what])

    def _unregister(self, descriptor: int) -> None:
        with contextlib.suppress(OSError, ValueError):  # closed already
            self._epoll.unregister(descriptor)
