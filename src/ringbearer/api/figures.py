"""Figures: what the monitor measured, over any window, by lane, tier, supplier, endpoint, event type or error."""

from typing import Annotated, Literal

import msgspec
from litestar import Response, get
from msgspec import Meta

from ringbearer import clock
from ringbearer.api.answers import json_answer
from ringbearer.api.auth import Action, may_see, require
from ringbearer.api.reading import ApiRequest, read_query
from ringbearer.api.services import ApiServices
from ringbearer.domain.keys import Key
from ringbearer.domain.times import Moment
from ringbearer.errors import Forbidden, InvalidInput, NotFound
from ringbearer.monitor.results import Measured

_LONGEST = 400 * 86_400
_MOST = 250

Window = Annotated[
    float, Meta(gt=0, le=_LONGEST, description=f"how many seconds until now, at most {_LONGEST}")
]


class FiguresQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which figures are wanted; the last five minutes unless `window`, or `after` and `before`, say otherwise."""

    by: Annotated[
        Literal["lane", "tier", "outcome", "type", "supplier", "endpoint", "error"] | None,
        Meta(description="lane (default), tier, outcome, type, supplier, endpoint or error"),
    ] = None
    key: Annotated[
        Annotated[str, Meta(max_length=128)] | None,
        Meta(description="only this supplier, endpoint, type or error"),
    ] = None
    window: Window = 300.0
    after: Annotated[Moment | None, Meta(description="a time with a zone, such as 2027-06-19T14:00:00Z")] = (
        None
    )
    before: Annotated[Moment | None, Meta(description="a time with a zone, such as 2027-06-19T14:00:00Z")] = (
        None
    )


class FiguresAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of each group, the busiest first; at most 250 of them."""

    since: Moment
    until: Moment
    items: list[Measured]


class WindowQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Over which time until now."""

    window: Window = 300.0


@get("/v1/figures")
async def get_figures(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """Counts, rates and the percentiles of each stage; a supplier's key sees its own only."""
    require(key, Action.READ)
    query = read_query(request, FiguresQuery)
    if key.supplier_id is not None:
        if query.by not in (None, "supplier"):
            raise Forbidden("a supplier's key sees the figures of that supplier only: by=supplier")
        if query.key is not None and not may_see(key, query.key):
            raise NotFound(f"there is no supplier {query.key!r}")
        query.by, query.key = "supplier", key.supplier_id
    now = clock.now()
    until = now + 1 if query.before is None else clock.from_datetime(query.before)
    since = (
        until - int(query.window * clock.SECOND) if query.after is None else clock.from_datetime(query.after)
    )
    if since >= until:
        raise InvalidInput(
            "`after` must lie before `before`", [("/after", "expected a time before `before`")]
        )
    found = await services.figures(
        services.monitor.measured, since, until, group_by=query.by or "lane", key=query.key
    )
    return json_answer(
        FiguresAnswer(since=clock.to_datetime(since), until=clock.to_datetime(until), items=found[:_MOST])
    )


@get("/v1/figures/queue")
async def get_queue_times(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """How the queue is worked off: waiting, in flight, waits by lane, and how long the store takes."""
    require(key, Action.SEE_SERVICE)
    query = read_query(request, WindowQuery)
    return json_answer(await services.figures(services.monitor.monitor_queue_processing_times, query.window))


@get("/v1/figures/throughput")
async def get_throughput(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """Events, attempts and deliveries a second and by the minute."""
    require(key, Action.SEE_SERVICE)
    query = read_query(request, WindowQuery)
    return json_answer(await services.figures(services.monitor.track_throughput_metrics, query.window))


@get("/v1/figures/errors")
async def get_errors(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """What failed, by whose fault, by lane and by code."""
    require(key, Action.SEE_SERVICE)
    query = read_query(request, WindowQuery)
    return json_answer(await services.figures(services.monitor.monitor_error_rates, query.window))


class SeasonQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How much of the past the week is made of."""

    weeks: Annotated[int, Meta(ge=2, le=52, description="how many weeks, from 2 to 52")] = 8


@get("/v1/figures/patterns")
async def get_patterns(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """What is usual for each hour of the week and day of the year, and which hours stand out."""
    require(key, Action.SEE_SERVICE)
    query = read_query(request, SeasonQuery)
    return json_answer(
        await services.figures(services.monitor.track_seasonal_performance_patterns, query.weeks)
    )


@get("/v1/figures/overview")
async def get_overview(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """All that a person looks at first."""
    require(key, Action.SEE_SERVICE)
    query = read_query(request, WindowQuery)
    return json_answer(await services.figures(services.monitor.generate_performance_dashboard, query.window))
