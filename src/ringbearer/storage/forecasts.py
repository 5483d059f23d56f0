"""What was forecast of each hour when it was still to come, so that it can be held against what came true."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import text

from ringbearer.storage.database import Database
from ringbearer.storage.parameters import text_of


class Foretold(msgspec.Struct, frozen=True, array_like=True):
    """What was expected of one hour. Times are stored times: of its begin, and of when that was said."""

    at: int
    made_at: int
    expected: float
    upper: float


class Forecasts:
    """The table `forecasts`. Everything here blocks and raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = text(
            "INSERT INTO forecasts (at, made_at, expected, upper) "
            "SELECT CAST(r.value ->> 0 AS BIGINT), CAST(r.value ->> 1 AS BIGINT), "
            "CAST(r.value ->> 2 AS DOUBLE PRECISION), CAST(r.value ->> 3 AS DOUBLE PRECISION) "
            f"FROM {database.rows} WHERE true ON CONFLICT (at) DO NOTHING"
        )

    def __repr__(self) -> str:
        return f"<Forecasts on {self._database!r}>"

    def keep(self, hours: Sequence[Foretold]) -> None:
        """Write down what is expected of these hours; what was said of one before stands."""
        if hours:
            with self._database.write(durable=False) as connection:
                connection.execute(self._insert, {"rows": text_of(hours)})

    def read(self, *, since: int, until: int) -> list[Foretold]:
        """What was expected of the hours that begin in [since, until), the oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                text(
                    "SELECT at, made_at, expected, upper FROM forecasts WHERE at >= :since AND at < :until "
                    "ORDER BY at"
                ),
                {"since": since, "until": until},
            )
            return [Foretold(*row) for row in rows]

    def prune(self, *, before: int) -> int:
        """Forget hours from before that stored time; returns how many."""
        with self._database.write(durable=False) as connection:
            return connection.execute(
                text("DELETE FROM forecasts WHERE at < :before"), {"before": before}
            ).rowcount
