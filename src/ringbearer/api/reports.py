"""Reports: a month's deliveries and service levels, of all or of one supplier."""

from typing import Annotated

import msgspec
from litestar import Response, get
from msgspec import Meta

from ringbearer import clock
from ringbearer.api.answers import json_answer
from ringbearer.api.auth import Action, may_see, require
from ringbearer.api.reading import ApiRequest, read_query
from ringbearer.api.services import ApiServices
from ringbearer.domain.keys import Key
from ringbearer.errors import NotFound
from ringbearer.monitor.report import MONTH


class ReportQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Whose report it is."""

    supplier_id: Annotated[
        Annotated[str, Meta(max_length=64)] | None,
        Meta(description="a supplier's id; without it, all of them"),
    ] = None


@get("/v1/reports/{month:str}")
async def get_report(month: str, request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """The report of a month; a supplier's key sees its own."""
    require(key, Action.READ)
    query = read_query(request, ReportQuery)
    supplier_id = query.supplier_id
    if key.supplier_id is not None:
        if supplier_id is None:
            supplier_id = key.supplier_id
        if not may_see(key, supplier_id):
            raise NotFound(f"there is no supplier {supplier_id!r}")
    elif supplier_id is not None:
        await services.store(services.storage.catalog.get_supplier, supplier_id)
    if not MONTH.fullmatch(month):
        raise NotFound("there is no such month: months are written as 2027-06")
    return json_answer(
        await services.store(services.monitor.report, month, now=clock.now(), supplier_id=supplier_id)
    )
