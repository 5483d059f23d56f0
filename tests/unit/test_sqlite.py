"""SQLite commits durably or not, as each transaction asks, and keeps its pages in memory in between."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from ringbearer.storage.sqlite import SQLiteDatabase

NORMAL, FULL = 1, 2


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SQLiteDatabase]:
    made = SQLiteDatabase(tmp_path / "store.db")
    yield made
    made.close()


def synchronous(connection: Connection) -> int:
    found: int = connection.execute(text("PRAGMA synchronous")).scalar_one()
    return found


def test_each_transaction_is_as_durable_as_it_asks_whatever_came_before(database: SQLiteDatabase) -> None:
    asked = [True, False, False, True, True, False, True]
    found = []
    for durable in asked:
        with database.write(durable=durable) as connection:
            found.append(synchronous(connection))
    assert found == [FULL if durable else NORMAL for durable in asked]


def test_a_transaction_that_failed_leaves_the_next_one_durable(database: SQLiteDatabase) -> None:
    with pytest.raises(RuntimeError), database.write(durable=False):
        raise RuntimeError
    with database.write() as connection:
        assert synchronous(connection) == FULL


def test_both_kinds_use_one_connection_so_that_neither_empties_the_others_cache(
    database: SQLiteDatabase,
) -> None:
    used = []
    for durable in (True, False, True):
        with database.write(durable=durable) as connection:
            used.append(connection.connection.dbapi_connection)
    assert used[0] is used[1] is used[2]
