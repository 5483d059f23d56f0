"""The objectives in force: those that everybody starts with, until they are changed; kept as a plan in the store."""

import msgspec

from ringbearer.errors import InvalidInput, NotFound
from ringbearer.monitor.slo import OBJECTIVES, Objective
from ringbearer.storage.plans import Plans

MAX_OBJECTIVES = 50
NAME = "objectives"
"""Under which they are stored among the plans."""

_decode = msgspec.json.Decoder(tuple[Objective, ...]).decode


def objectives_of(plans: Plans) -> tuple[Objective, ...]:
    """The objectives in force, by id. Blocks; raises StoreUnavailable."""
    return _stored(plans)[0]


def put_objective(plans: Plans, objective: Objective, *, now: int, by: str) -> Objective | None:
    """Change or add an objective; returns what it was before, None when it is new.

    Blocks. Raises InvalidInput when there are too many, Conflict when somebody else changes them just now.
    """
    current, version = _stored(plans)
    others = [each for each in current if each.id != objective.id]
    if len(others) >= MAX_OBJECTIVES:
        message = f"there are {MAX_OBJECTIVES} objectives already; delete one first"
        raise InvalidInput(message, [("", message)])
    _write(plans, [*others, objective], version, now, f"{objective.id} set with {by}")
    return next((each for each in current if each.id == objective.id), None)


def delete_objective(plans: Plans, objective_id: str, *, now: int, by: str) -> Objective:
    """Promise this no longer; returns what it was. Blocks; raises NotFound and Conflict."""
    current, version = _stored(plans)
    gone = next((each for each in current if each.id == objective_id), None)
    if gone is None:
        raise NotFound(f"there is no objective {objective_id!r}")
    others = [each for each in current if each is not gone]
    _write(plans, others, version, now, f"{objective_id} deleted with {by}")
    return gone


def _stored(plans: Plans) -> tuple[tuple[Objective, ...], int]:
    plan = plans.get(NAME)
    return (OBJECTIVES, 0) if plan is None else (_decode(plan.body), plan.version)


def _write(plans: Plans, objectives: list[Objective], version: int, now: int, reason: str) -> None:
    ordered = sorted(objectives, key=lambda each: each.id)
    body = msgspec.json.encode(ordered).decode()
    plans.put(NAME, body, now=now, reason=reason, over=version)
