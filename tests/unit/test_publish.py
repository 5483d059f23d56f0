"""Publishing refuses what is wrong, commits in groups, and keeps what it promises to each publisher."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest

from ringbearer import clock, ids, publish
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.domain.endpoints import Endpoint
from ringbearer.domain.events import NewEvent
from ringbearer.domain.suppliers import Supplier
from ringbearer.errors import InvalidInput, NotFound, Overloaded, StoreUnavailable
from ringbearer.publish import Publisher, admit
from ringbearer.queue.bell import SocketBell
from ringbearer.queue.database import DatabaseQueue
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.catalog import Subscriptions
from ringbearer.storage.database import Database
from ringbearer.storage.history import Filter
from ringbearer.storage.ledger import Accepted, Admission, Ledger
from ringbearer.storage.vault import Vault, generate_key
from ringbearer.telemetry import EventsAccepted, EventsRefused, Report, StoreFailed, Telemetry
from tools import migrated_sqlite, turn

NOW = clock.now()
MOMENT = datetime(2027, 6, 19, 14, tzinfo=UTC)


def event(**given: object) -> NewEvent:
    values: dict[str, object] = {
        "supplier_id": "studio",
        "type": "booking.confirmed",
        "data": msgspec.Raw(b'{"guests": 120}'),
    }
    return NewEvent(**(values | given))  # type: ignore[arg-type]  # fields of its own


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with open_storage(migrated_sqlite(tmp_path / "store.db"), Vault([generate_key()])) as opened:
        opened.catalog.put_supplier(Supplier(id="studio", created_at=MOMENT, updated_at=MOMENT))
        for patterns, enabled in ((("*",), True), (("booking.*",), False), (("payment.received",), True)):
            opened.catalog.add_endpoint(
                Endpoint(
                    id=ids.endpoint(),
                    supplier_id="studio",
                    url="https://hooks.example",
                    event_types=patterns,
                    enabled=enabled,
                    created_at=MOMENT,
                    updated_at=MOMENT,
                ),
                "whsec_x",
            )
        yield opened


@pytest.fixture
def known(storage: Storage) -> Subscriptions:
    return storage.catalog.subscriptions(["studio"])["studio"]


# ── admission ───────────────────────────────────────────────────────────────────────────────────────────────


def test_an_admission_holds_what_was_said(known: Subscriptions) -> None:
    made = admit(
        event(
            timestamp=MOMENT.astimezone(timezone(timedelta(hours=2))),
            priority="urgent",
            deliver_at=clock.to_datetime(NOW + clock.SECOND),
            ordering_key="couple-1",
            idempotency_key="k",
            occasion_date=date(2027, 6, 19),
            tags=("vip", "a b"),
        ),
        known,
        NOW,
    )
    assert (made.supplier_id, made.type, made.data) == ("studio", "booking.confirmed", '{"guests": 120}')
    assert made.timestamp.endswith("Z")
    assert datetime.fromisoformat(made.timestamp) == MOMENT
    assert (made.lane, made.accepted_at, made.deliver_at) == (0, NOW, NOW + clock.SECOND)
    assert (made.ordering_key, made.idempotency_key) == ("couple-1", "k")
    assert (made.occasion_date, made.tags) == ("2027-06-19", '["vip","a b"]')


def test_an_event_goes_to_the_endpoints_that_want_it_enabled_or_not(known: Subscriptions) -> None:
    every, booking, payment = known.targets
    assert admit(event(), known, NOW).endpoints == ((every, True), (booking, False))
    assert admit(event(type="payment.received"), known, NOW).endpoints == ((every, True), (payment, True))
    assert admit(event(type="x"), known, NOW).endpoints == ((every, True),)


def test_a_time_to_deliver_that_has_passed_is_now(known: Subscriptions) -> None:
    assert admit(event(deliver_at=clock.to_datetime(NOW - 1)), known, NOW).deliver_at is None
    assert admit(event(deliver_at=clock.to_datetime(NOW)), known, NOW).deliver_at is None


def test_what_is_not_said_is_normal_and_now(known: Subscriptions) -> None:
    made = admit(event(), known, NOW)
    assert made.lane == 2
    assert datetime.fromisoformat(made.timestamp) == clock.to_datetime(NOW)
    assert made.fingerprint == ""


def test_the_fingerprint_tells_a_repetition_from_a_contradiction(known: Subscriptions) -> None:
    first = admit(event(idempotency_key="k"), known, NOW)
    assert admit(event(idempotency_key="k"), known, NOW + clock.SECOND).fingerprint == first.fingerprint
    for other in (
        event(idempotency_key="k", data=msgspec.Raw(b'{"guests": 121}')),
        event(idempotency_key="k", type="booking.changed"),
        event(idempotency_key="k", priority="bulk"),
        event(idempotency_key="k", tags=("vip",)),
    ):
        assert admit(other, known, NOW).fingerprint != first.fingerprint


FAR = clock.to_datetime(NOW) + timedelta(days=367)


@pytest.mark.parametrize(
    ("wrong", "pointers"),
    [
        ({"type": ""}, ["/type"]),
        ({"type": "a..b"}, ["/type"]),
        ({"type": "a b"}, ["/type"]),
        ({"type": "booking.*"}, ["/type"]),
        ({"type": "a\n"}, ["/type"]),
        ({"type": "x" * 129}, ["/type"]),
        ({"data": msgspec.Raw(b"")}, ["/data"]),
        ({"timestamp": datetime(2027, 6, 19, 14)}, ["/timestamp"]),  # noqa: DTZ001  # that is what is wrong
        ({"deliver_at": datetime(2027, 6, 19, 14)}, ["/deliver_at"]),  # noqa: DTZ001
        ({"deliver_at": FAR}, ["/deliver_at"]),
        ({"idempotency_key": ""}, ["/idempotency_key"]),
        ({"idempotency_key": "x" * 257}, ["/idempotency_key"]),
        ({"idempotency_key": "a\x00b"}, ["/idempotency_key"]),
        ({"ordering_key": ""}, ["/ordering_key"]),
        ({"ordering_key": "x" * 257}, ["/ordering_key"]),
        ({"ordering_key": "a\tb"}, ["/ordering_key"]),
        ({"tags": ("ok", "", "x" * 65, "\x7f")}, ["/tags/1", "/tags/2", "/tags/3"]),
        ({"tags": tuple("x" * 21)}, ["/tags"]),
        ({"type": "", "ordering_key": "", "tags": ("",)}, ["/type", "/ordering_key", "/tags/0"]),
    ],
)
def test_every_problem_is_named_with_its_place(
    known: Subscriptions, wrong: dict[str, object], pointers: list[str]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        admit(event(**wrong), known, NOW)
    assert [pointer for pointer, _ in caught.value.problems] == pointers
    assert all(sentence.startswith("expected ") for _, sentence in caught.value.problems)


@pytest.mark.parametrize(
    "fine",
    [
        {"type": "a"},
        {"type": "x" * 128},
        {"idempotency_key": "ü" * 256},
        {"ordering_key": "x"},
        {"tags": tuple("x" * 20)},
        {"tags": ("x" * 64,)},
        {"data": msgspec.Raw(b"null")},
        {"deliver_at": FAR - timedelta(days=1, seconds=1)},
    ],
)
def test_what_just_fits_is_taken(known: Subscriptions, fine: dict[str, object]) -> None:
    admit(event(**fine), known, NOW)


def test_an_unknown_supplier_is_not_found_and_an_impossible_one_is_wrong() -> None:
    with pytest.raises(NotFound, match="'studio'"):
        admit(event(), None, NOW)
    with pytest.raises(InvalidInput) as caught:
        admit(event(supplier_id="a/b", type=""), None, NOW)
    assert [pointer for pointer, _ in caught.value.problems] == ["/supplier_id", "/type"]


# ── committing ──────────────────────────────────────────────────────────────────────────────────────────────


class CountingLedger(Ledger):
    """The real one; remembers the size of each transaction, and tells when one begins."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.groups: list[int] = []
        self._begun = threading.Semaphore(0)

    def accept(self, admissions: Sequence[Admission]) -> list[Accepted]:
        self.groups.append(len(admissions))
        self._begun.release()
        return super().accept(admissions)

    async def under_way(self) -> None:
        """Wait for the next transaction to begin."""
        assert await asyncio.to_thread(self._begun.acquire, timeout=30)


class House:
    """A publisher with all that it needs."""

    def __init__(self, storage: Storage, directory: Path) -> None:
        self.storage = storage
        self.reports: list[Report] = []
        telemetry = Telemetry()
        kinds: tuple[type[Report], ...] = (EventsAccepted, EventsRefused, StoreFailed)
        for kind in kinds:
            telemetry.listen(kind, self.reports.append)
        self.ledger = CountingLedger(storage.database)
        self.bell = SocketBell(directory / "run", listen=True)
        self.cache = WebhookCacheManager(catalog=storage.catalog, telemetry=telemetry)
        self.publisher = Publisher(
            cache=self.cache,
            ledger=self.ledger,
            queue=DatabaseQueue(storage.ledger, self.bell),
            telemetry=telemetry,
        )

    def run(self, scenario: Callable[[Publisher], Awaitable[None]]) -> None:
        async def live() -> None:
            self.publisher.start()
            async with asyncio.timeout(60):
                await scenario(self.publisher)
                await self.publisher.stop()

        try:
            asyncio.run(live())
        finally:
            self.bell.close()

    def stored(self) -> set[str]:
        found = self.storage.history.find(Filter(), limit=10_000).items
        return {delivery.event_id for delivery in found}


@pytest.fixture
def house(storage: Storage, tmp_path: Path) -> House:
    return House(storage, tmp_path)


def told(answers: list[Accepted | BaseException]) -> list[str]:
    return [answer.event_id if isinstance(answer, Accepted) else type(answer).__name__ for answer in answers]


def test_who_publishes_is_answered_when_it_is_stored(house: House) -> None:
    async def scenario(publisher: Publisher) -> None:
        answer = await publisher.publish(event(idempotency_key="k"))
        assert (answer.deliveries, answer.duplicate) == (2, False)
        assert house.stored() == {answer.event_id}
        again = await publisher.publish(event(idempotency_key="k"))
        assert (again.event_id, again.duplicate) == (answer.event_id, True)
        with pytest.raises(NotFound):
            await publisher.publish(event(supplier_id="nobody"))
        with pytest.raises(InvalidInput):
            await publisher.publish(event(type=""))

    house.run(scenario)
    first, second = (r for r in house.reports if isinstance(r, EventsAccepted) and r.events + r.duplicates)
    assert (first.events, first.duplicates, first.deliveries) == (1, 0, 2)
    assert (second.events, second.duplicates, second.deliveries) == (0, 1, 0)
    assert house.storage.ledger.claim([9] * 4, worker="w", until=NOW)


def test_those_who_come_at_once_share_a_transaction(house: House) -> None:
    async def scenario(publisher: Publisher) -> None:
        await publisher.publish(event())
        house.ledger.groups.clear()
        answers = await asyncio.gather(*(publisher.publish(event()) for _ in range(200)))
        assert len({answer.event_id for answer in answers}) == 200

    house.run(scenario)
    assert sum(house.ledger.groups) == 200
    assert len(house.ledger.groups) <= 3


def test_those_who_come_during_a_transaction_make_up_the_next(house: House) -> None:
    async def scenario(publisher: Publisher) -> None:
        made = [admit(event(), (await house.cache.get("studio")), NOW) for _ in range(50)]
        with house.storage.database.write():  # nobody else can write meanwhile
            first = asyncio.ensure_future(publisher.commit(made[:1]))
            await house.ledger.under_way()
            others = [asyncio.ensure_future(publisher.commit([each])) for each in made[1:]]
            await turn()
        await asyncio.gather(first, *others)

    house.run(scenario)
    assert house.ledger.groups == [1, 49]


def test_a_group_has_no_more_events_than_it_may_but_a_batch_stays_whole(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "MAX_GROUP", 10)

    async def scenario(publisher: Publisher) -> None:
        await asyncio.gather(
            *(publisher.publish(event()) for _ in range(25)),
            publisher.publish_batch([event() for _ in range(30)]),
        )

    house.run(scenario)
    assert sum(house.ledger.groups) == 55
    assert [size for size in house.ledger.groups if size > 10] == [30]


def test_77_a_group_has_no_more_deliveries_than_it_may_and_a_batch_too_large_is_refused(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "MAX_GROUP_DELIVERIES", 4)
    monkeypatch.setattr(publish, "MAX_BATCH_DELIVERIES", 30)

    async def scenario(publisher: Publisher) -> None:
        with pytest.raises(InvalidInput, match="at most 30 deliveries"):
            await publisher.publish_batch([event() for _ in range(16)])  # each goes to two endpoints
        await asyncio.gather(*(publisher.publish(event()) for _ in range(25)))
        await publisher.publish_batch([event() for _ in range(15)])

    house.run(scenario)
    assert sum(house.ledger.groups) == 40
    assert {size for size in house.ledger.groups if size > 2} == {15}


def test_a_large_batch_goes_in_parts_and_what_comes_meanwhile_does_not_wait_for_all_of_them(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches are under way; a single event that comes then is in the next transaction but one at the latest."""
    monkeypatch.setattr(publish, "MAX_PART", 20)  # each event goes to two endpoints

    async def scenario(publisher: Publisher) -> None:
        known = await house.cache.get("studio")
        with house.storage.database.write():  # nobody else can write meanwhile
            floods = [
                asyncio.ensure_future(publisher.publish_batch([event() for _ in range(100)]))
                for _ in range(3)
            ]
            await house.ledger.under_way()
            single = asyncio.ensure_future(publisher.commit([admit(event(), known, NOW)]))
            await turn()
            begun = len(house.ledger.groups)
        await single
        assert 1 in house.ledger.groups[: begun + 2]
        for answers in await asyncio.gather(*floods):
            assert len({answer.event_id for answer in answers if isinstance(answer, Accepted)}) == 100

    house.run(scenario)
    assert sum(house.ledger.groups) == 301
    assert max(house.ledger.groups) <= 40


def test_while_single_events_come_the_parts_of_a_batch_are_smaller(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "MAX_PART", 20)  # each event goes to two endpoints
    monkeypatch.setattr(publish, "BUSY_PART", 4)
    monkeypatch.setattr(publish, "_BUSY_SECONDS", 3_600.0)

    async def scenario(publisher: Publisher) -> None:
        await publisher.publish_batch([event() for _ in range(50)])
        assert house.ledger.groups == [10] * 5
        await publisher.publish(event())
        house.ledger.groups.clear()
        await publisher.publish_batch([event() for _ in range(50)])
        assert house.ledger.groups == [2] * 25
        house.ledger.groups.clear()
        await publisher.publish_batch([event() for _ in range(10)])
        assert house.ledger.groups == [10]

    house.run(scenario)


def test_when_a_part_of_a_batch_fails_its_events_and_those_after_it_are_answered_with_why(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "MAX_PART", 2)
    large = msgspec.Raw(b'"' + b"x" * 200_000 + b'"')

    async def scenario(publisher: Publisher) -> None:
        await house.cache.get("studio")
        with house.storage.database.write() as connection:  # the one connection that accepts
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 8}")
        refused = InvalidInput("not JSON")
        first, second, bad, *rest = await publisher.publish_batch(
            [event(), event(), refused, event(data=large), event()]
        )
        assert isinstance(first, Accepted)
        assert isinstance(second, Accepted)
        assert bad is refused
        assert [type(each) for each in rest] == [StoreUnavailable, StoreUnavailable]
        assert house.stored() == {first.event_id, second.event_id}
        with pytest.raises(StoreUnavailable):
            await publisher.publish_batch([event(data=large), event()])
        assert house.stored() == {first.event_id, second.event_id}

    house.run(scenario)


def test_when_too_much_data_waits_one_more_is_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "MAX_WAITING_BYTES", 1_000)

    async def scenario(publisher: Publisher) -> None:
        await publisher.publish(event())  # from now on its supplier is in memory
        large = event(data=msgspec.Raw(b'"' + b"x" * 600 + b'"'))
        answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        assert publisher.offer(large, answered.set_result)
        with pytest.raises(Overloaded):
            publisher.offer(large, lambda became: pytest.fail("it was refused"))
        await answered
        await publisher.publish(large)

    house.run(scenario)
    assert len(house.stored()) == 3


def test_a_batch_answers_each_event_in_its_place(house: House) -> None:
    async def scenario(publisher: Publisher) -> None:
        refused = InvalidInput("not JSON")
        answers = await publisher.publish_batch(
            [
                event(idempotency_key="k"),
                refused,
                event(supplier_id="nobody"),
                event(type=""),
                event(idempotency_key="k"),
            ]
        )
        first, second, third, fourth, fifth = answers
        assert isinstance(first, Accepted)
        assert second is refused
        assert isinstance(third, NotFound)
        assert isinstance(fourth, InvalidInput)
        assert isinstance(fifth, Accepted)
        assert fifth.duplicate
        assert fifth.event_id == first.event_id
        assert await publisher.publish_batch([]) == []
        assert await publisher.publish_batch([refused]) == [refused]

    house.run(scenario)
    assert house.ledger.groups == [2]


def test_an_offer_is_answered_later_or_not_taken(house: House) -> None:
    async def scenario(publisher: Publisher) -> None:
        became: asyncio.Queue[list[Accepted] | Exception] = asyncio.Queue()
        assert publisher.offer(event(), became.put_nowait) is False  # the supplier is not in memory yet
        house.cache.lookup(["studio", "nobody"])
        assert publisher.offer(event(), became.put_nowait) is True
        with pytest.raises(InvalidInput):
            publisher.offer(event(type=""), became.put_nowait)
        with pytest.raises(NotFound):
            publisher.offer(event(supplier_id="nobody"), became.put_nowait)
        answer = await became.get()
        assert isinstance(answer, list)
        assert house.stored() == {answer[0].event_id}
        assert became.empty()

    house.run(scenario)


def test_when_too_many_wait_one_more_is_refused_and_none_is_lost(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "MAX_WAITING", 20)

    async def scenario(publisher: Publisher) -> None:
        await house.cache.get("studio")
        with house.storage.database.write():
            under_way = asyncio.ensure_future(publisher.publish(event()))
            await house.ledger.under_way()
            waiting = [asyncio.ensure_future(publisher.publish(event())) for _ in range(20)]
            await turn()
            assert repr(publisher) == "<Publisher with 20 events waiting>"
            for _ in range(2):
                with pytest.raises(Overloaded, match="20 events"):
                    await publisher.publish(event())
            with pytest.raises(Overloaded):
                await publisher.publish_batch([event() for _ in range(5)])
        await asyncio.gather(under_way, *waiting)
        await publisher.publish(event())

    house.run(scenario)
    assert len(house.stored()) == 22
    assert [r for r in house.reports if isinstance(r, EventsRefused)] == [
        EventsRefused(1, "overloaded"),
        EventsRefused(1, "overloaded"),
        EventsRefused(5, "overloaded"),
    ]


def test_when_the_store_fails_all_of_the_group_are_told_and_it_goes_on_afterwards(house: House) -> None:
    def full(pages: int) -> None:
        with house.storage.database.write() as connection:  # the one connection that accepts
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    async def scenario(publisher: Publisher) -> None:
        await house.cache.get("studio")
        full(1)  # as full as it is
        large = msgspec.Raw(b'"' + b"x" * 200_000 + b'"')
        answers = await asyncio.gather(
            *(publisher.publish(event(data=large)) for _ in range(5)), return_exceptions=True
        )
        assert told(answers) == ["StoreUnavailable"] * 5
        assert all("full" in str(answer) for answer in answers)
        full(1_000_000)
        await publisher.publish(event(data=large))

    house.run(scenario)
    assert len(house.stored()) == 1
    assert EventsRefused(5, "store_failed") in house.reports
    assert sum(isinstance(r, StoreFailed) for r in house.reports) == 1


def test_one_that_cannot_be_stored_does_not_take_the_others_with_it(house: House) -> None:
    async def scenario(publisher: Publisher) -> None:
        made = [admit(event(), await house.cache.get("studio"), NOW) for _ in range(5)]
        made[2].lane = None  # type: ignore[assignment]  # what the database will not take
        answers = await asyncio.gather(*(publisher.commit([each]) for each in made), return_exceptions=True)
        assert [isinstance(answer, Exception) for answer in answers] == [False, False, True, False, False]
        assert not isinstance(answers[2], StoreUnavailable)
        assert house.stored() == {each.event_id for n, each in enumerate(made) if n != 2}
        await publisher.publish(event())

    house.run(scenario)


def test_a_publisher_that_goes_away_hurts_nobody(house: House) -> None:
    async def scenario(publisher: Publisher) -> None:
        await house.cache.get("studio")
        with house.storage.database.write():
            under_way = asyncio.ensure_future(publisher.publish(event()))
            await house.ledger.under_way()
            waiting = [asyncio.ensure_future(publisher.publish(event())) for _ in range(3)]
            await turn()
            for gone in (under_way, waiting[1]):
                gone.cancel()
            await asyncio.gather(under_way, waiting[1], return_exceptions=True)
        answers = await asyncio.gather(waiting[0], waiting[2])
        assert {answer.event_id for answer in answers} <= house.stored()
        await publisher.publish(event())

    house.run(scenario)


def test_stopping_answers_all_who_came_before(house: House) -> None:
    async def scenario(publisher: Publisher) -> None:
        await house.cache.get("studio")
        with house.storage.database.write():
            publishing = [asyncio.ensure_future(publisher.publish(event()))]
            await house.ledger.under_way()
            publishing += [asyncio.ensure_future(publisher.publish(event())) for _ in range(2)]
            await turn()
            stopping = asyncio.ensure_future(publisher.stop())
            await turn()
        await stopping
        assert all(each.done() for each in publishing)
        assert {each.result().event_id for each in publishing} == house.stored()

    house.run(scenario)


def test_stopping_waits_for_the_transaction_that_is_under_way(house: House) -> None:
    async def scenario(publisher: Publisher) -> None:
        await house.cache.get("studio")
        with house.storage.database.write():
            publishing = asyncio.ensure_future(publisher.publish(event()))
            await house.ledger.under_way()
            stopping = asyncio.ensure_future(publisher.stop())
            await turn()
        await stopping
        assert publishing.done()

    house.run(scenario)


def test_one_that_never_started_may_be_stopped(house: House) -> None:
    asyncio.run(house.publisher.stop())
    house.bell.close()
