"""What the queue follows: its plan, the rules of priority, the season and the calendar."""

from datetime import date as date_
from typing import Annotated

import msgspec
from litestar import Response, get, put
from msgspec import Meta

from ringbearer import clock
from ringbearer.api.answers import json_answer
from ringbearer.api.auth import Action, require
from ringbearer.api.reading import ApiRequest, read_body, read_query
from ringbearer.api.services import ApiServices
from ringbearer.calendar import MAX_COMING_DAYS, PeakDay
from ringbearer.domain.keys import Key
from ringbearer.domain.times import Moment
from ringbearer.errors import Forbidden
from ringbearer.queue.plan import QueuePlan
from ringbearer.queue.steering import PRIORITIES, SEASON
from ringbearer.rules import PriorityConfiguration
from ringbearer.season import RehearsedHour, SeasonScalingConfig, SeasonState


class Priorities(msgspec.Struct, frozen=True, kw_only=True):
    """The rules in force. `version` is 0 while they are the built-in ones."""

    version: int
    configuration: PriorityConfiguration


class SeasonAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The season's plan, null when there is none, and what it asks for now."""

    version: int
    plan: SeasonScalingConfig | None
    state: SeasonState
    next_warming: Moment | None


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """What would happen on a day, hour by hour."""

    hours: list[RehearsedHour]


class Peaks(msgspec.Struct, frozen=True, kw_only=True):
    """The coming peak days of a time zone, and of which calendar."""

    preset: str
    peaks: list[PeakDay]


class RehearsalQuery(msgspec.Struct, kw_only=True):
    """The day to rehearse."""

    date: Annotated[date_ | None, Meta(description="a day, as 2027-06-19; today when it is left out")] = None


class PeaksQuery(msgspec.Struct, kw_only=True):
    """How far to look ahead, and where."""

    days: Annotated[
        int, Meta(ge=1, le=MAX_COMING_DAYS, description=f"days to look ahead, from 1 to {MAX_COMING_DAYS}")
    ] = 60
    timezone: Annotated[str, Meta(description="a time zone such as Europe/Paris")] = "UTC"


@get("/v1/queue")
async def get_queue(key: Key, services: ApiServices) -> Response[bytes]:
    """How the lanes stand, what the queue follows, and what limits it."""
    _see(key)
    return json_answer(await services.optimizer.monitor_queue_performance())


@put("/v1/queue")
async def put_queue(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """Replace the queue's plan."""
    require(key, Action.TUNE)
    body = await read_body(request, QueuePlan)
    await services.optimizer.change_plan(body, reason=f"set with {key.id}")
    return json_answer(await services.optimizer.monitor_queue_performance())


@get("/v1/priorities")
async def get_priorities(key: Key, services: ApiServices) -> Response[bytes]:
    """The rules that choose lanes, and the weights of tiers."""
    _see(key)
    return json_answer(await _priorities(services))


@put("/v1/priorities")
async def put_priorities(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """Replace the rules; what is queued follows within seconds."""
    require(key, Action.TUNE)
    body = await read_body(request, PriorityConfiguration)
    await services.optimizer.prioritize_webhook_deliveries(body, reason=f"set with {key.id}", at_once=False)
    return json_answer(await _priorities(services))


@get("/v1/season")
async def get_season(key: Key, services: ApiServices) -> Response[bytes]:
    """The season's plan and what it asks for now."""
    _see(key)
    return json_answer(await _season(services))


@put("/v1/season")
async def put_season(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """Replace the season's plan; every process follows it within a second."""
    require(key, Action.TUNE)
    body = await read_body(request, SeasonScalingConfig)
    await services.optimizer.scale_for_wedding_season(body, reason=f"set with {key.id}")
    return json_answer(await _season(services))


@get("/v1/season/rehearsal")
async def rehearse_season(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """What the plan would ask for on a day, hour by hour; nothing is done."""
    _see(key)
    query = read_query(request, RehearsalQuery)
    await _fresh(services)
    day = query.date or clock.to_datetime(clock.now()).date()
    return json_answer(Rehearsal(hours=await services.optimizer.rehearse_season(day)))


@get("/v1/calendar")
async def get_calendar(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """The coming peak days."""
    _see(key)
    query = read_query(request, PeaksQuery)
    await _fresh(services)
    peaks = await services.optimizer.coming_peaks(query.days, query.timezone)
    return json_answer(
        Peaks(preset=services.optimizer.steering.season.calendar.configuration.preset, peaks=peaks)
    )


def _see(key: Key) -> None:
    require(key, Action.READ)
    if key.supplier_id is not None:
        raise Forbidden("what the whole service follows is not for a supplier's key")


async def _fresh(services: ApiServices) -> None:
    """Another process may have changed it a moment ago."""
    steering = services.optimizer.steering
    await services.store(lambda: steering.follow(now=clock.now()))


async def _priorities(services: ApiServices) -> Priorities:
    await _fresh(services)
    steering = services.optimizer.steering
    return Priorities(version=steering.version(PRIORITIES), configuration=steering.rules.configuration)


async def _season(services: ApiServices) -> SeasonAnswer:
    await _fresh(services)
    steering = services.optimizer.steering
    return SeasonAnswer(
        version=steering.version(SEASON),
        plan=steering.season.plan,
        state=steering.season_state,
        next_warming=steering.season.next_warming(clock.to_datetime(clock.now())),
    )
