"""The workers that run, and the cache of endpoints."""

from ringbearer.api.answers import Page
from ringbearer.api.cache import CacheAnswer, Warming
from ringbearer.api.operation import OPERATORS, Operation, get
from ringbearer.api.reading import Nothing, PageQuery
from ringbearer.api.workers import NewCommand, Worker
from ringbearer.cache.results import CacheOptimizationResult, WarmingResult
from ringbearer.domain.commands import CommandState


class WorkerPage(Page[Worker]):
    """A part of the list of workers that run."""


class CommandPage(Page[CommandState]):
    """A part of the list of commands."""


OPERATIONS: tuple[Operation, ...] = (
    get(
        "/v1/workers",
        "listWorkers",
        "Workers",
        "List the workers that run, the oldest first, with how much each does at a time.",
        WorkerPage,
        keys=OPERATORS,
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
    get(
        "/v1/workers/commands",
        "listCommands",
        "Workers",
        "List what workers were asked for, by which key, and what each answered; the latest first.",
        CommandPage,
        keys=OPERATORS,
        query=PageQuery,
    ),
    get(
        "/v1/workers/commands/{command_id}",
        "getCommand",
        "Workers",
        "See a command with the answers so far.",
        CommandState,
        keys=OPERATORS,
        problems=(404,),
    ),
    get(
        "/v1/cache",
        "getCache",
        "Cache",
        "See how the cache of endpoints does in the process that answers, and in short in all others.",
        CacheAnswer,
        keys=OPERATORS,
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
)
