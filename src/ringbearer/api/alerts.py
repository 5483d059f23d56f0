"""Alerts: seen, acknowledged and silenced; their rules changed; the channels over which people are told."""

import base64
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated
from zoneinfo import available_timezones

import httpx
import msgspec
from litestar import Response, delete, get, post, put
from msgspec import Meta

from ringbearer import clock, ids
from ringbearer.api.answers import empty_answer, json_answer, page
from ringbearer.api.auth import Action, require
from ringbearer.api.reading import ApiRequest, Fields, Nothing, PageQuery, path_id, read_body, read_query
from ringbearer.api.services import ApiServices
from ringbearer.domain.alerts import (
    SEVERITIES,
    AlertState,
    Channel,
    ChannelKind,
    QuietHours,
    Rule,
    Seconds,
    Severity,
    Silence,
)
from ringbearer.domain.keys import Key
from ringbearer.errors import Conflict, InvalidInput, NotFound
from ringbearer.monitor import channels, sending
from ringbearer.monitor.alerting import rules_of, trial
from ringbearer.monitor.channels import ChannelFailed, SignedAddress
from ringbearer.monitor.rules import DEFAULT_RULES
from ringbearer.monitor.signals import METRICS

MAX_CHANNELS = 50
_WEEK = 7 * 86_400

Text = Annotated[str, Meta(min_length=1, max_length=200)]


class AlertsQuery(PageQuery, kw_only=True):
    """Which alerts are listed."""

    state: Annotated[
        AlertState | None,
        Meta(description="pending, firing or resolved; without it, firing and resolved ones"),
    ] = None


class NewSilence(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Of what nobody is to be told, and for how long."""

    rule: Annotated[Text | None, Meta(description="a rule's id; without it, of no alert at all")] = None
    group: Annotated[Text | None, Meta(description="one group of the rule's metric only, such as a lane")] = (
        None
    )
    seconds: Annotated[
        Annotated[float, Meta(gt=0, le=_WEEK)], Meta(description="for how many seconds, at most a week")
    ] = 3_600.0
    reason: Annotated[Text | None, Meta(description="a sentence of at most 200 characters, or null")] = None


class RuleBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All of a rule; what is left out is as the rule is now, or has its default."""

    summary: Annotated[
        Text | None, Meta(description="one sentence in which {group} and {value} are filled in")
    ] = None
    metric: Annotated[Text | None, Meta(description=f"one of {', '.join(METRICS)}")] = None
    above: Annotated[bool | None, Meta(description="whether more than the threshold is bad, or less")] = None
    threshold: Annotated[float | None, Meta(description="a number")] = None
    clear: Annotated[
        float | None, Meta(description="a number on the good side of the threshold: where the alert may end")
    ] = None
    for_seconds: Annotated[Seconds | None, Meta(description="0 to 86400 seconds")] = None
    clear_seconds: Annotated[Seconds | None, Meta(description="0 to 86400 seconds")] = None
    severity: Annotated[Severity | None, Meta(description="info, warning or critical")] = None
    enabled: Annotated[bool | None, Meta(description="true or false")] = None


class NewChannel(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A way to a person. The address is a secret: it is sealed, and never shown again."""

    name: Annotated[Text, Meta(description="a name of 1 to 200 characters")]
    kind: Annotated[ChannelKind, Meta(description="slack, webhook or apprise")]
    address: Annotated[
        Annotated[str, Meta(min_length=1, max_length=2_000)],
        Meta(description="a URL: of an incoming webhook, or as apprise knows them"),
    ]
    after: Annotated[
        Seconds, Meta(description="seconds without acknowledgement after which it is told, 0 to 86400")
    ] = 0.0
    severities: Annotated[
        tuple[Severity, ...], Meta(description="of which alerts it is told: info, warning, critical")
    ] = SEVERITIES
    quiet: Annotated[
        QuietHours | None,
        Meta(
            description="{start, end, timezone}: local times, such as 22:00, between which only critical is told"
        ),
    ] = None


class ChannelWithSecret(Channel, frozen=True, kw_only=True):
    """A new channel; `secret` verifies the signatures of a `webhook` channel, and is shown in this answer only."""

    secret: str | None = None


# ── alerts ──────────────────────────────────────────────────────────────────────────────────────────────────


@get("/v1/alerts")
async def list_alerts(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """Alerts, newest first."""
    require(key, Action.SEE_SERVICE)
    query = read_query(request, AlertsQuery)
    found = await services.store(
        services.storage.alerts.list_alerts, state=query.state, limit=query.limit + 1, cursor=query.cursor
    )
    return json_answer(page(found, query.limit))


@get("/v1/alerts/{alert_id:str}")
async def get_alert(alert_id: str, key: Key, services: ApiServices) -> Response[bytes]:
    """One alert."""
    require(key, Action.SEE_SERVICE)
    return json_answer(await services.store(services.storage.alerts.get, path_id(alert_id, "alert")))


@post("/v1/alerts/{alert_id:str}/acknowledge")
async def acknowledge_alert(
    alert_id: str, request: ApiRequest, key: Key, services: ApiServices
) -> Response[bytes]:
    """Take care of an alert: nobody else is told of it. What is acknowledged or over stays as it is."""
    require(key, Action.TUNE)
    known = path_id(alert_id, "alert")
    await read_body(request, Nothing)
    now = clock.to_datetime(clock.now())
    alert = await services.store(services.storage.alerts.acknowledge, known, by=key.name or key.id, now=now)
    return json_answer(alert)


# ── silences ────────────────────────────────────────────────────────────────────────────────────────────────


@get("/v1/alert-silences")
async def list_silences(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """The silences that last."""
    require(key, Action.SEE_SERVICE)
    query = read_query(request, PageQuery)
    found = await services.store(services.storage.alerts.silences, now=clock.now())
    later = [s for s in found if query.cursor is None or s.id > query.cursor]
    return json_answer(page(later, query.limit))


@post("/v1/alert-silences")
async def create_silence(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """Have nobody told of a rule's alerts for a while."""
    require(key, Action.TUNE)
    body = await read_body(request, NewSilence)
    if body.group is not None and body.rule is None:
        raise InvalidInput(
            "/rule: expected with a group", [("/rule", "expected a rule's id, as a group is given")]
        )
    now = clock.to_datetime(clock.now())
    silence = Silence(
        id=ids.silence(),
        rule=body.rule,
        group=body.group,
        until=now + timedelta(seconds=body.seconds),
        reason=body.reason,
        created_by=key.name or key.id,
        created_at=now,
    )
    await services.store(services.storage.alerts.add_silence, silence)
    return json_answer(silence, 201)


@delete("/v1/alert-silences/{silence_id:str}")
async def delete_silence(silence_id: str, key: Key, services: ApiServices) -> Response[None]:
    """End a silence."""
    require(key, Action.TUNE)
    await services.store(services.storage.alerts.delete_silence, path_id(silence_id, "silence"))
    return empty_answer()


# ── rules ───────────────────────────────────────────────────────────────────────────────────────────────────


@get("/v1/alert-rules")
async def list_rules(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """The rules in force."""
    require(key, Action.SEE_SERVICE)
    query = read_query(request, PageQuery)
    found = sorted(await services.store(rules_of, services.storage), key=lambda rule: rule.id)
    later = [rule for rule in found if query.cursor is None or rule.id > query.cursor]
    return json_answer(page(later, query.limit))


@put("/v1/alert-rules/{rule_id:str}")
async def put_rule(rule_id: str, request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """Change a rule, or add one."""
    require(key, Action.TUNE)
    known = path_id(rule_id, "rule")
    body = await read_body(request, RuleBody, _rule_problems)
    before = {rule.id: rule for rule in await services.store(rules_of, services.storage)}.get(known)
    rule = _rule(known, before, body)
    await services.store(services.storage.alerts.put_rule, rule, now=clock.now())
    return json_answer(rule)


@delete("/v1/alert-rules/{rule_id:str}")
async def reset_rule(rule_id: str, key: Key, services: ApiServices) -> Response[None]:
    """Forget what was changed of a rule; one that was added is gone."""
    require(key, Action.TUNE)
    known = path_id(rule_id, "rule")
    changed = await services.store(services.storage.alerts.reset_rule, known)
    if not changed and known not in {rule.id for rule in DEFAULT_RULES}:
        raise NotFound(f"there is no rule {known!r}")
    return empty_answer()


def _rule_problems(fields: Fields) -> Iterator[tuple[str, str]]:
    metric = fields.get("metric")
    if metric is not None and metric not in METRICS:
        yield "/metric", f"expected one of {', '.join(METRICS)}"


def _rule(rule_id: str, before: Rule | None, body: RuleBody) -> Rule:
    given = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not None}
    if before is not None:
        rule = msgspec.structs.replace(before, **given)
    else:
        missing = [name for name in ("summary", "metric", "threshold") if name not in given]
        if missing:
            problems = [(f"/{name}", "expected, as there is no rule of this name yet") for name in missing]
            raise InvalidInput(f"{problems[0][0]}: {problems[0][1]}", problems)
        rule = Rule(id=rule_id, **{"clear": given["threshold"], **given})
    good = rule.clear <= rule.threshold if rule.above else rule.clear >= rule.threshold
    if not good:
        side = "at most" if rule.above else "at least"
        raise InvalidInput(
            "/clear: expected on the good side",
            [("/clear", f"expected {side} the threshold, {rule.threshold:g}")],
        )
    return rule


# ── channels ────────────────────────────────────────────────────────────────────────────────────────────────


@get("/v1/alert-channels")
async def list_channels(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """The channels, without their addresses."""
    require(key, Action.SEE_SERVICE)
    query = read_query(request, PageQuery)
    found = await services.store(services.storage.alerts.channels)
    later = [channel for channel in found if query.cursor is None or channel.id > query.cursor]
    return json_answer(page(later, query.limit))


@post("/v1/alert-channels")
async def create_channel(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """Add a channel."""
    require(key, Action.TUNE)
    body = await read_body(request, NewChannel, _channel_problems)
    await services.store(channels.check_address, body.kind, body.address)
    book = services.storage.alerts
    if len(await services.store(book.channels)) >= MAX_CHANNELS:
        raise Conflict(f"there are {MAX_CHANNELS} channels already; delete one first")
    channel = Channel(
        id=ids.channel(),
        name=body.name,
        kind=body.kind,
        after=body.after,
        severities=body.severities,
        quiet=body.quiet,
        created_at=clock.to_datetime(clock.now()),
    )
    address, secret = body.address, None
    if body.kind == "webhook":
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        address = msgspec.json.encode(SignedAddress(address, secret)).decode()
    await services.store(book.add_channel, channel, address)
    return json_answer(ChannelWithSecret(**msgspec.structs.asdict(channel), secret=secret), 201)


@delete("/v1/alert-channels/{channel_id:str}")
async def delete_channel(channel_id: str, key: Key, services: ApiServices) -> Response[None]:
    """Forget a channel."""
    require(key, Action.TUNE)
    await services.store(services.storage.alerts.delete_channel, path_id(channel_id, "channel"))
    return empty_answer()


@post("/v1/alert-channels/{channel_id:str}/test")
async def test_channel(
    channel_id: str, request: ApiRequest, key: Key, services: ApiServices
) -> Response[bytes]:
    """Send a message over the channel now; 409 when it does not take it."""
    require(key, Action.TUNE)
    known = path_id(channel_id, "channel")
    await read_body(request, Nothing)
    book = services.storage.alerts
    channel = next((c for c in await services.store(book.channels) if c.id == known), None)
    if channel is None:
        raise NotFound(f"there is no channel {known!r}")
    address = await services.store(book.address, known)
    message = trial(clock.to_datetime(clock.now()))
    try:
        await services.trials(sending.send, channel, address, message)
    except ChannelFailed as error:
        raise Conflict(f"the channel did not take the message: {error}") from None
    return json_answer(message)


def _channel_problems(fields: Fields) -> Iterator[tuple[str, str]]:
    quiet, address, kind = fields.get("quiet"), fields.get("address"), fields.get("kind")
    if isinstance(quiet, QuietHours) and quiet.timezone not in available_timezones():
        yield "/quiet/timezone", "expected a time zone of the IANA database, such as Europe/Berlin"
    if isinstance(address, str) and kind in ("slack", "webhook"):
        try:
            httpx.URL(address)
        except httpx.InvalidURL as error:
            yield "/address", f"expected a URL: {error}"
