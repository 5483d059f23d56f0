"""The cache over HTTP: it tells how it does, sets its size, and brings suppliers into memory."""

import httpx
import pytest

from api.harness import Api, pointers, problem
from ringbearer import clock
from ringbearer.cache.shelf import FRESH_SECONDS
from ringbearer.storage.rollups import Rollup


def rollup(endpoint_id: str, at: int, *, delivered: int, receiver: int, process: str = "one") -> Rollup:
    """A minute of one process, in which so many attempts delivered, and so many the receiver failed."""
    minute = at - at % (60 * clock.SECOND)
    total = delivered + receiver
    return Rollup("endpoint", minute, endpoint_id, process, total, delivered, receiver, 0, total, 0, "")


def test_it_tells_what_each_tier_did(api: Api, admin: httpx.Client) -> None:
    api.supplier("lumen")
    api.endpoint("lumen")
    api.cache.refresh()
    api.cache.lookup(["lumen", "nobody"])
    api.cache.lookup(["lumen"])
    api.storage.nodes.beat(
        "wrk_1", kind="work", host="h", pid=7, version="1", signals=api.cache.signals() | {"cpu": 0.5}
    )
    api.storage.nodes.beat("up_1", kind="up", host="h", pid=8, version="1", signals={})
    answer = api.as_("read").get("/v1/cache").json()
    (process,) = answer["processes"]
    assert (process["pid"], process["hits"], process["misses"], process["entries"]) == (7, 1, 2, 2)
    told = answer["here"]
    memory, store = told["tiers"]
    assert (memory["tier"], memory["hits"], memory["misses"], memory["entries"]) == ("l1", 1, 2, 2)
    assert memory["bytes"] > 1_000
    assert (store["tier"], store["hits"]) == ("l3", 2)
    assert told["trusted"] is True
    assert told["version"] == api.storage.catalog.version()
    assert told["last_warming"] is None
    assert "lumen" not in str(told)


def test_suppliers_can_be_brought_into_memory(api: Api, admin: httpx.Client) -> None:
    for supplier_id in ("one", "two"):
        api.supplier(supplier_id)
    warmed = admin.post("/v1/cache/warm", json={"suppliers": ["one", "nobody"]}).json()
    assert (warmed["wanted"], warmed["loaded"], warmed["unknown"], warmed["left"]) == (2, 2, 1, 0)
    assert api.cache.peek("one")[0]
    assert not api.cache.peek("two")[0]
    again = admin.post("/v1/cache/warm", json={"suppliers": ["one"]}).json()
    assert (again["present"], again["loaded"]) == (1, 0)
    assert admin.get("/v1/cache").json()["here"]["last_warming"] == again


def test_it_chooses_the_busiest_itself(api: Api, admin: httpx.Client) -> None:
    endpoint_id = str(api.endpoint(api.supplier("busy"))["id"])
    api.supplier("idle")
    api.event("busy", [endpoint_id])
    warmed = admin.post("/v1/cache/warm").json()
    assert (warmed["wanted"], warmed["loaded"]) == (1, 1)
    assert api.cache.peek("busy")[0]
    assert not api.cache.peek("idle")[0]


def test_its_size_is_left_alone_while_little_was_measured(api: Api, admin: httpx.Client) -> None:
    answer = admin.post("/v1/cache/optimize")
    assert answer.status_code == 200
    found = answer.json()
    assert found["before"] == found["after"]
    assert "too little" in found["reason"]
    assert admin.get("/v1/cache").json()["here"]["last_optimization"] == found


def test_who_may_not_is_told_so_and_what_is_wrong_named(api: Api, admin: httpx.Client) -> None:
    problem(api.as_("publish").get("/v1/cache"), 403)
    problem(api.as_("read").post("/v1/cache/optimize"), 403)
    assert pointers(admin.post("/v1/cache/warm", json={"suppliers": ["a/b"], "within": 51})) == [
        "/suppliers/0",
        "/within",
    ]
    assert pointers(admin.post("/v1/cache/warm", json={"within": 51})) == ["/within"]
    assert pointers(admin.post("/v1/cache/warm", json={"who": 1})) == ["/who"]


def test_an_endpoints_health_is_measured_once_for_many_who_look(
    api: Api, admin: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint_id = str(api.endpoint(api.supplier("lumen"))["id"])
    path = f"/v1/suppliers/lumen/endpoints/{endpoint_id}/health"
    now = clock.now()
    tried = rollup(endpoint_id, now, delivered=3, receiver=1)
    api.storage.rollups.write([tried])
    seen = admin.get(path).json()
    assert (seen["attempts"], seen["delivered"], seen["failed"], seen["success"]) == (4, 3, 1, 0.75)
    assert seen["endpoint_id"] == endpoint_id
    api.storage.rollups.write([rollup(endpoint_id, now, delivered=1, receiver=0, process="another")])
    assert api.as_("supplier:lumen").get(path).json() == seen, "figures of the last seconds are shown again"
    later = clock.monotonic() + FRESH_SECONDS + 1
    monkeypatch.setattr("ringbearer.cache.manager.clock.monotonic", lambda: later)
    assert admin.get(path).json()["delivered"] == 4
    problem(api.as_("supplier:other").get(path), 404)
