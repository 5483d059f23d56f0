"""Circuit breakers at work: judged in the worker's memory, shared through the store, followed by all workers."""

import logging
import random
import threading
from collections import OrderedDict, deque
from collections.abc import Sequence

import msgspec

from ringbearer import clock
from ringbearer.domain.breakers import Circuit
from ringbearer.errors import RedisUnavailable, StoreUnavailable
from ringbearer.limits.breaker import (
    ANSWERED,
    FAILED,
    UNREACHED,
    BreakerPolicy,
    Calls,
    closed,
    length,
    note,
    opened,
)
from ringbearer.limits.calls import MOST_TROUBLED, SharedCalls
from ringbearer.storage.breakers import BreakerTable
from ringbearer.storage.parking import Park, Parking
from ringbearer.telemetry import BreakerMoved, Telemetry

CIRCUIT_SECONDS = 86_400
"""How long a circuit that closed is remembered."""
_PROBE_SECONDS = (
    40.0  # the longest exchange takes 30; then the probe of a worker that died is given to another
)
_GIVEN_BACK_SECONDS = 1.0
_PARKED_SECONDS = 0.2  # between two deliveries that come back to an endpoint whose circuit may close by then
_OPEN = "its endpoint's circuit is open"
_MOST_RECOVERIES = 200
_MOST_CALLS = 50_000  # endpoints whose latest calls are remembered; those without a failure never are

_log = logging.getLogger(__name__)


class Breakers:
    """The circuits of all endpoints, as this process knows them.

    Hearing of calls and asking for circuits is for the courier's thread and touches no store, but for the leave to
    probe. `follow` belongs to another thread: it writes down what moved here, and reads what moved elsewhere. So
    what one worker finds out, every other knows after at most two of the intervals in which they follow.
    """

    def __init__(
        self,
        *,
        table: BreakerTable,
        telemetry: Telemetry,
        parking: Parking | None = None,
        policy: BreakerPolicy | None = None,
        shared: SharedCalls | None = None,
    ) -> None:
        """`shared` puts together what several workers saw; without it each judges by itself."""
        self._shared = shared
        self._troubled: frozenset[str] = frozenset()
        self._seen: dict[str, tuple[str, deque[str]]] = {}
        self._table = table
        self._parking = parking
        self.recoveries: deque[float] = deque(maxlen=_MOST_RECOVERIES)
        """Seconds for which circuits that closed lately had been open."""
        self._telemetry = telemetry
        self._policy = policy or BreakerPolicy()
        self._circuits: dict[str, Circuit] = {}
        self._calls: OrderedDict[str, Calls] = OrderedDict()
        self._moved: dict[str, tuple[str, Circuit]] = {}
        self._to_park: dict[str, Circuit] = {}
        self._probing: dict[str, str] = {}
        self._version = 0
        self._lock = threading.Lock()
        self._random = random.Random()  # noqa: S311  jitter, not a secret

    def __repr__(self) -> str:
        return f"<Breakers with {len(self._circuits)} circuits known, {len(self._moved)} to write down>"

    @property
    def policy(self) -> BreakerPolicy:
        """When circuits open, and for how long."""
        return self._policy

    @policy.setter
    def policy(self, policy: BreakerPolicy) -> None:
        self._policy = policy

    # ── the courier's thread ────────────────────────────────────────────────────────────────────────────

    def of(self, endpoint_id: str) -> Circuit | None:
        """The endpoint's circuit, None when nothing ever happened to it."""
        return self._circuits.get(endpoint_id)

    def take_probes(self, deliveries: dict[str, str], *, now: int) -> set[str]:
        """Ask for leave to probe endpoints, each with one delivery; returns the endpoints that may be probed.

        Blocks; raises StoreUnavailable.
        """
        until = now + int(_PROBE_SECONDS * clock.SECOND)
        if any(each in self._moved for each in deliveries):
            self.follow()  # what the store does not know yet cannot be probed
        taken = self._table.take_probes(deliveries, now=now, until=until)
        with self._lock:
            for endpoint_id in deliveries:
                circuit = self._circuits.get(endpoint_id)
                if circuit is not None and circuit.state != "closed":
                    version = taken.get(endpoint_id, circuit.version)
                    self._circuits[endpoint_id] = msgspec.structs.replace(
                        circuit, state="half_open", probe_at=until, version=version
                    )
        self._probing |= {endpoint_id: deliveries[endpoint_id] for endpoint_id in taken}
        return set(taken)

    def give_back(self, endpoint_id: str, delivery_id: str, *, now: int) -> None:
        """A delivery is not sent after all: if it was to be a probe, another one may be soon."""
        if self._probing.get(endpoint_id) != delivery_id:
            return
        del self._probing[endpoint_id]
        circuit = self._circuits.get(endpoint_id)
        if circuit is not None and circuit.state == "half_open":
            soon = now + int(_GIVEN_BACK_SECONDS * clock.SECOND)
            self._move(circuit, msgspec.structs.replace(circuit, state="open", probe_at=soon))

    def called(
        self, endpoint_id: str, supplier_id: str, delivery_id: str, *, failed: bool, unreached: bool, now: int
    ) -> None:
        """Hear how an attempt went; `unreached`: not even a connection was made."""
        circuit = self._circuits.get(endpoint_id)
        if circuit is not None:
            self._probed(circuit, delivery_id, failed=failed, now=now)
            if circuit.standing != "closed" or circuit.forced is not None:
                return
        if self._shared is not None and (failed or endpoint_id in self._troubled):
            self._see(endpoint_id, supplier_id, UNREACHED if unreached else FAILED if failed else ANSWERED)
        calls = self._calls.get(endpoint_id)
        if calls is None:
            if not failed:
                return
            calls = self._calls[endpoint_id] = Calls()
            if len(self._calls) > _MOST_CALLS:
                self._calls.popitem(last=False)
        reason = note(calls, self._policy, failed=failed, connect_error=unreached)
        if reason is not None:
            known = circuit or Circuit(endpoint_id=endpoint_id, supplier_id=supplier_id)
            self._open(known, reason, now)
        elif not calls.bits:
            del self._calls[endpoint_id]

    def _see(self, endpoint_id: str, supplier_id: str, call: str) -> None:
        """Keep a call for the others; of more than a window full they need the last only."""
        with self._lock:
            seen = self._seen.get(endpoint_id)
            if seen is None:
                if len(self._seen) >= MOST_TROUBLED:
                    return
                seen = self._seen[endpoint_id] = supplier_id, deque(maxlen=length(self._policy))
            seen[1].append(call)

    def _probed(self, circuit: Circuit, delivery_id: str, *, failed: bool, now: int) -> None:
        if self._probing.get(circuit.endpoint_id) != delivery_id:
            return
        del self._probing[circuit.endpoint_id]
        if circuit.forced is not None or circuit.state == "closed":
            return
        if failed:
            self._open(circuit, f"its probe failed; {circuit.reason or 'it was open'}"[:200], now)
        else:
            self.recoveries.append((now - circuit.since) / clock.SECOND)
            self._move(circuit, closed(circuit, now=now))

    def _open(self, circuit: Circuit, reason: str, now: int) -> None:
        reason = circuit.reason if circuit.opened and circuit.reason is not None else reason
        self._calls.pop(circuit.endpoint_id, None)
        self._move(
            circuit, opened(circuit, self._policy, reason=reason, now=now, random=self._random.random())
        )

    def _move(self, before: Circuit, after: Circuit) -> None:
        with self._lock:
            first, _ = self._moved.get(after.endpoint_id, (before.state, after))
            self._moved[after.endpoint_id] = (first, after)
            self._circuits[after.endpoint_id] = after

    # ── following ───────────────────────────────────────────────────────────────────────────────────────

    def follow(self) -> int:
        """Write down what moved here, then take over what moved elsewhere; returns how many circuits that were.

        Blocks; raises StoreUnavailable, and nothing is forgotten.
        """
        self._judge_together()
        with self._lock:
            moved, self._moved = self._moved, {}
        if moved:
            try:
                changed = self._table.change([after for _, after in moved.values()])
            except BaseException:
                with self._lock:
                    self._moved = moved | self._moved
                raise
            for endpoint_id in changed:
                before, after = moved[endpoint_id]
                self._tell(before, after)
            self._forget_calls([each for each in changed if moved[each][1].state == "closed"])
            self._to_park |= {endpoint_id: moved[endpoint_id][1] for endpoint_id in changed}
        self._park()
        rows = self._table.since(self._version)
        with self._lock:
            for row in rows:
                self._version = max(self._version, row.version)
                again = self._moved.get(row.endpoint_id)
                if again is None:
                    self._circuits[row.endpoint_id] = row
                else:  # it moved on here in the meantime, from what this row says
                    after = msgspec.structs.replace(again[1], version=row.version)
                    self._moved[row.endpoint_id] = (again[0], after)
        return len(rows)

    def _judge_together(self) -> None:
        """Tell the others of calls, and hear what they amount to with theirs.

        What cannot be told is let go: it is about the latest calls, and each worker's own judgement stands.
        """
        if self._shared is None:
            return
        with self._lock:
            seen, self._seen = self._seen, {}
        now = clock.now()
        try:
            reasons = (
                self._shared.add(
                    {each: "".join(calls) for each, (_, calls) in seen.items()}, self._policy, now=now
                )
                if seen
                else {}
            )
            self._troubled = self._shared.troubled()
        except (StoreUnavailable, RedisUnavailable) as error:
            _log.debug("calls of %d endpoints are not shared: %s", len(seen), error)
            return
        for endpoint_id, reason in reasons.items():
            circuit = self._circuits.get(endpoint_id)
            if circuit is None or (circuit.standing == "closed" and circuit.forced is None):
                supplier_id, _ = seen[endpoint_id]
                self._open(circuit or Circuit(endpoint_id=endpoint_id, supplier_id=supplier_id), reason, now)

    def _forget_calls(self, endpoint_ids: Sequence[str]) -> None:
        """A circuit that closed begins anew, without what failed before others heard that it had opened."""
        if self._shared is None or not endpoint_ids:
            return
        try:
            self._shared.forget(endpoint_ids)
        except (StoreUnavailable, RedisUnavailable) as error:
            _log.debug("calls of %d endpoints are not forgotten: %s", len(endpoint_ids), error)

    def _park(self) -> None:
        """Move what waits for open circuits out of the workers' way, and let it come back when they close.

        What the store fails to do is done the next time.
        """
        circuits = list(self._to_park.values())
        if self._parking is not None and circuits:
            now = clock.now()
            spacing = int(_PARKED_SECONDS * clock.SECOND)
            self._parking.park(
                [Park(c.endpoint_id, c.probe_at, spacing, _OPEN) for c in circuits if c.state == "open"],
                now=now,
            )
            self._parking.unpark([c.endpoint_id for c in circuits if c.state == "closed"], now=now)
        self._to_park.clear()

    def forget_closed(self, *, before: int) -> None:
        """Forget circuits that have been closed since a stored time, as the store does."""
        with self._lock:
            for endpoint_id, circuit in list(self._circuits.items()):
                if circuit.standing == "closed" and circuit.forced is None and circuit.since < before:
                    del self._circuits[endpoint_id]

    def _tell(self, before: str, after: Circuit) -> None:
        self._telemetry.emit(
            BreakerMoved(
                endpoint_id=after.endpoint_id,
                supplier_id=after.supplier_id,
                before=before,
                after=after.standing,
                reason=after.reason,
            )
        )
