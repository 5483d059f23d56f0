"""The queue's plan: shares, sizes and thresholds that the workers follow; what a season asks for is laid over it."""

from typing import Annotated

import msgspec
from msgspec import Meta

from ringbearer.priority import WEIGHTS
from ringbearer.season import SeasonState, Weights

MOST_BATCH = 2_000
LEAST_BATCH = 50


class QueuePlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a worker goes by. Times in seconds."""

    weights: Weights = WEIGHTS
    """Shares of urgent, high, normal and bulk while all of them have work."""
    batch_size: Annotated[int, Meta(ge=LEAST_BATCH, le=MOST_BATCH)] = 500
    """Deliveries in one claim, and outcomes in one settlement, at most."""
    prefetch: Annotated[float, Meta(ge=0.1, le=1.0)] = 0.5
    """The part of its slots that a worker fills with whatever comes; the rest is filled in small steps, as others
    become slow."""
    max_wait: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.02
    """Between two claims while work flows: longer makes fewer and larger batches."""
    automatic: bool = True
    """Whether the sizes and shares are tuned by themselves."""
    backlog_age: Annotated[float, Meta(gt=0)] = 60.0
    """The age of a lane's oldest ready delivery above which its backlog is told."""
    backlog_depth: Annotated[int, Meta(gt=0)] = 100_000
    """The number of ready deliveries of a lane above which its backlog is told."""


def in_season(plan: QueuePlan, state: SeasonState) -> QueuePlan:
    """The plan as it is to be followed while the season asks for that."""
    return msgspec.structs.replace(
        plan,
        weights=plan.weights if state.weights is None else state.weights,
        prefetch=plan.prefetch if state.prefetch is None else state.prefetch,
        backlog_age=plan.backlog_age * state.threshold_factor,
        backlog_depth=max(1, round(plan.backlog_depth * state.threshold_factor)),
    )


def differences(before: msgspec.Struct, after: msgspec.Struct) -> dict[str, tuple[object, object]]:
    """The fields that differ, each with what it was and what it is."""
    return {
        name: (old, new)
        for name in after.__struct_fields__
        if (old := getattr(before, name)) != (new := getattr(after, name))
    }
