"""Flows in the store: what the processes tell each other of the fair order, about once a second each.

Every process keeps the order in memory (`priority.FairOrder`), so that giving a delivery its rank costs no statement.
The lanes' virtual times are read when they are older than a few hundredths of a second; which flows are ahead, and what
their deliveries cost, is exchanged by `exchange`, so that a process that starts knows what others have given out.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from sqlalchemy import Connection, text

from ringbearer import clock
from ringbearer.domain.suppliers import Tier
from ringbearer.priority import Costs, FairOrder
from ringbearer.storage.database import Database
from ringbearer.storage.parameters import keys_of, text_of

_READ_SECONDS = 0.05
_RAISE_SECONDS = 0.1
_OVERLAP = 5 * clock.SECOND  # what is read again, since clocks and commits of processes differ
_FORGET = 86_400 * clock.SECOND
_FORGET_COSTS = 30 * _FORGET  # they are told when they change, which they seldom do


class Flows:
    """Gives out ranks. Safe to use from several threads; what touches the store raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._order = FairOrder()
        self._costs = Costs()
        self._lock = threading.Lock()
        self._claimed: dict[int, int] = {}
        self._next_raise = self._next_read = 0.0
        self._seen_until = 0
        self._clocks = text("SELECT lane, v FROM lane_clocks")
        self._raise = text(f"""
            INSERT INTO lane_clocks (lane, v)
            SELECT CAST(r.value ->> 0 AS SMALLINT), CAST(r.value ->> 1 AS BIGINT) FROM {database.rows} WHERE true
            ON CONFLICT (lane) DO UPDATE
            SET v = CASE WHEN excluded.v > lane_clocks.v THEN excluded.v ELSE lane_clocks.v END
        """)
        self._tiers = text(
            f"SELECT s.id, s.tier FROM {database.rows} JOIN suppliers AS s ON s.id = r.value ->> 0"
        )
        self._tell_flows = text(f"""
            INSERT INTO flows (lane, supplier_id, endpoint_id, finish, told_at)
            SELECT CAST(r.value ->> 0 AS SMALLINT), r.value ->> 1, r.value ->> 2, CAST(r.value ->> 3 AS BIGINT), :now
            FROM {database.rows} WHERE true
            ON CONFLICT (lane, endpoint_id) DO UPDATE SET told_at = excluded.told_at,
                finish = CASE WHEN excluded.finish > flows.finish THEN excluded.finish ELSE flows.finish END
        """)
        self._untell = text(
            f"DELETE FROM flows WHERE endpoint_id IN (SELECT r.value ->> 0 FROM {database.rows})"
        )
        self._tell_costs = text(f"""
            INSERT INTO flow_costs (endpoint_id, cost, told_at)
            SELECT r.value ->> 0, CAST(r.value ->> 1 AS BIGINT), :now FROM {database.rows} WHERE true
            ON CONFLICT (endpoint_id) DO UPDATE SET cost = excluded.cost, told_at = excluded.told_at
        """)
        self._hear_flows = text("""
            SELECT lane, supplier_id, endpoint_id, finish FROM flows WHERE told_at >= :since
        """)
        self._hear_costs = text("SELECT endpoint_id, cost FROM flow_costs WHERE told_at >= :since")

    def __repr__(self) -> str:
        return f"<Flows of {self._order!r}>"

    def weigh(self, tier_weights: Mapping[Tier, float]) -> None:
        """Use these weights of tiers from now on."""
        with self._lock:
            self._order.tier_weights = dict(tier_weights)

    @property
    def behind(self) -> bool:
        """Whether what is known of the lanes' virtual times is not fresh."""
        return clock.monotonic() >= self._next_read

    def follow_clocks(self, connection: Connection) -> None:
        """Read the lanes' virtual times, if what is known of them is not fresh."""
        now = clock.monotonic()
        if now >= self._next_read:
            self._next_read = now + _READ_SECONDS
            clocks = [(lane, v) for lane, v in connection.execute(self._clocks)]
            with self._lock:
                self._order.advance(clocks)

    def tags(self, lane: int, supplier_id: str, tier: Tier, endpoint_ids: Sequence[str]) -> list[int]:
        """The ranks of one ready delivery to each of the endpoints."""
        with self._lock:
            return self._order.tags(lane, supplier_id, tier, endpoint_ids)

    def refund(self, endpoint_ids: AbstractSet[str]) -> None:
        """Take back, in this process, what endpoints were charged whose deliveries left the ready set unsent."""
        if endpoint_ids:
            with self._lock:
                self._order.refund(endpoint_ids)

    def untell(self, connection: Connection, endpoint_ids: Iterable[str]) -> None:
        """Let no process hear any more what these endpoints had been charged."""
        connection.execute(self._untell, {"rows": keys_of(endpoint_ids)})

    def tiers(self, connection: Connection, supplier_ids: set[str]) -> dict[str, Tier]:
        """The tiers of suppliers, for those who do not have them at hand."""
        if not supplier_ids:
            return {}
        rows = {"rows": keys_of(sorted(supplier_ids))}
        return {row[0]: row[1] for row in connection.execute(self._tiers, rows)}

    def claimed(self, connection: Connection, ranks: Mapping[int, int]) -> None:
        """Raise the lanes' virtual times to the highest ranks that were claimed, ten times a second.

        What stays behind lets who was idle go first, for a tenth of a second's deliveries at most.
        """
        for lane, rank in ranks.items():
            if rank > self._claimed.get(lane, -1):
                self._claimed[lane] = rank
        now = clock.monotonic()
        if now >= self._next_raise:
            self._next_raise = now + _RAISE_SECONDS
            connection.execute(self._raise, {"rows": text_of(sorted(self._claimed.items()))})

    def held(self, measured: Iterable[tuple[str, int]]) -> None:
        """Note for how many microseconds deliveries to these endpoints held their slots."""
        with self._lock:
            for endpoint_id, microseconds in measured:
                self._costs.add(endpoint_id, microseconds)

    def exchange(self, *, now: int) -> int:
        """Tell the others what is ahead and what it costs, and take over what they tell; returns how much was told.

        Blocks; about once a second is right. The first time everything is taken over that is not past.
        """
        with self._database.read() as connection:
            since = {"since": self._seen_until - _OVERLAP}
            clocks = [(lane, v) for lane, v in connection.execute(self._clocks)]
            heard = connection.execute(self._hear_flows, since).all()
            costs = connection.execute(self._hear_costs, since).all()
        with self._lock:
            self._order.advance(clocks)
            self._order.merge(
                (lane, supplier, endpoint, finish) for lane, supplier, endpoint, finish in heard
            )
            self._order.learn((endpoint_id, cost) for endpoint_id, cost in costs)
            busy, news = self._order.busy(), self._costs.news()
        self._seen_until = now
        if busy or news:
            with self._database.write(durable=False) as connection:
                if busy:
                    connection.execute(self._tell_flows, {"rows": text_of(busy), "now": now})
                if news:
                    connection.execute(self._tell_costs, {"rows": text_of(sorted(news)), "now": now})
        return len(busy) + len(news)

    def forget(self, *, now: int) -> int:
        """Remove flows that were told a day ago or earlier, and costs of a month ago; returns how many rows."""
        with self._database.write(durable=False) as connection:
            removed = 0
            for table, kept in (("flows", _FORGET), ("flow_costs", _FORGET_COSTS)):
                statement = text(f"DELETE FROM {table} WHERE told_at < :before")
                removed += connection.execute(statement, {"before": now - kept}).rowcount
        return removed
