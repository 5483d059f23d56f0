"""PostgreSQL 14 or newer, directly or behind a transaction pooler: no state outlives a transaction."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import URL, Connection, create_engine, text

from ringbearer.storage.database import Database
from ringbearer.storage.migration import upgrade

# A queue is short in one minute and long in the next: with a plan that was kept from when it was short, a claim took
# 38 ms instead of 11 ms with 150,000 queued. So each statement is planned for the queue as it is; and a claim, which
# walks the head of an index, never by sorting, whatever old statistics say.
_PLANNING = "-c plan_cache_mode=force_custom_plan"
_RELAXED = (
    "SET LOCAL synchronous_commit = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off"
)
_FREE = text(
    "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int "
    "- (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend')"
)
_POOL = 6
_CONNECT_SECONDS = 5
_MIGRATION_LOCK = 0x52424D49  # an arbitrary number that only migrations take


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
        self._url = url.set(drivername="postgresql+psycopg")
        self._engine = create_engine(
            self._url, pool_size=_POOL, max_overflow=_POOL, pool_timeout=10, connect_args=arguments
        )

    def __repr__(self) -> str:
        return f"<PostgresDatabase {self._url.render_as_string(hide_password=True)}>"

    def lock_ordering(self, connection: Connection, keys: Sequence[str]) -> None:
        # Taken in the order of their hashes, by every transaction alike: so no two wait for each other.
        connection.execute(
            text(
                "SELECT pg_advisory_xact_lock(h) FROM (SELECT DISTINCT hashtextextended(k, 0) AS h "
                "FROM unnest(CAST(:keys AS text[])) AS k ORDER BY h) AS hashes"
            ),
            {"keys": list(keys)},
        )

    def migrate(self) -> None:
        with self.write() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            upgrade(connection)

    def free_connections(self) -> int | None:
        if not self._direct:
            return None  # the pooler's limit counts, and is not to be seen from here
        with self.read() as connection:
            found: int = connection.execute(_FREE).scalar_one()
        return max(0, found)

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
