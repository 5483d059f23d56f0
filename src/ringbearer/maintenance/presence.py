"""Presence: a process tells the others that it lives, and runs what only one may run while it leads."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from typing import Protocol

from ringbearer import __version__, clock
from ringbearer.errors import StoreUnavailable
from ringbearer.looper import Looper
from ringbearer.storage.nodes import Nodes

_log = logging.getLogger(__name__)

LEASE_SECONDS = 6.0
"""How long a leader that gives no sign of life still counts: another takes over at most two seconds after that."""
_RENEW_SECONDS = 2.0
_SURE_SECONDS = 5.0  # believed for less than the lease lasts, so that two leaders do not overlap
_BEAT_SECONDS = 1.0
_UNWRITTEN_SECONDS = 3.0  # in which at least one heartbeat failed: a lock that took too long is no outage


class Duty(Protocol):
    """Something that runs on the leader only; both methods are called in its event loop."""

    def start(self) -> None:
        """Begin."""

    async def stop(self) -> None:
        """End; returns when it has ended."""


class Presence:
    """The heartbeat of one process."""

    def __init__(
        self,
        *,
        nodes: Nodes,
        node_id: str,
        kind: str,
        signals: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self.node_id = node_id
        self._nodes = nodes
        self._kind = kind
        self._signals = signals
        self._host = socket.gethostname()
        self._beaten_at = clock.monotonic()
        self._failure: str | None = None
        self._looper = Looper("presence", self._beat, interval=_BEAT_SECONDS)

    def __repr__(self) -> str:
        return f"<Presence of {self._kind} {self.node_id}>"

    def unwritten(self) -> str | None:
        """Why the store takes no heartbeat, once it has not for some seconds: a disk that is full, or read-only."""
        return self._failure if clock.monotonic() - self._beaten_at >= _UNWRITTEN_SECONDS else None

    def start(self) -> None:
        """Begin to beat."""
        self._looper.start()

    async def stop(self) -> None:
        """End, and tell the others, who need not wait for what this process led."""
        await self._looper.stop()
        try:
            await asyncio.to_thread(self._nodes.forget, self.node_id)
        except Exception as error:
            _log.warning("could not sign off; others notice by themselves: %s", error)

    async def _beat(self) -> float | None:
        signals = self._signals()
        try:
            await asyncio.to_thread(
                self._nodes.beat,
                self.node_id,
                kind=self._kind,
                host=self._host,
                pid=os.getpid(),
                version=__version__,
                signals=signals,
            )
        except StoreUnavailable as error:
            self._failure = str(error)
            raise
        self._failure, self._beaten_at = None, clock.monotonic()
        return None


class Leadership:
    """Campaigns for one lease; runs its duties while it holds it.

    A leader that cannot renew, because the store is away or the process stood still, gives up its duties before
    anybody else can take them: it believes in its lease for less time than that lasts. What a duty has handed to
    a thread by then still ends, so each step of a duty must be safe beside another leader's.
    """

    def __init__(self, *, nodes: Nodes, name: str, holder: str, duties: list[Duty]) -> None:
        self._nodes = nodes
        self._name = name
        self._holder = holder
        self._duties = duties
        self._believed_until = 0.0
        self._term = 0
        self._on_duty = False
        self._turn = asyncio.Lock()
        self._campaign = Looper(f"leadership of {name}", self._renew, interval=_RENEW_SECONDS)
        self._doubt = Looper(f"doubt of {name}", self._check, interval=_RENEW_SECONDS / 4)

    def __repr__(self) -> str:
        return f"<Leadership of {self._name}, {'held' if self.leads else 'not held'}>"

    @property
    def leads(self) -> bool:
        """Whether this process holds the lease, as far as it can know."""
        return clock.monotonic() < self._believed_until

    @property
    def term(self) -> int:
        """The term of the lease that this process held last: the fence for what a leader writes."""
        return self._term

    def start(self) -> None:
        """Begin to campaign."""
        self._campaign.start()
        self._doubt.start()

    async def stop(self) -> None:
        """End; duties have stopped when it returns. The lease is given back by whoever ends the presence."""
        await self._campaign.stop()
        await self._doubt.stop()
        self._believed_until = 0.0
        await self._follow()

    async def _renew(self) -> float | None:
        began = clock.monotonic()
        term = await asyncio.to_thread(self._nodes.lead, self._name, self._holder, seconds=LEASE_SECONDS)
        if term is None:
            self._believed_until = 0.0
        else:
            self._term = term
            self._believed_until = began + _SURE_SECONDS
        await self._follow()
        return None

    async def _check(self) -> float | None:
        await self._follow()
        return None

    async def _follow(self) -> None:
        """Start or stop the duties, as the lease stands."""
        async with self._turn:
            if self.leads and not self._on_duty:
                self._on_duty = True
                _log.info("this process leads", extra={"what": self._name})
                for duty in self._duties:
                    duty.start()
            elif not self.leads and self._on_duty:
                self._on_duty = False
                _log.info("this process leads no more", extra={"what": self._name})
                await asyncio.gather(*(duty.stop() for duty in self._duties))
