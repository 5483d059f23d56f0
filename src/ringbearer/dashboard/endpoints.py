"""*Endpoints*: all of them, and each with its health, its last errors and what can be done about it."""

import msgspec
from litestar import Response, get, post

from ringbearer.api.auth import Action, require
from ringbearer.api.breakers import Breaker
from ringbearer.api.endpoints import NewSecret
from ringbearer.dashboard.audit import note
from ringbearer.dashboard.doorway import redirect
from ringbearer.dashboard.paging import PER_PAGE, window
from ringbearer.dashboard.rendering import page
from ringbearer.dashboard.services import PageRequest, PageServices, query_of, read_change
from ringbearer.dashboard.sessions import Visitor
from ringbearer.dashboard.suppliers import last_day, last_days
from ringbearer.domain.deliveries import Attempt
from ringbearer.domain.endpoints import Endpoint
from ringbearer.errors import InvalidInput
from ringbearer.storage.search import Filter

_NEWEST = 20
_STATES = {"enabled": True, "disabled": False}
_SAID = {
    "enabled": "The endpoint is enabled; held deliveries are released.",
    "breaker": "The circuit breaker is set; every worker knows within a second.",
    "disabled": "The endpoint is disabled; its deliveries are held until it is enabled.",
}


@get("/endpoints")
async def list_endpoints(request: PageRequest, visitor: Visitor, services: PageServices) -> Response[str]:
    """Every endpoint, oldest first; a supplier's key sees them on its own page."""
    if visitor.key.supplier_id is not None:
        return redirect(f"/suppliers/{visitor.key.supplier_id}")
    query = query_of(request)
    found = await services.store(
        services.storage.overview.endpoints,
        limit=PER_PAGE + 1,
        text=query.get("text"),
        enabled=_STATES.get(query.get("state", "")),
        after=query.get("after"),
        before=query.get("before"),
    )
    given = {name: query[name] for name in ("text", "state") if name in query}
    shown = window(found, query)
    days = await last_days(services, "endpoint", [each.id for each in shown.items])
    return page("endpoints.html", visitor, found=shown, days=days, given=given)


_ONE = "/suppliers/{supplier_id:str}/endpoints/{endpoint_id:str}"


@get(_ONE)
async def show_endpoint(
    supplier_id: str, endpoint_id: str, request: PageRequest, visitor: Visitor, services: PageServices
) -> Response[str]:
    """One endpoint."""
    return await _show(visitor, services, supplier_id, endpoint_id, said=query_of(request).get("said"))


@post(_ONE + "/{action:str}")
async def act(
    supplier_id: str,
    endpoint_id: str,
    action: str,
    request: PageRequest,
    visitor: Visitor,
    services: PageServices,
) -> Response[str]:
    """Do something with an endpoint: enable, disable, test, rotate, or set its breaker."""
    form = await read_change(request, visitor)
    path = f"/v1{_path(supplier_id, endpoint_id)}"
    about = {"supplier": supplier_id, "endpoint": endpoint_id}
    match action:
        case "enable" | "disable":
            await services.api.send(visitor.key, "POST", f"{path}/{action}", {})
            note(action, visitor, **about)
            return redirect(f"{_path(supplier_id, endpoint_id)}?said={action}d")
        case "test":
            attempt = await services.api.send(visitor.key, "POST", f"{path}/test", {}, Attempt)
            note("test", visitor, **about)
            return await _show(visitor, services, supplier_id, endpoint_id, tested=attempt)
        case "breaker":
            state = form.get("state", "auto")
            await services.api.send(visitor.key, "POST", f"{path}/breaker", {"state": state})
            note("force breaker", visitor, state=state, **about)
            return redirect(f"{_path(supplier_id, endpoint_id)}?said=breaker")
        case "rotate":
            grace = _hours(form.get("hours", "24"))
            made = await services.api.send(
                visitor.key, "POST", f"{path}/rotate-secret", {"grace": grace}, NewSecret
            )
            note("rotate secret", visitor, **about)
            return await _show(visitor, services, supplier_id, endpoint_id, rotated=made)
    raise InvalidInput(f"there is no action {action[:20]!r}")


async def _show(
    visitor: Visitor,
    services: PageServices,
    supplier_id: str,
    endpoint_id: str,
    *,
    said: str | None = None,
    tested: Attempt | None = None,
    rotated: NewSecret | None = None,
) -> Response[str]:
    require(visitor.key, Action.READ, supplier_id)
    endpoint = await services.api.get(visitor.key, f"/v1{_path(supplier_id, endpoint_id)}", Endpoint)
    wanted = Filter(supplier_id=supplier_id, endpoint_id=endpoint_id)
    history = services.history(visitor)
    newest = await services.store(history.find, wanted, limit=_NEWEST)
    troubled = [delivery for delivery in newest.items if delivery.reason is not None]
    breaker = await services.api.get(visitor.key, f"/v1{_path(supplier_id, endpoint_id)}/breaker", Breaker)
    return page(
        "endpoint.html",
        visitor,
        day=await last_day(services, "endpoint", endpoint_id),
        breaker=breaker,
        may_force=visitor.key.scope == "admin",
        endpoint=endpoint,
        newest=newest.items,
        troubled=troubled,
        errors=await services.store(history.last_errors, [delivery.id for delivery in troubled]),
        said=_SAID.get(said or ""),
        tested=tested,
        rotated=rotated,
    )


def _path(supplier_id: str, endpoint_id: str) -> str:
    return f"/suppliers/{supplier_id}/endpoints/{endpoint_id}"


def _hours(text: str) -> float:
    try:
        return msgspec.convert(text, float, strict=False) * 3_600
    except msgspec.ValidationError:
        raise InvalidInput("the grace: expected a number of hours") from None
