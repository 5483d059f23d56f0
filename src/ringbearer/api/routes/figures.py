"""What was measured, and the service levels that it is held against."""

from ringbearer.api.figures import FiguresAnswer, FiguresQuery, SeasonQuery, WindowQuery
from ringbearer.api.levels import LevelsQuery, ObjectiveBody
from ringbearer.api.operation import OPERATORS, Operation, get
from ringbearer.api.reports import ReportQuery
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

_SLO = "/v1/slos/{kind}/{name}"

OPERATIONS: tuple[Operation, ...] = (
    get(
        "/v1/figures",
        "getFigures",
        "Figures",
        "Counts, rates and percentiles of each stage over a window, by group, from all processes. Percentiles are "
        "within 1 %. Suppliers and endpoints lag by up to a minute.",
        FiguresAnswer,
        query=FiguresQuery,
    ),
    get(
        "/v1/figures/queue",
        "getQueueTimes",
        "Figures",
        "How the queue is worked off: waiting, in flight, waits by lane, and how long the store takes.",
        ProcessingTimeMetrics,
        keys=OPERATORS,
        query=WindowQuery,
    ),
    get(
        "/v1/figures/throughput",
        "getThroughput",
        "Figures",
        "Events accepted, attempts made and deliveries done, a second and by the minute.",
        ThroughputMetrics,
        keys=OPERATORS,
        query=WindowQuery,
    ),
    get(
        "/v1/figures/errors",
        "getErrors",
        "Figures",
        "What failed: by whose fault, by lane, by code, and the endpoints where most did.",
        ErrorRates,
        keys=OPERATORS,
        query=WindowQuery,
    ),
    get(
        "/v1/figures/patterns",
        "getPatterns",
        "Figures",
        "What is usual for each hour of the week and day of the year, peak days apart, and which hours stand out.",
        SeasonalPatterns,
        keys=OPERATORS,
        query=SeasonQuery,
    ),
    get(
        "/v1/figures/overview",
        "getOverview",
        "Figures",
        "All that a person looks at first: rates, lanes, errors, service levels, alerts, processes, breakers.",
        Dashboard,
        keys=OPERATORS,
        query=WindowQuery,
    ),
    get(
        "/v1/slos",
        "getServiceLevels",
        "Figures",
        "How service levels were kept over a window, what is left of each error budget, and how fast it burns.",
        SlaCompliance,
        keys=OPERATORS,
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
    get(
        "/v1/reports/{month}",
        "getReport",
        "Figures",
        "The report of a month (2027-06, in UTC), of all suppliers or of one. `ringbearer report` renders it.",
        Report,
        query=ReportQuery,
        problems=(404,),
    ),
)
