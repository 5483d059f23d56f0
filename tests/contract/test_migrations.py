"""The migrations lead to the schema that the code knows, however often and by whomever they are run."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from contract.making import add_endpoint, admission, claim, one, settle
from ringbearer.storage import postgres
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.migration import ahead, pending
from ringbearer.storage.schema import metadata
from ringbearer.storage.vault import Vault, generate_key


def test_the_migrated_schema_is_the_one_that_the_code_knows(storage: Storage) -> None:
    with storage.database.read() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "compare_server_default": True,
                "include_name": lambda name, kind, _: (
                    not (kind == "table" and re.fullmatch(r"\w+_\d+", name or ""))  # a day's table
                ),
            },
        )
        assert compare_metadata(context, metadata) == []


def test_the_partial_indexes_have_their_conditions(storage: Storage) -> None:
    expected = {
        index.name: str(index.dialect_options["sqlite"]["where"])
        for table in metadata.tables.values()
        for index in table.indexes
        if index.dialect_options["sqlite"]["where"] is not None
    }
    with storage.database.read() as connection:
        dialect = connection.dialect.name
        found = {
            index["name"]: str(index["dialect_options"][f"{dialect}_where"])
            for table in ("jobs", "replays")
            for index in inspect(connection).get_indexes(table)
        }
    assert found.keys() == expected.keys()
    for name, condition in expected.items():
        assert _plain(found[name]) == _plain(condition)


def _plain(condition: str) -> str:
    return re.sub(r"::text|[() ]", "", condition).lower()


def test_migrating_again_changes_nothing(own_store_url: str) -> None:
    with open_storage(own_store_url, Vault([generate_key()])) as storage:
        with storage.database.read() as connection:
            assert pending(connection)
        storage.migrate()
        with storage.database.read() as connection:
            assert not pending(connection)
            before = sorted(inspect(connection).get_table_names())
        storage.migrate()
        with storage.database.read() as connection:
            assert sorted(inspect(connection).get_table_names()) == before
        assert one(storage, "SELECT count(*) FROM config_version") == 1


def _next_version(storage: Storage) -> None:
    """What a migration of the next version may do: it adds."""
    with storage.database.write() as connection:
        for statement in (
            "CREATE TABLE of_the_next_version (id INTEGER PRIMARY KEY)",
            "ALTER TABLE jobs ADD COLUMN next_one TEXT",
            "ALTER TABLE deliveries ADD COLUMN next_one INTEGER NOT NULL DEFAULT 0",
            "ALTER TABLE endpoints ADD COLUMN next_one TEXT",
            "UPDATE alembic_version SET version_num = '9999'",
        ):
            connection.execute(text(statement))


def test_this_version_works_on_the_schema_of_the_next(own_store_url: str) -> None:
    vault = Vault([generate_key()])
    with open_storage(own_store_url, vault) as before:
        before.migrate()
        endpoint = add_endpoint(before)
        before.ledger.accept([admission(endpoint.id)])
        (lease,) = claim(before)
        _next_version(before)
        assert settle(before, [lease]) == {lease.delivery_id}  # a process that was running
    with open_storage(own_store_url, vault) as started:  # and one that is started again meanwhile
        started.migrate()
        with started.database.read() as connection:
            assert not pending(connection)
            assert ahead(connection)
        started.ledger.accept([admission(endpoint.id)])
        assert len(settle(started, claim(started))) == 1
        assert add_endpoint(started, "venue").url


def test_a_migration_waits_for_a_table_without_holding_others_up(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup reads for long: the migration gives up again and again, and traffic goes on, until it is through."""
    tries = threading.Semaphore(0)

    def add(connection: Connection) -> None:
        tries.release()
        connection.execute(text("ALTER TABLE jobs ADD COLUMN IF NOT EXISTS next_one TEXT"))

    with open_storage(empty_postgres_url, Vault([generate_key()])) as storage:
        storage.migrate()
        endpoint = add_endpoint(storage)
        monkeypatch.setattr(postgres, "upgrade", add)
        monkeypatch.setattr(postgres, "_MIGRATION_PAUSE", 0.01)
        with ThreadPoolExecutor(1) as pool:
            with storage.database.read() as reading:
                reading.execute(text("SELECT count(*) FROM jobs"))
                migrating = pool.submit(storage.database.migrate)
                for _ in range(3):
                    tries.acquire()
                    storage.ledger.accept([admission(endpoint.id)])
                assert not migrating.done()
            migrating.result()
        assert len(settle(storage, claim(storage))) == 3
        assert one(storage, "SELECT count(*) FROM jobs WHERE next_one IS NOT NULL") == 0
