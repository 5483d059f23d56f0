"""SQLite's log is copied into the file beside the writers, and begun anew."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from chaos.service import wait_for
from ringbearer.storage import checkpoints
from ringbearer.storage.sqlite import SQLiteDatabase

PAGES = 64
ENOUGH = PAGES // checkpoints._PAGES_PER_COMMIT  # transactions


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def database(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SQLiteDatabase]:
    monkeypatch.setattr(checkpoints, "EVERY", PAGES)
    made = SQLiteDatabase(path)
    with made.write() as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY, body TEXT)"))
    yield made
    made.close()


def begun_anew(path: Path) -> int:
    """How often the log was, as its header counts it (sqlite.org, «WAL-mode File Format»)."""
    return int.from_bytes(Path(f"{path}-wal").read_bytes()[12:16], "big")


def write(database: SQLiteDatabase, transactions: int) -> None:
    for _ in range(transactions):
        with database.write() as connection:
            connection.execute(text("INSERT INTO t (body) VALUES (:body)"), {"body": "x" * 6_000})


def count(database: SQLiteDatabase) -> int:
    with database.read() as connection:
        found: int = connection.execute(text("SELECT count(*) FROM t")).scalar_one()
    return found


def wait_until_made(database: SQLiteDatabase, least: int) -> None:
    wait_for(lambda: database._checkpoints.made >= least, 30, "the log to be copied")


def test_when_enough_was_written_the_next_writer_begins_the_log_anew(
    database: SQLiteDatabase, path: Path
) -> None:
    before = begun_anew(path)
    write(database, ENOUGH)
    wait_until_made(database, 1)
    write(database, 1)
    assert begun_anew(path) > before
    assert count(database) == ENOUGH + 1


def test_before_that_nothing_is_copied(database: SQLiteDatabase) -> None:
    write(database, ENOUGH - 3)
    assert database._checkpoints._thread is None
    assert 0 < database._checkpoints.written < PAGES


def test_large_transactions_count_by_their_rows(database: SQLiteDatabase) -> None:
    with database.write() as connection:
        rows = [{"body": "x"}] * (checkpoints._ROWS_PER_PAGE * PAGES)
        connection.execute(text("INSERT INTO t (body) VALUES (:body)"), rows)
    wait_until_made(database, 1)


def test_who_reads_on_keeps_the_log_and_it_is_copied_once_he_is_done(
    database: SQLiteDatabase, path: Path
) -> None:
    before = begun_anew(path)
    with database.read() as reader:
        seen = reader.execute(text("SELECT count(*) FROM t")).scalar_one()
        write(database, ENOUGH)
        wait_until_made(database, 1)
        write(database, 1)
        assert begun_anew(path) == before
        assert reader.execute(text("SELECT count(*) FROM t")).scalar_one() == seen
    write(database, ENOUGH)
    wait_until_made(database, 2)
    write(database, 1)
    assert begun_anew(path) > before


def test_the_thread_ends_with_the_database(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 1)
    database = SQLiteDatabase(path)
    with database.write() as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER)"))
    thread = database._checkpoints._thread
    assert thread is not None
    database.close()
    assert not thread.is_alive()
