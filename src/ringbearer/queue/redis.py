"""The queue with Redis in front: claims come from an index in Redis, and the store says which of them hold.

The store stays the only place where a delivery is leased. What the index hands out is leased there in one statement
for the batch, which takes only what is ready; so nothing in Redis, however old, can make two workers hold one
delivery. What the index does not know (lost with Redis, not pushed yet, become ready by other ways) is claimed from
the store: while Redis is away, and whenever the index had less than was asked for.
"""

import logging
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence

from ringbearer import clock, ids
from ringbearer.domain.deliveries import Content, Lease, Outcome
from ringbearer.errors import RedisUnavailable, StoreUnavailable
from ringbearer.queue.base import Demand, Queue
from ringbearer.queue.bell import Bell
from ringbearer.queue.index import Entry, RedisIndex
from ringbearer.storage.ledger import Admission, Depth, Ledger
from ringbearer.telemetry import IndexUsed, Telemetry

MAX_WAITING = 50_000
"""Deliveries that may wait to be pushed; what comes above that is found in the store."""
MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Characters of their bodies."""

_LOOK_SECONDS = 0.05  # between two looks into the store for what the index does not know
_ROUNDS = 3  # of asking the index again in one claim because what it gave was stale

_log = logging.getLogger(__name__)


class RedisQueue(Queue):
    """Claims by the index in Redis, and from the store what the index does not know.

    A thread of its own pushes, so that nobody who accepts waits for Redis; it starts with the first push.
    """

    def __init__(self, ledger: Ledger, bell: Bell, index: RedisIndex, telemetry: Telemetry) -> None:
        self._ledger = ledger
        self._bell = bell
        self._index = index
        self._telemetry = telemetry
        self._next_look = 0.0
        self._waiting: deque[Sequence[Admission]] = deque()
        self._waiting_count = self._waiting_bytes = 0
        self._pushing = threading.Condition()
        self._pusher: threading.Thread | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<RedisQueue over {self._index!r} with {self._waiting_count} to push>"

    # ── in ──────────────────────────────────────────────────────────────────────────────────────────────

    def push(self, count: int, admitted: Sequence[Admission] = ()) -> None:
        if not count:
            return
        if not admitted:
            self._bell.ring()
            return
        size = sum(len(admission.data) for admission in admitted)
        with self._pushing:
            if self._waiting_count + count > MAX_WAITING or self._waiting_bytes + size > MAX_WAITING_BYTES:
                self._bell.ring()
                self._telemetry.emit(IndexUsed("dropped", count))
                return
            self._waiting.append(admitted)
            self._waiting_count += count
            self._waiting_bytes += size
            if self._pusher is None:
                self._closed = False
                self._pusher = threading.Thread(target=self._push_forever, name="pusher", daemon=True)
                self._pusher.start()
            self._pushing.notify()

    def _push_forever(self) -> None:
        while True:
            with self._pushing:
                while not self._waiting:
                    if self._closed:
                        return
                    self._pushing.wait()
                groups, self._waiting = self._waiting, deque()
                self._waiting_count = self._waiting_bytes = 0
            try:
                self._push([admission for group in groups for admission in group])
            except Exception:
                _log.exception("pushing failed unexpectedly; what was to be pushed is found in the store")
            self._bell.ring()

    def _push(self, admitted: Sequence[Admission]) -> None:
        entries = list(self._entries(admitted))
        try:
            left_out = self._index.push(entries)
        except RedisUnavailable as error:
            _log.debug("%d deliveries were not pushed: %s", len(entries), error)
            self._telemetry.emit(IndexUsed("dropped", len(entries)))
            return
        self._telemetry.emit(IndexUsed("pushed", len(entries) - left_out))
        if left_out:
            self._telemetry.emit(IndexUsed("left_out", left_out))

    def _entries(self, admitted: Sequence[Admission]) -> Iterator[Entry]:
        for admission in admitted:
            if not admission.ranks:
                continue
            event_id = admission.event_id
            content = Content(admission.type, admission.timestamp, admission.data, admission.trace)
            body = self._index.seal(event_id, content)
            for ordinal, rank in enumerate(admission.ranks):
                if rank is not None:
                    endpoint_id = admission.endpoints[ordinal][0]
                    yield Entry(ids.delivery(event_id, ordinal), endpoint_id, admission.lane, rank, body)

    # ── out ─────────────────────────────────────────────────────────────────────────────────────────────

    def claim(self, demand: Demand) -> list[Lease]:
        leases, whole = self._claim_by_index(demand)
        short = sum(demand.quotas) - len(leases)
        now = clock.monotonic()
        if short and (not whole or now >= self._next_look):
            try:
                more = self._ledger.claim(
                    _remaining(demand.quotas, leases), worker=demand.worker, until=demand.until
                )
            except StoreUnavailable:
                if not leases:
                    raise
                return leases  # what is the worker's already must not wait until its lease runs out
            self._next_look = 0.0 if more else now + _LOOK_SECONDS
            if more:
                self._telemetry.emit(IndexUsed("claimed_from_store", len(more)))
                leases = sorted(leases + more, key=lambda lease: lease.lane)
        return leases

    def _claim_by_index(self, demand: Demand) -> tuple[list[Lease], bool]:
        """What the index has that really is ready, and whether the index knew its shards whole."""
        leases: list[Lease] = []
        for _ in range(_ROUNDS):
            try:
                popped, whole = self._index.pop(_remaining(demand.quotas, leases))
            except RedisUnavailable as error:
                _log.debug("claiming from the store: %s", error)
                return leases, False
            if popped:
                try:
                    leases += self._lease(popped, demand)
                except StoreUnavailable:
                    if not leases:
                        raise
                    break  # those of the rounds before are the worker's already
            if not popped or not whole or len(leases) >= sum(demand.quotas):
                break
        else:
            whole = False  # so much was stale that the store knows better for now
        return leases, whole

    def _lease(self, popped: Sequence[tuple[str, bytes | None]], demand: Demand) -> list[Lease]:
        contents: dict[str, Content] = {}
        for delivery_id, body in popped:
            event_id = ids.event_of(delivery_id)
            if body is not None and event_id not in contents:
                content = self._index.unseal(event_id, body)
                if content is not None:
                    contents[event_id] = content
        leases = self._ledger.lease(
            [delivery_id for delivery_id, _ in popped],
            worker=demand.worker,
            until=demand.until,
            contents=contents,
        )
        self._telemetry.emit(IndexUsed("claimed", len(leases)))
        if len(leases) < len(popped):
            self._telemetry.emit(IndexUsed("stale", len(popped) - len(leases)))
        return leases

    def settle(self, outcomes: Sequence[Outcome], *, now: int) -> set[str]:
        settled = self._ledger.settle(outcomes, now=now)
        if any(outcome.lease.ordering_key is not None for outcome in outcomes):
            self._next_look = 0.0  # the next of its key may be ready now, and the index does not know it
        return settled

    def extend(self, leases: Sequence[Lease], *, until: int) -> set[str]:
        return self._ledger.extend(leases, until=until)

    def release(self, leases: Sequence[Lease]) -> int:
        released = self._ledger.release(leases)
        self._next_look = 0.0
        self.push(released)
        return released

    def depth(self) -> list[Depth]:
        return self._ledger.depth()

    def close(self) -> None:
        """End the thread that pushes, after it has pushed what waits; another push would start it again."""
        with self._pushing:
            self._closed = True
            self._pushing.notify()
            pusher, self._pusher = self._pusher, None
        if pusher is not None:
            pusher.join()


def _remaining(quotas: Sequence[int], leases: Sequence[Lease]) -> list[int]:
    """What of the quotas is left when these leases are taken off, in all no more than what is missing.

    A lane may have given more than its quota, in place of another that had less.
    """
    taken = Counter(lease.lane for lease in leases)
    left = [max(0, quota - taken[lane]) for lane, quota in enumerate(quotas)]
    over = sum(left) - (sum(quotas) - len(leases))
    for lane in reversed(range(len(left))):
        cut = min(over, left[lane])
        left[lane] -= cut
        over -= cut
    return left
