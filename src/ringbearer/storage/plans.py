"""Plans: the few documents by which people and controllers steer the running system, each with a version."""

from typing import NamedTuple

from sqlalchemy import text

from ringbearer.errors import Conflict
from ringbearer.storage.database import Database


class StoredPlan(NamedTuple):
    """A document as it is stored: JSON, when it was changed (a stored time) and why."""

    body: str
    version: int
    changed_at: int
    reason: str


class Plans:
    """Reads and writes plans by name. Blocks; raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def versions(self) -> dict[str, int]:
        """The version of each plan that there is: what those who follow ask for."""
        with self._database.read() as connection:
            return {row[0]: row[1] for row in connection.execute(text("SELECT name, version FROM plans"))}

    def get(self, name: str) -> StoredPlan | None:
        """The plan, if there is one of that name."""
        query = text("SELECT body, version, changed_at, reason FROM plans WHERE name = :name")
        with self._database.read() as connection:
            row = connection.execute(query, {"name": name}).first()
        return StoredPlan(*row) if row is not None else None

    def put(self, name: str, body: str, *, now: int, reason: str, over: int | None = None) -> int:
        """Write a plan; returns its version, which is one more than the last.

        With `over` only if that was the version until now (0: there was none); raises Conflict otherwise.
        """
        statement = text("""
            INSERT INTO plans (name, body, version, changed_at, reason) VALUES (:name, :body, 1, :now, :reason)
            ON CONFLICT (name) DO UPDATE SET body = excluded.body, version = plans.version + 1,
                changed_at = excluded.changed_at, reason = excluded.reason
            WHERE plans.version = COALESCE(CAST(:over AS BIGINT), plans.version)
            RETURNING version
        """)
        values = {"name": name, "body": body, "now": now, "reason": reason, "over": over}
        with self._database.write() as connection:
            version: int | None = connection.execute(statement, values).scalar()
        if version is None:
            raise Conflict(f"somebody else changed the {name} in the meantime; look at them and try again")
        return version
