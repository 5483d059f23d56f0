"""Sessions that were ended: a cookie that somebody kept opens nothing once its session was logged out of."""

from sqlalchemy import delete, insert, select

from ringbearer.storage import schema
from ringbearer.storage.database import Database

_T = schema.ended_sessions


class EndedSessions:
    """Knows them by the digests of their tokens, until they would be over anyway. Blocks; raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def end(self, digest: str, *, until: int, now: int) -> None:
        """End a session that would last until a stored time; to end it again changes nothing."""
        with self._database.write() as connection:
            connection.execute(delete(_T).where((_T.c.until < now) | (_T.c.digest == digest)))
            connection.execute(insert(_T).values(digest=digest, until=until))

    def ended(self, digest: str) -> bool:
        """Whether that one was ended."""
        with self._database.read() as connection:
            return connection.execute(select(_T.c.until).where(_T.c.digest == digest)).first() is not None
