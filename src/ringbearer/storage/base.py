"""The store: the truth of everything, opened by URL."""

from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ringbearer.errors import ConfigurationError
from ringbearer.storage.alerts import AlertBook
from ringbearer.storage.breakers import BreakerTable
from ringbearer.storage.calls import CallTable
from ringbearer.storage.catalog import Catalog
from ringbearer.storage.commands import Commands
from ringbearer.storage.database import Database
from ringbearer.storage.forecasts import Forecasts
from ringbearer.storage.heat import Heat
from ringbearer.storage.history import History
from ringbearer.storage.ledger import Ledger
from ringbearer.storage.nodes import Nodes
from ringbearer.storage.overview import Overview
from ringbearer.storage.plans import Plans
from ringbearer.storage.ready import Ready
from ringbearer.storage.retention import Retention
from ringbearer.storage.rollups import Rollups
from ringbearer.storage.scaling import ScalingRecords
from ringbearer.storage.sessions import EndedSessions
from ringbearer.storage.shapes import Shapes
from ringbearer.storage.vault import Vault


class Storage:
    """One database with its readers and writers: catalog, ledger, history and the rest.

    Everything here blocks: an event loop calls it from a thread.
    """

    def __init__(self, database: Database, retention: Retention, vault: Vault) -> None:
        self.database = database
        self.retention = retention
        self.vault = vault
        self.catalog = Catalog(database, vault)
        self.plans = Plans(database)
        self.commands = Commands(database)
        self.ledger = Ledger(database)
        self.ready = Ready(database)
        self.history = History(database)
        self.overview = Overview(database)
        self.nodes = Nodes(database)
        self.breakers = BreakerTable(database)
        self.calls = CallTable(database)
        self.scaling = ScalingRecords(database)
        self.forecasts = Forecasts(database)
        self.rollups = Rollups(database)
        self.heat = Heat(database)
        self.shapes = Shapes(database)
        self.alerts = AlertBook(database, vault)
        self.sessions = EndedSessions(database)

    def history_for(self, supplier_id: str | None) -> History:
        """The history as that supplier may read it, all of it for None; never for writing."""
        return self.history if supplier_id is None else History(self.database.seen_by(supplier_id))

    def catalog_for(self, supplier_id: str | None) -> Catalog:
        """The catalog as that supplier may read it, all of it for None; never for writing."""
        if supplier_id is None:
            return self.catalog
        return Catalog(self.database.seen_by(supplier_id), self.vault)

    def __repr__(self) -> str:
        return f"<Storage on {self.database!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def migrate(self) -> None:
        """Bring the schema to this version, and make what today's events need."""
        self.database.migrate()
        self.retention.prepare()

    def close(self) -> None:
        """Close every connection."""
        self.database.close()


def open_storage(url: str, vault: Vault, *, prepare: bool = True) -> Storage:
    """The store at `sqlite:///path` or `postgresql://…`; raises ConfigurationError for anything else.

    `prepare=False` keeps prepared statements off, for transaction poolers that cannot hold them.
    """
    parsed = _parse(url)
    if parsed.drivername == "sqlite":
        from ringbearer.storage.retention import ChunkedRetention
        from ringbearer.storage.sqlite import SQLiteDatabase

        if not parsed.database or parsed.database == ":memory:":
            raise ConfigurationError(
                "RINGBEARER_DATABASE_URL: SQLite needs a file, as in sqlite:////var/lib/ringbearer/ringbearer.db"
            )
        sqlite = SQLiteDatabase(Path(parsed.database))
        return Storage(sqlite, ChunkedRetention(sqlite), vault)
    from ringbearer.storage.postgres import PostgresDatabase
    from ringbearer.storage.retention import PartitionedRetention

    postgres = PostgresDatabase(parsed, prepare=prepare)
    return Storage(postgres, PartitionedRetention(postgres), vault)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.drivername not in {"sqlite", "postgresql", "postgres"}:
        raise ConfigurationError(
            "RINGBEARER_DATABASE_URL must be sqlite:///path/to/file or postgresql://user@host/database"
        )
    return parsed.set(drivername="postgresql") if parsed.drivername == "postgres" else parsed
