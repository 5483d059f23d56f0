"""Rate limits: of an endpoint, a supplier and the whole service, kept by all workers together.

An endpoint's limit is exact: the moments of its last sends are remembered, and the next one may go out a period
after the oldest of them, so that no window of time holds more, wherever it begins. Those of a supplier and of the
service are smooth: the generic cell rate algorithm (ITU-T I.371) remembers one moment, lets a second's worth go at
once, and spaces what comes after. A delivery goes out when all of its limits let it, and uses none up before.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import ceil

import msgspec

from ringbearer import clock
from ringbearer.domain.endpoints import RateLimit

MAX_REMEMBERED = 1_000
"""Sends that are remembered per endpoint; a faster limit is kept as its n-th part in each n-th of its period."""
_CLOCK_JUMP = 60 * clock.SECOND  # more than two hosts differ by, or than one waits for the store
_BURST = clock.SECOND  # how much of a smooth limit may go out at once


class Limit(msgspec.Struct, frozen=True, gc=False):
    """A limit under which something goes out. All with one key share it; `exact` or smooth."""

    key: str
    rate: RateLimit
    exact: bool = True


class RateLimiter(ABC):
    """Knows when each endpoint, each supplier and the service were sent to."""

    @abstractmethod
    def take(self, wanted: Sequence[Sequence[Limit]], *, now: int) -> list[int]:
        """When each of these sends, each under its limits, may go out.

        Those at `now` are taken; later ones are estimates, to be asked for again then. Blocks; raises
        StoreUnavailable.
        """


def admit(
    wanted: Sequence[Sequence[Limit]], states: Mapping[str, Sequence[int]], now: int
) -> tuple[list[int], dict[str, list[int]]]:
    """When sends may go out, in order, and the states once those that may go out now have.

    A send that has to wait stands in the line of the limit that makes it wait, and in no other: it uses nothing up
    that others could have.
    """
    meters: dict[str, _Meter] = {}
    times = []
    for limits in wanted:
        mine = []
        for limit in limits:
            meter = meters.get(limit.key)
            if meter is None:
                kind = _Exact if limit.exact else _Smooth
                meter = meters[limit.key] = kind(states.get(limit.key, ()), limit.rate, now)
            mine.append((meter, meter.next()))
        moment = max((allowed for _, allowed in mine), default=now)
        for meter, allowed in mine:
            if moment <= now:
                meter.take()
            elif allowed == moment:
                meter.wait(moment)
        times.append(max(moment, now))
    return times, {key: meter.kept for key, meter in meters.items()}


class _Meter(ABC):
    """One limit during one batch."""

    kept: list[int]
    """What is to be remembered."""

    @abstractmethod
    def __init__(self, state: Sequence[int], rate: RateLimit, now: int) -> None: ...

    @abstractmethod
    def next(self) -> int:
        """When the next send may go out; not later than `now` when it may at once."""

    @abstractmethod
    def take(self) -> None:
        """One goes out now."""

    @abstractmethod
    def wait(self, moment: int) -> None:
        """One stands in line for a later moment."""


class _Exact(_Meter):
    """The sliding window. The state holds the times of sends, oldest first.

    Whoever sent last may have looked at its clock a little later than this caller did: then what goes out now is
    noted down with that later time. A state that lies far ahead tells that the clock was set back, and is set back
    with it.
    """

    def __init__(self, state: Sequence[int], rate: RateLimit, now: int) -> None:
        parts = -(-rate.requests // MAX_REMEMBERED)
        self._requests, self._period = rate.requests // parts, -(-round(rate.period * clock.SECOND) // parts)
        ahead = state[-1] - now if state else 0
        if ahead > _CLOCK_JUMP:
            state = [moment - ahead for moment in state]
            ahead = 0
        self._now, self._present = now, now + max(0, ahead)
        self._window = [m for m in state if m > self._present - self._period][-self._requests :]
        self.kept = list(self._window)

    def next(self) -> int:
        if len(self._window) < self._requests:
            return self._now
        moment = self._window[-self._requests] + self._period
        return self._now if moment <= self._present else moment

    def take(self) -> None:
        self._window.append(self._present)
        self.kept.append(self._present)

    def wait(self, moment: int) -> None:
        self._window.append(moment)


class _Smooth(_Meter):
    """The generic cell rate algorithm. The state holds one time: when the next send is due by the rate alone."""

    def __init__(self, state: Sequence[int], rate: RateLimit, now: int) -> None:
        period = rate.period * clock.SECOND
        self._spacing = period / rate.requests
        self._tolerance = max(0.0, min(_BURST, period) - self._spacing)
        due = state[0] if state else now
        if due - now > period + _CLOCK_JUMP:  # the clock was set back
            due = now
        self._now = now
        self._due = self._line = float(max(due, now))
        self.kept = [int(self._due)]

    def next(self) -> int:
        return max(self._now, ceil(self._line - self._tolerance))

    def take(self) -> None:
        self._due += self._spacing
        self._line += self._spacing
        self.kept = [ceil(self._due)]

    def wait(self, moment: int) -> None:
        self._line += self._spacing
