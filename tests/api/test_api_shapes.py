"""Shapes of events over HTTP, and what endpoints that pinned a version get of them."""

import json

import httpx
import pytest

from api.harness import Api, pointers

BOOKING = "/v1/event-types/booking.confirmed/versions/2026-01"
OLD = "{name: couple.name, day: date}"
DATA = {"couple": {"name": "Ada"}, "date": "2027-06-19"}


def test_a_shape_is_registered_listed_replaced_and_deleted(admin: httpx.Client) -> None:
    assert admin.put(BOOKING, json={"expression": OLD}).status_code == 201
    again = admin.put(BOOKING, json={"expression": "{name: couple.name}"})
    assert again.status_code == 200
    admin.put("/v1/event-types/a.b/versions/2", json={"expression": "@"})
    admin.put("/v1/event-types/a.b/versions/1", json={"expression": "@"})
    first = admin.get("/v1/event-types/versions", params={"limit": 2}).json()
    assert [(s["event_type"], s["version"]) for s in first["items"]] == [("a.b", "1"), ("a.b", "2")]
    rest = admin.get("/v1/event-types/versions", params={"cursor": first["next"]}).json()
    assert rest == {"items": [again.json()], "next": None}
    assert admin.delete(BOOKING).status_code == 204
    assert admin.delete(BOOKING).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        (BOOKING, {}, "/expression"),
        (BOOKING, {"expression": "a."}, "/expression"),
        (BOOKING, {"expression": "nope(@)"}, "/expression"),
        (BOOKING, {"expression": 5}, "/expression"),
        ("/v1/event-types/a..b/versions/1", {"expression": "@"}, "/event_type"),
        ("/v1/event-types/a.b/versions/a%20b", {"expression": "@"}, "/version"),
        (f"/v1/event-types/a.b/versions/{'1' * 33}", {"expression": "@"}, "/version"),
    ],
)
def test_what_is_no_shape_is_refused(
    admin: httpx.Client, path: str, body: dict[str, object], pointer: str
) -> None:
    assert pointers(admin.put(path, json=body)) == [pointer]


def test_only_admins_change_shapes(api: Api) -> None:
    for scope, status in (("read", 403), ("publish", 403), ("supplier:lumen", 403), (None, 401)):
        client = api.as_(scope)
        assert client.put(BOOKING, json={"expression": "@"}).status_code == status
        assert client.delete(BOOKING).status_code == status
    assert api.as_("read").get("/v1/event-types/versions").status_code == 200


def test_an_endpoint_gets_the_shape_of_its_version_as_soon_as_it_changes(
    api: Api, admin: httpx.Client
) -> None:
    api.supplier()
    made = api.endpoint(event_version="2026-01")
    one = f"/v1/suppliers/lumen/endpoints/{made['id']}"

    def sent() -> object:
        body = {"type": "booking.confirmed", "data": DATA}
        return json.loads(admin.post(f"{one}/preview", json=body).json()["body"])["data"]

    catalog = api.storage.catalog
    assert sent() == DATA
    for expression, expected in ((OLD, {"name": "Ada", "day": "2027-06-19"}), ("date", "2027-06-19")):
        before = catalog.version()
        admin.put(BOOKING, json={"expression": expression})
        assert sent() == expected
        assert catalog.changes(before)[1] == {"lumen"}  # what caches ask
    before = catalog.version()
    admin.delete(BOOKING)
    assert sent() == DATA
    assert catalog.changes(before)[1] == {"lumen"}
    admin.put(BOOKING, json={"expression": OLD})
    assert admin.patch(one, json={"event_version": None}).json()["event_version"] is None
    assert sent() == DATA
    assert pointers(admin.patch(one, json={"event_version": "a b"})) == ["/event_version"]
