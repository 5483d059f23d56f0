"""The book of alerts: rules that were changed, channels, alerts and their notices, silences, monthly reports.

A notice is claimed here before it is sent: of two who want to send the same one, one does. A claim that nobody
confirms can be taken over after a while, since its sender may have died before it sent.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Row, delete, insert, select, text, update

from ringbearer import clock
from ringbearer.domain.alerts import Alert, AlertState, Channel, Notice, Rule, Silence
from ringbearer.errors import NotFound
from ringbearer.storage import schema
from ringbearer.storage.database import Database
from ringbearer.storage.vault import Vault

_A, _C, _N = schema.alerts, schema.alert_channels, schema.alert_notices
_S, _R, _M = schema.alert_silences, schema.alert_rules, schema.reports
_LOCK = "alerts"  # one who changes alerts at a time; no ordering key looks like this
_encode = msgspec.json.Encoder().encode


class AlertBook:
    """Reads and writes it. Every method blocks, and raises StoreUnavailable."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self._put_alerts = text(
            "INSERT INTO alerts (id, state, body, updated_at) "
            "SELECT r.value ->> 0, r.value ->> 1, r.value ->> 2, CAST(r.value ->> 3 AS BIGINT) "
            f"FROM {database.rows} WHERE true ON CONFLICT (id) DO UPDATE SET state = excluded.state, "
            "body = excluded.body, updated_at = excluded.updated_at"
        )
        self._claim_notice = text(
            "INSERT INTO alert_notices (alert_id, channel_id, kind, state, tries, at) "
            "VALUES (:alert_id, :channel_id, :kind, 'claimed', :tries, :now) "
            "ON CONFLICT (alert_id, channel_id, kind) DO UPDATE SET state = 'claimed', tries = excluded.tries, "
            "at = excluded.at WHERE alert_notices.tries = excluded.tries - 1 AND alert_notices.state <> 'sent' "
            "RETURNING alert_id"
        )

    # ── rules ───────────────────────────────────────────────────────────────────────────────────────────

    def rules(self) -> dict[str, Rule]:
        """The rules that differ from those that everybody starts with, by id."""
        with self._database.read() as connection:
            rows = connection.execute(select(_R.c.body)).all()
        found = (msgspec.json.decode(row[0], type=Rule) for row in rows)
        return {rule.id: rule for rule in found}

    def put_rule(self, rule: Rule, *, now: int) -> None:
        """Keep a changed rule."""
        with self._database.write() as connection:
            connection.execute(delete(_R).where(_R.c.id == rule.id))
            connection.execute(insert(_R).values(id=rule.id, body=_text(rule), updated_at=now))

    def reset_rule(self, rule_id: str) -> bool:
        """Forget what was changed of a rule; returns whether anything was."""
        with self._database.write() as connection:
            return bool(connection.execute(delete(_R).where(_R.c.id == rule_id)).rowcount)

    # ── channels ────────────────────────────────────────────────────────────────────────────────────────

    def channels(self) -> list[Channel]:
        """All channels, oldest first, without their addresses."""
        with self._database.read() as connection:
            rows = connection.execute(select(_C.c.body).order_by(_C.c.id)).all()
        return [msgspec.json.decode(row[0], type=Channel) for row in rows]

    def address(self, channel_id: str) -> str:
        """The secret address of a channel; raises NotFound, and ConfigurationError when no key opens it."""
        with self._database.read() as connection:
            sealed = connection.execute(select(_C.c.sealed).where(_C.c.id == channel_id)).scalar()
        if sealed is None:
            raise NotFound(f"there is no channel {channel_id!r}")
        return self._vault.open(sealed, channel_id).decode()

    def add_channel(self, channel: Channel, address: str) -> None:
        """Keep a channel, its address sealed."""
        sealed = self._vault.seal(address.encode(), channel.id)
        with self._database.write() as connection:
            connection.execute(insert(_C).values(id=channel.id, body=_text(channel), sealed=sealed))

    def delete_channel(self, channel_id: str) -> None:
        """Forget a channel; raises NotFound."""
        with self._database.write() as connection:
            if not connection.execute(delete(_C).where(_C.c.id == channel_id)).rowcount:
                raise NotFound(f"there is no channel {channel_id!r}")

    def reseal(self) -> int:
        """Seal every address anew with the vault's first key; returns how many were not yet."""
        count = 0
        with self._database.write() as connection:
            for channel_id, sealed in connection.execute(select(_C.c.id, _C.c.sealed)).all():
                if not self._vault.current(sealed):
                    value = self._vault.seal(self._vault.open(sealed, channel_id), channel_id)
                    connection.execute(update(_C).where(_C.c.id == channel_id).values(sealed=value))
                    count += 1
        return count

    # ── alerts ──────────────────────────────────────────────────────────────────────────────────────────

    def live(self) -> list[Alert]:
        """The alerts that are pending or firing, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(_A.c.body).where(_A.c.state.in_(("pending", "firing"))).order_by(_A.c.id)
            ).all()
        return [_alert(row) for row in rows]

    def ended(self, *, since: int) -> list[Alert]:
        """The alerts that ended at or after a stored time."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(_A.c.body).where(_A.c.state == "resolved", _A.c.updated_at >= since)
            ).all()
        return [_alert(row) for row in rows]

    def list_alerts(self, *, state: AlertState | None, limit: int, cursor: str | None) -> list[Alert]:
        """Alerts, newest first, without those that only pend unless they are asked for."""
        query = select(_A.c.body).order_by(_A.c.id.desc()).limit(limit)
        query = query.where(_A.c.state == state if state is not None else _A.c.state != "pending")
        if cursor is not None:
            query = query.where(_A.c.id < cursor)
        with self._database.read() as connection:
            return [_alert(row) for row in connection.execute(query)]

    def get(self, alert_id: str) -> Alert:
        """One alert; raises NotFound."""
        with self._database.read() as connection:
            row = connection.execute(select(_A.c.body).where(_A.c.id == alert_id)).first()
        if row is None:
            raise NotFound(f"there is no alert {alert_id!r}")
        return _alert(row)

    def write(self, changed: Iterable[Alert], dropped: Iterable[Alert], *, now: int) -> None:
        """Write alerts that began, changed or ended, and forget pending ones that came to nothing.

        An acknowledgement that was written in between is kept.
        """
        alerts = list(changed)
        gone = [a.id for a in dropped]
        with self._database.write() as connection:
            self._database.lock_ordering(connection, [_LOCK])
            live = select(_A.c.body).where(_A.c.state != "resolved")
            known = {alert.id: alert for alert in (_alert(row) for row in connection.execute(live))}
            taken = {(alert.rule, alert.group) for alert in known.values()}
            named = select(_A.c.id).where(_A.c.id.in_([a.id for a in alerts]), _A.c.state == "resolved")
            over = {row[0] for row in connection.execute(named)}
            # Two that believed to lead may have looked at once: one began it, and what is over stays over.
            rows = [
                (a.id, a.state, _text(_with_acknowledgement(a, known.get(a.id))), now)
                for a in alerts
                if a.id not in over and (a.id in known or (a.rule, a.group) not in taken)
            ]
            if rows:
                connection.execute(self._put_alerts, {"rows": _encode(rows).decode()})
            if gone:
                connection.execute(delete(_A).where(_A.c.id.in_(gone), _A.c.state == "pending"))

    def acknowledge(self, alert_id: str, *, by: str, now: datetime) -> Alert:
        """Say that somebody takes care: the ladder stops. The first word counts. Raises NotFound."""
        with self._database.write() as connection:
            self._database.lock_ordering(connection, [_LOCK])
            row = connection.execute(select(_A.c.body).where(_A.c.id == alert_id)).first()
            if row is None:
                raise NotFound(f"there is no alert {alert_id!r}")
            alert = _alert(row)
            if alert.acknowledged_at is not None or alert.state != "firing":
                return alert
            alert = msgspec.structs.replace(alert, acknowledged_at=now, acknowledged_by=by)
            connection.execute(update(_A).where(_A.c.id == alert_id).values(body=_text(alert)))
        return alert

    # ── notices ─────────────────────────────────────────────────────────────────────────────────────────

    def notices(self, alert_ids: Collection[str]) -> list[Notice]:
        """What was told of these alerts."""
        if not alert_ids:
            return []
        with self._database.read() as connection:
            rows = connection.execute(select(_N).where(_N.c.alert_id.in_(list(alert_ids)))).all()
        return [_notice(row) for row in rows]

    def claim_notice(self, alert_id: str, channel_id: str, kind: str, *, tries: int, now: int) -> bool:
        """Claim a notice for its next try, of `tries` made so far; False when somebody else has it or it is sent."""
        values = {
            "alert_id": alert_id,
            "channel_id": channel_id,
            "kind": kind,
            "tries": tries + 1,
            "now": now,
        }
        with self._database.write() as connection:
            return connection.execute(self._claim_notice, values).first() is not None

    def close_notices(
        self, alert_ids: Sequence[str], channel_id: str, kind: str, *, error: str | None, now: int
    ) -> None:
        """Say what became of claimed notices: sent, or failed with an error."""
        with self._database.write() as connection:
            connection.execute(
                update(_N)
                .where(_N.c.alert_id.in_(list(alert_ids)), _N.c.channel_id == channel_id, _N.c.kind == kind)
                .values(state="sent" if error is None else "failed", at=now, error=error)
            )

    # ── silences ────────────────────────────────────────────────────────────────────────────────────────

    def silences(self, *, now: int) -> list[Silence]:
        """The silences that last, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(_S.c.body).where(_S.c.until > now).order_by(_S.c.id)).all()
        return [msgspec.json.decode(row[0], type=Silence) for row in rows]

    def add_silence(self, silence: Silence) -> None:
        """Keep a silence."""
        with self._database.write() as connection:
            connection.execute(
                insert(_S).values(
                    id=silence.id, body=_text(silence), until=clock.from_datetime(silence.until)
                )
            )

    def delete_silence(self, silence_id: str) -> None:
        """End a silence; raises NotFound."""
        with self._database.write() as connection:
            if not connection.execute(delete(_S).where(_S.c.id == silence_id)).rowcount:
                raise NotFound(f"there is no silence {silence_id!r}")

    # ── reports ─────────────────────────────────────────────────────────────────────────────────────────

    def report(self, month: str) -> bytes | None:
        """The stored report of a month, JSON; None when there is none."""
        with self._database.read() as connection:
            body = connection.execute(select(_M.c.body).where(_M.c.month == month)).scalar()
        return None if body is None else str(body).encode()

    def put_report(self, month: str, body: bytes, *, now: int) -> None:
        """Keep the report of a month."""
        with self._database.write() as connection:
            connection.execute(delete(_M).where(_M.c.month == month))
            connection.execute(insert(_M).values(month=month, body=body.decode(), made_at=now))

    def prune(self, *, before: int) -> None:
        """Forget alerts that ended, with their notices, and silences, of before a stored time."""
        with self._database.write() as connection:
            old = select(_A.c.id).where(_A.c.state == "resolved", _A.c.updated_at < before)
            connection.execute(delete(_N).where(_N.c.alert_id.in_(old)))
            connection.execute(delete(_A).where(_A.c.state == "resolved", _A.c.updated_at < before))
            connection.execute(delete(_S).where(_S.c.until < before))


def _with_acknowledgement(alert: Alert, stored: Alert | None) -> Alert:
    if stored is None or stored.acknowledged_at is None:
        return alert
    return msgspec.structs.replace(
        alert, acknowledged_at=stored.acknowledged_at, acknowledged_by=stored.acknowledged_by
    )


def _text(value: msgspec.Struct) -> str:
    return _encode(value).decode()


def _alert(row: Row[*tuple[Any, ...]]) -> Alert:
    return msgspec.json.decode(row[0], type=Alert)


def _notice(row: Row[*tuple[Any, ...]]) -> Notice:
    return Notice(
        alert_id=row.alert_id,
        channel_id=row.channel_id,
        kind=row.kind,
        state=row.state,
        tries=row.tries,
        at=clock.to_datetime(row.at),
        error=row.error,
    )
