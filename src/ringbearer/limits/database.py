"""Rate limits in the store: one short transaction per batch that has limited endpoints at all."""

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import text

from ringbearer.domain.endpoints import RateLimit
from ringbearer.limits.base import RateLimiter, slots
from ringbearer.storage.database import Database


class DatabaseRateLimiter(RateLimiter):
    """Keeps the moments of the last sends in the table `rate_windows`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        rows = database.rows
        self._ensure = text(
            f"INSERT INTO rate_windows (key, sends) SELECT r.value ->> 0, '[]' FROM {rows} WHERE true "
            "ON CONFLICT (key) DO NOTHING"
        )
        lock = "FOR UPDATE OF w" if database.skip_locked else ""
        self._read = text(
            f"SELECT w.key, w.sends FROM {rows} JOIN rate_windows AS w ON w.key = r.value ->> 0 "
            f"ORDER BY w.key {lock}"
        )
        self._write = text(
            f"UPDATE rate_windows SET sends = r.value ->> 1 FROM {rows} WHERE rate_windows.key = r.value ->> 0"
        )

    def take(self, wanted: Mapping[str, tuple[RateLimit, int]], *, now: int) -> dict[str, list[int]]:
        keys = _rows([(key,) for key in sorted(wanted)])
        times: dict[str, list[int]] = {}
        with self._database.write(durable=False) as connection:
            found = connection.execute(self._read, keys).all()
            if len(found) < len(wanted):
                connection.execute(self._ensure, keys)
                found = connection.execute(self._read, keys).all()
            written = []
            for key, sends in found:
                limit, count = wanted[key]
                history = msgspec.json.decode(sends, type=list[int])
                times[key], kept = slots(history, limit, count, now)
                written.append((key, msgspec.json.encode(kept).decode()))
            connection.execute(self._write, _rows(written))
        return times


def _rows(rows: Sequence[tuple[str, ...]]) -> dict[str, str]:
    return {"rows": msgspec.json.encode(rows).decode()}
