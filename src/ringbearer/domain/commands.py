"""Commands: what operators ask of workers that run, and what each of those answered."""

from typing import Annotated

import msgspec
from msgspec import Meta

from ringbearer.domain.scaling import MOST_WORKERS
from ringbearer.domain.times import Moment

PARALLELISM = "parallelism"
"""The name of the stored plan by which workers begin that start later."""


class _Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="what"):
    """The root of all commands; what is asked for stands in `what`."""


class ChangeParallelism(_Asked, tag="parallelism", frozen=True, kw_only=True):
    """Work with so much at a time; what is null stays as it is."""

    processes: Annotated[
        Annotated[int, Meta(ge=0, le=MOST_WORKERS)] | None,
        Meta(description="worker processes, from 0 to 1000; 0 lets the load decide"),
    ] = None
    couriers: Annotated[
        Annotated[int, Meta(ge=1, le=16)] | None, Meta(description="threads that send, from 1 to 16")
    ] = None
    slots: Annotated[
        Annotated[int, Meta(ge=1, le=20_000)] | None,
        Meta(description="deliveries in flight, from 1 to 20000"),
    ] = None
    batch: Annotated[
        Annotated[int, Meta(ge=1, le=20_000)] | None,
        Meta(description="deliveries claimed at a time, from 1 to 20000"),
    ] = None
    cpu_share: Annotated[
        Annotated[float, Meta(ge=0.05, le=1)] | None,
        Meta(description="the part of one core that each sending thread may use, from 0.05 to 1"),
    ] = None

    def after(self, earlier: "ChangeParallelism") -> "ChangeParallelism":
        """Both together: what this one leaves out is as it was asked for earlier."""
        asked = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(earlier, **asked)


class FindBatchSize(_Asked, tag="batch_size", frozen=True, kw_only=True):
    """Find the smallest claim that reaches so many deliveries a second, on live traffic."""

    target: Annotated[
        Annotated[float, Meta(gt=0, le=1e6)], Meta(description="deliveries a second, more than 0")
    ]


class OptimizeConnections(_Asked, tag="connections", frozen=True, kw_only=True):
    """Fit connections to the traffic, now instead of within a minute; with `ahead`, make ready for a peak."""

    ahead: Annotated[
        bool, Meta(description="also connect to those of the 200 endpoints sent to last that speak HTTP/2")
    ] = False


class OptimizeBackoff(_Asked, tag="backoff", frozen=True, kw_only=True):
    """Fit the first pause of circuits to how long endpoints are away, now instead of within a minute."""


class OptimizeMemory(_Asked, tag="memory", frozen=True, kw_only=True):
    """Let go of what is not in use."""


class ProfileCpu(_Asked, tag="profile", frozen=True, kw_only=True):
    """Watch for so many seconds what the sending thread does."""

    seconds: Annotated[Annotated[float, Meta(ge=0.1, le=30)], Meta(description="seconds, from 0.1 to 30")] = (
        2.0
    )


class OptimizeCache(_Asked, tag="cache", frozen=True, kw_only=True):
    """Fit the cache to the traffic that the worker sees, now instead of within a minute."""


class WatchBatch(_Asked, tag="batch", frozen=True, kw_only=True):
    """Watch the worker deliver until so many are settled, or the time is over."""

    size: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)], Meta(description="deliveries, from 1 to 1,000,000")
    ] = 100
    seconds: Annotated[Annotated[float, Meta(ge=0.1, le=30)], Meta(description="seconds, from 0.1 to 30")] = (
        5.0
    )


Command = (
    ChangeParallelism
    | FindBatchSize
    | OptimizeConnections
    | OptimizeBackoff
    | OptimizeMemory
    | ProfileCpu
    | OptimizeCache
    | WatchBatch
)


class CommandAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker did: what it found, decided and changed, or why it could not."""

    worker: str
    answered_at: Moment
    result: dict[str, object] | None
    error: str | None


class CommandState(msgspec.Struct, frozen=True, kw_only=True):
    """A command with its answers so far; `workers` are those that were asked, `asked_by` is a key's id."""

    id: str
    command: Command
    workers: tuple[str, ...]
    asked_by: str
    asked_at: Moment
    answers: tuple[CommandAnswer, ...] = ()
