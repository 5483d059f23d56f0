"""The worker's loop: one plain thread that claims, sends and settles in batches, and meets nobody per delivery."""

import contextlib
import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from ringbearer import clock, failpoints, ids
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.domain.deliveries import Lease, Outcome, Record, State
from ringbearer.errors import StoreUnavailable
from ringbearer.priority import Shares
from ringbearer.queue.base import Demand, Queue
from ringbearer.queue.bell import Bell
from ringbearer.queue.crowded import MANY, Crowded
from ringbearer.queue.measures import Measures
from ringbearer.queue.plan import QueuePlan
from ringbearer.storage.catalog import Catalog
from ringbearer.telemetry import DeliveriesClaimed, DeliveriesSettled, StoreFailed, Telemetry

_log = logging.getLogger(__name__)

_EXTENDS_PER_LEASE = 3  # two may fail before a lease runs out
_LOOK_SECONDS = 1.0  # a lost ring of the bell costs at most this
_SETTLE_GAP = 0.040
_NEARLY_ALL = 0.9
_STORE_PAUSE = 0.5
_FRESH_GAP = (
    0.025  # after a claim; then also a few are worth another, lest who has just come waits for many to end
)
_FEW = 16
_NEW = clock.SECOND // 4  # microseconds; whoever waits no longer is not of the backlog
_BRISK = 128  # is claimed and settled at a time while some who are new come beside a backlog: they wait for the next turn
_BRISK_PACE = (
    16_000  # times the seconds that a claim takes are claimed at least, lest that takes longer than sending
)
_BRISK_SECONDS = 1.0  # after somebody new was seen; not each claim has one who is
_GUESTS = 16  # are claimed when the bell rings beside a backlog, though it left too little room for a batch
_GUEST_REST = 3  # times as long as a claim took, no guests are claimed; so most of the time is for sending
_GUEST_GAP = 0.005  # seconds between such a claim and the one before
_LONGEST_GUEST_GAP = 0.160  # the same after some that found nobody new, or nearly all: who rang stands behind the backlog, or is it
_SIP = 32  # how much is claimed next when most of a claim had to be put back
_IN_VAIN = 0.9  # of a claim that is put back
_LONGEST_SIP_GAP = 0.25  # seconds between such claims at most, as long as nothing new is heard of


class Processor(Protocol):
    """Who sends: a batch of leases goes in, outcomes come out. One thread owns it."""

    @property
    def in_flight(self) -> int:
        """How many exchanges are under way."""

    @property
    def slots(self) -> int:
        """How many deliveries it can hold at a time."""

    @property
    def batch(self) -> int:
        """How many it wants to be given at a time, at most."""

    @property
    def appetite(self) -> float:
        """How much of the usual it wants, from 1 to 0."""

    @property
    def gone(self) -> dict[str, str]:
        """Endpoints whose receiver said that they are gone, with the reason; whoever reads it empties it."""

    def watch(self, descriptor: int) -> None:
        """Let `poll` end early when this descriptor becomes readable."""

    def unwatch(self, descriptor: int) -> None:
        """The opposite of `watch`."""

    def begin(self, leases: Sequence[Lease]) -> list[Outcome]:
        """Send a batch; returns the outcomes of those that are not sent. Raises StoreUnavailable: none was sent."""

    def poll(self, timeout: float) -> tuple[list[Outcome], bool]:
        """Drive what is in flight for at most so many seconds: what became of it, and whether a bell rang."""

    def put_down(self) -> list[Outcome]:
        """Give up what was not begun yet; returns the outcomes, which spend no attempt."""

    def report(self) -> None:
        """Tell telemetry of the tries that came to an end since the last time."""

    def abandon(self) -> list[Outcome]:
        """Break off what is in flight; returns its outcomes: attempts that receivers may or may not have seen."""

    def close(self) -> None:
        """Break off everything and close all connections."""


class WorkLoop:
    """Runs until it is stopped; then finishes what is in flight within a grace time and releases the rest.

    The slots of its processor bound what it holds at any time: in flight, or finished and not yet settled. It renews
    its leases; those of a worker that died return after `lease_seconds`. `plan` is asked before each claim.
    """

    def __init__(
        self,
        *,
        queue: Queue,
        processor: Processor,
        cache: WebhookCacheManager,
        catalog: Catalog,
        bell: Bell,
        telemetry: Telemetry,
        lease_seconds: float,
        grace: float,
        plan: Callable[[], QueuePlan] = QueuePlan,
        measured: Callable[[Iterable[tuple[str, int]]], None] = lambda _: None,
    ) -> None:
        self.id = ids.worker()
        self._queue = queue
        self._processor = processor
        self._cache = cache
        self._catalog = catalog
        self._bell = bell
        self._telemetry = telemetry
        self._lease = int(lease_seconds * clock.SECOND)
        self._extend_seconds = lease_seconds / _EXTENDS_PER_LEASE
        self._grace = grace
        self._measured = measured
        self._follow = plan
        self._plan = plan()
        self._shares = Shares(self._plan.weights)
        self.measures = Measures()
        self.crowded = Crowded()
        self._held: dict[str, Lease] = {}
        self._unsettled: list[Outcome] = []
        self._stopping = threading.Event()
        self._ear: int | None = None
        self._hungry = True
        self._backlog = self._brisk = self._called = False
        self._brisk_until = self._guests_at = 0.0
        self._brisk_size, self._brisk_pace = _BRISK, float(_BRISK_PACE)
        self._guest_gap = _GUEST_GAP
        self._sip: int | None = None
        self._sip_gap = 0.0
        self._waker: socket.socket | None = None
        self._next_claim = self._next_look = self._next_settle = self._settle_again = self._fresh_at = 0.0
        self._next_extend = clock.monotonic() + self._extend_seconds

    def __repr__(self) -> str:
        return f"<WorkLoop {self.id} holding {len(self._held)} of {self.slots}>"

    @property
    def slots(self) -> int:
        """How many deliveries it may hold."""
        return self._processor.slots

    @property
    def held(self) -> int:
        """How many deliveries it holds now; may be asked from any thread."""
        return len(self._held)

    @property
    def stopping(self) -> bool:
        """Whether it only finishes what it holds."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Ask it to stop; may be called from any thread, or a signal handler."""
        self._stopping.set()
        waker = self._waker
        if waker is not None:
            with contextlib.suppress(OSError):  # it has ended already, or was woken often enough
                waker.send(b"!")

    def run(self) -> None:
        """Work until stopped."""
        _log.info("worker started", extra={"worker": self.id, "slots": self._processor.slots})
        self._waker, woken = socket.socketpair()
        self._waker.setblocking(False)
        try:
            self._processor.watch(woken.fileno())
            while not self._stopping.is_set():
                self._turn()
            self._processor.unwatch(woken.fileno())
            self._finish()
        finally:
            self._close()
            self._waker.close()
            woken.close()
        _log.info("worker stopped", extra={"worker": self.id})

    def end(self) -> None:
        """Finish what `process` began, within the grace time, and close everything."""
        try:
            self._finish()
        finally:
            self._close()

    def _close(self) -> None:
        self.measures.end()
        self._processor.close()
        self._bell.close()

    def process(self, batch_size: int, max_wait: float) -> int:
        """Claim up to so many, waiting at most so many seconds to fill, and see all of them through.

        Returns how many were claimed. For whoever drives the loop instead of letting it `run`.
        """
        deadline = clock.monotonic() + max_wait
        before = self.measures.claimed
        while (missing := batch_size - (self.measures.claimed - before)) > 0:
            left = deadline - clock.monotonic()
            if self._stopping.is_set() or left <= 0:
                break
            self._turn(most=missing, patience=left)
        while self._held and not self._stopping.is_set():
            self._turn(most=0)
        return self.measures.claimed - before

    # ── one turn ────────────────────────────────────────────────────────────────────────────────────────

    def _turn(self, *, most: int | None = None, patience: float = _LOOK_SECONDS) -> None:
        """Claim if there is room, drive what is in flight, settle what is due; at most `most` are claimed."""
        now = clock.monotonic()
        self._follow_plan()
        if now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            self._hungry = True
            self._listen()
        if self._hungry and now >= self._next_claim and self._room(most):
            self._claim(now, self._room(most))
        outcomes, rang = self._processor.poll(min(patience, self._patience(now, most)))
        if self._processor.in_flight:
            failpoints.reach("worker.answered" if outcomes else "worker.sent")
        if rang:
            self._bell.hush()
            self._hungry = self._called = True
            if self._sip is not None:  # what is new may be for somebody who has room
                self._next_claim -= self._sip_gap
                self._sip_gap = 0.0
        self._unsettled += outcomes
        self._settle_when_due()
        if clock.monotonic() >= self._next_extend:
            self._extend()

    def _follow_plan(self) -> None:
        plan = self._follow()
        if plan is not self._plan:
            if plan.weights != self._plan.weights:
                self._shares = Shares(plan.weights)
            self._plan = plan

    def _room(self, most: int | None = None) -> int:
        """How many to claim now, or none while it is too few for a batch that is worth a transaction.

        A part of the slots, by the plan's `prefetch`, serves whoever comes. The rest is for when that part is full,
        of endpoints that are slow, say: it is filled in smaller steps, since much of what comes then may have to be
        put back. What has ended and is not written down yet takes up a slot, but sends nothing any more.
        """
        return self._usual_room(most) or (self._room_for_guests() if most is None else 0)

    def _room_for_guests(self) -> int:
        """How many to claim of those for whom the bell rang, while too little of a backlog has ended for a batch.

        Whoever is new comes first by its rank, and need not wait for that.
        """
        if not (self._called and self._backlog) or self._sip is not None:
            return 0
        if clock.monotonic() < self._guests_at:
            return 0
        held = len(self._held)
        ahead = int(self.slots * self._plan.prefetch) - (held - len(self._unsettled))
        return max(0, min(int(_GUESTS * self._processor.appetite), self.slots - held, ahead))

    def _usual_room(self, most: int | None) -> int:
        held, slots = len(self._held), self.slots
        sending = held - len(self._unsettled)
        ahead, batch = int(slots * self._plan.prefetch), min(self._plan.batch_size, self._processor.batch)
        batch = int(batch * self._processor.appetite)
        if self._brisk:
            batch = min(batch, self._brisk_size)
            ahead = max(ahead - _BRISK, ahead // 2)  # the rest is for guests
        if self._sip is not None:
            batch = min(batch, self._sip)
        if most is not None:
            return min(most, slots - held, batch)
        if sending < ahead and held < slots:
            room = min(ahead - sending, slots - held)
            worth = ahead // 2 if self._backlog else ahead // 4
            if self._brisk:
                worth = min(worth, ahead * self._brisk_size // (4 * _BRISK))
            if clock.monotonic() >= self._fresh_at:
                worth = min(worth, _FEW)
            if room >= worth:
                return min(room, batch)
            if clock.monotonic() < self._fresh_at:
                return 0
        if clock.monotonic() < self._fresh_at - _FRESH_GAP:  # those of the last claim may be quick
            return 0
        step = max(1, slots // 8)
        return min(step, batch) if slots - held >= step else 0

    def _patience(self, now: float, most: int | None = None) -> float:
        """How long nothing but an exchange or a ring need end the wait."""
        until = self._next_look
        if self._unsettled:
            until = min(until, self._next_settle)
        if self._hungry:
            if self._room(most):
                until = min(until, self._next_claim)
            elif now < self._fresh_at:
                until = min(until, self._fresh_at)
            if self._called and self._backlog and now < self._guests_at:
                until = min(until, self._guests_at)
        return max(0.0, until - now)

    def _listen(self) -> None:
        """Watch the bell's descriptor, which is another one after the bell had to connect anew."""
        self._bell.hush()
        ear = self._bell.fileno()
        if ear != self._ear and self._ear is not None:
            self._processor.unwatch(self._ear)
        if ear is not None:
            self._processor.watch(ear)  # also when it has the same number, which may be another connection's
        self._ear = ear

    def _claim(self, now: float, room: int) -> None:
        demand = Demand(
            quotas=self._shares.quotas(room),
            worker=self.id,
            until=clock.now() + self._lease,
        )
        try:
            leases = self._settle_and_claim(demand)
            if leases is None:
                leases = self._queue.claim(demand)
        except Exception as error:
            self._failed("claim", error)
            self._next_claim = now + _STORE_PAUSE
            return
        after = clock.monotonic()
        self._hungry = self._backlog = len(leases) >= room
        self._note_who_is_new(leases, now, after)
        self._next_claim = after if self._brisk else after + self._plan.max_wait
        self._fresh_at = after + self._plan.max_wait + _FRESH_GAP
        if leases:
            failpoints.reach("worker.claimed")
            self.measures.on_claim(leases, after - now, clock.now())
            self._telemetry.emit(DeliveriesClaimed(len(leases), after - now))
            self._sip_by(len(leases), self._begin(leases))

    def _note_who_is_new(self, leases: Sequence[Lease], before: float, after: float) -> None:
        """Hurry for a while when somebody new is claimed together with a backlog, and claim guests as often as they come.

        The longer a claim takes, for others write, the more it has to bring, and the longer guests wait for the next:
        else a worker whose store is busy would spend its time with waiting for its turn there.
        """
        since = clock.now() - _NEW
        new = sum(lease.ready_at > since for lease in leases)
        if self._backlog and 0 < new < len(leases):
            self._brisk_until = after + _BRISK_SECONDS
        self._brisk = self._backlog and after < self._brisk_until
        if 0 < new <= len(leases) // 2:
            self._guest_gap = _GUEST_GAP
        elif len(leases) <= _GUESTS:
            self._guest_gap = min(2 * self._guest_gap, _LONGEST_GUEST_GAP)
        self._brisk_size = max(_BRISK, int((after - before) * self._brisk_pace))
        self._called = False
        self._guests_at = after + max(self._guest_gap, _GUEST_REST * (after - before))

    def _sip_by(self, claimed: int, back: int) -> None:
        """Claim little and seldom while all but a few that come have to be put back; more again as they find room."""
        if back >= _IN_VAIN * claimed:
            self._sip = _SIP
            longest = _LONGEST_SIP_GAP * min(1.0, claimed / _SIP)  # a claim of one or two costs little
            self._sip_gap = min(longest, max(2 * self._sip_gap, self._plan.max_wait))
            self._next_claim += self._sip_gap
        elif self._sip is not None:
            self._sip_gap = 0.0
            self._sip = 4 * self._sip if self._sip < self.slots else None

    def _begin(self, leases: list[Lease]) -> int:
        """Hand them to the processor; returns how many of them have to be put back."""
        # Together what goes to one endpoint, so that one connection serves it; the most important lane first.
        leases.sort(key=_lane_and_endpoint)
        for lease in leases:
            self._held[lease.delivery_id] = lease
        try:
            unsent = self._processor.begin(leases)
            if len(unsent) >= MANY:
                self.crowded.note(unsent)
            self._add(unsent)
            return sum(outcome.state is State.SCHEDULED for outcome in unsent)
        except StoreUnavailable as error:
            self._failed("load", error)
            self._next_claim = clock.monotonic() + _STORE_PAUSE
            self._add([Outcome(lease=lease, state=State.READY) for lease in leases])
        return 0

    def _add(self, outcomes: list[Outcome]) -> None:
        if outcomes and not self._unsettled:
            self._next_settle = clock.monotonic() + _SETTLE_GAP
        self._unsettled += outcomes

    # ── settling ────────────────────────────────────────────────────────────────────────────────────────

    def _settle_and_claim(self, demand: Demand) -> list[Lease] | None:
        """Claim in the transaction that writes down what came to an end: one turn at the store for both.

        None when nothing was done, since that is not worth it or not possible.
        """
        if len(self._unsettled) < _FEW:
            return None
        self._disable_gone()
        batch, began = self._unsettled[: self._most_settled()], clock.monotonic()
        failpoints.reach("worker.settling")
        try:
            both = self._queue.settle_and_claim(batch, demand, now=clock.now())
        except StoreUnavailable:
            raise
        except Exception:  # settling by itself finds out which outcome it is, and logs that
            _log.debug("a batch of outcomes cannot be stored beside a claim", exc_info=True)
            return None
        if both is None:
            return None
        settled, leases = both
        failpoints.reach("worker.settled")
        self._processor.report()
        self._settled(batch, settled, began)
        return leases

    def _settle_when_due(self) -> None:
        if not self._unsettled:
            return
        now = clock.monotonic()
        if self._next_settle == 0.0:
            self._next_settle = now + _SETTLE_GAP
        enough = len(self._unsettled) >= self._worth_settling() and now >= self._settle_again
        if now >= self._next_settle or enough:
            self._settle()

    def _worth_settling(self) -> int:
        """So many outcomes are a batch: nearly all that is held ahead, since more than that never comes together."""
        return min(self._most_settled(), max(1, int(self.slots * self._plan.prefetch * _NEARLY_ALL)))

    def _most_settled(self) -> int:
        return min(2 * self._brisk_size, self._plan.batch_size) if self._brisk else self._plan.batch_size

    def _settle(self) -> bool:
        """Write down what came to an end; on failure everything is kept for the next time."""
        self._disable_gone()
        batch, began = self._unsettled[: self._most_settled()], clock.monotonic()
        failpoints.reach("worker.settling")
        try:
            settled = self._write_down(batch)
        except StoreUnavailable as error:
            return self._postpone_settling(error)
        failpoints.reach("worker.settled")
        self._processor.report()
        self._settled(batch, settled, began)
        return True

    def _settled(self, batch: Sequence[Outcome], settled: set[str], began: float) -> None:
        """Forget the outcomes at the head of the line, which were written down."""
        del self._unsettled[: len(batch)]
        self._next_settle = 0.0
        if len(self._held) >= self._processor.slots:
            self._hungry = True
        for outcome in batch:
            lease = outcome.lease
            if self._held.get(lease.delivery_id) is lease:  # not one that was claimed anew
                del self._held[lease.delivery_id]
            if (
                lease.ordering_key is not None
            ):  # the next of its key may be ready now, and nobody rings for that
                self._hungry = True
        self._measured((o.lease.endpoint_id, o.record.duration) for o in batch if o.record is not None)
        self.measures.on_settled(batch, settled, clock.monotonic() - began)
        states = Counter(o.state for o in batch if o.lease.delivery_id in settled)
        self._telemetry.emit(
            DeliveriesSettled(dict(states), len(batch) - len(settled), clock.monotonic() - began)
        )

    def _postpone_settling(self, error: StoreUnavailable) -> bool:
        self._failed("settle", error)
        self._next_settle = self._settle_again = clock.monotonic() + _STORE_PAUSE
        return False

    def _write_down(self, batch: Sequence[Outcome]) -> set[str]:
        """Settle; an outcome that the store cannot hold loses its details, and does not stop the others.

        Raises StoreUnavailable, when some of them may have been settled: those are fenced the next time.
        """
        try:
            return self._queue.settle(batch, now=clock.now())
        except StoreUnavailable:
            raise
        except Exception:
            if len(batch) == 1:
                return self._write_down_bare(batch[0])
            _log.exception("a batch of outcomes cannot be stored; now each of them by itself")
        return set().union(*(self._write_down([outcome]) for outcome in batch))

    def _write_down_bare(self, outcome: Outcome) -> set[str]:
        _log.exception("an outcome of %s cannot be stored as it is", outcome.lease.delivery_id)
        try:
            return self._queue.settle([_without_details(outcome)], now=clock.now())
        except StoreUnavailable:
            raise
        except Exception:
            _log.exception("nothing of %s can be stored; its lease runs out", outcome.lease.delivery_id)
            return set()

    def _disable_gone(self) -> None:
        """Disable endpoints that said they are gone; their deliveries are held by whoever claims them next."""
        for endpoint_id, reason in list(self._processor.gone.items()):
            try:
                self._catalog.set_enabled([endpoint_id], enabled=False, reason=reason)
                self._cache.changed_here()
            except Exception as error:
                self._failed("disable", error)
                return
            del self._processor.gone[endpoint_id]
            _log.warning("endpoint disabled", extra={"endpoint": endpoint_id, "reason": reason})

    def _extend(self) -> None:
        self._next_extend = clock.monotonic() + self._extend_seconds
        until = clock.now() + self._lease
        try:
            held = self._queue.extend(list(self._held.values()), until=until)
        except Exception as error:
            self._failed("extend", error)
            return
        if len(held) < len(self._held):
            # Others have them now: what was not begun here must not be sent any more. Which of those that wait are
            # still ours is not worth the search: all go back, and what is not ours is fenced.
            self._add(self._processor.put_down())

    def _failed(self, during: str, error: Exception) -> None:
        """Tell that the store did not do something, which is tried again; what it did not expect, in full."""
        if not isinstance(error, StoreUnavailable):
            _log.error("%s failed unexpectedly", during, exc_info=error)
        self._telemetry.emit(StoreFailed(during, str(error)))

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────

    def _finish(self) -> None:
        """Let what is in flight end within the grace time, then give back the rest."""
        if self._ear is not None:
            self._processor.unwatch(self._ear)
        self._add(self._processor.put_down())
        deadline = clock.monotonic() + self._grace
        while self._processor.in_flight and clock.monotonic() < deadline:
            outcomes, _ = self._processor.poll(min(0.1, max(0.0, deadline - clock.monotonic())))
            self._add(outcomes)
            self._settle_when_due()
            if clock.monotonic() >= self._next_extend:
                self._extend()
        self._unsettled += self._processor.abandon()
        while self._unsettled:
            if not self._settle():
                if clock.monotonic() >= deadline:
                    _log.error("%d outcomes were not written down; they are sent again", len(self._unsettled))
                    return
                self._processor.poll(_STORE_PAUSE)


def _lane_and_endpoint(lease: Lease) -> tuple[int, str]:
    return lease.lane, lease.endpoint_id


def _without_details(outcome: Outcome) -> Outcome:
    """The outcome without anything that came from outside."""
    record = outcome.record
    if record is not None:
        record = Record(
            started_at=record.started_at,
            duration=record.duration,
            status_code=record.status_code,
            error="internal_error: what came back could not be stored",
            response_body=None,
            response_headers=None,
        )
    return Outcome(lease=outcome.lease, state=outcome.state, due_at=outcome.due_at, record=record)
