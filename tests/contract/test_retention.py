"""What is past its retention goes, unfinished work and its events never do, and the counts stay right."""

import asyncio
import contextlib
import re
from pathlib import Path

import pytest
from sqlalchemy import text

from contract.making import (
    DAY,
    NORMAL,
    add_endpoint,
    admission,
    at_once,
    claim,
    counted,
    delivery_of,
    in_processes,
    job_states,
    one,
    opened,
    query,
    rows,
    settle,
)
from ringbearer import clock, ids
from ringbearer.domain.breakers import Circuit
from ringbearer.domain.deliveries import State
from ringbearer.domain.endpoints import RateLimit
from ringbearer.errors import NotFound, StoreUnavailable
from ringbearer.limits.base import Limit
from ringbearer.limits.database import DatabaseRateLimiter
from ringbearer.maintenance.housekeeper import Housekeeper
from ringbearer.queue.bell import SocketBell
from ringbearer.queue.database import DatabaseQueue
from ringbearer.storage import retention as retention_module
from ringbearer.storage.base import Storage
from ringbearer.storage.history import Filter
from ringbearer.storage.ledger import Admission
from ringbearer.storage.schema import PARTITIONED
from ringbearer.storage.vault import generate_key
from ringbearer.telemetry import Telemetry

TODAY = clock.now() // DAY * DAY
BOUND = TODAY - 30 * DAY
OLD = TODAY - 40 * DAY
TABLES = ("events", "deliveries", "attempts", "idempotency", "jobs")


@pytest.fixture
def storage(own_storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """A store that made room for the old days when they were new."""
    for days in (44, 40, 36, 32, 28):
        monkeypatch.setattr(clock, "now", lambda days=days: TODAY - days * DAY)
        own_storage.retention.prepare()
    monkeypatch.undo()
    return own_storage


def tables(storage: Storage, parent: str = "events") -> list[str]:
    return [
        name
        for (name,) in query(
            storage,
            "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = CAST(:parent AS regclass) ORDER BY 1",
            parent=parent,
        )
    ]


def on_postgres(storage: Storage) -> bool:
    return "Postgres" in repr(storage.database)


def prune(storage: Storage, *, before: int = BOUND) -> list[int]:
    """Every step until nothing is left to do."""
    steps = []
    while removed := storage.retention.prune(before=before):
        steps.append(removed)
    return steps


def accept(storage: Storage, *made: Admission, become: State = State.DELIVERED) -> None:
    """Store events and bring their deliveries to an end; the claim takes everything that is ready."""
    storage.ledger.accept(list(made))
    if become is not State.READY:
        while leases := claim(storage, 500):
            settle(storage, leases, become)


def kept(storage: Storage) -> set[str]:
    return {row[0] for row in query(storage, "SELECT id FROM events")}


def test_old_finished_things_go_with_all_that_belongs_to_them(storage: Storage) -> None:
    old = [admission("ep_1", "ep_2", at=OLD + n, idempotency_key=f"old{n}") for n in range(3)]
    new = [admission(at=at, idempotency_key=f"new{at}") for at in (BOUND, clock.now())]
    accept(storage, *old, *new)
    assert prune(storage)
    assert kept(storage) == {a.event_id for a in new}
    assert {t: one(storage, f"SELECT count(*) FROM {t}") for t in TABLES} == {
        "events": 2,
        "deliveries": 2,
        "attempts": 2,
        "idempotency": 2,
        "jobs": 0,
    }
    (again,) = storage.ledger.accept([admission(idempotency_key="old0")])
    assert not again.duplicate
    assert prune(storage) == []


@pytest.mark.parametrize("state", [State.SCHEDULED, State.HELD, State.READY, State.LEASED])
def test_unfinished_deliveries_and_their_events_stay(storage: Storage, state: State) -> None:
    accept(storage, *(admission(at=OLD + n, idempotency_key=f"f{n}") for n in range(5)))
    unfinished = [admission(at=OLD + n, ordering_key="k", idempotency_key=f"u{n}") for n in (10, 20)]
    accept(storage, *unfinished, become=State.READY)
    leases = claim(storage)
    if state is not State.LEASED:
        settle(storage, leases, state)
    prune(storage)
    assert kept(storage) == {a.event_id for a in unfinished}
    assert [storage.history.get_delivery(delivery_of(a)).state for a in unfinished] == [state, State.WAITING]
    assert one(storage, "SELECT count(*) FROM idempotency") == 2
    assert counted(storage) == rows(storage)


def test_what_was_unfinished_goes_once_it_is_finished(storage: Storage) -> None:
    accept(storage, *(admission(at=OLD + n, ordering_key="k") for n in range(3)), become=State.READY)
    for left in (3, 2, 1, 0):
        prune(storage)
        assert len(kept(storage)) == left
        settle(storage, claim(storage))


def test_an_event_stays_while_one_of_its_deliveries_is_unfinished(storage: Storage) -> None:
    made = admission("ep_1", "ep_2", at=OLD)
    storage.ledger.accept([made])
    first, second = claim(storage)
    settle(storage, [first])
    settle(storage, [second], State.SCHEDULED)
    prune(storage)
    _, deliveries = storage.history.get_event(made.event_id)
    assert [d.state for d in deliveries] == [State.DELIVERED, State.SCHEDULED]
    assert len(storage.history.get_delivery(first.delivery_id).attempts) == 1


def test_dead_letters_go_and_are_no_longer_counted(storage: Storage) -> None:
    old = [admission(at=OLD + n, lane=n % 4) for n in range(8)]
    new = [admission(at=clock.now()) for _ in range(2)]
    accept(storage, *old, *new, become=State.DEAD)
    prune(storage)
    assert kept(storage) == {a.event_id for a in new}
    assert counted(storage) == rows(storage) == {(NORMAL, State.DEAD): 2}


def test_nothing_of_the_last_days_goes(storage: Storage) -> None:
    made = [admission(at=at) for at in (BOUND, BOUND + DAY, TODAY, clock.now())]
    accept(storage, *made, become=State.DEAD)
    prune(storage)
    assert kept(storage) == {a.event_id for a in made}
    assert len(job_states(storage)) == 4


@pytest.mark.parametrize("own_store_url", ["sqlite"], indirect=True)
def test_sqlite_removes_in_small_steps(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention_module, "_CHUNK", 4)
    accept(storage, *(admission(at=OLD + n) for n in range(10)))
    assert prune(storage) == [4, 4, 2]


@pytest.mark.parametrize("own_store_url", ["postgresql"], indirect=True)
def test_postgres_drops_whole_days(storage: Storage) -> None:
    accept(storage, *(admission(at=OLD + n, idempotency_key=str(n)) for n in range(10)))
    before = {parent: tables(storage, parent) for parent in PARTITIONED}
    prune(storage)
    for parent, names in before.items():
        old = [n for n in names if (int(n.rsplit("_", 1)[1]) + 1) * DAY <= BOUND]
        assert old
        assert tables(storage, parent) == [n for n in names if n not in old]


@pytest.mark.parametrize("own_store_url", ["postgresql"], indirect=True)
def test_postgres_keeps_a_day_with_unfinished_deliveries_and_prunes_its_rows(storage: Storage) -> None:
    accept(storage, *(admission(at=OLD + n, idempotency_key=str(n)) for n in range(10)))
    unfinished = admission(at=OLD + 100)
    accept(storage, unfinished, become=State.READY)
    accept(storage, admission(at=OLD + DAY), become=State.READY)
    claimed = [x for x in claim(storage) if x.event_id != unfinished.event_id]
    settle(storage, claimed)
    prune(storage)
    day = OLD // DAY
    old = [n for n in tables(storage) if (int(n.rsplit("_", 1)[1]) + 1) * DAY <= BOUND]
    assert old == [f"events_{day}"]
    assert {row[0] for row in query(storage, f"SELECT id FROM events_{day}")} == {unfinished.event_id}


def test_several_that_prune_at_once_do_not_trip_over_each_other(storage: Storage) -> None:
    accept(storage, *(admission(at=OLD + n * DAY + 1) for n in (0, 1, 4, 5)))
    accept(storage, admission(at=OLD + 3), become=State.SCHEDULED)
    at_once(3, lambda _: prune(storage))
    assert len(kept(storage)) == 1
    assert counted(storage) == rows(storage)


def test_what_is_replayed_while_its_day_goes_is_either_gone_or_whole(storage: Storage) -> None:
    made = [admission(at=OLD + n) for n in range(200)]
    accept(storage, *made)
    ids_ = [delivery_of(a) for a in made]

    def work(number: int) -> None:
        if number:
            prune(storage)
        else:
            for n in range(0, len(ids_), 20):
                storage.ledger.replay(ids_[n : n + 20], now=clock.now())

    at_once(2, work)
    assert (
        one(
            storage,
            "SELECT count(*) FROM jobs AS j LEFT JOIN deliveries AS d ON d.id = j.delivery_id "
            "LEFT JOIN events AS e ON e.id = j.event_id WHERE d.id IS NULL OR e.id IS NULL",
        )
        == 0
    )
    assert len(claim(storage, 500)) == sum(rows(storage).values())
    assert counted(storage) == rows(storage)


# ── making room ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_coming_days_have_room_and_making_it_again_changes_nothing(own_storage: Storage) -> None:
    storage = own_storage
    for days in (-1, 0, 1, 2, 3):
        made = admission(at=TODAY + days * DAY)
        storage.ledger.accept([made])
        assert made.event_id in kept(storage)
    if on_postgres(storage):
        before = {parent: tables(storage, parent) for parent in PARTITIONED}
        assert all(len(names) >= 5 for names in before.values())
        assert all(re.fullmatch(r"\w+_\d+", name) for names in before.values() for name in names)
        storage.retention.prepare()
        assert before == {parent: tables(storage, parent) for parent in PARTITIONED}


def test_the_last_moment_of_a_day_and_the_first_of_the_next_have_room(own_storage: Storage) -> None:
    made = [admission(at=at) for at in (TODAY - 1, TODAY, TODAY + DAY - 1, TODAY + DAY)]
    own_storage.ledger.accept(made)
    assert kept(own_storage) == {a.event_id for a in made}
    assert ids.floor("evt", TODAY) <= made[1].event_id < ids.floor("evt", TODAY + DAY)


def test_making_room_waits_for_nobody_and_makes_nobody_wait(
    own_storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = own_storage
    monkeypatch.setattr(clock, "now", lambda: TODAY + 100 * DAY)
    with storage.database.read() as reading:  # as a backup does for hours
        for parent in PARTITIONED:
            reading.execute(text(f"SELECT count(*) FROM {parent}"))
        storage.retention.prepare()
    monkeypatch.setattr(clock, "now", lambda: TODAY + 110 * DAY)
    with storage.database.read() as reading:
        reading.execute(text("SELECT count(*) FROM events"))
        with storage.database.write() as writing:
            storage.ledger.accept_within(writing, [made := admission(at=TODAY + 101 * DAY)])
            if on_postgres(storage):
                storage.retention.prepare()
    assert kept(storage) == {made.event_id}


def test_threads_may_make_room_at_once(own_storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: TODAY + 100 * DAY)
    at_once(4, lambda _: own_storage.retention.prepare())
    own_storage.ledger.accept([made := admission(at=TODAY + 101 * DAY)])
    assert kept(own_storage) == {made.event_id}


def _migrate(url: str, key: str) -> int:
    with opened(url, key) as storage:
        storage.migrate()
        storage.migrate()
        return len(storage.ledger.accept([admission()]))


def test_processes_may_migrate_at_once(own_store_url: str) -> None:
    key = generate_key()
    assert in_processes(_migrate, [(own_store_url, key)] * 3) == [1, 1, 1]
    with opened(own_store_url, key) as storage:
        assert one(storage, "SELECT count(*) FROM jobs") == 3
        assert one(storage, "SELECT count(*) FROM alembic_version") == 1


# ── what was ended ──────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_deleted_or_ended_long_ago_is_forgotten_and_nothing_else(storage: Storage) -> None:
    catalog, history = storage.catalog, storage.history
    gone, living = add_endpoint(storage), add_endpoint(storage)
    add_endpoint(storage, "venue")
    limiter = DatabaseRateLimiter(storage.database)
    keys = (gone.id, living.id, "supplier:studio", "supplier:venue", "everything")
    limiter.take([[Limit(key, RateLimit(requests=1, period=1.0))] for key in keys], now=0)
    catalog.delete_endpoint("studio", gone.id)
    catalog.delete_supplier("venue")
    ended, running = history.start_replay(Filter()), history.start_replay(Filter())
    history.advance_replay(ended, cursor=ended.cursor, finished=True, move=lambda _: 0)
    storage.retention.forget_closed(before=OLD)
    assert query(storage, "SELECT count(*) FROM endpoints") == [(3,)]
    assert history.get_replay(ended.id).finished_at is not None
    storage.retention.forget_closed(before=clock.now() + clock.SECOND)
    assert query(storage, "SELECT id FROM endpoints") == [(living.id,)]
    assert query(storage, "SELECT id FROM suppliers") == [("studio",)]
    assert {key for (key,) in query(storage, "SELECT key FROM rate_windows")} == {
        living.id,
        "supplier:studio",
        "everything",
    }
    assert [replay.id for replay in history.open_replays()] == [running.id]
    with pytest.raises(NotFound):
        history.get_replay(ended.id)


def test_what_cannot_be_cleaned_up_keeps_nothing_else_from_ending(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = add_endpoint(storage)
    storage.breakers.change([Circuit(endpoint_id=made.id, supplier_id="studio")])
    assert storage.breakers.since(0)

    def fails(**_: object) -> int:
        raise StoreUnavailable("for the test")

    monkeypatch.setattr(storage.retention, "prune", fails)
    with contextlib.closing(SocketBell(tmp_path / "run", listen=False)) as bell:
        housekeeper = Housekeeper(
            storage=storage,
            queue=DatabaseQueue(storage.ledger, bell),
            telemetry=Telemetry(),
            retention_days=30,
            lease_seconds=30,
        )
        asyncio.run(housekeeper._prune())
    assert "history could not be cleaned up, will try again: for the test" in caplog.text
    assert storage.breakers.since(0) == []
