"""Service levels: how they were kept, and what is promised."""

import logging
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import msgspec
from litestar import Response, delete, get, put
from msgspec import Meta

from ringbearer import clock
from ringbearer.api.answers import empty_answer, json_answer
from ringbearer.api.auth import Action, require
from ringbearer.api.figures import Window
from ringbearer.api.reading import ApiRequest, Fields, Problems, path_id, read_body, read_query
from ringbearer.api.services import ApiServices
from ringbearer.domain.events import Priority
from ringbearer.domain.keys import Key
from ringbearer.domain.suppliers import Tier
from ringbearer.errors import InvalidInput, NotFound
from ringbearer.monitor.objectives import delete_objective, put_objective
from ringbearer.monitor.slo import Objective

_audit = logging.getLogger("ringbearer.audit")
_DAY = 86_400.0
_KINDS = ("latency", "success")

Bound = Annotated[float, Meta(gt=0, le=_DAY)]


class LevelsQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Over which time until now."""

    window: Window = _DAY


class ObjectiveBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A promise, of a lane, of a tier, of one in the other, or of all."""

    target: Annotated[
        Annotated[float, Meta(ge=0.5, le=0.99999)],
        Meta(description="the share that is to be good, from 0.5 to 0.99999"),
    ]
    lane: Annotated[Priority | None, Meta(description="urgent, high, normal, bulk, or null for all")] = None
    tier: Annotated[Tier | None, Meta(description="standard, premium, enterprise, or null for all")] = None
    seconds: Annotated[
        Bound | None,
        Meta(description="of latency: until the first byte is sent, more than 0 and at most 86400 seconds"),
    ] = None
    peak_seconds: Annotated[
        Bound | None,
        Meta(description="the same on peak days, at most `seconds`; as `seconds` when it is left out"),
    ] = None


@get("/v1/slos")
async def get_service_levels(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """How service levels were kept, what is left of each budget, and how fast it burns."""
    require(key, Action.SEE_SERVICE)
    query = read_query(request, LevelsQuery)
    return json_answer(await services.figures(services.monitor.monitor_sla_compliance, query.window))


@put("/v1/slos/{kind:str}/{name:str}")
async def put_service_level(
    kind: str, name: str, request: ApiRequest, key: Key, services: ApiServices
) -> Response[bytes]:
    """Promise something else; reports and alerts follow within seconds."""
    require(key, Action.TUNE)
    objective_id = f"{_kind(kind)}/{path_id(name, 'objective')}"
    body = await read_body(request, ObjectiveBody, _problems_of(kind))
    bounds = {}
    if body.seconds is None and kind == "latency":
        message = "expected, for an objective of latency"
        raise InvalidInput(f"/seconds: {message}", [("/seconds", message)])
    if body.seconds is not None:
        peak = body.seconds if body.peak_seconds is None else body.peak_seconds
        if peak > body.seconds:
            message = f"expected at most `seconds`, {body.seconds:g}: peak days are stricter"
            raise InvalidInput(f"/peak_seconds: {message}", [("/peak_seconds", message)])
        bounds = {"seconds": body.seconds, "peak_seconds": peak}
    objective = Objective(
        id=objective_id, kind=_kind(kind), target=body.target, lane=body.lane, tier=body.tier, **bounds
    )
    before = await services.store(
        put_objective, services.storage.plans, objective, now=clock.now(), by=key.id
    )
    _note("a service level was set", key, before, objective)
    return json_answer(objective, 201 if before is None else 200)


@delete("/v1/slos/{kind:str}/{name:str}")
async def delete_service_level(kind: str, name: str, key: Key, services: ApiServices) -> Response[None]:
    """Promise this no longer."""
    require(key, Action.TUNE)
    objective_id = f"{_kind(kind)}/{path_id(name, 'objective')}"
    before = await services.store(
        delete_objective, services.storage.plans, objective_id, now=clock.now(), by=key.id
    )
    _note("a service level was deleted", key, before, None)
    return empty_answer()


def _kind(kind: str) -> Literal["latency", "success"]:
    if kind == "latency":
        return "latency"
    if kind == "success":
        return "success"
    raise NotFound(f"there are no objectives of {kind!r}; there are: {', '.join(_KINDS)}")


def _problems_of(kind: str) -> Callable[[Fields], Problems]:
    def problems(fields: Fields) -> Iterator[tuple[str, str]]:
        for name in ("seconds", "peak_seconds"):
            if kind == "success" and fields.get(name) is not None:
                yield f"/{name}", "expected for objectives of latency only"

    return problems


def _note(what: str, key: Key, before: Objective | None, after: Objective | None) -> None:
    _audit.info(
        what,
        extra={
            "key": key.id,
            "scope": key.scope,
            "before": msgspec.to_builtins(before),
            "after": msgspec.to_builtins(after),
        },
    )
