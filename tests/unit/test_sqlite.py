"""SQLite commits durably or not, as each transaction asks, and keeps its pages in memory in between."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, TextClause, text

from ringbearer.storage.base import open_storage
from ringbearer.storage.sqlite import SQLiteDatabase
from ringbearer.storage.statements import Selection
from ringbearer.storage.vault import Vault, generate_key

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


def steps(connection: Connection, statement: TextClause) -> list[list[str]]:
    """The loops of a statement's plan, those that are nested in one another together, the outermost first."""
    names = set(re.findall(r"(?<!:):(\w+)", statement.text))
    loops = defaultdict(list)
    plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement.text}", dict.fromkeys(names, "[]"))
    for _, parent, _, detail in plan:
        if detail.startswith(("SCAN", "SEARCH")):
            loops[parent].append(detail)
    return list(loops.values())


def test_no_statement_of_the_ledger_goes_through_its_batch_once_for_each_row_of_a_table(
    tmp_path: Path,
) -> None:
    """Such a plan takes the square of a batch: parking five hundred took a tenth of a second of everybody's turn."""
    with open_storage(f"sqlite:///{tmp_path / 'store.db'}", Vault([generate_key()])) as storage:
        storage.migrate()
        ledger = storage.ledger
        seen = 0
        with storage.database.read() as connection:
            for room in (ledger._sql, ledger.flows, ledger.parking, ledger.ranking):
                for name, found in vars(room).items():
                    statement = found.take if isinstance(found, Selection) else found
                    if isinstance(statement, TextClause):
                        nested = [
                            loops for loops in steps(connection, statement) if "SCAN r " in str(loops[1:])
                        ]
                        assert not nested, (name, nested)
                        seen += 1
        assert seen > 40
