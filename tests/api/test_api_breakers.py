"""Circuit breakers over HTTP: seen by whose they are, forced by an operator, listed while they are open."""

import httpx
import pytest

from api.harness import Api, pointers, problem
from ringbearer import clock
from ringbearer.domain.breakers import Circuit


def _where(api: Api, supplier: str = "lumen") -> tuple[str, str]:
    api.supplier(supplier)
    endpoint_id = str(api.endpoint(supplier)["id"])
    return endpoint_id, f"/v1/suppliers/{supplier}/endpoints/{endpoint_id}/breaker"


def _opened(api: Api, endpoint_id: str, supplier: str = "lumen") -> Circuit:
    now = clock.now()
    circuit = Circuit(
        endpoint_id=endpoint_id,
        supplier_id=supplier,
        state="open",
        since=now,
        opened=2,
        probe_at=now + 60 * clock.SECOND,
        reason="10 of the last 10 attempts failed",
    )
    assert api.storage.breakers.change([circuit]) == {endpoint_id}
    return circuit


def test_an_endpoint_that_never_failed(api: Api, admin: httpx.Client) -> None:
    endpoint_id, where = _where(api)
    shown = admin.get(where).json()
    assert shown == {
        "id": endpoint_id,
        "supplier_id": "lumen",
        "state": "closed",
        "forced": False,
        "since": None,
        "opened": 0,
        "reason": None,
        "next_probe": None,
    }
    assert admin.get("/v1/breakers").json() == {"items": [], "next": None}


def test_an_open_one_tells_why_and_until_when(api: Api, admin: httpx.Client) -> None:
    endpoint_id, where = _where(api)
    circuit = _opened(api, endpoint_id)
    shown = admin.get(where).json()
    assert (shown["state"], shown["forced"], shown["opened"], shown["reason"]) == (
        "open",
        False,
        2,
        circuit.reason,
    )
    assert shown["next_probe"] > shown["since"]
    assert admin.get("/v1/breakers").json()["items"] == [shown]


def test_forced_open_forced_closed_and_left_to_itself(api: Api, admin: httpx.Client) -> None:
    endpoint_id, where = _where(api)
    _opened(api, endpoint_id)
    for state in ("closed", "open"):
        shown = admin.post(where, json={"state": state})
        assert shown.status_code == 200
        assert (shown.json()["state"], shown.json()["forced"]) == (state, True)
        assert shown.json()["next_probe"] is None
        assert admin.get(where).json() == shown.json()
    shown = admin.post(where, json={"state": "auto"})
    assert (shown.json()["state"], shown.json()["forced"]) == ("closed", False)


def test_the_list_is_paged_and_shows_each_key_its_own(api: Api, admin: httpx.Client) -> None:
    ids = []
    for supplier in ("lumen", "lumen", "rosa"):
        endpoint_id, _ = _where(api, supplier)
        _opened(api, endpoint_id, supplier)
        ids.append(endpoint_id)
    first = admin.get("/v1/breakers?limit=2").json()
    rest = admin.get("/v1/breakers", params={"limit": 2, "cursor": first["next"]}).json()
    assert [each["id"] for each in first["items"] + rest["items"]] == sorted(ids)
    assert rest["next"] is None
    own = api.as_("supplier:rosa").get("/v1/breakers").json()
    assert [each["id"] for each in own["items"]] == ids[2:]


@pytest.mark.parametrize("scope", ["read", "supplier:lumen"])
def test_only_an_operator_may_force_it(scope: str, api: Api) -> None:
    _, where = _where(api)
    client = api.as_(scope)
    assert client.get(where).status_code == 200
    problem(client.post(where, json={"state": "open"}), 403)


def test_what_it_refuses(api: Api, admin: httpx.Client) -> None:
    _, where = _where(api)
    assert pointers(admin.post(where, json={"state": "ajar"})) == ["/state"]
    assert pointers(admin.post(where, json={"state": "open", "for": 5})) == ["/for"]
    problem(admin.get("/v1/suppliers/lumen/endpoints/ep_0/breaker"), 404)
