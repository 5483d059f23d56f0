"""What is ready, read in the order of the queue: for an index beside the store that wants to know it too."""

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import TextClause, text

from ringbearer.domain.deliveries import Content
from ringbearer.storage.database import Database
from ringbearer.storage.parameters import keys_of


class ReadyJob(NamedTuple):
    """A ready delivery and its place in the order."""

    delivery_id: str
    event_id: str
    endpoint_id: str
    lane: int
    rank: int


class Ready:
    """Reads ready jobs. Every method blocks, and raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._heads = text(
            " UNION ALL ".join(
                f"SELECT * FROM ({_walk(f'lane = {lane}')}) AS lane{lane}" for lane in range(4)
            )
        )
        # The whole of a lane is walked in steps: ranks may repeat, so the id tells where to go on.
        self._page: TextClause = text(
            _walk("lane = :lane AND rank >= :rank AND (rank > :rank OR delivery_id > :after)")
        )
        self._contents = text(
            f"SELECT e.id, e.type, e.timestamp, e.data, e.trace FROM {database.rows} "
            "JOIN events AS e ON e.id = r.value ->> 0"
        )

    def heads(self, *, limit: int) -> list[ReadyJob]:
        """The first of each lane, at most `limit` of it."""
        with self._database.read() as connection:
            return [ReadyJob(*row) for row in connection.execute(self._heads, {"limit": limit})]

    def page(self, lane: int, after: ReadyJob | None, *, limit: int) -> list[ReadyJob]:
        """The next of a lane after one of it, or the first."""
        rank, last = (after.rank, after.delivery_id) if after is not None else (-(2**62), "")
        where = {"lane": lane, "rank": rank, "after": last, "limit": limit}
        with self._database.read() as connection:
            return [ReadyJob(*row) for row in connection.execute(self._page, where)]

    def contents(self, event_ids: Iterable[str]) -> dict[str, Content]:
        """What is to be sent of these events."""
        rows = keys_of(event_ids)
        with self._database.read() as connection:
            found = connection.execute(self._contents, {"rows": rows}).all()
        return {event_id: Content(*content) for event_id, *content in found}


def _walk(condition: str) -> str:
    return (
        f"SELECT delivery_id, event_id, endpoint_id, lane, rank FROM jobs WHERE state = 'ready' AND {condition} "
        "ORDER BY lane, rank, delivery_id LIMIT :limit"
    )
