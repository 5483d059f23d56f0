"""PostgreSQL 14 or newer, directly or behind a transaction pooler: no state outlives a transaction."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import URL, Connection, create_engine, text
from sqlalchemy.pool import QueuePool

from ringbearer import clock
from ringbearer.errors import StoreUnavailable
from ringbearer.storage import tenancy
from ringbearer.storage.database import ConnectionUse, Database
from ringbearer.storage.migration import upgrade

_log = logging.getLogger(__name__)

# A queue is short in one minute and long in the next: with a plan that was kept from when it was short, a claim took
# 38 ms instead of 11 ms with 150,000 queued. So each statement is planned for the queue as it is; and a claim, which
# walks the head of an index, never by sorting, whatever old statistics say.
_PLANNING = "-c plan_cache_mode=force_custom_plan"
_RELAXED = (
    "SET LOCAL synchronous_commit = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off"
)
_LOOK_UP = text(
    "SELECT set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)"
)
_FREE = text(
    "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int "
    "- (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend')"
)
_READ_ONLY = "what a supplier sees of the database is for reading alone"
_OWN = text("SELECT count(*)::int FROM pg_stat_activity WHERE application_name LIKE 'ringbearer%'")
_SECRET_OPTIONS = ("password", "passfile", "sslpassword", "sslkey", "oauth_client_secret")
_POOL = 6
_CONNECT_SECONDS = 5
_MIGRATION_SECONDS = 60.0  # after which a table that is never free is given up
_MIGRATION_PAUSE = 1.0
_LOCK_TIMEOUT = "55P03"
_MIGRATION_LOCK = 0x52424D49  # an arbitrary number that only migrations take


class LimitedPool(QueuePool):
    """A pool whose size may be changed while it is used; connections beyond a lower limit go when they come back."""

    @property
    def most(self) -> int:
        """How many connections may be open at a time."""
        return self.size() + self._max_overflow

    def limit(self, most: int) -> None:
        """Open at most so many, and at least as many as are kept open."""
        self._max_overflow = max(0, most - self.size())


class PostgresDatabase(Database):
    """A PostgreSQL database shared by any number of processes on any number of machines.

    `prepare=False` sends no prepared statements: for transaction poolers that cannot keep them.
    """

    rows = "jsonb_array_elements(CAST(:rows AS jsonb)) AS r(value)"
    skip_locked = "FOR UPDATE SKIP LOCKED"
    among = "= ANY(ARRAY({}))"  # with IN, a guess at how many there are may make it walk the whole table
    now = "CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS bigint)"

    def __init__(self, url: URL, *, prepare: bool = True) -> None:
        arguments: dict[str, object] = {"connect_timeout": _CONNECT_SECONDS, "application_name": "ringbearer"}
        if prepare:
            arguments["options"] = _PLANNING
        else:
            arguments["prepare_threshold"] = None  # nor are plans kept then
        self._direct = prepare
        self._supplier_role: bool | None = None
        self._url = url.set(drivername="postgresql+psycopg")
        self._engine = create_engine(
            self._url,
            hide_parameters=True,  # payloads are among them, and what is raised may be logged
            poolclass=LimitedPool,
            pool_size=_POOL,
            max_overflow=_POOL,
            pool_timeout=10,
            connect_args=arguments,
        )

    def __repr__(self) -> str:
        shown = self._url.difference_update_query(_SECRET_OPTIONS)
        return f"<PostgresDatabase {shown.render_as_string(hide_password=True)}>"

    def lock_ordering(self, connection: Connection, keys: Sequence[str]) -> None:
        # Taken in the order of their hashes, by every transaction alike: so no two wait for each other.
        connection.execute(
            text(
                "SELECT pg_advisory_xact_lock(h) FROM (SELECT DISTINCT hashtextextended(k, 0) AS h "
                "FROM unnest(CAST(:keys AS text[])) AS k ORDER BY h) AS hashes"
            ),
            {"keys": list(keys)},
        )

    def look_up(self, connection: Connection) -> None:
        # A guess that thousands are wanted makes it read a whole day, or all days, for the sake of a few rows.
        connection.execute(_LOOK_UP)

    def migrate(self) -> None:
        deadline = clock.monotonic() + _MIGRATION_SECONDS
        while True:
            try:
                with self.write() as connection:
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
                    # Behind a statement that waits for a table everybody else waits, too: so it never waits for long.
                    connection.execute(text("SET LOCAL lock_timeout = '500ms'"))
                    upgrade(connection)
            except StoreUnavailable as error:
                locked = getattr(getattr(error.__cause__, "orig", None), "sqlstate", None) == _LOCK_TIMEOUT
                if not locked or clock.monotonic() > deadline:
                    raise
                _log.info("tables are in use; migrating again soon")
                time.sleep(_MIGRATION_PAUSE)
            else:
                return

    def seen_by(self, supplier_id: str) -> Database:
        return _SupplierView(self, supplier_id)

    def may_become_supplier(self, connection: Connection) -> bool:
        """Whether there is the role for it; looked for once, since only a migration makes it."""
        if self._supplier_role is None:
            self._supplier_role = tenancy.available(connection)
            if not self._supplier_role:
                _log.warning(
                    "the role %s is missing: reads for suppliers' keys are bounded by their conditions alone",
                    tenancy.ROLE,
                )
        return self._supplier_role

    def free_connections(self) -> int | None:
        if not self._direct:
            return None  # the pooler's limit counts, and is not to be seen from here
        with self.read() as connection:
            found: int = connection.execute(_FREE).scalar_one()
        return max(0, found)

    def own_connections(self) -> int | None:
        if not self._direct:
            return None
        with self.read() as connection:
            found: int = connection.execute(_OWN).scalar_one()
        return found

    def connections(self) -> ConnectionUse:
        pool = self._pool
        return ConnectionUse(most=pool.most, in_use=pool.checkedout(), idle=pool.checkedin())

    def limit_connections(self, most: int) -> None:
        self._pool.limit(most)

    @property
    def _pool(self) -> LimitedPool:
        pool = self._engine.pool
        assert isinstance(pool, LimitedPool)
        return pool

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self, durable: bool) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            if not durable:
                connection.exec_driver_sql(_RELAXED)
            yield connection


class _SupplierView(Database):
    """A PostgreSQL database in which row level security hides what is not the supplier's."""

    rows, skip_locked = PostgresDatabase.rows, PostgresDatabase.skip_locked
    among, now = PostgresDatabase.among, PostgresDatabase.now

    def __init__(self, whole: PostgresDatabase, supplier_id: str) -> None:
        self._whole = whole
        self._supplier_id = supplier_id

    def __repr__(self) -> str:
        return f"<{self._whole!r} as {self._supplier_id} sees it>"

    def lock_ordering(self, connection: Connection, keys: Sequence[str]) -> None:
        raise PermissionError(_READ_ONLY)

    def look_up(self, connection: Connection) -> None:
        self._whole.look_up(connection)

    def migrate(self) -> None:
        raise PermissionError(_READ_ONLY)

    def connections(self) -> ConnectionUse:
        return self._whole.connections()

    def limit_connections(self, most: int) -> None:
        raise PermissionError(_READ_ONLY)

    def close(self) -> None:
        """Nothing: the whole database is not its own."""

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._whole.read() as connection:
            if self._whole.may_become_supplier(connection):
                tenancy.become_supplier(connection, self._supplier_id)
            yield connection

    @contextmanager
    def _writing(self, durable: bool) -> Iterator[Connection]:
        raise PermissionError(_READ_ONLY)
        yield  # what makes it a context manager
