"""Alerts: rules, what became of them, and the channels over which people are told."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ringbearer.domain.times import Moment

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
AlertState = Literal["pending", "firing", "resolved"]
ChannelKind = Literal["slack", "webhook", "apprise"]

Seconds = Annotated[float, Meta(ge=0, le=86_400)]


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """When an alert begins and ends. A metric has one value for each of its groups, such as each lane.

    It begins when the value was beyond `threshold` for `for_seconds`, and ends when it was on the other side of
    `clear` for `clear_seconds`: between the two nothing changes.
    """

    id: str
    summary: str
    """One sentence; `{group}` and `{value}` are filled in."""
    metric: str
    above: bool = True
    """Whether more than the threshold is bad, or less."""
    threshold: float
    clear: float
    for_seconds: Seconds = 0.0
    clear_seconds: Seconds = 60.0
    severity: Severity = "warning"
    enabled: bool = True

    def breached(self, value: float) -> bool:
        """Whether the value is beyond the threshold."""
        return value > self.threshold if self.above else value < self.threshold

    def cleared(self, value: float) -> bool:
        """Whether the value is good again."""
        return value <= self.clear if self.above else value >= self.clear


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is, or was, wrong. `since` is when the condition began."""

    id: str
    rule: str
    group: str
    severity: Severity
    state: AlertState
    summary: str
    value: float
    since: Moment
    fired_at: Moment | None = None
    resolved_at: Moment | None = None
    acknowledged_at: Moment | None = None
    acknowledged_by: str | None = None
    good_since: Moment | None = None
    """Since when the value is good again, while the alert waits to end."""


class QuietHours(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a channel is left alone, but for what is critical: from a local time to another, over midnight too."""

    start: Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
    end: Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
    timezone: str = "UTC"


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """A way to a person. Its address is a secret and never shown.

    It is told of alerts of its severities that nobody acknowledged for `after` seconds: with several channels
    this is the ladder, say Slack at once, a text message after 30 s, a call after 2 min.
    """

    id: str
    name: str
    kind: ChannelKind
    after: Seconds = 0.0
    severities: tuple[Severity, ...] = SEVERITIES
    quiet: QuietHours | None = None
    created_at: Moment


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody is told of a rule's alerts, or of one group of them, until a time. Alerts begin and end all the same."""

    id: str
    rule: str | None
    group: str | None
    until: Moment
    reason: str | None = None
    created_by: str
    created_at: Moment

    def covers(self, alert: Alert) -> bool:
        """Whether it is about this alert."""
        return self.rule in (None, alert.rule) and self.group in (None, alert.group)


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One message to one channel about one alert: that it fires, or that it is over."""

    alert_id: str
    channel_id: str
    kind: Literal["fired", "resolved"]
    state: Literal["claimed", "sent", "failed"]
    tries: int
    at: Moment
    """When it was claimed, sent or failed."""
    error: str | None = None
