"""The pool: which connections are open, to whom, and which of them are spare. libcurl keeps them; this only watches."""

import select
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping

import msgspec

from ringbearer import clock

LONGEST_IDLE = 110.0
"""Seconds for which a connection may be idle and still be used again; receivers close theirs after 75 to 120."""


class Idle(msgspec.Struct, frozen=True, gc=False):
    """A connection that carries nothing: its descriptor, its host, and since when (monotonic)."""

    descriptor: int
    host: str
    since: float


class Pool:
    """Connections by their descriptors. Belongs to a courier's sockets and its epoll.

    `hosts` says where each leads that was told of when it was opened. `idle` are those that carry nothing, the longest
    idle first, each with since when (monotonic). The number of a descriptor may be another file's by now: what epoll
    does not know any more, is not ours.
    """

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self.hosts: dict[int, str] = {}
        self.idle: OrderedDict[int, float] = OrderedDict()

    def opened(self, descriptor: int, host: str) -> None:
        """A connection to a host was made."""
        self.hosts[descriptor] = host

    def closed(self, descriptor: int) -> None:
        """It is not there any more, or will not be used again."""
        self.idle.pop(descriptor, None)
        self.hosts.pop(descriptor, None)

    def open(self) -> Counter[str]:
        """How many connections are open, by host; idle ones are watched for reading from now on, and nothing else."""
        for descriptor in [each for each in self.hosts if not self._ours(each)]:
            del self.hosts[descriptor]
        return Counter(self.hosts.values())

    def spare(self, needed: Mapping[str, int]) -> list[int]:
        """Of the connections that were `open`, the idle ones that nobody needs, by host; the longest idle go first."""
        opened = Counter(self.hosts.values())
        idle = [
            Idle(descriptor, self.hosts[descriptor], since)
            for descriptor, since in self.idle.items()
            if descriptor in self.hosts
        ]
        return to_close(idle, opened, needed, clock.monotonic())

    def _ours(self, descriptor: int) -> bool:
        if descriptor not in self.idle:
            return True  # its exchange tells when it ends
        try:
            self._epoll.modify(descriptor, select.EPOLLIN)
        except OSError:  # closed; the number may be another file's, which epoll does not watch
            self.idle.pop(descriptor, None)
            return False
        return True


def to_close(
    idle: Iterable[Idle], opened: Mapping[str, int], needed: Mapping[str, int], now: float
) -> list[int]:
    """Which idle connections to close, given the longest idle first.

    Of a host with traffic, those beyond what it needs; of any host, those that are idle for too long to be used again.
    """
    left = dict(opened)
    closing = []
    for each in idle:
        beyond = each.host in needed and left[each.host] > needed[each.host]
        if beyond or now - each.since > LONGEST_IDLE:
            left[each.host] -= 1
            closing.append(each.descriptor)
    return closing
