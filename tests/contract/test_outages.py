"""When the database cannot take or answer something, that is said in one way, and it goes on afterwards."""

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from contract.making import admission, claim, counted, outcome, rows, supplier
from ringbearer import clock
from ringbearer.domain.endpoints import RateLimit
from ringbearer.errors import ConfigurationError, StoreUnavailable
from ringbearer.limits.base import Limit
from ringbearer.limits.database import DatabaseRateLimiter
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.history import Filter
from ringbearer.storage.vault import Vault, generate_key


def operations(storage: Storage) -> list[Callable[[], object]]:
    return [
        lambda: storage.ledger.accept([admission()]),
        lambda: claim(storage),
        lambda: storage.catalog.put_supplier(supplier()),
        lambda: storage.history.start_replay(Filter()),
        lambda: storage.retention.prune(before=clock.now()),
        lambda: DatabaseRateLimiter(storage.database).take(
            [[Limit("k", RateLimit(requests=1, period=1.0))]], now=0
        ),
    ]


@pytest.fixture
def own_postgres(empty_postgres_url: str) -> Storage:
    storage = open_storage(empty_postgres_url, Vault([generate_key()]))
    storage.migrate()
    return storage


def command(url: str, sql: str) -> None:
    """By a hand that may write whatever the database's default is."""
    options = "-c default_transaction_read_only=off"
    with psycopg.connect(url, autocommit=True, options=options) as connection:
        connection.execute(sql.encode())


def cut(url: str) -> None:
    command(
        url,
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


def test_a_database_that_may_only_be_read_takes_nothing_and_answers(
    own_postgres: Storage, empty_postgres_url: str
) -> None:
    name = empty_postgres_url.partition("?")[0].rpartition("/")[2]
    with own_postgres as storage:
        storage.ledger.accept([made := admission()])
        command(empty_postgres_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        cut(empty_postgres_url)
        with pytest.raises(StoreUnavailable):  # the connection is gone
            storage.ledger.depth()
        for operation in operations(storage)[:-2]:
            with pytest.raises(StoreUnavailable, match="read-only"):
                operation()
        assert len(storage.history.get_event(made.event_id)[1]) == 1
        command(empty_postgres_url, f"ALTER DATABASE {name} SET default_transaction_read_only = off")
        cut(empty_postgres_url)
        with pytest.raises(StoreUnavailable):
            storage.ledger.depth()
        for operation in operations(storage):
            operation()


def test_killed_connections_cost_one_try_and_no_event(own_postgres: Storage, empty_postgres_url: str) -> None:
    with own_postgres as storage:
        accepted = 0
        for _ in range(5):
            cut(empty_postgres_url)
            made = [admission(idempotency_key=str(n)) for n in range(accepted, accepted + 3)]
            with pytest.raises(StoreUnavailable):
                storage.ledger.accept(made)
            assert not any(a.duplicate for a in storage.ledger.accept(made))
            accepted += 3
        leases = claim(storage)
        assert len(leases) == accepted
        cut(empty_postgres_url)
        with pytest.raises(StoreUnavailable):
            storage.ledger.settle([outcome(x) for x in leases], now=clock.now())
        assert len(storage.ledger.settle([outcome(x) for x in leases], now=clock.now())) == accepted
        assert counted(storage) == rows(storage) == {}


def test_a_database_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with open_storage(f"postgresql://nobody@/nothing?host={tmp_path}", Vault([generate_key()])) as storage:
        for operation in (*operations(storage), storage.migrate, storage.ledger.depth):
            with pytest.raises(StoreUnavailable):
                operation()


def test_a_full_disk_takes_nothing_and_loses_nothing(tmp_path: Path) -> None:
    with open_storage(f"sqlite:///{tmp_path / 'store.db'}", Vault([generate_key()])) as storage:
        storage.migrate()
        storage.ledger.accept([admission()])

        def full(pages: int) -> None:
            with storage.database.write() as connection:
                connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        full(1)
        large = '"' + "x" * 100_000 + '"'
        with pytest.raises(StoreUnavailable, match="full"):
            storage.ledger.accept([admission(data=large)])
        assert len(claim(storage)) == 1
        full(1_000_000)
        storage.ledger.accept([admission(data=large)])
        assert counted(storage) == rows(storage)


@pytest.mark.parametrize(
    "url", ["", "nonsense", "mysql://db/rb", "sqlite://", "sqlite:///:memory:", "postgresql+asyncpg://db/rb"]
)
def test_an_address_that_cannot_work_is_a_mistake_in_the_configuration(url: str) -> None:
    with pytest.raises(ConfigurationError, match="RINGBEARER_DATABASE_URL"):
        open_storage(url, Vault([generate_key()]))


@pytest.mark.parametrize(
    "url",
    [
        "postgres://rb:t0p-secret@db/rb",
        "postgres://rb@db/rb?password=t0p-secret&sslmode=require",
        "postgres:///rb?host=/run/pg&user=rb&sslpassword=t0p-secret",
    ],
)
def test_a_store_shows_no_password(url: str) -> None:
    with open_storage(url, Vault([generate_key()])) as storage:
        assert "t0p-secret" not in repr(storage)
        assert "PostgresDatabase postgresql" in repr(storage)


def test_what_was_to_be_stored_is_not_told_with_the_error(storage: Storage) -> None:
    for each in ("lumen", "nova"):
        storage.catalog.put_supplier(supplier(each))
    with pytest.raises(IntegrityError) as raised, storage.database.write() as connection:
        connection.execute(
            text("UPDATE suppliers SET id = 'lumen', name = :data WHERE id = 'nova'"),
            {"data": "of Eowyn and Faramir"},
        )
    assert "UPDATE suppliers" in str(raised.value)
    assert "Eowyn" not in str(raised.value)
