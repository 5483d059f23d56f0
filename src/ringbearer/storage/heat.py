"""Heat: which suppliers had the most deliveries in a span of time, from a sample whose cost does not grow with it."""

from sqlalchemy import text

from ringbearer import ids
from ringbearer.storage.database import Database

_WINDOWS = 24
_PER_WINDOW = 500

# The first deliveries of each hour, say: 12,000 rows at most, each window one range of the primary key.
_SAMPLE = " UNION ALL ".join(
    f"SELECT supplier_id FROM (SELECT supplier_id FROM deliveries WHERE id >= :from{n} AND id < :to{n} "
    f"ORDER BY id LIMIT {_PER_WINDOW}) AS w{n}"
    for n in range(_WINDOWS)
)
_HOTTEST = text(
    f"SELECT supplier_id FROM ({_SAMPLE}) AS sample GROUP BY supplier_id "
    "ORDER BY count(*) DESC, supplier_id LIMIT :most"
)


class Heat:
    """Reads the deliveries. Everything here blocks and raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __repr__(self) -> str:
        return f"<Heat on {self._database!r}>"

    def hottest(self, since: int, until: int, *, most: int) -> list[str]:
        """The suppliers with the most deliveries accepted between two stored times, the hottest first.

        The span is cut into 24 windows, and of each the first 500 deliveries are counted: all of them when it is
        quiet, a sample in which every window weighs the same when it is busy.
        """
        bounds = [since + (until - since) * n // _WINDOWS for n in range(_WINDOWS + 1)]
        given: dict[str, object] = {"most": most}
        for n in range(_WINDOWS):
            given[f"from{n}"] = ids.floor("dlv", bounds[n])
            given[f"to{n}"] = ids.floor("dlv", bounds[n + 1])
        with self._database.read() as connection:
            return [row[0] for row in connection.execute(_HOTTEST, given)]
