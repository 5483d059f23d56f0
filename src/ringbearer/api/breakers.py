"""Circuit breakers: which endpoints are left alone, why and until when; forced open or closed, or left to themselves."""

from typing import Annotated, Literal

import msgspec
from litestar import Response, get, post
from msgspec import Meta

from ringbearer import clock
from ringbearer.api.answers import json_answer, page
from ringbearer.api.auth import Action, require
from ringbearer.api.reading import ApiRequest, PageQuery, path_id, read_body, read_query
from ringbearer.api.services import ApiServices
from ringbearer.domain.breakers import Circuit, CircuitState
from ringbearer.domain.keys import Key
from ringbearer.domain.times import Moment

_ONE = "/v1/suppliers/{supplier_id:str}/endpoints/{endpoint_id:str}/breaker"


class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """Where an endpoint's circuit stands. `forced`: by an operator, who alone can take it back, or for relief
    of a service level, as the reason tells.

    `opened` counts how often it opened in a row; `next_probe` is when it is next tried with one delivery.
    """

    id: str
    """The endpoint's."""
    supplier_id: str
    state: CircuitState
    forced: bool
    since: Moment | None
    opened: int
    reason: str | None
    next_probe: Moment | None


class BreakerChange(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a circuit is to do."""

    state: Annotated[
        Literal["open", "closed", "auto"],
        Meta(description="open or closed whatever happens, or auto: closed until its attempts fail"),
    ]


@get(_ONE)
async def get_breaker(supplier_id: str, endpoint_id: str, key: Key, services: ApiServices) -> Response[bytes]:
    """Where the endpoint's circuit stands."""
    require(key, Action.READ, supplier_id)
    await _exists(services, supplier_id, endpoint_id)
    return json_answer(_shown(await services.store(services.storage.breakers.get, endpoint_id, supplier_id)))


@post(_ONE)
async def set_breaker(
    supplier_id: str, endpoint_id: str, request: ApiRequest, key: Key, services: ApiServices
) -> Response[bytes]:
    """Keep the endpoint's circuit open or closed, or let it find out for itself again."""
    require(key, Action.CHANGE_SUPPLIERS, supplier_id)
    await _exists(services, supplier_id, endpoint_id)
    body = await read_body(request, BreakerChange)
    services.changes.take(endpoint_id)
    forced = None if body.state == "auto" else body.state
    circuit = await services.store(
        services.storage.breakers.force, endpoint_id, supplier_id, forced, now=clock.now()
    )
    if circuit.standing == "closed":
        await services.store(services.storage.ledger.parking.unpark, [endpoint_id], now=clock.now())
        services.wake()
    return json_answer(_shown(circuit), 200)


@get("/v1/breakers")
async def list_breakers(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """The circuits that are not closed, as far as the key may see their suppliers."""
    require(key, Action.READ)
    query = read_query(request, PageQuery)
    found = await services.store(
        services.storage.breakers.standing_open,
        limit=query.limit + 1,
        cursor=query.cursor,
        supplier_id=key.supplier_id,
    )
    return json_answer(page([_shown(circuit) for circuit in found], query.limit))


async def _exists(services: ApiServices, supplier_id: str, endpoint_id: str) -> None:
    supplier_id, endpoint_id = path_id(supplier_id, "supplier"), path_id(endpoint_id, "endpoint")
    await services.store(services.storage.catalog.get_endpoint, supplier_id, endpoint_id)


def _shown(circuit: Circuit) -> Breaker:
    probing = circuit.forced is None and circuit.state != "closed"
    return Breaker(
        id=circuit.endpoint_id,
        supplier_id=circuit.supplier_id,
        state=circuit.standing,
        forced=circuit.forced is not None,
        since=clock.to_datetime(circuit.since) if circuit.since else None,
        opened=circuit.opened,
        reason=circuit.reason,
        next_probe=clock.to_datetime(circuit.probe_at) if probing else None,
    )
