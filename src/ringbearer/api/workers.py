"""Workers: which run and how they are, and commands to them, which each follows within a second and answers."""

from typing import Annotated

import msgspec
from litestar import Response, get, post
from msgspec import Meta

from ringbearer import clock
from ringbearer.api.answers import json_answer, page
from ringbearer.api.auth import Action, require
from ringbearer.api.reading import ApiRequest, PageQuery, path_id, read_body, read_query
from ringbearer.api.services import ApiServices
from ringbearer.domain.commands import PARALLELISM, ChangeParallelism, Command
from ringbearer.domain.keys import Key
from ringbearer.domain.times import Moment
from ringbearer.errors import Conflict, NotFound
from ringbearer.storage.base import Storage
from ringbearer.storage.nodes import Node


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker process as its last heartbeat told: how much it does at a time, and how much it has."""

    id: str
    host: str
    pid: int
    version: str
    started_at: Moment
    couriers: int
    slots: int
    held: int
    batch: int
    cpu_share: float
    appetite: float
    draining: bool


class NewCommand(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is to be done, and by which worker."""

    command: Annotated[
        Command,
        Meta(
            description="an object whose `what` is parallelism, batch_size, connections, backoff, memory, profile, cache "
            "or batch"
        ),
    ]
    worker: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None,
        Meta(
            description="a worker's id; null for all that run, and for those that start later in parallelism"
        ),
    ] = None


@get("/v1/workers")
async def list_workers(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """The workers that run, the oldest first."""
    require(key, Action.SEE_SERVICE)
    query = read_query(request, PageQuery)
    workers = [_worker(node) for node in await services.store(_alive, services.storage)]
    start = 0
    if query.cursor is not None:
        start = next((n + 1 for n, worker in enumerate(workers) if worker.id == query.cursor), len(workers))
    return json_answer(page(workers[start : start + query.limit + 1], query.limit))


@post("/v1/workers/commands")
async def command_workers(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """Ask workers to do something; what they answer is read from the command's own path."""
    require(key, Action.TUNE)
    body = await read_body(request, NewCommand)
    command_id = await services.store(_ask, services.storage, body, key.id)
    return json_answer(await services.store(services.storage.commands.get, command_id), 202)


@get("/v1/workers/commands")
async def list_commands(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """What workers were asked for, by whom, and what they answered; the latest first."""
    require(key, Action.SEE_SERVICE)
    query = read_query(request, PageQuery)
    found = await services.store(services.storage.commands.latest, limit=query.limit + 1, cursor=query.cursor)
    return json_answer(page(found, query.limit))


@get("/v1/workers/commands/{command_id:str}")
async def get_command(command_id: str, key: Key, services: ApiServices) -> Response[bytes]:
    """A command with the answers so far."""
    require(key, Action.SEE_SERVICE)
    return json_answer(await services.store(services.storage.commands.get, path_id(command_id, "command")))


def _alive(storage: Storage) -> list[Node]:
    return [node for node in storage.nodes.alive() if node.kind == "work"]


def _ask(storage: Storage, body: NewCommand, by: str) -> str:
    alive = [node.id for node in _alive(storage) if not node.signals.get("draining")]
    if body.worker is not None and body.worker not in alive:
        raise NotFound(f"no worker {body.worker!r} runs")
    if body.worker is None and isinstance(body.command, ChangeParallelism):
        _keep(storage, body.command, by)
    elif not alive:
        raise Conflict("no worker runs that could do this")
    return storage.commands.ask(body.command, workers=alive if body.worker is None else [body.worker], by=by)


def _keep(storage: Storage, command: ChangeParallelism, by: str) -> None:
    """Let workers that start later begin like this."""
    stored = storage.plans.get(PARALLELISM)
    earlier = (
        ChangeParallelism() if stored is None else msgspec.json.decode(stored.body, type=ChangeParallelism)
    )
    own = msgspec.structs.replace(command, processes=None)  # how many there are is for the scaling to keep
    kept = msgspec.json.encode(own.after(earlier)).decode()
    storage.plans.put(PARALLELISM, kept, now=clock.now(), reason=f"set with {by}")


def _worker(node: Node) -> Worker:
    told = node.signals
    return Worker(
        id=node.id,
        host=node.host,
        pid=node.pid,
        version=node.version,
        started_at=clock.to_datetime(node.started_at),
        couriers=int(told.get("couriers", 1)),
        slots=int(told.get("slots", 0)),
        held=int(told.get("held", 0)),
        batch=int(told.get("batch", 0)),
        cpu_share=told.get("cpu_share", 1.0),
        appetite=told.get("appetite", 1.0),
        draining=bool(told.get("draining", 0)),
    )
