"""The cache over HTTP: it tells how it does, sets its size, and brings suppliers into memory."""

import httpx

from api.harness import Api, pointers, problem


def test_it_tells_what_each_tier_did(api: Api, admin: httpx.Client) -> None:
    api.supplier("lumen")
    api.endpoint("lumen")
    api.cache.refresh()
    api.cache.lookup(["lumen", "nobody"])
    api.cache.lookup(["lumen"])
    told = api.as_("read").get("/v1/cache").json()
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
    assert admin.get("/v1/cache").json()["last_warming"] == again


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
    assert admin.get("/v1/cache").json()["last_optimization"] == found


def test_who_may_not_is_told_so_and_what_is_wrong_named(api: Api, admin: httpx.Client) -> None:
    problem(api.as_("publish").get("/v1/cache"), 403)
    problem(api.as_("read").post("/v1/cache/optimize"), 403)
    assert pointers(admin.post("/v1/cache/warm", json={"suppliers": ["a/b"], "within": 51})) == [
        "/suppliers/0",
        "/within",
    ]
    assert pointers(admin.post("/v1/cache/warm", json={"within": 51})) == ["/within"]
    assert pointers(admin.post("/v1/cache/warm", json={"who": 1})) == ["/who"]
