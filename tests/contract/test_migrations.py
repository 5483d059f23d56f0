"""The migrations lead to the schema that the code knows, however often and by whomever they are run."""

import re

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from contract.making import one
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.migration import pending
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
