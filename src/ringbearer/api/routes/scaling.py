"""How many workers there shall be, and why."""

from ringbearer.api.answers import Page
from ringbearer.api.operation import Operation, get
from ringbearer.api.reading import PageQuery
from ringbearer.api.scaling import ForecastQuery, Scaling, ScalingChange, ScalingReportQuery, Slas
from ringbearer.domain.relief import SLAConfiguration
from ringbearer.domain.scaling import Decision
from ringbearer.scaling.results import PerformanceReport, ResourceMetrics, ScalingPrediction


class DecisionPage(Page[Decision]):
    """A part of the record of decisions on the number of workers."""


OPERATIONS: tuple[Operation, ...] = (
    get(
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
    get(
        "/v1/scaling/decisions",
        "listScalingDecisions",
        "Scaling",
        "List what was decided and changed, by whom and why, newest first.",
        DecisionPage,
        query=PageQuery,
        keys="admin, read or scaling",
    ),
    get(
        "/v1/scaling/resources",
        "getResources",
        "Scaling",
        "See what every process takes, one by one and together, and how much room there is.",
        ResourceMetrics,
        keys="admin, read or scaling",
    ),
    get(
        "/v1/scaling/report",
        "getScalingReport",
        "Scaling",
        "See how the number of workers moved and why, and how connections and processes are now.",
        PerformanceReport,
        query=ScalingReportQuery,
        keys="admin, read or scaling",
    ),
    get(
        "/v1/forecast",
        "getForecast",
        "Scaling",
        "See the deliveries that are expected, hour by hour, and how far the forecast could be trusted lately.",
        ScalingPrediction,
        query=ForecastQuery,
        keys="admin, read or scaling",
    ),
    get(
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
