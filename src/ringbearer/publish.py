"""Publishing: what a publisher says is checked, matched and ranked, and committed in groups."""

import asyncio
import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import msgspec

from ringbearer import clock, failpoints, ids
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.domain import traces
from ringbearer.domain.endpoints import EVENT_TYPE, MAX_EVENT_TYPE
from ringbearer.domain.events import NewEvent
from ringbearer.domain.suppliers import SUPPLIER_ID
from ringbearer.errors import InvalidInput, NotFound, Overloaded, RingbearerError, StoreUnavailable
from ringbearer.queue.base import Queue
from ringbearer.rules import Rules
from ringbearer.storage.catalog import Subscriptions
from ringbearer.storage.ledger import Accepted, Admission, Ledger
from ringbearer.telemetry import (
    EventsAccepted,
    EventsRefused,
    EventsTraced,
    EventTraced,
    StoreFailed,
    Telemetry,
)

MAX_GROUP = 1_000
"""Events in one transaction."""
MAX_GROUP_DELIVERIES = 5_000
"""Deliveries in one transaction, of several publishers."""
MAX_PART = 250
"""Events or deliveries of a batch in one transaction: nobody else waits for longer than these take."""
BUSY_PART = 64
"""The same of a batch that is larger than MAX_PART, while single events come, too."""
MAX_BATCH_DELIVERIES = 100_000
"""Deliveries that one batch may make."""
MAX_WAITING = 20_000
"""Events that may wait for the store; one more is refused, and the publisher told to come again."""
MAX_WAITING_BYTES = 128 * 1024 * 1024
"""Characters of data that may wait for the store."""
GROUP_WAIT = 0.005
"""Seconds that the first event of a group waits for company."""
BREATH = 100
"""Events of a batch that are looked at before the event loop has another turn."""

_BUSY_SECONDS = 1.0  # after a single event; more may come
_SMALL = 16  # events or deliveries that are handed over at once and still do not stand behind batches
_MAX_IDEMPOTENCY_KEY = 256
_MAX_ORDERING_KEY = 256
_MAX_TAGS = 20
_MAX_TAG = 64
_MAX_AHEAD = 366 * 86_400 * clock.SECOND
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f]*")
_USUAL_RULES = Rules()
_encode = msgspec.json.Encoder().encode


class Publisher:
    """Takes events from the API and answers when they are committed.

    Events that come in while one transaction is under way make up the next one: the busier the store, the
    larger the groups. Single events and batches stand in two lines, which take turns, and large batches go in parts:
    so whoever publishes a hundred thousand makes nobody wait for more than one of these. When too many wait,
    `publish` raises Overloaded; when the store fails, StoreUnavailable.

    The `trace` of an event is the context that its publisher gave, as `domain.traces` keeps it. A `tracer` makes the
    context of our own span in it, or begins a trace, or says that there is none; then telemetry is told of those.
    """

    def __init__(
        self,
        *,
        cache: WebhookCacheManager,
        ledger: Ledger,
        queue: Queue,
        telemetry: Telemetry,
        rules: Callable[[], Rules] = lambda: _USUAL_RULES,
        tracer: "Tracer | None" = None,
    ) -> None:
        self._cache = cache
        self._ledger = ledger
        self._queue = queue
        self._telemetry = telemetry
        self._rules = rules
        self._tracer = tracer
        self._small: deque[_Waiting] = deque()
        self._batches: deque[_Waiting] = deque()
        self._batch_was_last = False
        self._busy_until = 0.0
        self._events_waiting = 0
        self._bytes_waiting = 0
        self._arrived = asyncio.Event()
        self._store_thread = ThreadPoolExecutor(1, thread_name_prefix="accept")
        self._committer: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Publisher with {self._events_waiting} events waiting>"

    def start(self) -> None:
        """Begin to commit."""
        self._committer = asyncio.get_running_loop().create_task(self._commit_forever(), name="committer")

    async def stop(self) -> None:
        """Commit what waits, then end."""
        if self._committer is not None:
            while self._batches:
                await self.commit([])
            await self.commit([])  # whoever came before this, waiting or under way, has been answered then
            self._committer.cancel()
            await asyncio.gather(self._committer, return_exceptions=True)
            self._committer = None
        self._store_thread.shutdown()

    def offer(self, event: NewEvent, answered: "Answered", trace: str | None = None) -> bool:
        """Accept one event without waiting: `answered` is called with what became of it.

        Returns False, and does nothing, when the supplier has to be loaded first: then `publish` it. Raises
        InvalidInput, NotFound (the supplier) and Overloaded.
        """
        hit, subscriptions = self._cache.peek(event.supplier_id)
        if not hit:
            return False
        admission = admit(event, subscriptions, clock.now(), self._rules())
        if trace is not None or self._tracer is not None:
            put_trace(admission, trace, self._tracer)
        self._enqueue([admission], answered)
        return True

    async def publish(self, event: NewEvent, trace: str | None = None) -> Accepted:
        """Accept one event; returns when it is on the disk.

        Raises InvalidInput, NotFound (the supplier), Overloaded and StoreUnavailable.
        """
        subscriptions = await self._cache.get(event.supplier_id)
        admission = admit(event, subscriptions, clock.now(), self._rules())
        put_trace(admission, trace, self._tracer)
        (accepted,) = await self.commit([admission])
        return accepted

    def expect_room(self, events: int) -> None:
        """Raise Overloaded if the first part of a batch of so many would be refused: nobody need read it then."""
        if self._events_waiting + min(events, MAX_PART) > MAX_WAITING:
            raise self._refused(events)

    async def publish_batch(
        self, events: Sequence[NewEvent | InvalidInput], trace: str | None = None
    ) -> list[Accepted | RingbearerError]:
        """Accept many events at once; answers stand in input order.

        An event that is not valid is answered with its error and does not keep the others out. Up to MAX_PART events,
        or deliveries, are one transaction; more go in several, one after the other. When one of these fails, its
        events and all after it are answered with why: they are to be sent again. Raises Overloaded and
        StoreUnavailable when that is the first one, and InvalidInput for too many deliveries: then none was accepted.
        """
        suppliers = {event.supplier_id for event in events if isinstance(event, NewEvent)}
        known = await self._known(suppliers)
        now, rules = clock.now(), self._rules()
        answers: list[RingbearerError | None] = []
        admissions = []
        for event in events:
            if len(answers) % BREATH == BREATH - 1:
                await asyncio.sleep(0)
            if isinstance(event, InvalidInput):
                answers.append(event)
                continue
            try:
                admission = admit(event, known[event.supplier_id], now, rules)
                put_trace(admission, trace, self._tracer)
                admissions.append(admission)
                answers.append(None)
            except (InvalidInput, NotFound) as error:
                answers.append(error)
        _check_fan_out(admissions)
        stored = iter(await self._commit_in_parts(admissions))
        return [next(stored) if answer is None else answer for answer in answers]

    async def _known(self, supplier_ids: set[str]) -> dict[str, Subscriptions | None]:
        """What the cache knows of these suppliers; only what is not in memory is worth another thread."""
        known: dict[str, Subscriptions | None] = {}
        for supplier_id in supplier_ids:
            hit, subscriptions = self._cache.peek(supplier_id)
            if hit:
                known[supplier_id] = subscriptions
        missing = supplier_ids - known.keys()
        return known | await asyncio.to_thread(self._cache.lookup, missing) if missing else known

    async def _commit_in_parts(self, admissions: Sequence[Admission]) -> list[Accepted | RingbearerError]:
        found: list[Accepted | RingbearerError] = []
        for part in _parts(admissions, self._part):
            try:
                found += await self.commit(part)
            except Exception as error:
                if not found:
                    raise
                if not isinstance(error, RingbearerError):
                    error = StoreUnavailable("it could not be stored together with those after it")
                found += [error] * (
                    len(admissions) - len(found)
                )  # also the rest: none is to overtake another
                break
        return found

    def _part(self) -> int:
        """How much of a batch goes into one transaction now."""
        return min(MAX_PART, BUSY_PART) if clock.monotonic() < self._busy_until else MAX_PART

    async def commit(self, admissions: Sequence[Admission]) -> list[Accepted]:
        """Wait until these are committed, all in one transaction."""
        future: asyncio.Future[list[Accepted]] = asyncio.get_running_loop().create_future()

        def answered(answer: list[Accepted] | Exception) -> None:
            if future.done():
                return  # its publisher went away
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        self._enqueue(admissions, answered)
        return await future

    def _enqueue(self, admissions: Sequence[Admission], answered: "Answered") -> None:
        waiting = _Waiting(admissions, answered)
        if (
            self._events_waiting + len(admissions) > MAX_WAITING
            or self._bytes_waiting + waiting.size > MAX_WAITING_BYTES
        ):
            raise self._refused(len(admissions))
        if waiting.small:
            self._small.append(waiting)
            self._busy_until = clock.monotonic() + _BUSY_SECONDS
        else:
            self._batches.append(waiting)
        self._events_waiting += len(admissions)
        self._bytes_waiting += waiting.size
        self._arrived.set()

    def _refused(self, events: int) -> Overloaded:
        self._telemetry.emit(EventsRefused(events, "overloaded"))
        return Overloaded(f"{self._events_waiting} events wait for the store already; try again in a moment")

    async def _commit_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if self._events_waiting < MAX_GROUP and not self._batches:
                await asyncio.sleep(GROUP_WAIT)
            group = self._next_group()
            began = clock.monotonic()
            try:
                accepted = await loop.run_in_executor(self._store_thread, self._accept, group)
            except StoreUnavailable as error:
                self._fail(group, error)
                continue
            except Exception as error:
                if len(group) == 1:
                    self._fail(group, error)
                else:  # something in the group cannot be stored: it must not take the others with it
                    await self._one_by_one(group)
                continue
            self._answer(group, accepted, clock.monotonic() - began)

    def _next_group(self) -> "list[_Waiting]":
        line = self._small if self._small and (self._batch_was_last or not self._batches) else self._batches
        self._batch_was_last = line is self._batches
        most = 2 * self._part() if self._batch_was_last else MAX_GROUP
        group: list[_Waiting] = []
        events = deliveries = 0
        while line:
            first = line[0]
            events += len(first.admissions)
            deliveries += first.deliveries
            if group and (events > most or deliveries > MAX_GROUP_DELIVERIES):
                break
            group.append(line.popleft())
            self._events_waiting -= len(first.admissions)
            self._bytes_waiting -= first.size
        if not self._small and not self._batches:
            self._arrived.clear()
        return group

    def _accept(self, group: "list[_Waiting]") -> list[list[Accepted]]:
        """In the store's thread: one transaction, then a hint to the workers."""
        flat = [admission for waiting in group for admission in waiting.admissions]
        if not flat:
            return [[] for _ in group]
        failpoints.reach("publish.taken")
        accepted = iter(self._ledger.accept(flat))
        failpoints.reach("publish.committed")
        answers = [[next(accepted) for _ in waiting.admissions] for waiting in group]
        self._queue.push(sum(a.deliveries for answer in answers for a in answer), flat)
        failpoints.reach("publish.pushed")
        return answers

    async def _one_by_one(self, group: "list[_Waiting]") -> None:
        loop = asyncio.get_running_loop()
        for waiting in group:
            began = clock.monotonic()
            try:
                accepted = await loop.run_in_executor(self._store_thread, self._accept, [waiting])
            except Exception as error:
                self._fail([waiting], error)
            else:
                self._answer([waiting], accepted, clock.monotonic() - began)

    def _answer(self, group: "list[_Waiting]", answers: list[list[Accepted]], seconds: float) -> None:
        duplicates = deliveries = events = 0
        for waiting, answer in zip(group, answers, strict=True):
            waiting.answered(answer)
            for accepted in answer:
                if accepted.duplicate:
                    duplicates += 1
                else:
                    events += 1
                    deliveries += accepted.deliveries
        self._telemetry.emit(EventsAccepted(events, duplicates, deliveries, seconds))
        if self._tracer is not None:
            pairs = (
                zip(waiting.admissions, answer, strict=True)
                for waiting, answer in zip(group, answers, strict=True)
            )
            tell_traced(self._telemetry, chain.from_iterable(pairs))

    def _fail(self, group: "list[_Waiting]", error: Exception) -> None:
        count = 0
        for waiting in group:
            count += len(waiting.admissions)
            waiting.answered(error)
        self._telemetry.emit(StoreFailed("accept", str(error)))
        self._telemetry.emit(EventsRefused(count, "store_failed"))


Answered = Callable[[list[Accepted] | Exception], None]
"""Is told, in the event loop, what became of the admissions that waited together; must not raise."""


class _Waiting:
    """What one publisher handed over at once, and how much of a transaction and of memory it takes."""

    __slots__ = ("admissions", "answered", "deliveries", "size")

    def __init__(self, admissions: Sequence[Admission], answered: Answered) -> None:
        self.admissions = admissions
        self.answered = answered
        self.deliveries = self.size = 0
        for admission in admissions:
            self.deliveries += len(admission.endpoints)
            self.size += len(admission.data)

    @property
    def small(self) -> bool:
        """Whether it is no batch to speak of."""
        return len(self.admissions) <= _SMALL and self.deliveries <= _SMALL


Tracer = Callable[[str | None], str | None]
"""From the trace that a publisher gave, or None, to the context of our own span, or None: `Tracing.context`."""


def put_trace(admission: Admission, trace: str | None, tracer: Tracer | None) -> None:
    """Let an event belong to its publisher's trace, with a span of our own in it where there is a `tracer`."""
    if tracer is None:
        admission.trace = trace
        return
    admission.trace = tracer(trace)
    if trace is not None:
        admission.trace_parent = traces.read(trace).span_id


def tell_traced(telemetry: Telemetry, stored: Iterable[tuple[Admission, Accepted]]) -> None:
    """Report the spans of publishing what belongs to a trace."""
    now = clock.now()
    found = [
        _traced(admission, accepted, now) for admission, accepted in stored if admission.trace is not None
    ]
    if found:
        telemetry.emit(EventsTraced(found))


def _traced(admission: Admission, accepted: Accepted, now: int) -> EventTraced:
    return EventTraced(
        context=admission.trace or "",
        parent=admission.trace_parent,
        event_id=accepted.event_id,
        supplier_id=admission.supplier_id,
        event_type=admission.type,
        deliveries=accepted.deliveries,
        duplicate=accepted.duplicate,
        began_at=admission.accepted_at,
        ended_at=now,
    )


def _parts(admissions: Sequence[Admission], most: Callable[[], int]) -> Iterator[list[Admission]]:
    """The same in pieces, whole if MAX_PART allows it; `most` is asked before each how much may be in it.

    Counted are events and deliveries. In each piece is at least one event.
    """
    part: list[Admission] = []
    whole = sum(max(1, len(admission.endpoints)) for admission in admissions) <= MAX_PART
    deliveries, size = 0, MAX_PART if whole else most()
    for admission in admissions:
        deliveries += len(admission.endpoints)
        if part and (len(part) >= size or deliveries > size):
            yield part
            part, deliveries, size = [], len(admission.endpoints), most()
        part.append(admission)
    if part:
        yield part


def _check_fan_out(admissions: Sequence[Admission]) -> None:
    deliveries = sum(len(admission.endpoints) for admission in admissions)
    if deliveries > MAX_BATCH_DELIVERIES:
        message = (
            f"these {len(admissions)} events go to {deliveries} endpoints in all; expected at most "
            f"{MAX_BATCH_DELIVERIES} deliveries in one batch: send fewer events at a time"
        )
        raise InvalidInput(message, [("", message)])


def admit(
    event: NewEvent, subscriptions: Subscriptions | None, now: int, rules: Rules = _USUAL_RULES
) -> Admission:
    """Check an event, match it with the endpoints that want it, and give it a lane and an id; `now` is a stored time.

    Raises InvalidInput with every problem found, or NotFound for an unknown supplier.
    """
    problems = _problems(event, subscriptions, now)
    if problems:
        raise InvalidInput(problems[0][1], problems)
    if subscriptions is None:
        raise NotFound(
            f"there is no supplier {event.supplier_id!r}; create it with PUT /v1/suppliers/{event.supplier_id}"
        )
    keyed = event.idempotency_key is not None
    deliver_at = clock.from_datetime(event.deliver_at) if event.deliver_at is not None else None
    happened_at = clock.from_datetime(event.timestamp) if event.timestamp is not None else now
    lane, reason = rules.lane(
        event.type,
        subscriptions.supplier.tier,
        subscriptions.supplier.timezone,
        now,
        asked=event.priority,
        tags=event.tags,
        occasion=event.occasion_date,
    )
    return Admission(
        event_id=ids.event(),
        supplier_id=event.supplier_id,
        type=event.type,
        timestamp=clock.to_rfc3339(happened_at),
        data=bytes(event.data).decode(),
        lane=lane,
        asked=event.priority,
        reason=reason,
        accepted_at=now,
        tier=subscriptions.supplier.tier,
        endpoints=subscriptions.wanting(event.type),
        deliver_at=deliver_at if deliver_at is not None and deliver_at > now else None,
        ordering_key=event.ordering_key,
        own_keys=subscriptions.own_keys,
        idempotency_key=event.idempotency_key,
        fingerprint=hashlib.sha256(_encode(event)).hexdigest() if keyed else "",
        occasion_date=event.occasion_date.isoformat() if event.occasion_date else None,
        tags=_encode(event.tags).decode() if event.tags else None,
    )


def _problems(event: NewEvent, subscriptions: Subscriptions | None, now: int) -> list[tuple[str, str]]:
    """What is wrong with an event. What a known supplier already got is not looked at again."""
    found: list[tuple[str, str]] = []
    if subscriptions is None and not SUPPLIER_ID.fullmatch(event.supplier_id):
        found.append(("/supplier_id", "expected 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'"))
    if (subscriptions is None or event.type not in subscriptions.matched) and (
        len(event.type) > MAX_EVENT_TYPE or not EVENT_TYPE.fullmatch(event.type)
    ):
        found.append(
            (
                "/type",
                "expected words of letters, digits, '_' and '-' joined by dots, as in booking.confirmed",
            )
        )
    if not event.data:
        found.append(("/data", "expected any JSON value"))
    if event.timestamp is not None or event.deliver_at is not None:
        found += _time_problems(event, now)
    if event.idempotency_key is not None or event.ordering_key is not None:
        found += _key_problems(event)
    if event.tags:
        found += _tag_problems(event.tags)
    return found


def _time_problems(event: NewEvent, now: int) -> list[tuple[str, str]]:
    found = [
        (f"/{name}", "expected a time with a zone, as in 2027-06-19T14:00:00Z")
        for name, value in (("timestamp", event.timestamp), ("deliver_at", event.deliver_at))
        if value is not None and value.tzinfo is None
    ]
    later = event.deliver_at
    if later is not None and later.tzinfo is not None and clock.from_datetime(later) > now + _MAX_AHEAD:
        found.append(("/deliver_at", "expected a time within the next 366 days"))
    return found


def _key_problems(event: NewEvent) -> list[tuple[str, str]]:
    return [
        (f"/{name}", f"expected 1 to {most} characters without control characters")
        for name, key, most in (
            ("idempotency_key", event.idempotency_key, _MAX_IDEMPOTENCY_KEY),
            ("ordering_key", event.ordering_key, _MAX_ORDERING_KEY),
        )
        if key is not None and not (0 < len(key) <= most and _PRINTABLE.fullmatch(key))
    ]


def _tag_problems(tags: tuple[str, ...]) -> list[tuple[str, str]]:
    if len(tags) > _MAX_TAGS:
        return [("/tags", f"expected at most {_MAX_TAGS} tags")]
    return [
        (f"/tags/{index}", f"expected 1 to {_MAX_TAG} characters without control characters")
        for index, tag in enumerate(tags)
        if not (0 < len(tag) <= _MAX_TAG and _PRINTABLE.fullmatch(tag))
    ]
