"""Keys and scopes: who may do what, on every route, and that no tenant can tell what another one has."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.harness import URL, Api, Json, pointers, problem
from chaos.service import wait_for
from ringbearer import clock, ids
from ringbearer.api import auth
from ringbearer.api.auth import Authenticator
from ringbearer.api.operation import Operation
from ringbearer.api.operations import MANAGEMENT
from ringbearer.domain import keys
from ringbearer.domain.deliveries import State
from ringbearer.domain.keys import Key
from ringbearer.errors import Unauthorized
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.vault import Vault, generate_key
from tools import migrated_sqlite

BODIES: dict[str, Json] = {
    "setBreaker": {"state": "auto"},
    "putShape": {"expression": "{number: n}"},
    "createEndpoint": {"url": URL},
    "createKey": {"scope": "read"},
    "createAlertChannel": {"name": "n", "kind": "slack", "address": "http://127.0.0.1:9/"},
    "startReplay": {"supplier_id": "lumen"},
    "commandWorkers": {"command": {"what": "parallelism", "slots": 64}},
    "putServiceLevel": {"target": 0.99},
}
CHANGES_OF_ENDPOINTS = {
    "createEndpoint",
    "changeEndpoint",
    "deleteEndpoint",
    "rotateSecret",
    "testEndpoint",
    "enableEndpoint",
    "disableEndpoint",
}
RETRIES = {"retryDelivery", "startReplay"}
ADMIN_ONLY = {
    "putShape",
    "deleteShape",
    "putServiceLevel",
    "deleteServiceLevel",
    "setBreaker",
    "optimizeCache",
    "warmCache",
    "commandWorkers",
    "putQueue",
    "putPriorities",
    "putSeason",
    "putSupplier",
    "deleteSupplier",
    "createKey",
    "listKeys",
    "deleteKey",
    "acknowledgeAlert",
    "createSilence",
    "deleteSilence",
    "putAlertRule",
    "resetAlertRule",
    "createAlertChannel",
    "deleteAlertChannel",
    "testAlertChannel",
}
OPERATORS_ONLY = {
    "getQueue",
    "getPriorities",
    "getSeason",
    "rehearseSeason",
    "getCalendar",
    "getQueueTimes",
    "getThroughput",
    "getErrors",
    "getServiceLevels",
    "getPatterns",
    "getOverview",
    "getCache",
    "listWorkers",
    "listCommands",
    "getCommand",
    "listAlerts",
    "getAlert",
    "listSilences",
    "listAlertRules",
    "listAlertChannels",
}
"""What keys of the whole service may see, and no supplier's."""
LISTS = {"listBreakers", "listSuppliers", "listDeliveries", "listShapes", "getFigures", "getReport"}
SCALING = {
    "getScaling",
    "changeScaling",
    "listScalingDecisions",
    "getResources",
    "getScalingReport",
    "getForecast",
    "getSlas",
    "setSlas",
}


class World:
    """A supplier with one of everything, and how to ask each route for it."""

    def __init__(self, api: Api) -> None:
        api.supplier("lumen")
        api.supplier("other")
        endpoint_id = str(api.endpoint()["id"])
        delivery_id = api.event("lumen", [endpoint_id])[0]
        admin = api.as_("admin")
        replay = admin.post("/v1/deliveries/replay", json={"supplier_id": "lumen"}).json()
        shape = admin.put("/v1/event-types/booking.made/versions/2026-01", json=BODIES["putShape"])
        assert shape.status_code == 201
        promised = admin.put("/v1/slos/success/all", json=BODIES["putServiceLevel"])
        assert promised.status_code in (200, 201)
        self.ids = {
            "supplier_id": "lumen",
            "endpoint_id": endpoint_id,
            "delivery_id": delivery_id,
            "event_id": ids.event_of(delivery_id),
            "replay_id": replay["replay_id"],
            "month": "2027-06",
            "kind": "success",
            "name": "all",
            "event_type": "booking.made",
            "version": "2026-01",
            "alert_id": api.alert().id,
            "silence_id": admin.post("/v1/alert-silences", json={}).json()["id"],
            "rule_id": "no_worker",
            "channel_id": admin.post("/v1/alert-channels", json=BODIES["createAlertChannel"]).json()["id"],
            "command_id": admin.post("/v1/workers/commands", json=BODIES["commandWorkers"]).json()["id"],
            "key_id": admin.post("/v1/keys", json={"scope": "read"}).json()["id"],
        }

    def ask(self, client: httpx.Client, operation: Operation, **other: str) -> httpx.Response:
        """Ask for what there is, but for the ids given."""
        path = operation.path.format_map(self.ids | other)
        body = BODIES.get(operation.name)
        return (
            client.request(operation.method, path, json=body)
            if body
            else client.request(operation.method, path)
        )


@pytest.fixture
def world(api: Api) -> World:
    """A supplier with one of everything."""
    return World(api)


by_name = pytest.mark.parametrize("operation", MANAGEMENT, ids=lambda operation: operation.name)


@by_name
def test_without_a_key_nothing_is_told(api: Api, world: World, operation: Operation) -> None:
    for client in (api.as_(None), api.client({"authorization": "Bearer rb_wrong"})):
        answer = world.ask(client, operation)
        problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"


@by_name
def test_an_admin_may_do_everything(api: Api, world: World, operation: Operation) -> None:
    fine: tuple[int, ...] = (200, 201, 202, 204)
    if operation.name == "testAlertChannel":
        fine = (409,)  # it may; only nobody is there to take the message
    assert world.ask(api.as_("admin"), operation).status_code in fine


@by_name
def test_a_publisher_may_only_publish(api: Api, world: World, operation: Operation) -> None:
    problem(world.ask(api.as_("publish"), operation), 403)


@by_name
def test_a_reader_sees_all_but_keys_and_changes_nothing(api: Api, world: World, operation: Operation) -> None:
    answer = world.ask(api.as_("read"), operation)
    if operation.method == "GET" and operation.name not in ADMIN_ONLY:
        assert answer.status_code == 200
    else:
        problem(answer, 403)


@by_name
def test_an_orchestrator_reaches_only_the_number_of_workers(
    api: Api, world: World, operation: Operation
) -> None:
    answer = world.ask(api.as_("scaling"), operation)
    if operation.name in SCALING:
        assert answer.status_code == 200
    else:
        problem(answer, 403)


@by_name
def test_a_supplier_reaches_its_own(api: Api, world: World, operation: Operation) -> None:
    answer = world.ask(api.as_("supplier:lumen"), operation)
    if operation.name in ADMIN_ONLY | SCALING | OPERATORS_ONLY:
        problem(answer, 403)
    else:
        assert answer.status_code in (200, 201, 202, 204)


@by_name
def test_a_supplier_cannot_tell_anothers_from_what_is_not_there(
    api: Api, world: World, operation: Operation
) -> None:
    stranger = api.as_("supplier:other")
    answer = world.ask(stranger, operation)
    if operation.name in ADMIN_ONLY | SCALING | OPERATORS_ONLY:
        problem(answer, 403)
    elif operation.name in LISTS:
        assert answer.status_code == 200
        assert "lumen" not in answer.text
    else:
        nowhere = {name: _like(value) for name, value in world.ids.items()}
        missing = world.ask(stranger, operation, **nowhere)
        if operation.name == "startReplay":
            problem(answer, 404)
            return
        there, gone = problem(answer, 404)["detail"], problem(missing, 404)["detail"]
        for name, value in world.ids.items():
            gone = str(gone).replace(nowhere[name], value)
        assert there == gone
    assert world.ask(api.as_("admin"), _operation("getEndpoint")).json()["enabled"] is True


@by_name
def test_a_supplier_finds_no_endpoint_of_another_under_its_own_name(
    api: Api, world: World, operation: Operation
) -> None:
    if "{endpoint_id}" in operation.path and operation.name not in ADMIN_ONLY:
        problem(world.ask(api.as_("supplier:other"), operation, supplier_id="other"), 404)


def test_a_supplier_lists_only_itself_and_its_deliveries(api: Api, world: World) -> None:
    api.event("other", [str(api.endpoint("other")["id"])])
    own = api.as_("supplier:lumen")
    assert [s["id"] for s in own.get("/v1/suppliers").json()["items"]] == ["lumen"]
    assert own.get("/v1/suppliers?cursor=lumen").json()["items"] == []
    assert {d["supplier_id"] for d in own.get("/v1/deliveries").json()["items"]} == {"lumen"}
    assert len(api.as_("read").get("/v1/deliveries").json()["items"]) == 2
    stranger = api.as_("supplier:other")
    assert (
        stranger.get("/v1/deliveries", params={"endpoint_id": world.ids["endpoint_id"]}).json()["items"] == []
    )
    assert stranger.get("/v1/deliveries", params={"event_id": world.ids["event_id"]}).json()["items"] == []
    problem(stranger.get("/v1/deliveries?supplier_id=lumen"), 404)


def test_a_suppliers_replay_moves_only_its_own(api: Api, world: World) -> None:
    api.event("other", [str(api.endpoint("other")["id"])])
    api.settle(State.DEAD)
    own = api.as_("supplier:lumen")
    started = own.post("/v1/deliveries/replay", json={}).json()
    assert started["matched"] == 1
    seen = own.get(f"/v1/deliveries/replay/{started['replay_id']}").json()
    assert seen["filter"]["supplier_id"] == "lumen"


# ── keys ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("scope", ["admin", "publish", "read", "scaling", "supplier:lumen"])
def test_a_new_key_is_shown_once_and_works(api: Api, admin: httpx.Client, scope: str) -> None:
    api.supplier()
    answer = admin.post("/v1/keys", json={"scope": scope, "name": "till"})
    assert answer.status_code == 201
    made = answer.json()
    text = made.pop("key")
    assert text.startswith("rb_")
    assert (made["scope"], made["name"], made["last_four"]) == (scope, "till", text[-4:])
    assert made in admin.get("/v1/keys").json()["items"]
    assert api.client({"authorization": f"bearer  {text}"}).get("/v1/suppliers").status_code in (200, 403)
    assert text not in admin.get("/v1/keys").text


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "/scope"),
        ({"scope": "root"}, "/scope"),
        ({"scope": "supplier:"}, "/scope"),
        ({"scope": "supplier:nobody"}, "/scope"),
        ({"scope": "supplier:a/b"}, "/scope"),
        ({"scope": None}, "/scope"),
        ({"scope": "read", "name": "x" * 201}, "/name"),
        ({"scope": "read", "expires": 5}, "/expires"),
    ],
)
def test_an_unfit_key_is_refused(admin: httpx.Client, body: Json, place: str) -> None:
    assert pointers(admin.post("/v1/keys", json=body)) == [place]


def test_a_deleted_key_stops_at_once(api: Api, admin: httpx.Client) -> None:
    made = admin.post("/v1/keys", json={"scope": "read"}).json()
    reader = api.client({"authorization": f"Bearer {made['key']}"})
    assert reader.get("/v1/suppliers").status_code == 200
    assert admin.delete(f"/v1/keys/{made['id']}").status_code == 204
    problem(reader.get("/v1/suppliers"), 401)
    problem(admin.delete(f"/v1/keys/{made['id']}"), 404)


def test_a_key_deleted_elsewhere_stops_within_a_second(api: Api) -> None:
    reader = api.as_("read")
    assert reader.get("/v1/suppliers").status_code == 200
    (key,) = [key for key in api.storage.catalog.list_keys(limit=9) if key.scope == "read"]
    api.storage.catalog.delete_key(key.id)
    wait_for(lambda: reader.get("/v1/suppliers").status_code != 200, 30, "the key to be forgotten")
    problem(reader.get("/v1/suppliers"), 401)


def test_the_key_in_use_cannot_delete_itself(admin: httpx.Client) -> None:
    (own,) = admin.get("/v1/keys").json()["items"]
    problem(admin.delete(f"/v1/keys/{own['id']}"), 409)
    assert admin.get("/v1/keys").status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Basic cm9vdDpyb290",
        "rb_x",
        "Bearer " + "x" * 2_000,
        "Bearer \xfc\xff",
        "Bearer a b",
    ],
)
def test_a_poor_authorization_header_is_401(api: Api, header: str) -> None:
    client = api.client({})
    problem(client.get("/v1/suppliers", headers=[(b"authorization", header.encode("latin-1"))]), 401)


def test_two_authorization_headers_are_none(api: Api) -> None:
    header = (b"authorization", f"Bearer {api.key('admin')}".encode())
    client = api.client({})
    assert client.get("/v1/suppliers", headers=[header]).status_code == 200
    problem(client.get("/v1/suppliers", headers=[header, header]), 401)


# ── the authenticator ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Storage]:
    """An empty store."""
    with open_storage(migrated_sqlite(tmp_path / "store.db"), Vault([generate_key()])) as opened:
        yield opened


def add_key(store: Storage) -> bytes:
    """The header that presents a new key."""
    text = keys.generate()
    key = Key(id=ids.key(), scope="read", created_at=clock.to_datetime(clock.now()), last_four=text[-4:])
    store.catalog.add_key(key, keys.digest(text))
    return f"Bearer {text}".encode()


def test_a_key_is_believed_for_a_second(store: Storage) -> None:
    async def scenario() -> None:
        now = 100.0
        authenticator = Authenticator(store.catalog, monotonic=lambda: now)
        header = add_key(store)
        assert authenticator.cached(header) is None
        key = await authenticator.authenticate(header)
        now = 100.99
        assert authenticator.cached(header) == key
        now = 101.0
        assert authenticator.cached(header) is None
        assert await authenticator.authenticate(header) == key
        authenticator.forget()
        assert authenticator.cached(header) is None

    asyncio.run(scenario())


def test_strings_that_are_no_key_are_remembered_too(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    find = store.catalog.find_key

    def counted(digest: str) -> Key | None:
        asked.append(digest)
        return find(digest)

    monkeypatch.setattr(store.catalog, "find_key", counted)

    async def scenario() -> None:
        authenticator = Authenticator(store.catalog)
        header = add_key(store)
        for _ in range(3):
            with pytest.raises(Unauthorized):
                await authenticator.authenticate(b"Bearer wrong")
        assert len(asked) == 1
        await asyncio.gather(*(authenticator.authenticate(header) for _ in range(50)))
        assert len(asked) == 2
        assert repr(authenticator) == "<Authenticator with 1 keys and 1 that are none>"

    asyncio.run(scenario())


def test_a_flood_of_wrong_keys_drives_out_no_right_one(
    store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "MAX_REMEMBERED", 10)

    async def scenario() -> None:
        authenticator = Authenticator(store.catalog, monotonic=lambda: 0.0)
        header = add_key(store)
        await authenticator.authenticate(header)
        for number in range(30):
            with pytest.raises(Unauthorized):
                await authenticator.authenticate(f"Bearer {number}".encode())
        assert authenticator.cached(header) is not None
        assert repr(authenticator) == "<Authenticator with 1 keys and 10 that are none>"

    asyncio.run(scenario())


def test_a_lookup_that_began_before_a_deletion_is_not_remembered(
    store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = add_key(store)
    find = store.catalog.find_key

    async def scenario() -> None:
        authenticator = Authenticator(store.catalog)
        loop = asyncio.get_running_loop()

        def overtaken(digest: str) -> Key | None:
            key = find(digest)
            asyncio.run_coroutine_threadsafe(forget(), loop).result()
            return key

        async def forget() -> None:
            authenticator.forget()

        monkeypatch.setattr(store.catalog, "find_key", overtaken)
        await authenticator.authenticate(header)
        assert authenticator.cached(header) is None

    asyncio.run(scenario())


def _like(identifier: str) -> str:
    """An id of the same form that nothing has."""
    return re.sub(r"[0-9a-f]{4}$", "ffff", identifier) if "_" in identifier else "nobody"


def _operation(name: str) -> Operation:
    return next(operation for operation in MANAGEMENT if operation.name == name)
