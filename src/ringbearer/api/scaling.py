"""Scaling: the wanted number of workers as orchestrators read it, the policy, and the record of decisions."""

from collections.abc import Iterable
from typing import Annotated

import msgspec
from litestar import Response, get, patch, put
from msgspec import UNSET, Meta, UnsetType

from ringbearer import clock
from ringbearer.api.answers import json_answer, page
from ringbearer.api.auth import Action, require
from ringbearer.api.reading import ApiRequest, PageQuery, read_body, read_query
from ringbearer.api.services import ApiServices
from ringbearer.domain.keys import Key
from ringbearer.domain.relief import RELIEF, SLAS, Relief, SLAConfiguration, Step
from ringbearer.domain.scaling import (
    Decision,
    DrainSeconds,
    ForecastMode,
    Growth,
    ScalingPolicy,
    Share,
    Workers,
)
from ringbearer.domain.times import Moment
from ringbearer.errors import InvalidInput
from ringbearer.storage.base import Storage

_UNDECIDED = "nothing was decided yet: no API process has led for long enough, or none runs"


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """How many workers there shall be, how many are ready, and why."""

    desired_workers: int
    current_workers: int
    reason: str
    rule: str | None
    decided_at: Moment | None
    signals: dict[str, object]
    policy: ScalingPolicy


class ScalingChange(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What of the policy changes; what is left out stays as it is."""

    minimum: Annotated[Workers | UnsetType, Meta(description="the fewest workers, from 0 to 1000")] = UNSET
    maximum: Annotated[
        Annotated[int, Meta(ge=1, le=1_000)] | UnsetType,
        Meta(description="the most workers, from 1 to 1000, and not less than the minimum"),
    ] = UNSET
    utilisation: Annotated[
        Share | UnsetType, Meta(description="how busy workers shall be, from 0.05 to 0.7")
    ] = UNSET
    peak_utilisation: Annotated[
        Share | UnsetType, Meta(description="the same on peak days, from 0.05 to 0.7")
    ] = UNSET
    drain_seconds: Annotated[
        DrainSeconds | UnsetType,
        Meta(description="seconds in which a backlog shall be gone: urgent, high, normal, bulk"),
    ] = UNSET
    growth: Annotated[
        Growth | UnsetType,
        Meta(description="how many times as many within `growth_seconds` at most, from 1.1 to 10"),
    ] = UNSET
    peak_growth: Annotated[Growth | UnsetType, Meta(description="the same on peak days, from 1.1 to 10")] = (
        UNSET
    )
    growth_seconds: Annotated[
        Annotated[float, Meta(ge=1, le=600)] | UnsetType, Meta(description="seconds, from 1 to 600")
    ] = UNSET
    calm_seconds: Annotated[
        Annotated[float, Meta(ge=10, le=86_400)] | UnsetType,
        Meta(description="seconds of lower recommendations before workers go, from 10 to 86400"),
    ] = UNSET
    shrink: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | UnsetType,
        Meta(description="the share of workers that may go within a minute, up to 1"),
    ] = UNSET
    fixed: Annotated[
        Workers | UnsetType | None,
        Meta(description="exactly so many workers, whatever the load is, or null for automatic"),
    ] = UNSET

    forecast: Annotated[
        ForecastMode | UnsetType,
        Meta(description="act: workers are there before the forecast rush; advise: it is only shown"),
    ] = UNSET

    def applied_to(self, policy: ScalingPolicy) -> ScalingPolicy:
        """The policy with what this changes; raises InvalidInput when the whole makes no sense."""
        given = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not UNSET}
        changed = msgspec.structs.replace(policy, **given)
        problems = list(_problems(changed))
        if problems:
            raise InvalidInput(f"{problems[0][0]}: {problems[0][1]}", problems)
        return changed


def _problems(policy: ScalingPolicy) -> Iterable[tuple[str, str]]:
    if policy.minimum > policy.maximum:
        yield (
            "/minimum",
            f"expected at most the maximum, which is {policy.maximum}; change both together if need be",
        )


@get("/v1/scaling")
async def get_scaling(key: Key, services: ApiServices) -> Response[bytes]:
    """The wanted number, in the form that KEDA's `metrics-api` trigger reads, with what it was made from."""
    require(key, Action.SEE_SCALING)
    return json_answer(await services.store(_scaling, services.storage))


@patch("/v1/scaling")
async def change_scaling(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """Change the policy; the next decision, within a second, follows it. The change is on record with its key."""
    require(key, Action.SCALE)
    body = await read_body(request, ScalingChange)
    policy = body.applied_to(await services.store(services.storage.scaling.policy))
    await services.scaler.implement_auto_scaling_policies(policy, actor=key.id)
    return json_answer(await services.store(_scaling, services.storage))


class Slas(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept, and what is in force for it now."""

    configuration: SLAConfiguration
    steps: tuple[Step, ...]
    paused_endpoints: list[str]
    reason: str


@get("/v1/scaling/slas")
async def get_slas(key: Key, services: ApiServices) -> Response[bytes]:
    """The service levels, and the steps of relief that are in force for them."""
    require(key, Action.SEE_SCALING)
    return json_answer(await services.store(_levels, services.storage))


@put("/v1/scaling/slas")
async def set_slas(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """Set the service levels; whoever leads looks at them each second."""
    require(key, Action.SCALE)
    body = await read_body(request, SLAConfiguration)
    await services.store(
        services.storage.plans.put,
        SLAS,
        msgspec.json.encode(body).decode(),
        now=clock.now(),
        reason=f"set with {key.id}",
    )
    return json_answer(await services.store(_levels, services.storage))


def _levels(storage: Storage) -> Slas:
    stored, relieved = storage.plans.get(SLAS), storage.plans.get(RELIEF)
    config = SLAConfiguration() if stored is None else msgspec.json.decode(stored.body, type=SLAConfiguration)
    relief = Relief() if relieved is None else msgspec.json.decode(relieved.body, type=Relief)
    return Slas(
        configuration=config,
        steps=relief.steps,
        paused_endpoints=[endpoint_id for endpoint_id, _ in relief.paused],
        reason=relief.reason,
    )


class ForecastQuery(msgspec.Struct, kw_only=True):
    """How far to look ahead."""

    days: Annotated[int, Meta(ge=1, le=60, description="days to come, from 1 to 60")] = 14


@get("/v1/forecast")
async def get_forecast(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """What is to come, hour by hour, with the error of the last weeks; made anew every few minutes."""
    require(key, Action.SEE_SCALING)
    query = read_query(request, ForecastQuery)
    return json_answer(await services.scaler.predict_scaling_needs(days=query.days))


@get("/v1/scaling/decisions")
async def list_scaling_decisions(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """What was decided and changed, by whom and why, newest first."""
    require(key, Action.SEE_SCALING)
    query = read_query(request, PageQuery)
    found: list[Decision] = await services.store(
        services.storage.scaling.decisions, limit=query.limit + 1, cursor=query.cursor
    )
    return json_answer(page(found, query.limit))


@get("/v1/scaling/resources")
async def get_resources(key: Key, services: ApiServices) -> Response[bytes]:
    """What every process takes now, one by one and together, and how much room there is."""
    require(key, Action.SEE_SCALING)
    return json_answer(await services.scaler.monitor_resource_utilization())


class ScalingReportQuery(msgspec.Struct, kw_only=True):
    """How far to look back."""

    days: Annotated[int, Meta(ge=1, le=400, description="days that have passed, from 1 to 400")] = 30


@get("/v1/scaling/report")
async def get_scaling_report(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """How the number of workers moved and why, and how the connections and processes are now."""
    require(key, Action.SEE_SCALING)
    query = read_query(request, ScalingReportQuery)
    return json_answer(await services.scaler.generate_performance_reports(days=query.days))


def _scaling(storage: Storage) -> Scaling:
    latest, policy = storage.scaling.latest(), storage.scaling.policy()
    ready = storage.nodes.working()
    if latest is None:
        return Scaling(
            # Whoever reads this number must not take workers away because nobody has decided yet.
            desired_workers=max(policy.minimum, ready) if policy.fixed is None else policy.fixed,
            current_workers=ready,
            reason=_UNDECIDED,
            rule=None,
            decided_at=None,
            signals={},
            policy=policy,
        )
    return Scaling(
        desired_workers=latest.desired,
        current_workers=ready,
        reason=latest.reason,
        rule=latest.rule,
        decided_at=latest.at,
        signals=latest.inputs,
        policy=policy,
    )
