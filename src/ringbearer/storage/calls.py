"""The latest calls of endpoints that fail, which workers judge together."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from sqlalchemy import text

from ringbearer.storage.database import Database
from ringbearer.storage.parameters import keys_of, text_of


class CallTable:
    """The table `breaker_calls`. Every method blocks, and raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        rows = database.rows
        self._ensure = text(
            f"INSERT INTO breaker_calls (endpoint_id, calls, changed_at) SELECT r.value ->> 0, '', :now FROM {rows} "
            "WHERE true ON CONFLICT (endpoint_id) DO NOTHING"
        )
        lock = "FOR UPDATE OF c" if database.skip_locked else ""
        self._read = text(
            f"SELECT c.endpoint_id, c.calls FROM {rows} JOIN breaker_calls AS c ON c.endpoint_id = r.value ->> 0 "
            f"ORDER BY c.endpoint_id {lock}"
        )
        self._write = text(
            f"UPDATE breaker_calls SET calls = r.value ->> 1, changed_at = :now FROM {rows} "
            "WHERE endpoint_id = r.value ->> 0"
        )
        self._remove = text(
            f"DELETE FROM breaker_calls WHERE endpoint_id IN (SELECT r.value ->> 0 FROM {rows})"
        )
        self._known = text("SELECT endpoint_id FROM breaker_calls ORDER BY changed_at DESC LIMIT :most")
        self._prune = text("DELETE FROM breaker_calls WHERE changed_at < :before")

    def __repr__(self) -> str:
        return f"<CallTable in {self._database!r}>"

    def change(
        self,
        endpoint_ids: Iterable[str],
        change: Callable[[Mapping[str, str]], Mapping[str, str]],
        *,
        now: int,
    ) -> None:
        """Put what `change` makes of the endpoints' lines in their place; a line that is empty then goes."""
        keys: dict[str, object] = {"rows": keys_of(sorted(endpoint_ids))}
        with self._database.write(durable=False) as connection:
            connection.execute(self._ensure, keys | {"now": now})
            found = connection.execute(self._read, keys).all()
            after = change({row.endpoint_id: row.calls for row in found})
            kept = sorted((endpoint_id, calls) for endpoint_id, calls in after.items() if calls)
            gone = sorted(endpoint_id for endpoint_id, calls in after.items() if not calls)
            if kept:
                connection.execute(self._write, {"rows": text_of(kept), "now": now})
            if gone:
                connection.execute(self._remove, {"rows": keys_of(gone)})

    def known(self, *, most: int) -> list[str]:
        """The endpoints that have a line, those with the newest calls first."""
        with self._database.read() as connection:
            return [row[0] for row in connection.execute(self._known, {"most": most})]

    def remove(self, endpoint_ids: Sequence[str]) -> None:
        """Remove lines."""
        with self._database.write(durable=False) as connection:
            connection.execute(self._remove, {"rows": keys_of(sorted(endpoint_ids))})

    def prune(self, *, before: int) -> int:
        """Remove lines that nothing was added to since a stored time; returns how many."""
        with self._database.write(durable=False) as connection:
            return connection.execute(self._prune, {"before": before}).rowcount
