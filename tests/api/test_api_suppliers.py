"""Suppliers over HTTP: put, list, see, delete, and what they refuse."""

import httpx
import pytest

from api.harness import Api, pointers, problem
from ringbearer import clock
from ringbearer.storage.parking import RATE_LIMIT, Park

PATH = "/v1/suppliers/lumen"


def test_put_creates_then_replaces(admin: httpx.Client) -> None:
    body = {"name": "Lumen", "tier": "premium", "timezone": "Europe/Berlin", "metadata": {"vip": True}}
    created = admin.put(PATH, json=body)
    assert created.status_code == 201
    assert created.json() | body == created.json()
    assert created.json()["id"] == "lumen"
    assert created.json()["created_at"].endswith("Z")
    replaced = admin.put(PATH, json={"tier": "enterprise"})
    assert replaced.status_code == 200
    assert replaced.json()["tier"] == "enterprise"
    assert replaced.json()["name"] is None
    assert replaced.json()["created_at"] == created.json()["created_at"]
    assert admin.get(PATH).json() == replaced.json()


def test_an_empty_body_takes_all_defaults(admin: httpx.Client) -> None:
    made = admin.put(PATH)
    assert made.status_code == 201
    assert (made.json()["tier"], made.json()["timezone"]) == ("standard", "UTC")


def test_changes_are_told_to_the_cache(api: Api, admin: httpx.Client) -> None:
    assert api.cache.lookup(["lumen"]) == {"lumen": None}
    admin.put(PATH, json={})
    assert api.cache.lookup(["lumen"])["lumen"] is not None
    admin.delete(PATH)
    assert api.cache.lookup(["lumen"]) == {"lumen": None}


def test_a_changed_rate_limit_brings_back_what_waits_for_it_at_all_endpoints(
    api: Api, admin: httpx.Client
) -> None:
    limit = {"requests": 1, "period": 3_600}
    admin.put(PATH, json={"rate_limit": limit})
    api.supplier("other")
    now, parking = clock.now(), api.storage.ledger.parking
    endpoints = [str(api.endpoint(supplier)["id"]) for supplier in ("lumen", "lumen", "other")]
    for supplier, endpoint_id in zip(("lumen", "lumen", "other"), endpoints, strict=True):
        api.event(supplier, [endpoint_id])
    parks = [Park(e, now + 3_600 * clock.SECOND, clock.SECOND, RATE_LIMIT) for e in endpoints]
    parking.park(parks, now=now)

    def soon() -> int:
        return api.storage.ledger.stage(now=clock.now() + 10 * clock.SECOND, limit=10)

    admin.put(PATH, json={"name": "Lumen", "rate_limit": limit})
    assert soon() == 0
    admin.put(PATH, json={"name": "Lumen", "rate_limit": limit | {"requests": 100}})
    assert soon() == 2


@pytest.mark.parametrize("supplier_id", ["a" * 65, "a b", "a%00b", "a\u00fc", "a:b", "%F0%9F%92%8D"])
def test_an_id_outside_the_alphabet_is_refused(admin: httpx.Client, supplier_id: str) -> None:
    assert pointers(admin.put(f"/v1/suppliers/{supplier_id}", json={})) == ["/id"]
    problem(admin.get(f"/v1/suppliers/{supplier_id}"), 404)
    problem(admin.delete(f"/v1/suppliers/{supplier_id}"), 404)


def test_every_problem_is_named_at_once(admin: httpx.Client) -> None:
    body = {"name": 1, "tier": "gold", "timezone": "Mars/Olympus", "metadata": [], "colour": "red", "a/b": 1}
    answer = admin.put(PATH, json=body)
    assert pointers(answer) == ["/a~1b", "/colour", "/metadata", "/name", "/tier", "/timezone"]
    assert "'colour'" in answer.text
    problem(admin.get(PATH), 404)


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x" * 201},
        {"name": "a\x00b"},
        {"name": "a\x1b[31mb"},
        {"name": "a\nb"},
        {"name": "a\x85b"},
        {"timezone": "../../etc/passwd"},
        {"timezone": ""},
        {"tier": None},
        {"metadata": {"a": "\x00"}},
        {"metadata": {"a\x00": 1}},
        {"metadata": {"a": "x" * 17_000}},
        {"metadata": None},
    ],
)
def test_unfit_values_are_refused(admin: httpx.Client, body: dict[str, object]) -> None:
    (field,) = body
    assert pointers(admin.put(PATH, json=body))[0].split("/")[1] == field


def test_metadata_keeps_what_it_was_given(admin: httpx.Client) -> None:
    metadata = {"note": "two\nlines", "big": 2**70, "ü": [None, 1.5, {"": "/~"}]}
    assert admin.put(PATH, json={"metadata": metadata}).status_code == 201
    assert admin.get(PATH).json()["metadata"] == metadata


def test_lists_go_page_by_page(api: Api, admin: httpx.Client) -> None:
    for name in ("a", "b", "c", "d", "e"):
        api.supplier(name)
    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        page = admin.get(
            "/v1/suppliers", params={"limit": "2"} | ({"cursor": cursor} if cursor else {})
        ).json()
        assert set(page) == {"items", "next"}
        seen += [item["id"] for item in page["items"]]
        cursor, pages = page["next"], pages + 1
    assert (seen, pages) == (["a", "b", "c", "d", "e"], 3)
    assert admin.get("/v1/suppliers?limit=5").json()["next"] is None
    assert admin.get("/v1/suppliers?cursor=zzz").json() == {"items": [], "next": None}


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=251",
        "limit=-1",
        "limit=x",
        "limit=",
        "limit=1e9",
        "limit=" + "9" * 400,
        "limit=1&limit=2",
    ],
)
def test_a_limit_out_of_bounds_is_refused(admin: httpx.Client, query: str) -> None:
    assert pointers(admin.get(f"/v1/suppliers?{query}")) == ["/limit"]


@pytest.mark.parametrize(
    "cursor", ["%00", "a%20b", "%FF%FE", "x" * 65, "", "'; drop table suppliers", "a%0A"]
)
def test_a_garbage_cursor_does_no_harm(admin: httpx.Client, cursor: str) -> None:
    assert pointers(admin.get(f"/v1/suppliers?cursor={cursor}"))[0] == "/cursor"


def test_unknown_query_parameters_are_named(admin: httpx.Client) -> None:
    assert pointers(admin.get("/v1/suppliers?limits=3&page=2")) == ["/limits", "/page"]


def test_delete_forgets_endpoints_and_keys(api: Api, admin: httpx.Client) -> None:
    api.supplier()
    endpoint = api.endpoint()
    own = api.as_("supplier:lumen")
    assert own.get(PATH).status_code == 200
    gone = admin.delete(PATH)
    assert (gone.status_code, gone.content) == (204, b"")
    problem(own.get(PATH), 401)
    problem(admin.get(f"{PATH}/endpoints/{endpoint['id']}"), 404)
    problem(admin.get(f"{PATH}/endpoints"), 404)
    problem(admin.delete(PATH), 404)
    assert api.reconciled == 1
    assert admin.put(PATH).status_code == 201
    assert admin.get(f"{PATH}/endpoints").json() == {"items": [], "next": None}
