"""Suppliers: created and replaced with PUT, seen, listed and deleted."""

from collections.abc import Iterator
from typing import Annotated

import msgspec
from litestar import Response, delete, get, put
from msgspec import Meta

from ringbearer import clock
from ringbearer.api.answers import empty_answer, json_answer, page
from ringbearer.api.auth import Action, require
from ringbearer.api.checks import MAX_METADATA_BYTES, metadata_problems, timezone_problems
from ringbearer.api.reading import ApiRequest, Fields, PageQuery, path_id, read_body, read_query
from ringbearer.api.services import ApiServices
from ringbearer.domain.endpoints import RateLimit
from ringbearer.domain.keys import Key
from ringbearer.domain.suppliers import SUPPLIER_ID, Supplier, Tier
from ringbearer.errors import InvalidInput

Name = Annotated[str, Meta(max_length=200)]


class SupplierBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All of a supplier that may be said; what is left out has its default, also when it was said before."""

    name: Annotated[Name | None, Meta(description="a name of at most 200 characters, or null")] = None
    tier: Annotated[Tier, Meta(description="standard, premium or enterprise")] = "standard"
    timezone: Annotated[str, Meta(description="a time zone of the IANA database")] = "UTC"
    metadata: Annotated[
        dict[str, object],
        Meta(description=f"an object for your own use, of at most {MAX_METADATA_BYTES} bytes of JSON"),
    ] = {}
    rate_limit: Annotated[
        RateLimit | None,
        Meta(
            description="requests (1 to 1,000,000) in a period (0.001 to 2,678,400 seconds) to all its endpoints "
            "together, or null for no limit"
        ),
    ] = None
    max_concurrency: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)] | None,
        Meta(
            description="how many requests a worker may have under way to all its endpoints, from 1 to 10,000, or "
            "null for no limit"
        ),
    ] = None


@put("/v1/suppliers/{supplier_id:str}")
async def put_supplier(
    supplier_id: str, request: ApiRequest, key: Key, services: ApiServices
) -> Response[bytes]:
    """Create the supplier (201) or replace it (200)."""
    require(key, Action.CHANGE_SUPPLIERS, supplier_id)
    if not SUPPLIER_ID.fullmatch(supplier_id):
        message = "expected 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-' as the supplier's id"
        raise InvalidInput(message, [("/id", message)])
    body = await read_body(request, SupplierBody, _problems)
    now = clock.to_datetime(clock.now())
    catalog = services.storage.catalog
    supplier = Supplier(
        id=supplier_id,
        name=body.name,
        tier=body.tier,
        timezone=body.timezone,
        metadata=body.metadata,
        rate_limit=body.rate_limit,
        max_concurrency=body.max_concurrency,
        created_at=now,
        updated_at=now,
    )
    before = (await services.store(catalog.subscriptions, [supplier_id])).get(supplier_id)
    created = await services.store(catalog.put_supplier, supplier)
    await services.configured(supplier_id)
    if not created:
        supplier = await services.store(catalog.get_supplier, supplier_id)
    if before is not None and before.supplier.rate_limit != supplier.rate_limit:
        parking = services.storage.ledger.parking
        await services.store(parking.limits_changed, before.targets, now=clock.now())
    return json_answer(supplier, 201 if created else 200)


@get("/v1/suppliers")
async def list_suppliers(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """The suppliers that the key may see, by id."""
    require(key, Action.READ)
    query = read_query(request, PageQuery)
    catalog = services.storage.catalog
    if key.supplier_id is not None:
        only = [await services.store(catalog.get_supplier, key.supplier_id)]
        return json_answer(
            page([s for s in only if query.cursor is None or s.id > query.cursor], query.limit)
        )
    found = await services.store(catalog.list_suppliers, limit=query.limit + 1, cursor=query.cursor)
    return json_answer(page(found, query.limit))


@get("/v1/suppliers/{supplier_id:str}")
async def get_supplier(supplier_id: str, key: Key, services: ApiServices) -> Response[bytes]:
    """One supplier."""
    require(key, Action.READ, supplier_id)
    known = path_id(supplier_id, "supplier")
    return json_answer(await services.store(services.catalog(key).get_supplier, known))


@delete("/v1/suppliers/{supplier_id:str}")
async def delete_supplier(supplier_id: str, key: Key, services: ApiServices) -> Response[None]:
    """Forget the supplier, its endpoints and its keys."""
    require(key, Action.CHANGE_SUPPLIERS, supplier_id)
    known = path_id(supplier_id, "supplier")
    await services.store(services.storage.catalog.delete_supplier, known)
    await services.configured(supplier_id)
    services.authenticator.forget()
    await services.settle()
    return empty_answer()


def _problems(fields: Fields) -> Iterator[tuple[str, str]]:
    zone, metadata = fields.get("timezone"), fields.get("metadata")
    if isinstance(zone, str):
        yield from timezone_problems(zone)
    if isinstance(metadata, dict):
        yield from metadata_problems(metadata)
