"""Commands for alerts: list, acknowledge, silence; and for the channels over which people are told."""

from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter

from ringbearer.cli import output
from ringbearer.cli.client import DEFAULT_CONNECTION, Connection, Page, decode, path
from ringbearer.cli.options import All, Json, Limit, examples
from ringbearer.domain.alerts import Alert, Channel, Silence

app = App(
    name="alerts",
    help="What is wrong, and who is told of it.",
    help_epilogue=examples(
        "ringbearer alerts list --state firing",
        "ringbearer alerts ack alr_0197…",
        "ringbearer alerts channels add team --kind slack https://hooks.slack.example/services/…",
    ),
    default_parameter=Parameter(negative=()),
)
channels = App(
    name="channels",
    help="Ways to people; an address is a secret, and never shown.",
    default_parameter=Parameter(negative=()),
)
app.command(channels)


class ChannelWithSecret(Channel, frozen=True, kw_only=True):
    """What the API answers when a channel is new."""

    secret: str | None = None


class Sent(msgspec.Struct):
    """What was sent over a channel."""

    title: str


@app.command(
    name="list", help_epilogue=examples("ringbearer alerts list", "ringbearer alerts list --state firing")
)
def list_alerts(
    *,
    state: Annotated[
        Literal["pending", "firing", "resolved"] | None,
        Parameter(help="Only these; without it, those that fire or are over."),
    ] = None,
    limit: Limit = 50,
    all_: All = False,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """List alerts, newest first."""
    with connection.open() as client:
        answer = client.items(path("alerts"), {"state": state}, limit=None if all_ else limit)
    if json:
        output.print_json(answer)
        return
    page = decode(answer, Page[Alert])
    output.print_table(
        ("id", "state", "severity", "rule", "group", "what", "since", "acknowledged by"),
        [
            (a.id, a.state, a.severity, a.rule, a.group, a.summary, output.when(a.since), a.acknowledged_by)
            for a in page.items
        ],
    )
    output.note_more(page.next)


@app.command(help_epilogue=examples("ringbearer alerts ack alr_0197…"))
def ack(
    alert_id: Annotated[str, Parameter(help="Id of the alert, alr_….")],
    /,
    *,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Take care of an alert: nobody else is told of it."""
    with connection.open() as client:
        answer = client.send("POST", path("alerts", alert_id, "acknowledge"))
    if json:
        output.print_json(answer)
        return
    alert = decode(answer, Alert)
    if alert.acknowledged_by is None:
        output.note(f"{alert.id} is {alert.state}; there is nothing to take care of")
    else:
        output.note(f"{alert.id} is taken care of by {alert.acknowledged_by}")


@app.command(
    help_epilogue=examples(
        "ringbearer alerts silence --rule receivers_fail --seconds 7200 --reason 'known outage at a CRM'",
        "ringbearer alerts silence --seconds 600",
    )
)
def silence(
    *,
    rule: Annotated[str | None, Parameter(help="Id of a rule; without it, of no alert at all.")] = None,
    group: Annotated[str | None, Parameter(help="One group of the rule only, such as a lane.")] = None,
    seconds: Annotated[float, Parameter(help="For how long, at most a week.")] = 3_600.0,
    reason: Annotated[str | None, Parameter(help="Why.")] = None,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Have nobody told for a while; alerts begin and end all the same."""
    given = {"rule": rule, "group": group, "seconds": seconds, "reason": reason}
    body = {name: value for name, value in given.items() if value is not None}
    with connection.open() as client:
        answer = client.send("POST", path("alert-silences"), body)
    if json:
        output.print_json(answer)
        return
    made = decode(answer, Silence)
    output.print_fields(
        (("id", made.id), ("rule", made.rule), ("group", made.group), ("until", output.exactly(made.until)))
    )


@app.command(
    name="test", help_epilogue=examples("ringbearer alerts test", "ringbearer alerts test chn_0197…")
)
def try_out(
    channel_id: Annotated[
        str | None, Parameter(help="Id of the channel, chn_…; without it, over every channel.")
    ] = None,
    /,
    *,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Send a message over a channel, or over all, to see that it arrives."""
    with connection.open() as client:
        if channel_id is None:
            listed = decode(client.items(path("alert-channels"), limit=None), Page[Channel])
            ids = [channel.id for channel in listed.items]
        else:
            ids = [channel_id]
        answers = [(each, client.send("POST", path("alert-channels", each, "test"))) for each in ids]
    if json:
        output.print_json(msgspec.json.encode([msgspec.Raw(answer) for _, answer in answers]))
        return
    for each, answer in answers:
        output.note(f"{each} took: {decode(answer, Sent).title}")
    if not answers:
        output.note("there is no channel: ringbearer alerts channels add")


@channels.command(name="list", help_epilogue=examples("ringbearer alerts channels list"))
def list_channels(*, json: Json = False, connection: Connection = DEFAULT_CONNECTION) -> None:
    """List the channels, the ladder from its foot to its top."""
    with connection.open() as client:
        answer = client.items(path("alert-channels"), limit=None)
    if json:
        output.print_json(answer)
        return
    page = decode(answer, Page[Channel])
    output.print_table(
        ("id", "name", "kind", "after", "severities", "quiet"),
        [
            (
                c.id,
                c.name,
                c.kind,
                output.span(c.after) if c.after else "at once",
                ", ".join(c.severities),
                f"{c.quiet.start} to {c.quiet.end} {c.quiet.timezone}" if c.quiet else None,
            )
            for c in sorted(page.items, key=lambda c: c.after)
        ],
    )


@channels.command(
    help_epilogue=examples(
        "ringbearer alerts channels add team --kind slack https://hooks.slack.example/services/…",
        "ringbearer alerts channels add text --kind apprise 'smseagle://token@gateway/0171…' --after 30",
        "ringbearer alerts channels add call --kind apprise 'pagerduty://…' --after 120 --severity critical",
    )
)
def add(
    name: Annotated[str, Parameter(help="What it is called.")],
    address: Annotated[str, Parameter(help="Its URL, or its address as apprise knows them; kept sealed.")],
    /,
    *,
    kind: Annotated[
        Literal["slack", "webhook", "apprise"], Parameter(help="slack, webhook (signed) or apprise.")
    ],
    after: Annotated[float, Parameter(help="Seconds without acknowledgement until it is told.")] = 0.0,
    severity: Annotated[
        list[Literal["info", "warning", "critical"]] | None,
        Parameter(help="Of which alerts it is told, repeated; without it, of all."),
    ] = None,
    quiet: Annotated[
        str | None, Parameter(help="Local times between which only critical is told: 22:00-07:00.")
    ] = None,
    timezone: Annotated[str, Parameter(help="The time zone of these times.")] = "UTC",
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Add a channel."""
    body: dict[str, object] = {"name": name, "kind": kind, "address": address, "after": after}
    if severity:
        body["severities"] = severity
    if quiet is not None:
        start, _, end = quiet.partition("-")
        body["quiet"] = {"start": start, "end": end, "timezone": timezone}
    with connection.open() as client:
        answer = client.send("POST", path("alert-channels"), body)
    if json:
        output.print_json(answer)
        return
    made = decode(answer, ChannelWithSecret)
    output.print_fields((("id", made.id), ("name", made.name), ("kind", made.kind)))
    if made.secret is not None:
        output.print_secret("Secret", made.secret)


@channels.command(help_epilogue=examples("ringbearer alerts channels delete chn_0197…"))
def delete(
    channel_id: Annotated[str, Parameter(help="Id of the channel, chn_….")],
    /,
    *,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Forget a channel."""
    with connection.open() as client:
        client.send("DELETE", path("alert-channels", channel_id))
    output.note(f"{channel_id} is deleted")
