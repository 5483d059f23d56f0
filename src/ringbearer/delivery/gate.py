"""The gate: whether a delivery may go out now, is to wait a moment, or has to come again later.

Everything here is one worker's memory and belongs to its courier's thread. Per endpoint there is a window of
requests under way (`limits/concurrency.py`), a pause that the receiver asked for, a short line of deliveries that
wait for the window, and the circuit. Over all of them stand shares of the slots: one endpoint may hold a tenth,
once less than half of all slots is left to the others, and retries hold at most three tenths.
"""

import random
from collections import Counter, deque
from collections.abc import Sequence

import msgspec

from ringbearer import clock
from ringbearer.domain.breakers import Circuit
from ringbearer.domain.deliveries import Lease, Outcome, State
from ringbearer.domain.endpoints import Endpoint
from ringbearer.limits import concurrency
from ringbearer.limits.breakers import Breakers
from ringbearer.limits.concurrency import Window

SHARE = 0.1
"""Of the slots, for one endpoint, once less than half of them is left to the others."""
RETRY_SHARE = 0.3
"""Of the slots, for everything that is tried again, so that first attempts stay quick."""
_WAITING_PER_WINDOW = 4  # deliveries that wait in the worker, for each that may be under way
_FULL_PAUSE = 0.5  # seconds until a delivery for which there is no room is looked at again
_LONGEST_LINE = 30 * clock.SECOND  # how far those pauses are spread when many deliveries stand in line
_FIRST_GUESS = clock.SECOND // 10  # how long an exchange takes, before one has shown it
_PROBED_PAUSE = 2.0  # seconds after which to look what became of a probe
_FORCED_PAUSE = 15.0  # seconds between two looks at a circuit that an operator holds open
_MOST_PACES = 50_000
_RETRIES_FULL = "retries have their share in flight"
_SHARE_FULL = "its endpoint has its share in flight"
_SUPPLIER_FULL = "its supplier has its share in flight"
_WINDOW_FULL = "its endpoint takes no more at a time"
NO_ROOM = frozenset({_RETRIES_FULL, _SHARE_FULL, _SUPPLIER_FULL, _WINDOW_FULL})
"""Reasons that pass as soon as something under way comes to an end."""
_AFTER_OPENING = 5.0  # seconds over which those that wait for a circuit come back


class Pace(msgspec.Struct, gc=False):
    """How one endpoint is served by this worker. Times are stored times, durations microseconds."""

    window: Window
    paused_until: int = 0
    line: int = 0
    """When the last delivery that found no room is to come again."""
    exchange: int = _FIRST_GUESS
    """How long the endpoint's latest exchange took."""
    waiting: deque[Lease] | None = None


class Gate:
    """Admits deliveries and hears of their end."""

    def __init__(self, *, slots: int, breakers: Breakers) -> None:
        self._breakers = breakers
        self._paces: dict[str, Pace] = {}
        # The supplier of each lease that is under way, by its identity, where suppliers have limits of their own: of one
        # delivery two may be under way, when a lease that was lost came back here.
        self._capped: dict[int, str] = {}
        self._of_supplier: Counter[str] = Counter()
        self._random = random.Random()  # noqa: S311  jitter, not a secret
        self._stranded: set[str] = set()
        self.probing = False
        """Whether something was admitted, since that was last set to False, whose circuit is not closed."""
        self.held = 0
        """Deliveries that are under way or wait here."""
        self.retrying = 0
        self.resize(slots)

    def __repr__(self) -> str:
        return f"<Gate with {self.held} of {self._slots} slots held, {self.retrying} of them by retries>"

    def resize(self, slots: int) -> None:
        """Share out another number of slots from now on."""
        self._slots = slots
        self._share = max(1, int(slots * SHARE))
        self._retries = max(1, int(slots * RETRY_SHARE))

    def admit(self, lease: Lease, endpoint: Endpoint, supplier_limit: int | None, now: int) -> Outcome | bool:
        """True: send it; it has its place. False: it waits here. An outcome: it comes again later.

        Whatever was admitted has to be told of by `ended` or `withdrawn`.
        """
        pace = self._paces.get(lease.endpoint_id)
        if pace is None:
            pace = self._new_pace(lease.endpoint_id)
        if pace.paused_until > now:
            return later(lease, pace.paused_until, "the receiver asked for a pause")
        circuit = self._breakers.of(lease.endpoint_id)
        if circuit is not None and circuit.standing != "closed":
            until = self._not_before(circuit, now)
            if until > now:
                return later(lease, until, "its endpoint's circuit is open")
            self.probing = True
        retry = lease.attempt - lease.attempt_base > 1
        if retry and self.retrying >= self._retries:
            return self._in_line(lease, pace, self._retries, now, _RETRIES_FULL)
        limit = self._slots if self.held < self._slots // 2 else self._share
        window = pace.window
        waiting = 0 if pace.waiting is None else len(pace.waiting)
        if window.busy + waiting >= limit:
            return self._in_line(lease, pace, limit, now, _SHARE_FULL)
        if supplier_limit is not None and self._of_supplier[lease.supplier_id] >= supplier_limit:
            return self._in_line(lease, pace, supplier_limit, now, _SUPPLIER_FULL)
        room = window.room(endpoint.max_concurrency)
        if room <= 0:
            most = room + window.busy
            if waiting >= _WAITING_PER_WINDOW * most:
                return self._in_line(lease, pace, most, now, _WINDOW_FULL)
            if pace.waiting is None:
                pace.waiting = deque()
            pace.waiting.append(lease)
            self.held += 1
            return False
        concurrency.begun(window, now)
        self.held += 1
        self.retrying += retry
        if supplier_limit is not None:
            self._capped[id(lease)] = lease.supplier_id
            self._of_supplier[lease.supplier_id] += 1
        return True

    def withdrawn(self, lease: Lease, now: int) -> None:
        """A delivery that was admitted is not sent after all."""
        pace = self._paces[lease.endpoint_id]
        self._vacate(lease, pace)
        if pace.waiting and not pace.window.busy:
            self._stranded.add(lease.endpoint_id)
        self._breakers.give_back(lease.endpoint_id, lease.delivery_id, now=now)

    def stranded(self, now: int) -> list[Outcome]:
        """Send away what waits here for exchanges that did not come about."""
        outcomes: list[Outcome] = []
        while self._stranded:
            pace = self._paces.get(self._stranded.pop())
            if pace is None or pace.window.busy or pace.waiting is None:
                continue
            self.held -= len(pace.waiting)
            limit = int(pace.window.limit)
            outcomes += [self._in_line(lease, pace, limit, now, _WINDOW_FULL) for lease in pace.waiting]
            pace.waiting = None
        return outcomes

    def ended(self, lease: Lease, *, began: int, took: int, well: bool | None, now: int) -> None:
        """An exchange is over. `well`: taken (True), in distress (False), or neither, as a 4xx is (None)."""
        pace = self._paces[lease.endpoint_id]
        pace.exchange = took
        if well:
            concurrency.succeeded(pace.window, self._slots)
        elif well is False:
            concurrency.distressed(pace.window, began=began, now=now)
        self._vacate(lease, pace)

    def pause(self, endpoint_id: str, until: int) -> None:
        """Send nothing to an endpoint before a stored time."""
        self._paces[endpoint_id].paused_until = until

    def waits(self, endpoint_id: str) -> bool:
        """Whether deliveries of an endpoint wait here."""
        pace = self._paces.get(endpoint_id)
        return pace is not None and bool(pace.waiting)

    def next_of(self, endpoint_id: str) -> list[Lease]:
        """Take deliveries of an endpoint that wait here and have room now; they are to be admitted anew.

        If that lets none of them go out, nothing is under way whose end would call the others: `stranded` has them.
        """
        pace = self._paces.get(endpoint_id)
        if pace is None or not pace.waiting:
            return []
        room = max(1, int(pace.window.limit) - pace.window.busy)
        taken = [pace.waiting.popleft() for _ in range(min(room, len(pace.waiting)))]
        self.held -= len(taken)
        if pace.waiting and not pace.window.busy:
            self._stranded.add(endpoint_id)
        return taken

    def take_back(self, leases: Sequence[Lease]) -> None:
        """Let none of these deliveries wait here any more: they were given back with the rest of their batch."""
        given = {id(lease) for lease in leases}
        for endpoint_id in {lease.endpoint_id for lease in leases}:
            pace = self._paces.get(endpoint_id)
            if pace is not None and pace.waiting:
                left = deque(lease for lease in pace.waiting if id(lease) not in given)
                self.held -= len(pace.waiting) - len(left)
                pace.waiting = left or None

    def take_waiting(self) -> list[Lease]:
        """Take all deliveries that wait here."""
        found: list[Lease] = []
        for pace in self._paces.values():
            if pace.waiting:
                found += pace.waiting
                pace.waiting = None
        self.held -= len(found)
        return found

    def forget_all(self) -> None:
        """Everything that was under way is given up."""
        self._paces.clear()
        self._capped.clear()
        self._of_supplier.clear()
        self.held = self.retrying = 0

    def forget_idle(self) -> int:
        """Forget endpoints of which nothing is under way, waits or is paused; returns how many."""
        now = clock.now()
        idle = [
            known
            for known, pace in self._paces.items()
            if not pace.window.busy and not pace.waiting and pace.paused_until <= now
        ]
        for known in idle:
            del self._paces[known]
        return len(idle)

    def _vacate(self, lease: Lease, pace: Pace) -> None:
        concurrency.ended(pace.window)
        self.held -= 1
        if lease.attempt - lease.attempt_base > 1:
            self.retrying -= 1
        if self._capped:
            supplier_id = self._capped.pop(id(lease), None)
            if supplier_id is not None:
                self._of_supplier[supplier_id] -= 1
                if not self._of_supplier[supplier_id]:
                    del self._of_supplier[supplier_id]

    def _not_before(self, circuit: Circuit, now: int) -> int:
        """When a delivery of an endpoint whose circuit is not closed may be looked at again; `now` for a probe."""
        if circuit.forced == "open":
            return now + int(_FORCED_PAUSE * (0.5 + self._random.random()) * clock.SECOND)
        if circuit.probe_at <= now:
            return now
        if circuit.state == "half_open":
            return now + int(_PROBED_PAUSE * (0.5 + self._random.random()) * clock.SECOND)
        return circuit.probe_at + int(self._random.random() * _AFTER_OPENING * clock.SECOND)

    def _in_line(self, lease: Lease, pace: Pace, limit: int, now: int, reason: str) -> Outcome:
        """A delivery that found no room comes again later.

        Twice as many come as can be served, so that none stays free; were they all to come at once, a long
        line would be claimed and put back over and over, at the cost of everybody else.
        """
        spacing = pace.exchange // (2 * max(limit, pace.window.busy, 1))
        pace.line = min(max(pace.line, now) + spacing, now + _LONGEST_LINE)
        due_at = pace.line + int(_FULL_PAUSE * (0.5 + self._random.random()) * clock.SECOND)
        return Outcome(lease=lease, state=State.SCHEDULED, due_at=due_at, reason=reason, spacing=spacing)

    def _new_pace(self, endpoint_id: str) -> Pace:
        if len(self._paces) >= _MOST_PACES:
            self.forget_idle()
        pace = self._paces[endpoint_id] = Pace(Window())
        return pace


def later(lease: Lease, due_at: int, reason: str) -> Outcome:
    """Not now, and without spending an attempt."""
    return Outcome(lease=lease, state=State.SCHEDULED, due_at=due_at, reason=reason)
