"""When alerts begin and end, and who is to be told: pure rules, which take the time and touch nothing.

            breached                for `for_seconds`              good for `clear_seconds`
(nothing) ───────────▸ pending ──────────────────▸ firing ──────────────────────────▸ resolved
                          └─ good again ─▸ (nothing)   ▲ └─ good ─┐
                                                       └─ bad ◂───┘
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from ringbearer.domain.alerts import Alert, Channel, Notice, QuietHours, Rule, Silence

Signals = Mapping[tuple[str, str], float]
"""What is measured now: the value of each metric and group."""

RECLAIM = timedelta(seconds=30)
"""A notice whose sending nobody confirmed for so long is sent again: its sender died, before or after."""
_RETRY = (5.0, 15.0, 60.0, 300.0, 900.0)
"""Seconds between the tries of a notice that a channel did not take; the last one again and again."""
GIVE_UP = timedelta(hours=6)
"""A notice of an alert that ended so long ago is not tried any more."""


def step(
    rules: Iterable[Rule],
    alerts: Sequence[Alert],
    signals: Signals,
    *,
    now: datetime,
    new_id: Callable[[], str],
) -> tuple[list[Alert], list[Alert]]:
    """What is to be written down of alerts that began, changed or ended, and which pending ones are to be forgotten.

    `alerts` are those that are pending or firing. A group without a value is not bad: what fires ends, after
    `clear_seconds`, when nothing is measured any more. Alerts of rules that are gone or disabled end at once.
    """
    known = {(alert.rule, alert.group): alert for alert in alerts}
    changed: list[Alert] = []
    dropped: list[Alert] = []
    active = [rule for rule in rules if rule.enabled]
    for rule in active:
        groups = {group for metric, group in signals if metric == rule.metric}
        groups |= {alert.group for alert in alerts if alert.rule == rule.id}
        for group in sorted(groups):
            before = known.get((rule.id, group))
            after = _move(rule, group, before, signals.get((rule.metric, group)), now, new_id)
            if after is None and before is not None:
                dropped.append(before)
            elif after is not None and after != before:
                changed.append(after)
    names = {rule.id for rule in active}
    for alert in alerts:
        if alert.rule not in names:
            if alert.state == "pending":
                dropped.append(alert)
            else:
                changed.append(replace(alert, state="resolved", resolved_at=now, good_since=None))
    return changed, dropped


def _move(
    rule: Rule, group: str, alert: Alert | None, value: float | None, now: datetime, new_id: Callable[[], str]
) -> Alert | None:
    bad = value is not None and rule.breached(value)
    if alert is None:
        if value is None or not bad:
            return None
        alert = Alert(
            id=new_id(),
            rule=rule.id,
            group=group,
            severity=rule.severity,
            state="pending",
            summary=_summary(rule, group, value),
            value=value,
            since=now,
        )
    if alert.state == "pending":
        if value is None or not bad:
            return None
        if now - alert.since < timedelta(seconds=rule.for_seconds):
            return alert
        return replace(alert, state="firing", fired_at=now, value=value, summary=_summary(rule, group, value))
    if value is not None and not rule.cleared(value):
        return replace(alert, good_since=None) if alert.good_since is not None else alert
    good_since = alert.good_since or now
    if now - good_since >= timedelta(seconds=rule.clear_seconds):
        return replace(alert, state="resolved", resolved_at=now, good_since=None)
    return replace(alert, good_since=good_since)


def _summary(rule: Rule, group: str, value: float) -> str:
    return rule.summary.replace("{group}", group).replace("{value}", f"{value:.3g}")


class Due(NamedTuple):
    """A notice that is to be sent now. `again`: it was claimed before, and perhaps sent."""

    alert: Alert
    channel: Channel
    kind: Literal["fired", "resolved"]
    tries: int
    again: bool


def due(
    alerts: Iterable[Alert],
    channels: Sequence[Channel],
    silences: Sequence[Silence],
    notices: Iterable[Notice],
    *,
    now: datetime,
) -> list[Due]:
    """Which notices are to be sent now; `alerts` are those that fire or ended lately, with all their notices."""
    written = {(n.alert_id, n.channel_id, n.kind): n for n in notices}
    found = []
    for alert in alerts:
        if alert.state == "pending" or alert.fired_at is None:
            continue
        for channel in channels:
            fired = written.get((alert.id, channel.id, "fired"))
            kind: Literal["fired", "resolved"] = "fired" if alert.state == "firing" else "resolved"
            if kind == "fired":
                if not _climbs(alert, channel, silences, fired, now):
                    continue
            elif fired is None or (fired.state == "failed" and _hushed(alert, channel, silences, now)):
                continue  # whoever was not to be told that it began need not hear that it is over
            notice = written.get((alert.id, channel.id, kind))
            if notice is None or _again(notice, alert, now):
                again = notice is not None and notice.state == "claimed"
                found.append(Due(alert, channel, kind, notice.tries if notice else 0, again))
    return found


def _climbs(
    alert: Alert, channel: Channel, silences: Sequence[Silence], fired: Notice | None, now: datetime
) -> bool:
    """Whether the ladder has come to this channel."""
    if fired is not None and fired.state == "sent":
        return False
    assert alert.fired_at is not None
    if alert.severity not in channel.severities or alert.acknowledged_at is not None:
        return False
    if now - alert.fired_at < timedelta(seconds=channel.after):
        return False
    return not _hushed(alert, channel, silences, now)


def _hushed(alert: Alert, channel: Channel, silences: Sequence[Silence], now: datetime) -> bool:
    """Whether the channel is to be left in peace about this for now."""
    if alert.severity != "critical" and channel.quiet is not None and quiet(channel.quiet, now):
        return True
    return any(silence.covers(alert) and silence.until > now for silence in silences)


def _again(notice: Notice, alert: Alert, now: datetime) -> bool:
    if notice.state == "sent":
        return False
    if alert.resolved_at is not None and now - alert.resolved_at > GIVE_UP:
        return False
    if notice.state == "claimed":
        return now - notice.at >= RECLAIM
    wait = _RETRY[min(notice.tries, len(_RETRY)) - 1]
    return now - notice.at >= timedelta(seconds=wait)


def quiet(hours: QuietHours, now: datetime) -> bool:
    """Whether it is a quiet hour."""
    local = f"{now.astimezone(ZoneInfo(hours.timezone)):%H:%M}"
    if hours.start <= hours.end:
        return hours.start <= local < hours.end
    return local >= hours.start or local < hours.end
