"""What the queue follows: its plan, the rules of priority, the season and the calendar."""

from ringbearer.api.operation import OPERATORS, Operation, get
from ringbearer.api.order import Peaks, PeaksQuery, Priorities, Rehearsal, RehearsalQuery, SeasonAnswer
from ringbearer.queue.plan import QueuePlan
from ringbearer.queue.results import QueuePerformance
from ringbearer.rules import PriorityConfiguration
from ringbearer.season import SeasonScalingConfig

OPERATIONS: tuple[Operation, ...] = (
    get(
        "/v1/queue",
        "getQueue",
        "Order",
        "See how the lanes stand, what the queue follows, and what limits it.",
        QueuePerformance,
        keys=OPERATORS,
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
    get(
        "/v1/priorities",
        "getPriorities",
        "Order",
        "See the rules that choose lanes, and the weights of tiers.",
        Priorities,
        keys=OPERATORS,
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
    get(
        "/v1/season",
        "getSeason",
        "Order",
        "See the season's plan and what it asks for now.",
        SeasonAnswer,
        keys=OPERATORS,
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
    get(
        "/v1/season/rehearsal",
        "rehearseSeason",
        "Order",
        "See hour by hour what the season's plan would ask for on a day; nothing is done.",
        Rehearsal,
        keys=OPERATORS,
        query=RehearsalQuery,
    ),
    get(
        "/v1/calendar",
        "getCalendar",
        "Order",
        "See the coming peak days of a time zone.",
        Peaks,
        keys=OPERATORS,
        query=PeaksQuery,
    ),
)
