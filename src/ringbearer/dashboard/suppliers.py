"""*Suppliers*: who they are, and each with its endpoints and newest deliveries."""

from collections.abc import Sequence

import msgspec
from litestar import Response, get

from ringbearer import clock
from ringbearer.api.answers import Page
from ringbearer.api.auth import Action, require
from ringbearer.dashboard import trends
from ringbearer.dashboard.doorway import redirect
from ringbearer.dashboard.paging import PER_PAGE, window
from ringbearer.dashboard.rendering import page
from ringbearer.dashboard.services import PageRequest, PageServices, query_of
from ringbearer.dashboard.sessions import Visitor
from ringbearer.domain.endpoints import Endpoint
from ringbearer.domain.suppliers import Supplier
from ringbearer.monitor.figures import Percentiles, Totals
from ringbearer.storage.search import Filter

_NEWEST = 10


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured in 24 hours, and by the hour; durations in seconds."""

    points: list[trends.Point]
    attempts: int
    success: float | None
    dead: int
    reach: Percentiles
    """From ready to the first byte sent."""
    answer: Percentiles
    """From the first byte sent to the answer."""


@get("/suppliers")
async def list_suppliers(request: PageRequest, visitor: Visitor, services: PageServices) -> Response[str]:
    """Every supplier, by id; one that is bound to a supplier sees that one."""
    if visitor.key.supplier_id is not None:
        return redirect(f"/suppliers/{visitor.key.supplier_id}")
    query = query_of(request)
    found = await services.store(
        services.storage.overview.suppliers,
        limit=PER_PAGE + 1,
        text=query.get("text"),
        after=query.get("after"),
        before=query.get("before"),
    )
    shown = window(found, query)
    days = await last_days(services, "supplier", [each.id for each in shown.items])
    return page("suppliers.html", visitor, found=shown, days=days, text=query.get("text"))


async def last_days(services: PageServices, dimension: str, keys: Sequence[str]) -> dict[str, Totals]:
    """What became of the attempts of each of these suppliers or endpoints in the last 24 hours."""
    now = clock.now()
    return await services.store(services.monitor.totals, dimension, keys, now - trends.DAY, now)


async def last_day(services: PageServices, dimension: str, key: str) -> Day:
    """What was measured of one supplier or endpoint in the last 24 hours."""
    now = clock.now()
    since = now - trends.DAY
    series = await services.store(
        services.monitor.series, since, now, trends.HOUR, dimension=dimension, key=key
    )
    whole = trends.together(series.values())
    return Day(
        points=trends.points(series, since=since, until=now, step=trends.HOUR),
        attempts=whole.attempts,
        success=whole.success,
        dead=whole.dead,
        reach=whole.distribution("reach"),
        answer=whole.distribution("answer"),
    )


@get("/suppliers/{supplier_id:str}")
async def show_supplier(supplier_id: str, visitor: Visitor, services: PageServices) -> Response[str]:
    """One supplier."""
    require(visitor.key, Action.READ, supplier_id)
    supplier = await services.api.get(visitor.key, f"/v1/suppliers/{supplier_id}", Supplier)
    endpoints = await services.api.get(
        visitor.key, f"/v1/suppliers/{supplier_id}/endpoints", Page[Endpoint], {"limit": 250}
    )
    newest = await services.store(
        services.history(visitor).find, Filter(supplier_id=supplier_id), limit=_NEWEST
    )
    day = await last_day(services, "supplier", supplier_id)
    return page(
        "supplier.html",
        visitor,
        day=day,
        supplier=supplier,
        endpoints=endpoints.items,
        more=endpoints.next is not None,
        newest=newest.items,
    )
