"""Workers over HTTP: which run, and commands to them that they follow and answer."""

import asyncio
from collections.abc import Iterator
from contextlib import closing

import httpx
import msgspec
import pytest

from api.harness import Api, pointers, problem
from ringbearer.delivery.commands import follow, parallelism
from ringbearer.delivery.processor import HighPerformanceWebhookProcessor
from ringbearer.domain.commands import PARALLELISM, ChangeParallelism
from ringbearer.limits.breakers import Breakers
from ringbearer.limits.database import DatabaseRateLimiter
from ringbearer.maintenance.commands import CommandFollower

_PATH = "/v1/workers/commands"


@pytest.fixture
def processor(api: Api) -> Iterator[HighPerformanceWebhookProcessor]:
    """What the worker `node_1` has, which beats."""
    made = HighPerformanceWebhookProcessor(
        cache=api.cache,
        limiter=DatabaseRateLimiter(api.storage.database),
        breakers=Breakers(table=api.storage.breakers, telemetry=api.telemetry),
        telemetry=api.telemetry,
        refuse=lambda _address: None,
        slots=64,
    )
    with closing(made):
        _beat(api, "node_1", slots=64, held=3, couriers=1)
        yield made


def _beat(api: Api, node_id: str, kind: str = "work", **signals: float) -> None:
    api.storage.nodes.beat(node_id, kind=kind, host="church", pid=7, version="1.0", signals=signals)


def _follow(api: Api, processor: HighPerformanceWebhookProcessor) -> None:
    """What the worker does twice a second."""
    follower = CommandFollower(
        commands=api.storage.commands,
        worker="node_1",
        do=lambda command: follow(
            command, processor=processor, cache=api.cache, optimizer=api.services.optimizer
        ),
    )
    asyncio.run(follower.look())


def test_the_workers_that_run_are_listed(api: Api, processor: HighPerformanceWebhookProcessor) -> None:
    _beat(api, "node_2", slots=8)
    _beat(api, "node_api", kind="serve")
    first = api.as_("read").get("/v1/workers", params={"limit": 1}).json()
    (worker,) = first["items"]
    assert (worker["id"], worker["slots"], worker["held"], worker["couriers"]) == ("node_1", 64, 3, 1)
    rest = api.as_("read").get("/v1/workers", params={"cursor": first["next"]}).json()
    assert ([worker["id"] for worker in rest["items"]], rest["next"]) == (["node_2"], None)


def test_a_worker_takes_another_shape(
    api: Api, admin: httpx.Client, processor: HighPerformanceWebhookProcessor
) -> None:
    asked = admin.post(_PATH, json={"command": {"what": "parallelism", "slots": 32, "couriers": 2}})
    assert asked.status_code == 202
    command = asked.json()
    assert (command["workers"], command["answers"]) == (["node_1"], [])
    _follow(api, processor)
    (answer,) = admin.get(f"{_PATH}/{command['id']}").json()["answers"]
    assert (answer["worker"], answer["error"]) == ("node_1", None)
    assert (answer["result"]["before"]["slots"], answer["result"]["after"]["slots"]) == (64, 32)
    assert (processor.slots, processor.parallelism.couriers) == (32, 2)


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ({"what": "connections"}, "reuse_ratio"),
        ({"what": "backoff"}, "pause_after"),
        ({"what": "memory"}, "handles_closed"),
        ({"what": "cache"}, "reason"),
    ],
)
def test_each_question_is_answered(
    command: dict[str, object],
    shown: str,
    api: Api,
    admin: httpx.Client,
    processor: HighPerformanceWebhookProcessor,
) -> None:
    asked = admin.post(_PATH, json={"command": command, "worker": "node_1"}).json()
    _follow(api, processor)
    (answer,) = admin.get(f"{_PATH}/{asked['id']}").json()["answers"]
    assert answer["error"] is None
    assert shown in answer["result"]


def test_workers_that_start_later_begin_like_those_that_run(
    api: Api, admin: httpx.Client, processor: HighPerformanceWebhookProcessor
) -> None:
    for command in ({"slots": 32, "couriers": 2}, {"slots": 16}):
        admin.post(_PATH, json={"command": {"what": "parallelism", **command}})
    only_one = {"command": {"what": "parallelism", "batch": 5}, "worker": "node_1"}
    assert admin.post(_PATH, json=only_one).status_code == 202
    stored = api.storage.plans.get(PARALLELISM)
    assert stored is not None
    kept = msgspec.json.decode(stored.body, type=ChangeParallelism)
    assert kept == ChangeParallelism(slots=16, couriers=2)
    asyncio.run(processor.implement_parallel_processing(parallelism(kept)))
    assert (processor.slots, processor.parallelism.couriers) == (16, 2)


def test_who_asked_for_what_is_on_record(
    api: Api, admin: httpx.Client, processor: HighPerformanceWebhookProcessor
) -> None:
    ids = [admin.post(_PATH, json={"command": {"what": "memory"}}).json()["id"] for _ in range(3)]
    listed = api.as_("read").get(_PATH, params={"limit": 2}).json()
    assert [state["id"] for state in listed["items"]] == [ids[2], ids[1]]
    rest = api.as_("read").get(_PATH, params={"cursor": listed["next"]}).json()
    assert [state["id"] for state in rest["items"]] == [ids[0]]
    keys = {key["id"] for key in admin.get("/v1/keys").json()["items"]}
    assert {state["asked_by"] for state in listed["items"]} <= keys


def test_who_may_not_is_told_so_and_what_is_wrong_named(api: Api, admin: httpx.Client) -> None:
    memory = {"command": {"what": "memory"}}
    problem(admin.post(_PATH, json=memory), 409)  # no worker runs
    _beat(api, "node_1")
    for scope in ("read", "publish", "scaling", "supplier:lumen"):
        problem(api.as_(scope).post(_PATH, json=memory), 403)
    for scope in ("publish", "supplier:lumen"):
        problem(api.as_(scope).get("/v1/workers"), 403)
        problem(api.as_(scope).get(_PATH), 403)
    problem(admin.post(_PATH, json=memory | {"worker": "node_9"}), 404)
    problem(admin.get(f"{_PATH}/cmd_0"), 404)
    assert pointers(admin.post(_PATH, json={})) == ["/command"]
    assert pointers(admin.post(_PATH, json={"command": {"what": "rest"}})) == ["/command/what"]
    assert pointers(admin.post(_PATH, json={"command": {"what": "parallelism", "slots": 0}})) == [
        "/command/slots"
    ]
    assert pointers(admin.post(_PATH, json={"command": {"what": "memory", "now": True}})) == ["/command"]
    assert pointers(admin.post(_PATH, json={"command": {"what": "batch", "seconds": 31}})) == [
        "/command/seconds"
    ]
    assert admin.get(_PATH).json() == {"items": [], "next": None}
