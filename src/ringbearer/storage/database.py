"""The little that SQL needs to know about the database it runs on."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ringbearer.errors import StoreUnavailable

_READ_ONLY = "25006"  # PostgreSQL's code for a write where only reading is allowed, as on a standby


CONNECTIONS = "connections"
"""The name of the stored plan that says how many connections each process may open."""


class ConnectionLimit(msgspec.Struct, frozen=True, kw_only=True):
    """That plan."""

    most: int


class ConnectionUse(msgspec.Struct, frozen=True, kw_only=True):
    """A process's connections to its database."""

    most: int
    in_use: int
    idle: int


class Database(ABC):
    """A connection pool with two doors: one for reading, one for writing.

    Everything here blocks; an event loop calls it from a thread. Both doors raise StoreUnavailable when the
    database cannot be reached, is full, read-only or locked for too long.
    """

    rows: str
    """A FROM item named `r` whose column `value` goes through the JSON array in the parameter `:rows`."""
    skip_locked: str
    """What a SELECT of jobs ends with, so that two workers never wait for the same row."""
    among: str
    """Says, around a SELECT of ids, that an id is one of them, such that each is looked up by its index."""
    now: str
    """An expression for the database's own time as a stored time: the one clock that all hosts share."""

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one consistent state and changes nothing."""
        with _translated(), self._reading() as connection:
            yield connection

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """A transaction that is on the disk when the block ends, and undone when it raises.

        `durable=False` may be lost with the machine's power (never with the process alone): right for claims,
        which are merely made again.
        """
        with _translated(), self._writing(durable) as connection:
            yield connection

    @abstractmethod
    def lock_ordering(self, connection: Connection, keys: Sequence[str]) -> None:
        """Keep other transactions from queueing or finishing deliveries of these ordering keys until the end."""

    @abstractmethod
    def migrate(self) -> None:
        """Bring the schema to this version; safe to call at once from several processes.

        Raises StoreUnavailable.
        """

    @abstractmethod
    def look_up(self, connection: Connection) -> None:
        """Have the rest of the transaction look rows up by index, one by one, wherever it joins tables."""

    def seen_by(self, supplier_id: str) -> "Database":
        """This database as the supplier may read it, where the database itself can tell; never for writing.

        Where it cannot, what is read is bounded by the reader's own conditions alone.
        """
        return self

    def free_connections(self) -> int | None:
        """How many more connections the server takes; None where that is no limit, or cannot be known."""
        return None

    def own_connections(self) -> int | None:
        """How many connections all processes of the service have open; None where that cannot be known."""
        return None

    @abstractmethod
    def connections(self) -> ConnectionUse:
        """How many connections this process has open to the database."""

    @abstractmethod
    def limit_connections(self, most: int) -> None:
        """Open at most so many from now on; nothing where the number cannot be chosen."""

    @abstractmethod
    def close(self) -> None:
        """Close every connection."""

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Connection]: ...

    @abstractmethod
    def _writing(self, durable: bool) -> AbstractContextManager[Connection]: ...


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise StoreUnavailable(_first_line(error)) from error
    except DBAPIError as error:
        if error.connection_invalidated or getattr(error.orig, "sqlstate", None) == _READ_ONLY:
            raise StoreUnavailable(_first_line(error)) from error
        raise


def _first_line(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return (
        f"the database does not take it: {str(cause).splitlines()[0] if str(cause) else type(cause).__name__}"
    )
