"""Alerts, their rules and silences, and who is told."""

from ringbearer.api.alerts import AlertsQuery, ChannelWithSecret, NewChannel, NewSilence, RuleBody
from ringbearer.api.answers import Page
from ringbearer.api.operation import OPERATORS, Operation, get
from ringbearer.api.reading import PageQuery
from ringbearer.domain.alerts import Alert, Channel, Rule, Silence
from ringbearer.monitor.channels import Message


class AlertPage(Page[Alert]):
    """A part of the list of alerts."""


class SilencePage(Page[Silence]):
    """A part of the list of silences."""


class RulePage(Page[Rule]):
    """A part of the list of alert rules."""


class ChannelPage(Page[Channel]):
    """A part of the list of channels."""


_ALERT = "/v1/alerts/{alert_id}"
_SILENCES = "/v1/alert-silences"
_RULES = "/v1/alert-rules"
_CHANNELS = "/v1/alert-channels"

OPERATIONS: tuple[Operation, ...] = (
    get(
        "/v1/alerts",
        "listAlerts",
        "Alerts",
        "List alerts, newest first.",
        AlertPage,
        keys=OPERATORS,
        query=AlertsQuery,
    ),
    get(_ALERT, "getAlert", "Alerts", "See an alert.", Alert, keys=OPERATORS, problems=(404,)),
    Operation(
        "POST",
        _ALERT + "/acknowledge",
        "acknowledgeAlert",
        "Alerts",
        "Take care of an alert: nobody else is told of it.",
        {200: Alert},
        keys="admin",
        problems=(404,),
    ),
    get(
        _SILENCES,
        "listSilences",
        "Alerts",
        "List the silences that last.",
        SilencePage,
        keys=OPERATORS,
        query=PageQuery,
    ),
    Operation(
        "POST",
        _SILENCES,
        "createSilence",
        "Alerts",
        "Have nobody told of a rule's alerts for a while; they begin and end all the same.",
        {201: Silence},
        keys="admin",
        body=NewSilence,
        body_required=False,
    ),
    Operation(
        "DELETE",
        _SILENCES + "/{silence_id}",
        "deleteSilence",
        "Alerts",
        "End a silence.",
        {204: None},
        keys="admin",
        problems=(404,),
    ),
    get(
        _RULES,
        "listAlertRules",
        "Alerts",
        "List the rules in force, by id.",
        RulePage,
        keys=OPERATORS,
        query=PageQuery,
    ),
    Operation(
        "PUT",
        _RULES + "/{rule_id}",
        "putAlertRule",
        "Alerts",
        "Change a rule, or add one with summary, metric and threshold. Followed within two seconds.",
        {200: Rule},
        keys="admin",
        body=RuleBody,
        problems=(404,),
    ),
    Operation(
        "DELETE",
        _RULES + "/{rule_id}",
        "resetAlertRule",
        "Alerts",
        "Forget what was changed of a rule; one that was added is gone.",
        {204: None},
        keys="admin",
        problems=(404,),
    ),
    get(
        _CHANNELS,
        "listAlertChannels",
        "Alerts",
        "List the channels over which people are told, oldest first. Addresses are never shown.",
        ChannelPage,
        keys=OPERATORS,
        query=PageQuery,
    ),
    Operation(
        "POST",
        _CHANNELS,
        "createAlertChannel",
        "Alerts",
        "Add a channel. Its `after` is its place in the ladder: told of what nobody acknowledged for so long.",
        {201: ChannelWithSecret},
        keys="admin",
        body=NewChannel,
        problems=(409,),
    ),
    Operation(
        "DELETE",
        _CHANNELS + "/{channel_id}",
        "deleteAlertChannel",
        "Alerts",
        "Forget a channel.",
        {204: None},
        keys="admin",
        problems=(404,),
    ),
    Operation(
        "POST",
        _CHANNELS + "/{channel_id}/test",
        "testAlertChannel",
        "Alerts",
        "Send a message over the channel now; 409 when it does not take it.",
        {200: Message},
        keys="admin",
        problems=(404, 409),
    ),
)
