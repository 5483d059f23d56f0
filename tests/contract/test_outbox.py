"""The outbox: what an application emits in SQL becomes an event once, with its transaction or not at all."""

import asyncio
import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

import psycopg
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import ProgrammingError

from contract.making import add_endpoint, at_once, claim, one, query, settle, supplier
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.domain import traces
from ringbearer.queue.bell import PostgresBell
from ringbearer.queue.database import DatabaseQueue
from ringbearer.relay import Relay
from ringbearer.rules import Rules
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.vault import Vault, generate_key
from ringbearer.telemetry import (
    EventsAccepted,
    EventsRefused,
    EventsTraced,
    EventTraced,
    Report,
    Telemetry,
)

_LONG = 60.0
_RULES = Rules()


@pytest.fixture
def url(postgres_url: str) -> str:
    """The shared database, its outbox empty."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute("DELETE FROM ringbearer.outbox")
    return postgres_url


@pytest.fixture
def storage(url: str) -> Iterator[Storage]:
    """A store there, in which the supplier `studio` has one endpoint."""
    with open_storage(url, Vault([generate_key()])) as opened:
        opened.retention.prepare()
        add_endpoint(opened)
        yield opened


@pytest.fixture
def application(url: str) -> Iterator[psycopg.Connection]:
    """The application's own connection."""
    with psycopg.connect(url) as connection:
        yield connection


Relays = Callable[..., Relay]


@contextmanager
def _relays(storage: Storage, url: str) -> Iterator[Relays]:
    """Makes relays on a store, and closes in the end what they rang with."""
    with ExitStack() as stack:

        def make(telemetry: Telemetry | None = None, **given: Any) -> Relay:
            telemetry = telemetry or Telemetry()
            bell = PostgresBell(url, listen=False)
            stack.callback(bell.close)
            return Relay(
                database=storage.database,
                ledger=storage.ledger,
                cache=WebhookCacheManager(catalog=storage.catalog, telemetry=telemetry),
                queue=DatabaseQueue(storage.ledger, bell),
                telemetry=telemetry,
                rules=lambda: _RULES,
                bell=lambda: PostgresBell(url, listen=True, name="outbox"),
                **given,
            )

        yield make


@pytest.fixture
def relays(storage: Storage, url: str) -> Iterator[Relays]:
    """Makes relays."""
    with _relays(storage, url) as make:
        yield make


def _emit(connection: psycopg.Connection, data: object = None, **given: object) -> int:
    values = {"type": "booking.confirmed", "supplier": "studio", "data": json.dumps(data), **given}
    arguments = ", ".join(f"{name} => %({name})s" for name in values)
    row = connection.execute(f"SELECT ringbearer.emit({arguments})".encode(), values).fetchone()
    assert row is not None
    return int(row[0])


def _events(storage: Storage) -> list[object]:
    return [json.loads(row[0]) for row in query(storage, "SELECT data FROM events ORDER BY id")]


def _waiting(storage: Storage) -> int:
    return int(one(storage, "SELECT count(*) FROM ringbearer.outbox WHERE refused_at IS NULL"))


# ── with the application's transaction ──────────────────────────────────────────────────────────────────────


def test_what_is_committed_becomes_an_event_and_what_is_rolled_back_does_not(
    storage: Storage, relays: Relays, application: psycopg.Connection
) -> None:
    relay = relays()
    _emit(application, {"n": 1})
    assert relay.move() == 0  # its transaction is not at its end
    application.commit()
    _emit(application, {"n": 2})
    application.rollback()
    _emit(application, {"n": 3})
    application.commit()
    assert relay.move() == 2
    assert _events(storage) == [{"n": 1}, {"n": 3}]
    assert one(storage, "SELECT count(*) FROM ringbearer.outbox") == 0
    assert len(claim(storage)) == 2
    assert relay.move() == 0


def test_all_that_a_publisher_may_say_may_be_emitted(
    storage: Storage, relays: Relays, application: psycopg.Connection
) -> None:
    _emit(
        application,
        {"n": 1},
        type="a.b",
        idempotency_key="k",
        ordering_key="o",
        priority="urgent",
        occasion_date="2027-06-19",
        tags=["x", "y"],
        happened_at="2027-01-02T03:04:05Z",
    )
    application.commit()
    relays().move()
    row = query(
        storage,
        "SELECT type, supplier_id, timestamp, lane, idempotency_key, ordering_key, occasion_date, tags FROM events",
    )
    assert row == [("a.b", "studio", "2027-01-02T03:04:05.000000Z", 0, "k", "o", "2027-06-19", '["x","y"]')]


_PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_an_emitted_event_belongs_to_the_trace_that_was_named(
    storage: Storage, relays: Relays, application: psycopg.Connection
) -> None:
    for given in (_PARENT, "nonsense", "x" * 1_000_000):
        _emit(application, traceparent=given)
    _emit(application)
    application.commit()
    relays().move()
    assert query(storage, "SELECT trace FROM events ORDER BY id") == [(_PARENT,), (None,), (None,), (None,)]


def test_the_context_of_a_trace_is_not_kept_where_nobody_wants_it(
    storage: Storage, relays: Relays, application: psycopg.Connection
) -> None:
    _emit(application, traceparent=_PARENT)
    application.commit()
    relays(trace_context=False).move()
    assert one(storage, "SELECT trace FROM events") is None


def test_relaying_is_a_span_in_the_emitters_trace_or_begins_one(
    storage: Storage, relays: Relays, application: psycopg.Connection
) -> None:
    telemetry, told = Telemetry(), list[EventTraced]()
    telemetry.listen(EventsTraced, lambda report: told.extend(report.events))

    def tracer(trace: str | None) -> str:
        return traces.begin() if trace is None else traces.child(trace, "00000000000000aa")

    number = _emit(application, traceparent=_PARENT)
    _emit(application)
    application.commit()
    assert number
    assert relays(telemetry, tracer=tracer).move() == 2
    inside, begun = told
    assert (traces.read(inside.context).trace_id, inside.parent) == (_PARENT[3:35], _PARENT[36:52])
    assert traces.read(inside.context).span_id == "00000000000000aa"
    assert begun.parent == ""
    assert traces.read(begun.context).trace_id != _PARENT[3:35]
    assert {each.context for each in told} == {row[0] for row in query(storage, "SELECT trace FROM events")}
    assert {each.event_id for each in told} == {row[0] for row in query(storage, "SELECT id FROM events")}


def test_whoever_might_emit_before_the_function_took_a_trace_still_may(url: str) -> None:
    earlier, migration = (
        import_module(f"ringbearer.storage.migrations.versions.{name}")
        for name in ("0008_supabase", "0015_emitted_traces")
    )
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        for statement in (
            f"DROP FUNCTION {migration._NEW}",
            "ALTER TABLE ringbearer.outbox DROP COLUMN traceparent",
            earlier._EMIT,
            f"REVOKE ALL ON FUNCTION {migration._OLD} FROM PUBLIC",
            'CREATE ROLE "the-shop"',
            "CREATE ROLE stranger",
            'GRANT USAGE ON SCHEMA ringbearer TO "the-shop", stranger',
            'GRANT EXECUTE ON FUNCTION ringbearer.emit TO "the-shop"',
        ):
            connection.exec_driver_sql(statement.replace("%", "%%"))
        with Operations.context(MigrationContext.configure(connection)):
            migration.upgrade()
        connection.exec_driver_sql('SET ROLE "the-shop"')
        emit = f"SELECT ringbearer.emit('a.b', 'studio', '1', traceparent => '{_PARENT}')"
        assert connection.exec_driver_sql(emit).scalar_one() > 0
        connection.exec_driver_sql("SET ROLE stranger")
        with pytest.raises(ProgrammingError, match="permission denied"):
            connection.exec_driver_sql(emit)
        connection.rollback()
    engine.dispose()


def test_an_event_has_the_time_at_which_it_was_emitted(
    storage: Storage, relays: Relays, application: psycopg.Connection
) -> None:
    _emit(application)
    emitted = application.execute("SELECT emitted_at FROM ringbearer.outbox").fetchone()
    application.commit()
    relays().move()
    assert emitted is not None
    assert one(storage, "SELECT CAST(timestamp AS timestamptz) FROM events") == emitted[0]


def test_an_idempotency_key_stands_for_one_event(
    storage: Storage, relays: Relays, application: psycopg.Connection
) -> None:
    relay = relays()
    for data in (1, 1, 2):
        _emit(application, data, idempotency_key="k")
        application.commit()
        relay.move()
    assert _events(storage) == [1]
    (refused,) = query(storage, "SELECT data, reason FROM ringbearer.outbox")
    assert refused == (2, "its idempotency key stands for another event already")


def test_order_is_kept(storage: Storage, relays: Relays, application: psycopg.Connection) -> None:
    for n in range(3):
        _emit(application, n, ordering_key="couple-7")
    application.commit()
    relays().move()
    seen = []
    while leases := claim(storage):
        seen += [lease.data for lease in leases]
        settle(storage, leases)
    assert seen == ["0", "1", "2"]


@pytest.mark.parametrize(
    "given",
    [
        {"type": "a b"},
        {"type": ""},
        {"type": None},
        {"type": "a" * 129},
        {"supplier": "a/b"},
        {"supplier": None},
        {"data": "x" * 262_144},
        {"priority": "now"},
    ],
)
def test_what_can_be_no_event_fails_in_the_applications_transaction(
    storage: Storage, application: psycopg.Connection, given: dict[str, object]
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"ringbearer\.emit: "):
        _emit(application, **given)


def test_data_must_be_there(storage: Storage, application: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"ringbearer\.emit: data"):
        application.execute("SELECT ringbearer.emit('a.b', 'studio', NULL)")


# ── what cannot be relayed ──────────────────────────────────────────────────────────────────────────────────


def test_an_event_that_is_refused_stays_with_its_reason_and_goes_when_it_can(
    storage: Storage, relays: Relays, application: psycopg.Connection
) -> None:
    telemetry, reports = Telemetry(), list[Report]()
    telemetry.listen(EventsRefused, reports.append)
    relay = relays(telemetry)
    _emit(application, "early", supplier="nova")
    _emit(application, "good")
    _emit(application, "long", ordering_key="x" * 300)
    application.commit()
    assert relay.move() == 3
    assert _events(storage) == ["good"]
    assert reports == [EventsRefused(2, "outbox")]
    reasons = [row[0] for row in query(storage, "SELECT reason FROM ringbearer.outbox ORDER BY id")]
    assert "there is no supplier 'nova'" in reasons[0]
    assert "256 characters" in reasons[1]
    assert relay.move() == 0  # it is not tried again by itself
    storage.catalog.put_supplier(supplier("nova"))
    application.execute("UPDATE ringbearer.outbox SET refused_at = NULL WHERE supplier_id = 'nova'")
    application.commit()
    assert relay.move() == 1
    assert _events(storage) == ["good", "early"]


def test_a_supplier_that_was_made_a_moment_ago_is_known(
    storage: Storage, relays: Relays, application: psycopg.Connection
) -> None:
    relay = relays()
    _emit(application, 1, supplier="nova")
    application.commit()
    relay.move()  # now a cache knows that there is none
    storage.catalog.put_supplier(supplier("nova"))
    _emit(application, 2, supplier="nova")
    application.commit()
    relay.move()
    assert _events(storage) == [2]


# ── many at a time, and crashes ─────────────────────────────────────────────────────────────────────────────


def test_relays_at_the_same_time_double_nothing(
    storage: Storage, relays: Relays, application: psycopg.Connection
) -> None:
    for n in range(300):
        _emit(application, n)
    application.commit()
    at_work = [relays() for _ in range(4)]

    def work(number: int) -> int:
        moved = 0
        while step := at_work[number].move(10):
            moved += step
        return moved

    assert sum(at_once(4, work)) == 300
    assert sorted(map(str, _events(storage))) == sorted(map(str, range(300)))


def _move_and_die(url: str, key: str, point: str) -> None:
    from ringbearer import failpoints

    failpoints.reach = failpoints._striker({point: 1})
    with open_storage(url, Vault([key])) as storage, _relays(storage, url) as relays:
        relays().move()


@pytest.mark.parametrize(("point", "survived"), [("relay.accepted", 0), ("relay.committed", 5)])
def test_a_crash_neither_loses_nor_doubles(
    url: str, application: psycopg.Connection, point: str, survived: int
) -> None:
    key = generate_key()
    with open_storage(url, Vault([key])) as storage, _relays(storage, url) as relays:
        storage.retention.prepare()
        add_endpoint(storage)
        for n in range(5):
            _emit(application, n)
        application.commit()
        process = multiprocessing.get_context("spawn").Process(target=_move_and_die, args=(url, key, point))
        process.start()
        process.join(_LONG)
        assert process.exitcode == -signal.SIGKILL
        assert len(_events(storage)) == survived
        relay = relays()
        while relay.move():
            pass
        assert _events(storage) == [0, 1, 2, 3, 4]
        assert len(claim(storage)) == 5


# ── as a duty ───────────────────────────────────────────────────────────────────────────────────────────────


class Hearing:
    """Telemetry that a coroutine can wait for."""

    def __init__(self) -> None:
        self.telemetry = Telemetry()
        self.reports: list[Report] = []
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        for kind in (EventsAccepted, EventsRefused):
            self.telemetry.listen(kind, self._heard)

    def _heard(self, report: Report) -> None:
        self.reports.append(report)
        self._loop.call_soon_threadsafe(self._news.set)

    async def until(self, count: int) -> None:
        """Wait for so many reports in all."""
        async with asyncio.timeout(_LONG):
            while len(self.reports) < count:
                await self._news.wait()
                self._news.clear()


def test_what_is_emitted_wakes_the_relay(
    storage: Storage, relays: Relays, application: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringbearer.relay._LOOK_SECONDS", 3_600.0)  # so that it hears, or never looks

    async def emit_one_after_another() -> None:
        hearing = Hearing()
        relay = relays(hearing.telemetry)
        relay.start()
        try:
            for n in range(1, 6):
                await asyncio.to_thread(_emit_and_commit, application, n)
                await hearing.until(n)
        finally:
            await relay.stop()

    asyncio.run(emit_one_after_another())
    assert _events(storage) == [1, 2, 3, 4, 5]


def test_a_relay_that_leads_again_goes_on(
    storage: Storage, relays: Relays, application: psycopg.Connection
) -> None:
    async def lead_twice() -> None:
        hearing = Hearing()
        relay = relays(hearing.telemetry)
        for n in (1, 2):
            await asyncio.to_thread(_emit_and_commit, application, n)
            relay.start()
            await hearing.until(n)
            await relay.stop()

    asyncio.run(lead_twice())
    assert _events(storage) == [1, 2]


def test_an_event_that_the_store_does_not_take_holds_up_nobody(
    storage: Storage, relays: Relays, application: psycopg.Connection
) -> None:
    _emit(application, "poison")
    _emit(application, "good")
    application.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.data LIKE '%poison%' THEN RAISE division_by_zero; END IF; RETURN NEW; END $$"
    )
    application.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    application.commit()

    async def run() -> None:
        hearing = Hearing()
        relay = relays(hearing.telemetry)
        relay.start()
        await hearing.until(2)
        await relay.stop()

    try:
        asyncio.run(run())
    finally:
        application.execute("DROP FUNCTION refuse CASCADE")
        application.commit()
    assert _events(storage) == ["good"]
    assert one(storage, "SELECT reason FROM ringbearer.outbox") == "it cannot be stored (DataError)"


def _emit_and_commit(application: psycopg.Connection, data: object) -> None:
    _emit(application, data)
    application.commit()


# What somebody else names as PostgreSQL names its types: whoever casts to it runs that somebody's code.
_SPY = """
CREATE FUNCTION pg_temp.spy() RETURNS boolean LANGUAGE plpgsql
AS $function$ BEGIN RAISE EXCEPTION 'ran as %', current_user; END $function$;
CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (pg_temp.spy());
CREATE DOMAIN pg_temp.jsonb AS pg_catalog.jsonb CHECK (pg_temp.spy())
"""


@pytest.mark.parametrize(
    "call", ["ringbearer.emit('booking.confirmed', 'studio', '{}')", "ringbearer.supplier_id()"]
)
def test_nothing_of_a_caller_runs_with_the_owners_rights(application: psycopg.Connection, call: str) -> None:
    application.execute("CREATE ROLE shop NOLOGIN")
    application.execute("GRANT USAGE ON SCHEMA ringbearer TO shop")
    application.execute("GRANT EXECUTE ON FUNCTION ringbearer.emit TO shop")
    application.execute("SET LOCAL ROLE shop")
    application.execute("SELECT set_config('request.jwt.claims', '{}', true)")
    application.execute(_SPY)
    application.execute(f"SELECT {call}")  # raises when the spy runs
    application.rollback()
