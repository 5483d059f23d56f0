"""Rate limits in the store: one short transaction per batch that has limited endpoints at all."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import text

from ringbearer.limits.base import Limit, RateLimiter, admit
from ringbearer.storage.database import Database
from ringbearer.storage.parameters import keys_of, text_of


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

    def take(self, wanted: Sequence[Sequence[Limit]], *, now: int) -> list[int]:
        names = {limit.key for limits in wanted for limit in limits}
        if not names:
            return [now] * len(wanted)
        keys = {"rows": keys_of(sorted(names))}
        with self._database.write(durable=False) as connection:
            found = connection.execute(self._read, keys).all()
            if len(found) < len(names):
                connection.execute(self._ensure, keys)
                found = connection.execute(self._read, keys).all()
            states = {key: msgspec.json.decode(sends, type=list[int]) for key, sends in found}
            times, kept = admit(wanted, states, now)
            written = [
                (key, msgspec.json.encode(state).decode())
                for key, state in sorted(kept.items())
                if state != states.get(key)
            ]
            if written:
                connection.execute(self._write, {"rows": text_of(written)})
        return times
