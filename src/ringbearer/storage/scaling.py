"""What is decided on the number of workers: the policy, the latest decision, who shall run how many, the record."""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, text

from ringbearer import clock, ids
from ringbearer.domain.scaling import Decision, ScalingPolicy
from ringbearer.storage.database import Database

_ASSIGNMENTS = dict[str, int]


class ScalingRecords:
    """The tables `scaling` (one row: how things stand) and `scaling_decisions` (what happened).

    Everything here blocks and raises StoreUnavailable.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = text(
            "INSERT INTO scaling_decisions (id, at, actor, current, desired, rule, reason, inputs) "
            "VALUES (:id, :at, :actor, :current, :desired, :rule, :reason, :inputs)"
        )
        self._decide = text(
            "UPDATE scaling SET decision = :decision, assignments = :assignments, "
            "term = COALESCE(CAST(:term AS BIGINT), term) WHERE term <= COALESCE(CAST(:term AS BIGINT), term)"
        )

    def __repr__(self) -> str:
        return f"<ScalingRecords on {self._database!r}>"

    def policy(self) -> ScalingPolicy:
        """The policy in force: what was set last, the defaults before that."""
        with self._database.read() as connection:
            found = connection.execute(text("SELECT policy FROM scaling")).scalar_one()
        return msgspec.json.decode(found, type=ScalingPolicy)

    def change_policy(self, policy: ScalingPolicy, decision: Decision) -> None:
        """Set the policy; `decision` is the record of who did, and of what was there before."""
        with self._database.write() as connection:
            encoded = msgspec.json.encode(policy).decode()
            connection.execute(text("UPDATE scaling SET policy = :policy"), {"policy": encoded})
            self._write_down(connection, decision)

    def decided(
        self, decision: Decision, assignments: Mapping[str, int], *, term: int | None, remarkable: bool
    ) -> bool:
        """Make a decision the latest, with how many workers each `up` runs, by the id of its node.

        A remarkable one goes on record too. Returns False, with nothing changed, when a leader of a later term has
        decided already; None is whoever may decide beside the leader.
        """
        row = {
            "decision": msgspec.json.encode(decision).decode(),
            "assignments": msgspec.json.encode(dict(assignments)).decode(),
            "term": term,
        }
        with self._database.write(durable=remarkable) as connection:
            if connection.execute(self._decide, row).rowcount == 0:
                return False
            if remarkable:
                self._write_down(connection, decision)
        return True

    def latest(self) -> Decision | None:
        """The latest decision of the scaler; None before the first."""
        with self._database.read() as connection:
            found = connection.execute(text("SELECT decision FROM scaling")).scalar_one()
        return None if found is None else msgspec.json.decode(found, type=Decision)

    def assigned(self, node_id: str) -> int | None:
        """How many workers that node shall run; None when nobody has said so."""
        with self._database.read() as connection:
            found = connection.execute(text("SELECT assignments FROM scaling")).scalar_one()
        return msgspec.json.decode(found, type=_ASSIGNMENTS).get(node_id)

    def decisions(self, *, limit: int, cursor: str | None = None) -> list[Decision]:
        """What is on record, newest first; `cursor` is the id to go on after."""
        where = "" if cursor is None else "WHERE id < :cursor"
        with self._database.read() as connection:
            rows = connection.execute(
                text(
                    "SELECT id, at, actor, current, desired, rule, reason, inputs FROM scaling_decisions "
                    f"{where} ORDER BY id DESC LIMIT :limit"
                ),
                {"limit": limit} if cursor is None else {"limit": limit, "cursor": cursor},
            ).all()
        return [_decision(row) for row in rows]

    def prune(self, *, before: int) -> int:
        """Remove records from before that stored time; returns how many."""
        with self._database.write(durable=False) as connection:
            return connection.execute(
                text("DELETE FROM scaling_decisions WHERE id < :bound"), {"bound": ids.floor("scl", before)}
            ).rowcount

    def _write_down(self, connection: Connection, decision: Decision) -> None:
        row = msgspec.structs.asdict(decision)
        row |= {
            "at": clock.from_datetime(decision.at),
            "inputs": msgspec.json.encode(decision.inputs).decode(),
        }
        connection.execute(self._insert, row)


def _decision(row: Row[*tuple[Any, ...]]) -> Decision:
    decision_id, at, actor, current, desired, rule, reason, inputs = row
    return Decision(
        id=decision_id,
        at=clock.to_datetime(at),
        actor=actor,
        current=current,
        desired=desired,
        rule=rule,
        reason=reason,
        inputs=msgspec.json.decode(inputs, type=dict[str, object]),
    )
