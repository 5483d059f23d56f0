"""SQLite: one file, WAL, every accepted event on the disk before it is acknowledged."""

import errno
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from ringbearer.errors import ConfigurationError
from ringbearer.storage.checkpoints import Checkpoints
from ringbearer.storage.database import ConnectionUse, Database
from ringbearer.storage.migration import upgrade
from ringbearer.storage.turns import Turns

_READERS = 4
_READER_CACHE = (
    4_096  # KiB; it is empty again whenever anybody has written, so it serves one question at a time
)
_WRITER_CACHE = 32_768
_BUSY_SECONDS = 20
_RELAXED = "relaxed"  # whether a connection commits, and a transaction is to be committed, without waiting for the disk
_MINIMUM_VERSION = (3, 38, 0)  # the first with the ->> operator


class SQLiteDatabase(Database):
    """One file of SQLite, shared by the processes of one machine.

    Writers queue on a lock file instead of SQLite's own busy handler, which sleeps and polls: with two
    processes that commit some hundred times a second the next in line is woken at once.
    """

    # Each row's text is put together once. Asked for it by every column that is read from it, json_each does that anew.
    rows = "(WITH each AS MATERIALIZED (SELECT value FROM json_each(:rows)) SELECT value FROM each) AS r"
    skip_locked = ""  # there is one writer at a time
    among = "IN ({})"
    now = "(CAST(strftime('%s', 'now') AS INTEGER) * 1000000 + CAST(substr(strftime('%f', 'now'), 4) AS INTEGER) * 1000)"

    def __init__(self, path: Path) -> None:
        _check_version()
        self._path = path
        self._readers = self._engine("BEGIN", size=_READERS, cache=_READER_CACHE)
        # One connection for both kinds of commit: SQLite empties a connection's cache when another one has written, so
        # that with two, a worker that claims and settles in turns would read every page anew for each transaction.
        self._durable = self._engine("BEGIN IMMEDIATE", size=1, cache=_WRITER_CACHE)
        self._relaxed = self._durable.execution_options(**{_RELAXED: True})
        _make(path)
        self._turns = Turns(Path(f"{path}.lock"), patience=_BUSY_SECONDS)
        self._checkpoints = Checkpoints(path, self._turns)

    def __repr__(self) -> str:
        return f"<SQLiteDatabase {self._path}>"

    def lock_ordering(self, connection: Connection, keys: Sequence[str]) -> None:
        """Nothing to do: there is one writer at a time."""

    def look_up(self, connection: Connection) -> None:
        """Nothing to do: it joins in no other way."""

    def migrate(self) -> None:
        with self.write() as connection:
            upgrade(connection)

    def limit_connections(self, most: int) -> None:
        """Nothing: readers and writers of a file are few already."""

    def connections(self) -> ConnectionUse:
        pools = [engine.pool for engine in (self._readers, self._durable)]
        counted = [pool for pool in pools if isinstance(pool, QueuePool)]
        return ConnectionUse(
            most=sum(pool.size() for pool in counted),
            in_use=sum(pool.checkedout() for pool in counted),
            idle=sum(pool.checkedin() for pool in counted),
        )

    def close(self) -> None:
        self._checkpoints.close()
        for engine in (self._readers, self._durable):
            engine.dispose()
        self._turns.close()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._readers.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self, durable: bool) -> Iterator[Connection]:
        engine = self._durable if durable else self._relaxed
        with self._turns.take():
            with engine.begin() as connection:
                yield connection
                used = connection.connection.dbapi_connection
            if isinstance(used, sqlite3.Connection):
                self._checkpoints.wrote(used.total_changes)

    def _engine(self, begin: str, *, size: int, cache: int) -> Engine:
        engine = create_engine(
            f"sqlite:///{self._path}",
            hide_parameters=True,  # payloads are among them, and what is raised may be logged
            poolclass=QueuePool,
            pool_size=size,
            max_overflow=0,
            pool_timeout=30,
            connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
        )

        @event.listens_for(engine, "connect")
        def prepare(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
            connection.isolation_level = None  # transactions are opened by the listener below
            cursor = connection.cursor()
            for pragma in (
                "journal_mode = WAL",
                "synchronous = FULL",
                f"cache_size = -{cache}",
                "wal_autocheckpoint = 20000",  # pages; before that, it is copied beside the writers
                "journal_size_limit = 67108864",
                "temp_store = MEMORY",
            ):
                try:
                    cursor.execute(f"PRAGMA {pragma}")
                except sqlite3.DatabaseError as error:
                    if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
                        raise
                    raise ConfigurationError(
                        f"{self._path} is no SQLite database; name another file, or put it back from a backup"
                    ) from None
            cursor.close()

        @event.listens_for(engine, "begin")
        def start(connection: Connection) -> None:
            if begin == "BEGIN":  # takes no lock, and so cannot fail: past SQLAlchemy it costs a tenth
                cursor = connection.connection.cursor()
                cursor.execute(begin)
                cursor.close()
                return
            relaxed = bool(connection.get_execution_options().get(_RELAXED))
            if relaxed is not connection.info.get(_RELAXED, False):
                connection.exec_driver_sql(f"PRAGMA synchronous = {'NORMAL' if relaxed else 'FULL'}")
                connection.info[_RELAXED] = relaxed
            connection.exec_driver_sql(begin)

        return engine


def _make(path: Path) -> None:
    """Make the file unless it is there: SQLite would let others read it. Raises ConfigurationError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not opened when it is there: a process that closes a file loses all locks on it, also those that SQLite holds
        # by another descriptor.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        if path.is_dir() or not os.access(path, os.R_OK | os.W_OK):
            code = errno.EISDIR if path.is_dir() else errno.EACCES
            raise OSError(code, os.strerror(code))
    except OSError as error:
        raise ConfigurationError(
            f"the database file {path.absolute()} cannot be opened: {error.strerror}; name another with --data-dir or "
            "RINGBEARER_DATABASE_URL"
        ) from None


def _check_version() -> None:
    if sqlite3.sqlite_version_info < _MINIMUM_VERSION:
        raise ConfigurationError(
            f"SQLite {sqlite3.sqlite_version} is too old: Ringbearer needs 3.38 or newer; use a newer Python or "
            "set RINGBEARER_DATABASE_URL to a PostgreSQL database"
        )
