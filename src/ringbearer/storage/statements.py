"""The statements of the ledger, one text for both databases.

`{rows}` is a FROM item `r` whose `value` goes through a JSON array of arrays; `r.value ->> 0` is the first field
of each. `{skip}` keeps workers from waiting for each other's rows, and `among` makes a query a set to look up
one by one. Conditions on `state` stand as literals, because only then do the partial indexes serve.
"""

from typing import NamedTuple

from sqlalchemy import TextClause, text

_JOB = "j.delivery_id, j.endpoint_id, j.supplier_id, j.ordering_key, j.lane, j.state, j.due_at, j.attempt"
_HEADS = 1_000  # ready jobs that are asked for their age: the first of each flow has a rank near the lowest
_FENCED = """
    state = 'leased' AND (delivery_id, attempt, worker) IN (
        SELECT r.value ->> 0, CAST(r.value ->> 1 AS INTEGER), r.value ->> 2 FROM {rows})
"""


class Selection(NamedTuple):
    """One question about jobs, to look at the answer and to take it into a transaction."""

    look: TextClause
    take: TextClause


class Statements:
    """Every statement of the ledger, written for one database."""

    def __init__(self, rows: str, skip: str, among: str) -> None:
        def sql(template: str) -> TextClause:
            return text(template.replace("{rows}", rows).replace("{skip}", skip))

        def select(condition: str) -> Selection:
            query = f"SELECT {_JOB} FROM jobs AS j WHERE {condition} LIMIT :limit"
            return Selection(sql(query), sql(query + " {skip}"))

        # in

        self.take_keys = sql("""
            INSERT INTO idempotency (supplier_id, key, event_id, fingerprint, deliveries)
            SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, CAST(r.value ->> 4 AS INTEGER)
            FROM {rows} WHERE true
            ON CONFLICT (supplier_id, key) DO NOTHING
            RETURNING event_id
        """)
        self.read_keys = sql("""
            SELECT i.supplier_id, i.key, i.event_id, i.fingerprint, i.deliveries
            FROM {rows} JOIN idempotency AS i ON i.supplier_id = r.value ->> 0 AND i.key = r.value ->> 1
        """)
        self.insert_events = sql("""
            INSERT INTO events (id, supplier_id, type, timestamp, data, lane, idempotency_key, occasion_date,
                                deliver_at, ordering_key, tags, created_at, asked, lane_reason, trace)
            SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4,
                   CAST(r.value ->> 5 AS SMALLINT), r.value ->> 6, r.value ->> 7,
                   CAST(r.value ->> 8 AS BIGINT), r.value ->> 9, r.value ->> 10, CAST(r.value ->> 11 AS BIGINT),
                   r.value ->> 12, r.value ->> 13, r.value ->> 14
            FROM {rows}
        """)
        self.insert_deliveries = sql("""
            INSERT INTO deliveries (id, event_id, endpoint_id, supplier_id, event_type, lane, state, attempts,
                                    created_at)
            SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, r.value ->> 4,
                   CAST(r.value ->> 5 AS SMALLINT), 'pending', 0, CAST(r.value ->> 10 AS BIGINT)
            FROM {rows}
        """)
        self.insert_jobs = sql("""
            INSERT INTO jobs (delivery_id, event_id, endpoint_id, supplier_id, lane, accepted_at, rank, state,
                              due_at, ordering_key, attempt, attempt_base, ready_at,
                              reason)
            SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3,
                   CAST(r.value ->> 5 AS SMALLINT), CAST(r.value ->> 10 AS BIGINT),
                   CAST(r.value ->> 6 AS BIGINT), r.value ->> 7, CAST(r.value ->> 8 AS BIGINT), r.value ->> 9,
                   0, 0, CAST(r.value ->> 11 AS BIGINT), r.value ->> 12
            FROM {rows}
        """)
        # Of each key one delivery at a time is on its way; when there is none, the first that waits goes on.
        # Events are numbered before they are committed: the first to come need not have the smallest id.
        self.promote = sql(
            """
            UPDATE jobs SET state = CASE WHEN due_at IS NULL THEN 'ready' ELSE 'scheduled' END
            WHERE state = 'waiting' AND delivery_id """
            + among.format("""
                SELECT (SELECT min(j.delivery_id) FROM jobs AS j
                        WHERE j.endpoint_id = r.value ->> 0 AND j.ordering_key = r.value ->> 1
                          AND j.state = 'waiting')
                FROM {rows}
                WHERE NOT EXISTS (SELECT 1 FROM jobs AS p
                                  WHERE p.endpoint_id = r.value ->> 0 AND p.ordering_key = r.value ->> 1
                                    AND p.state <> 'waiting' AND p.state <> 'dead')
                """)
            + """
            RETURNING lane, state
        """
        )

        # out

        def first_of(lane: int) -> str:
            return (
                f"SELECT delivery_id FROM jobs WHERE state = 'ready' AND lane = {lane} "
                f"ORDER BY lane, rank LIMIT :n{lane} {skip}"
            )

        def lease(which: str) -> str:
            return f"""
                UPDATE jobs SET state = 'leased', attempt = attempt + 1, due_at = :until, worker = :worker
                WHERE delivery_id {among.format(which)}
                RETURNING delivery_id, event_id, endpoint_id, supplier_id, attempt, lane, rank, attempt_base,
                          ordering_key, accepted_at, COALESCE(ready_at, accepted_at)
            """

        self.claim = sql(
            "WITH "
            + ", ".join(f"lane{lane} AS ({first_of(lane)})" for lane in range(4))
            + lease(" UNION ALL ".join(f"SELECT delivery_id FROM lane{lane}" for lane in range(4)))
        )
        self.claim_more = sql(
            lease(
                "SELECT delivery_id FROM jobs WHERE state = 'ready' ORDER BY lane, rank LIMIT :spare {skip}"
            )
        )
        self.claim_these = sql(
            lease(
                "SELECT delivery_id FROM jobs WHERE state = 'ready' AND delivery_id "
                + among.format("SELECT r.value ->> 0 FROM {rows}")
                + " {skip}"
            )
        )
        self.load_events = sql("""
            SELECT e.id, e.type, e.timestamp, e.data, e.trace FROM {rows} JOIN events AS e ON e.id = r.value ->> 0
        """)
        self.finish = sql(f"DELETE FROM jobs WHERE {_FENCED} RETURNING delivery_id, lane")
        self.put_back = sql("""
            UPDATE jobs SET state = r.value ->> 3, due_at = CAST(r.value ->> 4 AS BIGINT),
                            attempt = attempt - CAST(r.value ->> 5 AS INTEGER), reason = r.value ->> 6,
                            worker = NULL
            FROM {rows}
            WHERE delivery_id = r.value ->> 0 AND attempt = CAST(r.value ->> 1 AS INTEGER)
              AND worker = r.value ->> 2 AND state = 'leased'
            RETURNING delivery_id, lane, state
        """)
        self.insert_attempts = sql("""
            INSERT INTO attempts (delivery_id, number, started_at, duration, status_code, error, response_body,
                                  response_headers, timing)
            SELECT r.value ->> 0, CAST(r.value ->> 1 AS INTEGER), CAST(r.value ->> 2 AS BIGINT),
                   CAST(r.value ->> 3 AS BIGINT), CAST(r.value ->> 4 AS SMALLINT), r.value ->> 5, r.value ->> 6,
                   r.value ->> 7, r.value ->> 8
            FROM {rows}
        """)
        self.close_deliveries = sql("""
            UPDATE deliveries SET state = r.value ->> 1, attempts = CAST(r.value ->> 2 AS INTEGER),
                                  reason = r.value ->> 3, finished_at = CAST(r.value ->> 4 AS BIGINT)
            FROM {rows} WHERE deliveries.id = r.value ->> 0 AND deliveries.id BETWEEN :low AND :high
        """)
        self.extend = sql("""
            UPDATE jobs SET due_at = CAST(r.value ->> 3 AS BIGINT) FROM {rows}
            WHERE delivery_id = r.value ->> 0 AND attempt = CAST(r.value ->> 1 AS INTEGER)
              AND worker = r.value ->> 2 AND state = 'leased'
            RETURNING delivery_id
        """)

        # on their own

        self.due = select("j.state = 'scheduled' AND j.due_at <= :now ORDER BY j.due_at")
        self.expired = select("j.state = 'leased' AND j.due_at <= :now ORDER BY j.due_at")
        # Rare and in the background: these two may walk all jobs, rather than that every delivery pays for an
        # index by endpoint.
        self.lately_closed = sql("""
            SELECT 1 FROM endpoints WHERE (deleted OR NOT enabled) AND updated_at >= :since LIMIT 1
        """)
        self.to_hold = select("""
            j.state IN ('ready', 'scheduled') AND j.endpoint_id IN (
                SELECT id FROM endpoints WHERE NOT enabled AND NOT deleted AND updated_at >= :since)
        """)
        self.to_cancel = select("""
            j.state IN ('ready', 'scheduled', 'waiting') AND j.endpoint_id IN (
                SELECT id FROM endpoints WHERE deleted AND updated_at >= :since)
        """)
        self.to_unhold = select("""
            j.state = 'held' AND j.endpoint_id IN (
                SELECT id FROM endpoints WHERE enabled AND NOT deleted)
            ORDER BY j.delivery_id
        """)
        self.orphans = select("""
            j.state = 'held' AND j.endpoint_id IN (SELECT id FROM endpoints WHERE deleted)
        """)
        self.stuck = select("""
            j.state = 'waiting' AND j.ordering_key IS NOT NULL AND NOT EXISTS (
                SELECT 1 FROM jobs AS p
                WHERE p.endpoint_id = j.endpoint_id AND p.ordering_key = j.ordering_key
                  AND p.state <> 'waiting' AND p.state <> 'dead')
        """)
        self.shift = sql("""
            UPDATE jobs SET state = r.value ->> 1, rank = COALESCE(CAST(r.value ->> 2 AS BIGINT), rank),
                            ready_at = COALESCE(CAST(r.value ->> 3 AS BIGINT), ready_at),
                            due_at = CASE WHEN r.value ->> 1 = 'ready' THEN NULL ELSE due_at END, worker = NULL
            FROM {rows} WHERE delivery_id = r.value ->> 0
        """)
        self.delete_jobs = sql("DELETE FROM jobs WHERE delivery_id IN (SELECT r.value ->> 0 FROM {rows})")
        self.next_due = sql("SELECT min(due_at) FROM jobs WHERE state = 'scheduled'")

        # by an operator's hand

        self.revivable = Selection(
            *(
                sql(f"""
                    SELECT {_JOB} FROM jobs AS j
                    WHERE j.state IN ('dead', 'scheduled')
                      AND j.delivery_id IN (SELECT r.value ->> 0 FROM {{rows}}) {lock}
                """)
                for lock in ("", skip)
            )
        )
        self.revive = sql("""
            UPDATE jobs SET state = r.value ->> 4, due_at = NULL, lane = CAST(r.value ->> 1 AS SMALLINT),
                            rank = CAST(r.value ->> 2 AS BIGINT), ready_at = CAST(r.value ->> 5 AS BIGINT), reason = NULL,
                            attempt_base = COALESCE(CAST(r.value ->> 3 AS INTEGER), attempt_base)
            FROM {rows} WHERE delivery_id = r.value ->> 0
        """)
        self.requeue = sql("""
            INSERT INTO jobs (delivery_id, event_id, endpoint_id, supplier_id, lane, accepted_at, rank, state,
                              attempt, attempt_base, ready_at)
            SELECT d.id, d.event_id, d.endpoint_id, d.supplier_id,
                   COALESCE(CAST(:to_lane AS SMALLINT), d.lane), :now, 0, 'ready', d.attempts, d.attempts, :now
            FROM {rows} JOIN deliveries AS d ON d.id = r.value ->> 0
            WHERE d.state = 'delivered' AND d.id BETWEEN :low AND :high
            ON CONFLICT (delivery_id) DO NOTHING
            RETURNING delivery_id, endpoint_id, supplier_id, ordering_key, lane, state, due_at, attempt
        """)
        self.rank = sql("""
            UPDATE jobs SET rank = CAST(r.value ->> 1 AS BIGINT) FROM {rows} WHERE delivery_id = r.value ->> 0
        """)
        self.reopen = sql("""
            UPDATE deliveries SET state = 'pending', finished_at = NULL, reason = NULL
            WHERE id IN (SELECT r.value ->> 0 FROM {rows}) AND id BETWEEN :low AND :high
              AND state IN ('dead', 'delivered')
              AND EXISTS (SELECT 1 FROM jobs AS j WHERE j.delivery_id = deliveries.id AND j.state <> 'dead')
        """)

        # how it stands

        self.count = sql("""
            INSERT INTO queue_depth (shard, lane, state, n)
            SELECT CAST(r.value ->> 0 AS SMALLINT), CAST(r.value ->> 1 AS SMALLINT), r.value ->> 2,
                   CAST(r.value ->> 3 AS BIGINT)
            FROM {rows} WHERE true
            ON CONFLICT (shard, lane, state) DO UPDATE SET n = queue_depth.n + excluded.n
        """)
        self.depth = sql(
            "SELECT lane, state, sum(n) FROM queue_depth GROUP BY lane, state ORDER BY lane, state"
        )
        self.oldest = sql(
            " UNION ALL ".join(
                f"SELECT {lane}, (SELECT min(since) FROM (SELECT COALESCE(ready_at, accepted_at) AS since FROM jobs "
                f"WHERE state = 'ready' AND lane = {lane} ORDER BY lane, rank LIMIT {_HEADS}) AS heads{lane})"
                for lane in range(4)
            )
        )
