"""Publishing: what a publisher says is checked, matched and ranked, and committed in groups."""

import asyncio
import hashlib
import re
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import msgspec

from ringbearer import clock, failpoints, ids
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.domain.endpoints import EVENT_TYPE, MAX_EVENT_TYPE
from ringbearer.domain.events import MAX_DATA_BYTES, NewEvent
from ringbearer.domain.suppliers import SUPPLIER_ID
from ringbearer.errors import InvalidInput, NotFound, Overloaded, StoreUnavailable
from ringbearer.priority import lane_of
from ringbearer.queue.base import Queue
from ringbearer.storage.catalog import Subscriptions
from ringbearer.storage.ledger import Accepted, Admission, Ledger
from ringbearer.telemetry import EventsAccepted, EventsRefused, StoreFailed, Telemetry

MAX_GROUP = 1_000
"""Events in one transaction."""
MAX_WAITING = 20_000
"""Events that may wait for the store; one more is refused, and the publisher told to come again."""
GROUP_WAIT = 0.003
"""Seconds that the first event of a group waits for company."""

_MAX_IDEMPOTENCY_KEY = 256
_MAX_ORDERING_KEY = 256
_MAX_TAGS = 20
_MAX_TAG = 64
_MAX_AHEAD = 366 * 86_400 * clock.SECOND
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f]*")
_encode = msgspec.json.Encoder().encode


class Publisher:
    """Takes events from the API and answers when they are committed.

    Events that come in while one transaction is under way make up the next one: the busier the store, the
    larger the groups. When too many wait, `publish` raises Overloaded; when the store fails, StoreUnavailable.
    """

    def __init__(
        self, *, cache: WebhookCacheManager, ledger: Ledger, queue: Queue, telemetry: Telemetry
    ) -> None:
        self._cache = cache
        self._ledger = ledger
        self._queue = queue
        self._telemetry = telemetry
        self._waiting: deque[tuple[Sequence[Admission], asyncio.Future[list[Accepted]]]] = deque()
        self._events_waiting = 0
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
        if self._waiting:
            await asyncio.wait([future for _, future in self._waiting])
        if self._committer is not None:
            self._committer.cancel()
            await asyncio.gather(self._committer, return_exceptions=True)
        self._store_thread.shutdown()

    async def publish(self, event: NewEvent) -> Accepted:
        """Accept one event; returns when it is on the disk.

        Raises InvalidInput, NotFound (the supplier), Overloaded and StoreUnavailable.
        """
        hit, subscriptions = self._cache.peek(event.supplier_id)
        if not hit:
            subscriptions = await self._cache.get(event.supplier_id)
        (accepted,) = await self.commit([admit(event, subscriptions, clock.now())])
        return accepted

    async def publish_batch(
        self, events: Sequence[NewEvent | InvalidInput]
    ) -> list[Accepted | InvalidInput | NotFound]:
        """Accept many events at once; each refused one is answered with its error, in input order."""
        suppliers = {event.supplier_id for event in events if isinstance(event, NewEvent)}
        known = await asyncio.to_thread(self._cache.lookup, suppliers)
        now = clock.now()
        answers: list[Accepted | InvalidInput | NotFound | None] = []
        admissions = []
        for event in events:
            if isinstance(event, InvalidInput):
                answers.append(event)
                continue
            try:
                admissions.append(admit(event, known[event.supplier_id], now))
                answers.append(None)
            except (InvalidInput, NotFound) as error:
                answers.append(error)
        groups = [admissions[i : i + MAX_GROUP] for i in range(0, len(admissions), MAX_GROUP)]
        accepted = iter([answer for group in groups for answer in await self.commit(group)])
        return [next(accepted) if answer is None else answer for answer in answers]

    async def commit(self, admissions: Sequence[Admission]) -> list[Accepted]:
        """Wait until these are committed, all in one transaction."""
        if self._events_waiting + len(admissions) > MAX_WAITING:
            self._telemetry.emit(EventsRefused(len(admissions), "overloaded"))
            raise Overloaded(
                f"{self._events_waiting} events wait for the store already; try again in a moment"
            )
        future: asyncio.Future[list[Accepted]] = asyncio.get_running_loop().create_future()
        self._waiting.append((admissions, future))
        self._events_waiting += len(admissions)
        self._arrived.set()
        return await future

    async def _commit_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if self._events_waiting < MAX_GROUP:
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
        group: list[_Waiting] = []
        size = 0
        while self._waiting and size < MAX_GROUP:
            admissions, future = self._waiting.popleft()
            self._events_waiting -= len(admissions)
            if future.cancelled():
                continue  # its publisher went away before anything was promised
            group.append((admissions, future))
            size += len(admissions)
        if not self._waiting:
            self._arrived.clear()
        return group

    def _accept(self, group: "list[_Waiting]") -> list[list[Accepted]]:
        """In the store's thread: one transaction, then a hint to the workers."""
        flat = [admission for admissions, _ in group for admission in admissions]
        if not flat:
            return [[] for _ in group]
        failpoints.reach("publish.taken")
        accepted = iter(self._ledger.accept(flat))
        failpoints.reach("publish.committed")
        answers = [[next(accepted) for _ in admissions] for admissions, _ in group]
        self._queue.push(sum(a.deliveries for answer in answers for a in answer))
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
        for (_, future), answer in zip(group, answers, strict=True):
            if not future.done():
                future.set_result(answer)
            for accepted in answer:
                if accepted.duplicate:
                    duplicates += 1
                else:
                    events += 1
                    deliveries += accepted.deliveries
        self._telemetry.emit(EventsAccepted(events, duplicates, deliveries, seconds))

    def _fail(self, group: "list[_Waiting]", error: Exception) -> None:
        count = 0
        for admissions, future in group:
            count += len(admissions)
            if not future.done():
                future.set_exception(error)
        self._telemetry.emit(StoreFailed("accept", str(error)))
        self._telemetry.emit(EventsRefused(count, "store_failed"))


_Waiting = tuple[Sequence[Admission], "asyncio.Future[list[Accepted]]"]


def admit(event: NewEvent, subscriptions: Subscriptions | None, now: int) -> Admission:
    """Check an event, match it with the endpoints that want it, and give it an id; `now` is a stored time.

    Raises InvalidInput with every problem found, or NotFound for an unknown supplier.
    """
    problems = _problems(event, now)
    if problems:
        raise InvalidInput(problems[0][1], problems)
    if subscriptions is None:
        raise NotFound(
            f"there is no supplier {event.supplier_id!r}; create it with PUT /v1/suppliers/{event.supplier_id}"
        )
    endpoints = tuple(
        (endpoint_id, target.endpoint.enabled)
        for endpoint_id, target in subscriptions.targets.items()
        if target.endpoint.wants(event.type)
    )
    keyed = event.idempotency_key is not None
    deliver_at = clock.from_datetime(event.deliver_at) if event.deliver_at is not None else None
    return Admission(
        event_id=ids.event(),
        supplier_id=event.supplier_id,
        type=event.type,
        timestamp=_rfc3339(event.timestamp or clock.to_datetime(now)),
        data=bytes(event.data).decode(),
        lane=lane_of(event.priority),
        accepted_at=now,
        endpoints=endpoints,
        deliver_at=deliver_at if deliver_at is not None and deliver_at > now else None,
        ordering_key=event.ordering_key,
        idempotency_key=event.idempotency_key,
        fingerprint=hashlib.sha256(_encode(event)).hexdigest() if keyed else "",
        occasion_date=event.occasion_date.isoformat() if event.occasion_date else None,
        tags=_encode(event.tags).decode() if event.tags else None,
    )


def _problems(event: NewEvent, now: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if not SUPPLIER_ID.fullmatch(event.supplier_id):
        found.append(("/supplier_id", "expected 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'"))
    if len(event.type) > MAX_EVENT_TYPE or not EVENT_TYPE.fullmatch(event.type):
        found.append(
            (
                "/type",
                "expected words of letters, digits, '_' and '-' joined by dots, as in booking.confirmed",
            )
        )
    if not bytes(event.data):
        found.append(("/data", "expected any JSON value"))
    for name, value in (("timestamp", event.timestamp), ("deliver_at", event.deliver_at)):
        if value is not None and value.tzinfo is None:
            found.append((f"/{name}", "expected a time with a zone, as in 2027-06-19T14:00:00Z"))
    later = event.deliver_at
    if later is not None and later.tzinfo is not None and clock.from_datetime(later) > now + _MAX_AHEAD:
        found.append(("/deliver_at", "expected a time within the next 366 days"))
    for name, key, most in (
        ("idempotency_key", event.idempotency_key, _MAX_IDEMPOTENCY_KEY),
        ("ordering_key", event.ordering_key, _MAX_ORDERING_KEY),
    ):
        if key is not None and not (0 < len(key) <= most and _PRINTABLE.fullmatch(key)):
            found.append((f"/{name}", f"expected 1 to {most} characters without control characters"))
    if len(event.tags) > _MAX_TAGS:
        found.append(("/tags", f"expected at most {_MAX_TAGS} tags"))
    for index, tag in enumerate(event.tags[:_MAX_TAGS]):
        if not (0 < len(tag) <= _MAX_TAG and _PRINTABLE.fullmatch(tag)):
            found.append(
                (f"/tags/{index}", f"expected 1 to {_MAX_TAG} characters without control characters")
            )
    return found


def data_too_large(event: NewEvent) -> bool:
    """Whether the event's data exceed the 256 KiB that one event may carry."""
    return len(bytes(event.data)) > MAX_DATA_BYTES


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
