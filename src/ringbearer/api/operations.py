"""Every route, as data: what the OpenAPI document, the pages and the 405 answers are made of."""

import re
from dataclasses import KW_ONLY, dataclass, field

import msgspec

from ringbearer.api.alerts import AlertsQuery, ChannelWithSecret, NewChannel, NewSilence, RuleBody
from ringbearer.api.answers import Page
from ringbearer.api.breakers import Breaker, BreakerChange
from ringbearer.api.cache import CacheAnswer, Warming
from ringbearer.api.deliveries import (
    DeliveriesQuery,
    ReplayBody,
    ReplayProgress,
    ReplayStarted,
)
from ringbearer.api.endpoint_forms import EndpointChange, NewEndpoint
from ringbearer.api.endpoints import EndpointWithSecret, NewSecret, PreviewBody, Rotation
from ringbearer.api.events import EventDetail
from ringbearer.api.figures import FiguresAnswer, FiguresQuery, SeasonQuery, WindowQuery
from ringbearer.api.ingest import BatchAnswer
from ringbearer.api.keys import KeyWithText, NewKey
from ringbearer.api.levels import LevelsQuery, ObjectiveBody
from ringbearer.api.order import Peaks, PeaksQuery, Priorities, Rehearsal, RehearsalQuery, SeasonAnswer
from ringbearer.api.reading import Nothing, PageQuery
from ringbearer.api.reports import ReportQuery
from ringbearer.api.scaling import ForecastQuery, Scaling, ScalingChange, ScalingReportQuery, Slas
from ringbearer.api.shapes import ShapeBody, ShapesQuery
from ringbearer.api.suppliers import SupplierBody
from ringbearer.api.workers import NewCommand, Worker
from ringbearer.cache.results import CacheOptimizationResult, WarmingResult
from ringbearer.cache.shelf import DeliveryMetrics
from ringbearer.delivery.sample import Preview
from ringbearer.domain.alerts import Alert, Channel, Rule, Silence
from ringbearer.domain.commands import CommandState
from ringbearer.domain.deliveries import Attempt, Delivery, DeliveryDetail
from ringbearer.domain.endpoints import Endpoint
from ringbearer.domain.events import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, MAX_DATA_BYTES, NewEvent
from ringbearer.domain.keys import Key
from ringbearer.domain.relief import SLAConfiguration
from ringbearer.domain.scaling import Decision
from ringbearer.domain.suppliers import Supplier
from ringbearer.monitor.channels import Message
from ringbearer.monitor.report import Report
from ringbearer.monitor.results import (
    Dashboard,
    ErrorRates,
    ProcessingTimeMetrics,
    SlaCompliance,
    ThroughputMetrics,
)
from ringbearer.monitor.seasonal import SeasonalPatterns
from ringbearer.monitor.slo import Objective
from ringbearer.queue.plan import QueuePlan
from ringbearer.queue.results import QueuePerformance
from ringbearer.rules import PriorityConfiguration
from ringbearer.scaling.results import PerformanceReport, ResourceMetrics, ScalingPrediction
from ringbearer.season import SeasonScalingConfig
from ringbearer.storage.shapes import Shape

EVERYBODY = ""
"""For routes that ask for no key."""
_READERS = "admin, read, or the supplier's own"
_OPERATORS = "admin or read"
_OWNERS = "admin, or the supplier's own"
_MIB = 1024 * 1024


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """An event that is on the disk. `duplicate`: its idempotency key stood for it already."""

    id: str
    deliveries: int
    duplicate: bool


class SupplierPage(Page[Supplier]):
    """A part of the list of suppliers."""


class EndpointPage(Page[Endpoint]):
    """A part of the list of a supplier's endpoints."""


class BreakerPage(Page[Breaker]):
    """A part of the list of circuits that are not closed."""


class ShapePage(Page[Shape]):
    """A part of the list of shapes."""


class DeliveryPage(Page[Delivery]):
    """A part of the list of deliveries."""


class KeyPage(Page[Key]):
    """A part of the list of API keys."""


class DecisionPage(Page[Decision]):
    """A part of the record of decisions on the number of workers."""


class WorkerPage(Page[Worker]):
    """A part of the list of workers that run."""


class CommandPage(Page[CommandState]):
    """A part of the list of commands."""


class AlertPage(Page[Alert]):
    """A part of the list of alerts."""


class SilencePage(Page[Silence]):
    """A part of the list of silences."""


class RulePage(Page[Rule]):
    """A part of the list of alert rules."""


class ChannelPage(Page[Channel]):
    """A part of the list of channels."""


@dataclass(frozen=True)
class Operation:
    """One method of one path. `answers` gives a type, a media type or None for nothing, by status."""

    method: str
    path: str
    name: str
    """Unique, and stable: generated clients make their function names of it."""
    tag: str
    summary: str
    answers: dict[int, object]
    _: KW_ONLY
    keys: str
    """The scopes that may do this."""
    problems: tuple[int, ...] = ()
    """Statuses of problems that this operation has besides those that all of its kind have."""
    query: type[msgspec.Struct] | None = None
    body: object = None
    """The type of the JSON body."""
    lines: object = None
    """The type of each line, where the body may also be application/x-ndjson."""
    body_required: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    """Request headers with what they are for."""


def _get(
    path: str,
    name: str,
    tag: str,
    summary: str,
    answer: object,
    *,
    keys: str = _READERS,
    query: type[msgspec.Struct] | None = None,
    problems: tuple[int, ...] = (),
) -> Operation:
    return Operation(
        "GET", path, name, tag, summary, {200: answer}, keys=keys, query=query, problems=problems
    )


_SUPPLIERS = "/v1/suppliers"
_SUPPLIER = _SUPPLIERS + "/{supplier_id}"
_ENDPOINTS = _SUPPLIER + "/endpoints"
_ENDPOINT = _ENDPOINTS + "/{endpoint_id}"
_SHAPE = "/v1/event-types/{event_type}/versions/{version}"
_ALERT = "/v1/alerts/{alert_id}"
_SILENCES = "/v1/alert-silences"
_RULES = "/v1/alert-rules"
_SLO = "/v1/slos/{kind}/{name}"
_CHANNELS = "/v1/alert-channels"
_CHANGE = (404, 429)
_PLAIN = "text/plain"
_JSON = "application/json"

INGEST: tuple[Operation, ...] = (
    Operation(
        "POST",
        "/v1/events",
        "publishEvent",
        "Events",
        f"Publish an event; the data may have {MAX_DATA_BYTES // 1024} KiB. 202 means: it is on the disk.",
        {202: Accepted},
        keys="admin or publish",
        body=NewEvent,
        headers={"Idempotency-Key": "Same as `idempotency_key` in the body."},
        problems=(404, 409, 429),
    ),
    Operation(
        "POST",
        "/v1/events/batch",
        "publishBatch",
        "Events",
        f"Publish at most {MAX_BATCH_EVENTS:,} events in at most {MAX_BATCH_BYTES // _MIB} MiB; "
        "each is taken or rejected on its own.",
        {202: BatchAnswer},
        keys="admin or publish",
        body=list[NewEvent],
        lines=NewEvent,
        problems=(429,),
    ),
)
SERVICE: tuple[Operation, ...] = (
    _get("/health/live", "live", "Service", "Whether the process answers.", _JSON, keys=EVERYBODY),
    Operation(
        "GET",
        "/health/ready",
        "ready",
        "Service",
        "Whether it can do its work; 503 names the part that fails.",
        {200: _JSON, 503: _JSON},
        keys=EVERYBODY,
    ),
    _get("/metrics", "metrics", "Service", "Figures in Prometheus' text format.", _PLAIN, keys=EVERYBODY),
)
DESCRIPTION: tuple[Operation, ...] = (
    _get("/openapi.json", "openapi", "Service", "This document.", _JSON, keys=EVERYBODY),
    _get("/docs", "docs", "Service", "This document for people.", "text/html", keys=EVERYBODY),
)
MANAGEMENT: tuple[Operation, ...] = (
    Operation(
        "PUT",
        _SUPPLIER,
        "putSupplier",
        "Suppliers",
        "Create a supplier (201) or replace it (200). The id has 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'.",
        {201: Supplier, 200: Supplier},
        keys="admin",
        body=SupplierBody,
        body_required=False,
    ),
    _get(_SUPPLIERS, "listSuppliers", "Suppliers", "List suppliers by id.", SupplierPage, query=PageQuery),
    _get(_SUPPLIER, "getSupplier", "Suppliers", "See a supplier.", Supplier, problems=(404,)),
    Operation(
        "DELETE",
        _SUPPLIER,
        "deleteSupplier",
        "Suppliers",
        "Delete a supplier with its endpoints and its keys; unfinished deliveries are cancelled.",
        {204: None},
        keys="admin",
        problems=(404,),
    ),
    Operation(
        "POST",
        _ENDPOINTS,
        "createEndpoint",
        "Endpoints",
        "Create an endpoint. The secret is shown in this answer and by rotate-secret only.",
        {201: EndpointWithSecret},
        keys=_OWNERS,
        body=NewEndpoint,
        problems=(404, 409),
    ),
    _get(
        _ENDPOINTS,
        "listEndpoints",
        "Endpoints",
        "List a supplier's endpoints, oldest first. Keys with the scope read see header values masked.",
        EndpointPage,
        query=PageQuery,
        problems=(404,),
    ),
    _get(
        _ENDPOINT,
        "getEndpoint",
        "Endpoints",
        "See an endpoint. Keys with the scope read see header values masked.",
        Endpoint,
        problems=(404,),
    ),
    Operation(
        "PATCH",
        _ENDPOINT,
        "changeEndpoint",
        "Endpoints",
        "Change what the body names; null clears what may be null.",
        {200: Endpoint},
        keys=_OWNERS,
        body=EndpointChange,
        problems=_CHANGE,
    ),
    Operation(
        "DELETE",
        _ENDPOINT,
        "deleteEndpoint",
        "Endpoints",
        "Delete an endpoint; its unfinished deliveries are cancelled.",
        {204: None},
        keys=_OWNERS,
        problems=_CHANGE,
    ),
    Operation(
        "POST",
        _ENDPOINT + "/rotate-secret",
        "rotateSecret",
        "Endpoints",
        "Make a new secret; the ones before it sign too until the grace ends.",
        {200: NewSecret},
        keys=_OWNERS,
        body=Rotation,
        body_required=False,
        problems=(409, *_CHANGE),
    ),
    Operation(
        "POST",
        _ENDPOINT + "/test",
        "testEndpoint",
        "Endpoints",
        "Send one signed sample event now, also to a disabled endpoint.",
        {200: Attempt},
        keys=_OWNERS,
        problems=_CHANGE,
    ),
    Operation(
        "POST",
        _ENDPOINT + "/preview",
        "previewEndpoint",
        "Endpoints",
        "Show the request that an event would make, signed and in the endpoint's form; nothing is sent.",
        {200: Preview},
        keys=_OWNERS,
        body=PreviewBody,
        body_required=False,
        problems=(404, 409),
    ),
    Operation(
        "POST",
        _ENDPOINT + "/enable",
        "enableEndpoint",
        "Endpoints",
        "Send again; held deliveries are released.",
        {200: Endpoint},
        keys=_OWNERS,
        problems=_CHANGE,
    ),
    Operation(
        "POST",
        _ENDPOINT + "/disable",
        "disableEndpoint",
        "Endpoints",
        "Send nothing more; deliveries are held until the endpoint is enabled.",
        {200: Endpoint},
        keys=_OWNERS,
        problems=_CHANGE,
    ),
    _get(
        _ENDPOINT + "/breaker",
        "getBreaker",
        "Endpoints",
        "See where an endpoint's circuit breaker stands.",
        Breaker,
        problems=(404,),
    ),
    Operation(
        "POST",
        _ENDPOINT + "/breaker",
        "setBreaker",
        "Endpoints",
        "Keep an endpoint's circuit open or closed, or let it find out for itself again.",
        {200: Breaker},
        keys="admin",
        body=BreakerChange,
        problems=_CHANGE,
    ),
    _get(
        "/v1/breakers",
        "listBreakers",
        "Endpoints",
        "List the circuits that are not closed.",
        BreakerPage,
        query=PageQuery,
    ),
    Operation(
        "PUT",
        _SHAPE,
        "putShape",
        "Events",
        "Say how an event type's data looked in a version, for endpoints that pinned it; 201 when that is new.",
        {201: Shape, 200: Shape},
        keys="admin",
        body=ShapeBody,
        problems=(409,),
    ),
    _get(
        "/v1/event-types/versions",
        "listShapes",
        "Events",
        "List the shapes of all versions, by event type.",
        ShapePage,
        query=ShapesQuery,
    ),
    Operation(
        "DELETE",
        _SHAPE,
        "deleteShape",
        "Events",
        "Forget a version's shape: events of that type go as they are published.",
        {204: None},
        keys="admin",
        problems=(404,),
    ),
    _get(
        "/v1/events/{event_id}",
        "getEvent",
        "Events",
        "See an event, with its deliveries' states.",
        EventDetail,
        problems=(404,),
    ),
    _get(
        "/v1/deliveries",
        "listDeliveries",
        "Deliveries",
        "List deliveries, newest first.",
        DeliveryPage,
        query=DeliveriesQuery,
        problems=(404,),
    ),
    _get(
        "/v1/deliveries/{delivery_id}",
        "getDelivery",
        "Deliveries",
        "See a delivery with its attempts.",
        DeliveryDetail,
        problems=(404,),
    ),
    Operation(
        "POST",
        "/v1/deliveries/{delivery_id}/retry",
        "retryDelivery",
        "Deliveries",
        "Make a delivery due now; 409 when it is held or cancelled.",
        {202: DeliveryDetail},
        keys=_OWNERS,
        problems=(404, 409),
    ),
    Operation(
        "POST",
        "/v1/deliveries/replay",
        "startReplay",
        "Deliveries",
        "Send many deliveries again, paced so that live traffic goes first.",
        {202: ReplayStarted},
        keys=_OWNERS,
        body=ReplayBody,
        body_required=False,
        problems=(404,),
    ),
    _get(
        "/v1/deliveries/replay/{replay_id}",
        "getReplay",
        "Deliveries",
        "See how far a replay is.",
        ReplayProgress,
        problems=(404,),
    ),
    _get(
        "/v1/figures",
        "getFigures",
        "Figures",
        "Counts, rates and percentiles of each stage over a window, by group, from all processes. Percentiles are "
        "within 1 %. Suppliers and endpoints lag by up to a minute.",
        FiguresAnswer,
        query=FiguresQuery,
    ),
    _get(
        "/v1/figures/queue",
        "getQueueTimes",
        "Figures",
        "How the queue is worked off: waiting, in flight, waits by lane, and how long the store takes.",
        ProcessingTimeMetrics,
        keys=_OPERATORS,
        query=WindowQuery,
    ),
    _get(
        "/v1/figures/throughput",
        "getThroughput",
        "Figures",
        "Events accepted, attempts made and deliveries done, a second and by the minute.",
        ThroughputMetrics,
        keys=_OPERATORS,
        query=WindowQuery,
    ),
    _get(
        "/v1/figures/errors",
        "getErrors",
        "Figures",
        "What failed: by whose fault, by lane, by code, and the endpoints where most did.",
        ErrorRates,
        keys=_OPERATORS,
        query=WindowQuery,
    ),
    _get(
        _ENDPOINT + "/health",
        "getEndpointHealth",
        "Endpoints",
        "See how deliveries to an endpoint went in the last hour; figures may be a minute and 15 s old.",
        DeliveryMetrics,
        problems=(404,),
    ),
    _get(
        "/v1/cache",
        "getCache",
        "Cache",
        "See how the cache of endpoints does in the process that answers, and in short in all others.",
        CacheAnswer,
        keys=_OPERATORS,
    ),
    Operation(
        "POST",
        "/v1/cache/optimize",
        "optimizeCache",
        "Cache",
        "Set the cache's size by the miss-ratio curve of live traffic, now instead of within a minute.",
        {200: CacheOptimizationResult},
        keys="admin",
        body=Nothing,
        body_required=False,
    ),
    Operation(
        "POST",
        "/v1/cache/warm",
        "warmCache",
        "Cache",
        "Bring suppliers into memory ahead of whoever asks.",
        {200: WarmingResult},
        keys="admin",
        body=Warming,
        body_required=False,
    ),
    _get(
        "/v1/workers",
        "listWorkers",
        "Workers",
        "List the workers that run, the oldest first, with how much each does at a time.",
        WorkerPage,
        keys=_OPERATORS,
        query=PageQuery,
    ),
    Operation(
        "POST",
        "/v1/workers/commands",
        "commandWorkers",
        "Workers",
        "Have workers change how much they do at a time, tune or profile themselves. Each follows within a second.",
        {202: CommandState},
        keys="admin",
        body=NewCommand,
        problems=(404, 409),
    ),
    _get(
        "/v1/workers/commands",
        "listCommands",
        "Workers",
        "List what workers were asked for, by which key, and what each answered; the latest first.",
        CommandPage,
        keys=_OPERATORS,
        query=PageQuery,
    ),
    _get(
        "/v1/workers/commands/{command_id}",
        "getCommand",
        "Workers",
        "See a command with the answers so far.",
        CommandState,
        keys=_OPERATORS,
        problems=(404,),
    ),
    _get(
        "/v1/figures/patterns",
        "getPatterns",
        "Figures",
        "What is usual for each hour of the week and day of the year, peak days apart, and which hours stand out.",
        SeasonalPatterns,
        keys=_OPERATORS,
        query=SeasonQuery,
    ),
    _get(
        "/v1/figures/overview",
        "getOverview",
        "Figures",
        "All that a person looks at first: rates, lanes, errors, service levels, alerts, processes, breakers.",
        Dashboard,
        keys=_OPERATORS,
        query=WindowQuery,
    ),
    _get(
        "/v1/slos",
        "getServiceLevels",
        "Figures",
        "How service levels were kept over a window, what is left of each error budget, and how fast it burns.",
        SlaCompliance,
        keys=_OPERATORS,
        query=LevelsQuery,
    ),
    Operation(
        "PUT",
        _SLO,
        "putServiceLevel",
        "Figures",
        "Promise something else of a lane, a tier or all, or change a promise; `kind` is latency or success. "
        "What was promised before and by which key it was changed is in the log.",
        {200: Objective, 201: Objective},
        keys="admin",
        body=ObjectiveBody,
        problems=(404, 409),
    ),
    Operation(
        "DELETE",
        _SLO,
        "deleteServiceLevel",
        "Figures",
        "Promise this no longer. What was promised is in the log.",
        {204: None},
        keys="admin",
        problems=(404, 409),
    ),
    _get(
        "/v1/reports/{month}",
        "getReport",
        "Figures",
        "The report of a month (2027-06, in UTC), of all suppliers or of one. `ringbearer report` renders it.",
        Report,
        query=ReportQuery,
        problems=(404,),
    ),
    _get(
        "/v1/alerts",
        "listAlerts",
        "Alerts",
        "List alerts, newest first.",
        AlertPage,
        keys=_OPERATORS,
        query=AlertsQuery,
    ),
    _get(_ALERT, "getAlert", "Alerts", "See an alert.", Alert, keys=_OPERATORS, problems=(404,)),
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
    _get(
        _SILENCES,
        "listSilences",
        "Alerts",
        "List the silences that last.",
        SilencePage,
        keys=_OPERATORS,
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
    _get(
        _RULES,
        "listAlertRules",
        "Alerts",
        "List the rules in force, by id.",
        RulePage,
        keys=_OPERATORS,
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
    _get(
        _CHANNELS,
        "listAlertChannels",
        "Alerts",
        "List the channels over which people are told, oldest first. Addresses are never shown.",
        ChannelPage,
        keys=_OPERATORS,
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
    Operation(
        "POST",
        "/v1/keys",
        "createKey",
        "Keys",
        "Create an API key, which is shown in this answer only.",
        {201: KeyWithText},
        keys="admin",
        body=NewKey,
    ),
    _get(
        "/v1/keys",
        "listKeys",
        "Keys",
        "List API keys, oldest first.",
        KeyPage,
        query=PageQuery,
        keys="admin",
    ),
    Operation(
        "DELETE",
        "/v1/keys/{key_id}",
        "deleteKey",
        "Keys",
        "Delete an API key; it stops working within a second. The key in use cannot delete itself.",
        {204: None},
        keys="admin",
        problems=(404, 409),
    ),
    _get(
        "/v1/queue",
        "getQueue",
        "Order",
        "See how the lanes stand, what the queue follows, and what limits it.",
        QueuePerformance,
        keys=_OPERATORS,
    ),
    Operation(
        "PUT",
        "/v1/queue",
        "putQueue",
        "Order",
        "Replace the queue's plan: shares, sizes and thresholds. With `automatic` it is tuned further by itself.",
        {200: QueuePerformance},
        keys="admin",
        body=QueuePlan,
    ),
    _get(
        "/v1/priorities",
        "getPriorities",
        "Order",
        "See the rules that choose lanes, and the weights of tiers.",
        Priorities,
        keys=_OPERATORS,
    ),
    Operation(
        "PUT",
        "/v1/priorities",
        "putPriorities",
        "Order",
        "Replace the rules. They count for new events at once; what is queued is ranked anew within seconds.",
        {200: Priorities},
        keys="admin",
        body=PriorityConfiguration,
    ),
    _get(
        "/v1/season",
        "getSeason",
        "Order",
        "See the season's plan and what it asks for now.",
        SeasonAnswer,
        keys=_OPERATORS,
    ),
    Operation(
        "PUT",
        "/v1/season",
        "putSeason",
        "Order",
        "Replace the season's plan; every process follows it within a second.",
        {200: SeasonAnswer},
        keys="admin",
        body=SeasonScalingConfig,
    ),
    _get(
        "/v1/season/rehearsal",
        "rehearseSeason",
        "Order",
        "See hour by hour what the season's plan would ask for on a day; nothing is done.",
        Rehearsal,
        keys=_OPERATORS,
        query=RehearsalQuery,
    ),
    _get(
        "/v1/calendar",
        "getCalendar",
        "Order",
        "See the coming peak days of a time zone.",
        Peaks,
        keys=_OPERATORS,
        query=PeaksQuery,
    ),
    _get(
        "/v1/scaling",
        "getScaling",
        "Scaling",
        "See how many workers there shall be, and why; for KEDA's `metrics-api` trigger too.",
        Scaling,
        keys="admin, read or scaling",
    ),
    Operation(
        "PATCH",
        "/v1/scaling",
        "changeScaling",
        "Scaling",
        "Change how the number of workers is decided; the change is on record with its key.",
        {200: Scaling},
        keys="admin or scaling",
        body=ScalingChange,
        body_required=False,
    ),
    _get(
        "/v1/scaling/decisions",
        "listScalingDecisions",
        "Scaling",
        "List what was decided and changed, by whom and why, newest first.",
        DecisionPage,
        query=PageQuery,
        keys="admin, read or scaling",
    ),
    _get(
        "/v1/scaling/resources",
        "getResources",
        "Scaling",
        "See what every process takes, one by one and together, and how much room there is.",
        ResourceMetrics,
        keys="admin, read or scaling",
    ),
    _get(
        "/v1/scaling/report",
        "getScalingReport",
        "Scaling",
        "See how the number of workers moved and why, and how connections and processes are now.",
        PerformanceReport,
        query=ScalingReportQuery,
        keys="admin, read or scaling",
    ),
    _get(
        "/v1/forecast",
        "getForecast",
        "Scaling",
        "See the deliveries that are expected, hour by hour, and how far the forecast could be trusted lately.",
        ScalingPrediction,
        query=ForecastQuery,
        keys="admin, read or scaling",
    ),
    _get(
        "/v1/scaling/slas",
        "getSlas",
        "Scaling",
        "See the service levels to keep, and what is in force for them now.",
        Slas,
        keys="admin, read or scaling",
    ),
    Operation(
        "PUT",
        "/v1/scaling/slas",
        "setSlas",
        "Scaling",
        "Set the service levels; while one burns too fast, steps are taken in order, and undone when it recovers.",
        {200: Slas},
        keys="admin or scaling",
        body=SLAConfiguration,
        body_required=False,
    ),
)
ALL: tuple[Operation, ...] = (*INGEST, *MANAGEMENT, *SERVICE, *DESCRIPTION)


def allowed_methods(path: str) -> frozenset[str]:
    """The methods that the path takes; none when there is no such path."""
    if path in _EXACT:
        return _EXACT[path]
    return next((methods for pattern, methods in _PATTERNS if pattern.fullmatch(path)), frozenset())


def _methods(path: str) -> frozenset[str]:
    return frozenset(operation.method for operation in ALL if operation.path == path)


_EXACT = {o.path: _methods(o.path) for o in ALL if "{" not in o.path}
_PATTERNS = [
    (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), _methods(path))
    for path in {o.path: None for o in ALL if "{" in o.path}
]
