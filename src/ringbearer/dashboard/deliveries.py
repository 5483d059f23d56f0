"""*Deliveries* and *Dead letters*: found by filters, page by page; one of them with all its attempts."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from litestar import Response, get

from ringbearer.api.events import EventDetail
from ringbearer.dashboard.rendering import page
from ringbearer.dashboard.services import PageRequest, PageServices, query_of
from ringbearer.dashboard.sessions import Visitor
from ringbearer.domain.deliveries import DeliveryDetail, State
from ringbearer.errors import InvalidInput
from ringbearer.storage.history import Filter

_PER_PAGE = 50
_FIELDS = ("supplier_id", "endpoint_id", "event_id", "event_type", "state", "after", "before")


@get("/deliveries")
async def list_deliveries(request: PageRequest, visitor: Visitor, services: PageServices) -> Response[str]:
    """Deliveries that the filter means, newest first."""
    given = query_of(request)
    wanted = read_filter(given, visitor)
    found = await services.store(
        services.storage.history.find,
        wanted,
        limit=_PER_PAGE,
        older=given.get("older"),
        newer=given.get("newer"),
    )
    return page("deliveries.html", visitor, found=found, given=given, states=list(State))


@get("/deliveries/{delivery_id:str}")
async def show_delivery(delivery_id: str, visitor: Visitor, services: PageServices) -> Response[str]:
    """One delivery with its event and every attempt."""
    delivery = await services.api.get(visitor.key, f"/v1/deliveries/{delivery_id}", DeliveryDetail)
    event = await services.api.get(visitor.key, f"/v1/events/{delivery.event_id}", EventDetail)
    return page("delivery.html", visitor, delivery=delivery, event=event)


def read_filter(given: dict[str, str], visitor: Visitor) -> Filter:
    """The filter that a query's fields mean to this visitor; raises InvalidInput."""
    problems = []
    times: dict[str, datetime | None] = {"after": None, "before": None}
    for name in times:
        if name in given:
            try:
                times[name] = _moment(given[name], given.get("zone"))
            except ValueError:
                problems.append((f"/{name}", "expected a date and time such as 2027-06-19T14:00"))
    state = given.get("state")
    if state is not None and state not in set(State):
        problems.append(("/state", f"expected one of {', '.join(State)}"))
    if problems:
        raise InvalidInput(": ".join(problems[0]), problems)
    return Filter(
        supplier_id=visitor.key.supplier_id or given.get("supplier_id"),
        endpoint_id=given.get("endpoint_id"),
        event_id=given.get("event_id"),
        event_type=given.get("event_type"),
        state=State(state) if state is not None else None,
        **times,
    )


def _moment(text: str, zone: str | None) -> datetime:
    """A time as a form has it, in the viewer's zone; raises ValueError."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is not None:
        return found
    try:
        return found.replace(tzinfo=ZoneInfo(zone) if zone else UTC)
    except (ZoneInfoNotFoundError, ValueError):
        return found.replace(tzinfo=UTC)
