"""The cache: how it does in the process that answers, its size set anew, suppliers brought into memory."""

from typing import Annotated

import msgspec
from litestar import Response, get, post
from msgspec import Meta

from ringbearer.api.answers import json_answer
from ringbearer.api.auth import Action, require
from ringbearer.api.reading import ApiRequest, Nothing, read_body
from ringbearer.api.services import ApiServices
from ringbearer.cache.results import CachePerformance
from ringbearer.domain.keys import Key
from ringbearer.errors import Forbidden
from ringbearer.storage.nodes import Node

_MOST_WARMED = 20_000


class Warming(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Whom to bring into memory, and how long that may take."""

    suppliers: Annotated[
        Annotated[
            list[Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]], Meta(max_length=_MOST_WARMED)
        ]
        | None,
        Meta(
            description="ids, the most important ones first; null chooses by last week's and yesterday's traffic"
        ),
    ] = None
    within: Annotated[
        Annotated[float, Meta(gt=0, le=50)], Meta(description="seconds that it may take, at most 50")
    ] = 30.0


class ProcessCache(msgspec.Struct, frozen=True, kw_only=True):
    """What a process told of its cache's first tier with its last heartbeat; counts since it started."""

    id: str
    kind: str
    host: str
    pid: int
    warm: bool
    hits: int
    misses: int
    entries: int
    bytes: int


class CacheAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How the cache does: in the process that answers, and in short in all that run."""

    here: CachePerformance
    processes: list[ProcessCache]


@get("/v1/cache")
async def get_cache(key: Key, services: ApiServices) -> Response[bytes]:
    """How the cache does."""
    require(key, Action.READ)
    if key.supplier_id is not None:
        raise Forbidden("figures of the whole service are not for a supplier's key")
    nodes = await services.store(services.storage.nodes.alive)
    return json_answer(
        CacheAnswer(
            here=await services.cache.monitor_cache_performance(),
            processes=[_process(node) for node in nodes if "cache_hits" in node.signals],
        )
    )


@post("/v1/cache/optimize")
async def optimize_cache(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """Set size and lifetimes by what was measured, now instead of within a minute."""
    require(key, Action.TUNE)
    await read_body(request, Nothing)
    return json_answer(await services.cache.optimize_cache_hit_ratio(), 200)


@post("/v1/cache/warm")
async def warm_cache(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """Bring suppliers into memory, and into Redis for the other processes."""
    require(key, Action.TUNE)
    body = await read_body(request, Warming)
    cache = services.cache
    if body.suppliers is None:
        return json_answer(await cache.preload_frequently_used_data(within=body.within), 200)
    return json_answer(await cache.warm_cache_for_peak_season(body.suppliers, within=body.within), 200)


def _process(node: Node) -> ProcessCache:
    told = node.signals
    return ProcessCache(
        id=node.id,
        kind=node.kind,
        host=node.host,
        pid=node.pid,
        warm=bool(told["warm"]),
        hits=int(told["cache_hits"]),
        misses=int(told["cache_misses"]),
        entries=int(told["cache_entries"]),
        bytes=int(told["cache_bytes"]),
    )
