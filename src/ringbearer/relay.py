"""The relay: events that applications emitted in SQL become events like any other, each once."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import cast

import msgspec

from ringbearer import clock, failpoints
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.domain import traces
from ringbearer.domain.events import NewEvent, Priority
from ringbearer.errors import InvalidInput, NotFound, StoreUnavailable
from ringbearer.looper import Looper
from ringbearer.publish import MAX_GROUP, MAX_GROUP_DELIVERIES, Tracer, admit, put_trace, tell_traced
from ringbearer.queue.base import Queue
from ringbearer.queue.bell import Bell
from ringbearer.rules import Rules
from ringbearer.storage import outbox
from ringbearer.storage.catalog import Subscriptions
from ringbearer.storage.database import Database
from ringbearer.storage.ledger import Accepted, Admission, Ledger
from ringbearer.storage.outbox import Emitted
from ringbearer.telemetry import EventsAccepted, EventsRefused, Telemetry

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0  # a ring that was lost costs at most this
_LOOK_SECONDS_DEAF = 0.1  # where a transaction pooler lets nobody listen


class Relay:
    """Moves events from the outbox into the ledger, in batches, woken by NOTIFY; runs on the leader.

    Taking out and storing are one transaction, so that a crash at any moment neither loses nor doubles an event,
    and two relays at a time do no harm. An event that cannot be one stays in the outbox with the reason.

    A `traceparent` that was given on emitting is kept as publishing keeps it, unless `trace_context` is False; a
    `tracer` begins traces as there.
    """

    def __init__(
        self,
        *,
        database: Database,
        ledger: Ledger,
        cache: WebhookCacheManager,
        queue: Queue,
        telemetry: Telemetry,
        rules: Callable[[], Rules],
        bell: Callable[[], Bell],
        tracer: Tracer | None = None,
        trace_context: bool = True,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._cache = cache
        self._queue = queue
        self._telemetry = telemetry
        self._rules = rules
        self._open_bell = bell
        self._tracer = tracer
        self._trace_context = trace_context
        self._bell: Bell | None = None
        self._watched: int | None = None
        self._looper = Looper("relay", self._turn, interval=_LOOK_SECONDS)

    def __repr__(self) -> str:
        return f"<Relay {self._looper!r}>"

    def start(self) -> None:
        """Begin; belongs to the running event loop."""
        self._looper.start()

    async def stop(self) -> None:
        """End; a batch that is under way in its thread still ends."""
        await self._looper.stop()
        self._unwatch()
        if self._bell is not None:
            self._bell.close()
            self._bell = None

    def move(self, most: int = MAX_GROUP) -> int:
        """Move at most so many events in one transaction; returns how many left the line. Blocks.

        Raises StoreUnavailable.
        """
        began = clock.monotonic()
        with self._database.write() as connection:
            emitted = outbox.take(connection, most)
            if not emitted:
                return 0
            admissions, refused = self._admit(emitted)
            answers = self._ledger.accept_within(connection, list(admissions.values()))
            for number, accepted in zip(admissions, answers, strict=True):
                if accepted.contradiction:
                    refused[number] = "its idempotency key stands for another event already"
            outbox.settle(connection, [n for n in admissions if n not in refused], refused)
            failpoints.reach("relay.accepted")
        failpoints.reach("relay.committed")
        self._tell(list(zip(admissions.values(), answers, strict=True)), refused, clock.monotonic() - began)
        return len(admissions.keys() | refused.keys())

    async def _turn(self) -> float | None:
        self._unwatch()
        moved = await asyncio.to_thread(self._hear_and_move)
        hears = self._watch()
        if moved:
            return 0.0  # a batch may have been cut short; the next one finds nothing, or what came meanwhile
        return _LOOK_SECONDS if hears else _LOOK_SECONDS_DEAF

    def _hear_and_move(self) -> int:
        """First hush, then look: what rings after that is looked for in the next turn."""
        if self._bell is None:
            self._bell = self._open_bell()
        self._bell.hush()
        try:
            return self.move()
        except StoreUnavailable:
            raise
        except Exception:  # one event that the store does not take must not hold up the others
            _log.exception("a batch of emitted events cannot be stored; now the first of them by itself")
            return self._move_one()

    def _move_one(self) -> int:
        try:
            return self.move(1)
        except StoreUnavailable:
            raise
        except Exception as error:
            reason = f"it cannot be stored ({type(error).__name__})"
            with self._database.write() as connection:
                refused = {each.id: reason for each in outbox.take(connection, 1)}
                outbox.settle(connection, [], refused)
            self._tell([], refused, 0.0)
            return len(refused)

    def _admit(self, emitted: Sequence[Emitted]) -> tuple[dict[int, Admission], dict[int, str]]:
        """Admissions and reasons against them, by number; as many as one transaction takes."""
        known = self._suppliers({each.supplier_id for each in emitted})
        admissions: dict[int, Admission] = {}
        refused: dict[int, str] = {}
        now, rules, deliveries = clock.now(), self._rules(), 0
        for each in emitted:
            try:
                admission = admit(_event(each), known[each.supplier_id], now, rules)
            except (InvalidInput, NotFound) as error:
                refused[each.id] = str(error)
                continue
            deliveries += len(admission.endpoints)
            if deliveries > MAX_GROUP_DELIVERIES and admissions:
                break
            admission.timestamp = clock.to_rfc3339(clock.from_datetime(each.happened_at or each.emitted_at))
            put_trace(admission, traces.kept(each.traceparent) if self._trace_context else None, self._tracer)
            admissions[each.id] = admission
        return admissions, refused

    def _suppliers(self, names: set[str]) -> dict[str, Subscriptions | None]:
        """What is known of them; nobody is turned away on the word of a cache."""
        known = self._cache.lookup(names)
        doubtful = {name for name in names if known[name] is None}
        return known | (self._cache.lookup(doubtful, fresh=True) if doubtful else {})

    def _tell(
        self, answers: Sequence[tuple[Admission, Accepted]], refused: dict[int, str], seconds: float
    ) -> None:
        taken = [(admission, accepted) for admission, accepted in answers if not accepted.contradiction]
        fresh = [(admission, accepted) for admission, accepted in taken if not accepted.duplicate]
        deliveries = sum(accepted.deliveries for _, accepted in fresh)
        if deliveries:
            self._queue.push(deliveries, [admission for admission, _ in fresh])
        if taken:
            self._telemetry.emit(EventsAccepted(len(fresh), len(taken) - len(fresh), deliveries, seconds))
            if self._tracer is not None:
                tell_traced(self._telemetry, taken)
        if refused:
            self._telemetry.emit(EventsRefused(len(refused), "outbox"))
            for number, reason in refused.items():
                _log.warning("an emitted event is refused", extra={"outbox_id": number, "reason": reason})

    def _watch(self) -> bool:
        """Let the bell wake the loop; returns whether there is anything to hear."""
        self._watched = self._bell.fileno() if self._bell is not None else None
        if self._watched is None:
            return False
        asyncio.get_running_loop().add_reader(self._watched, self._ring)
        return True

    def _ring(self) -> None:
        self._unwatch()  # it stays readable until the next turn hushes it
        self._looper.wake()

    def _unwatch(self) -> None:
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            self._watched = None


def _event(emitted: Emitted) -> NewEvent:
    """As a publisher would have said it; when it was emitted is not said, since it differs from time to time."""
    return NewEvent(
        supplier_id=emitted.supplier_id,
        type=emitted.type,
        data=msgspec.Raw(emitted.data.encode()),
        timestamp=emitted.happened_at,
        idempotency_key=emitted.idempotency_key,
        occasion_date=emitted.occasion_date,
        priority=cast(Priority | None, emitted.priority),
        deliver_at=emitted.deliver_at,
        ordering_key=emitted.ordering_key,
        tags=tuple(emitted.tags or ()),
    )
