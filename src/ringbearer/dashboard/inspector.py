"""The inspector: one delivery with its event and every attempt, and where the time went."""

from datetime import datetime

import msgspec
from litestar import Response, get

from ringbearer.api.events import EventDetail
from ringbearer.dashboard.rendering import page
from ringbearer.dashboard.requests import Request, requests_of
from ringbearer.dashboard.services import PageRequest, PageServices, query_of
from ringbearer.dashboard.sessions import Visitor
from ringbearer.domain.deliveries import Attempt, DeliveryDetail, State

_SAID = {
    "retried": "It is due now. This page shows the new attempt as soon as it has ended.",
}
_RETRIED = frozenset({State.DEAD, State.DELIVERED, State.SCHEDULED})


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a delivery's time: `start` and `length` in seconds since it was accepted."""

    kind: str
    """`waited`, or `sent` with the number of the attempt."""
    number: int
    start: float
    length: float


@get("/deliveries/{delivery_id:str}")
async def show_delivery(
    delivery_id: str, request: PageRequest, visitor: Visitor, services: PageServices
) -> Response[str]:
    """One delivery."""
    delivery = await services.api.get(visitor.key, f"/v1/deliveries/{delivery_id}", DeliveryDetail)
    event = await services.api.get(visitor.key, f"/v1/events/{delivery.event_id}", EventDetail)
    return page(
        "delivery.html",
        visitor,
        delivery=delivery,
        event=event,
        data=bytes(event.data).decode(),
        requests=await _requests(visitor, services, delivery),
        spans=spans(delivery.created_at, delivery.attempts),
        may_retry=visitor.may_change and delivery.state in _RETRIED,
        said=_SAID.get(query_of(request).get("said", "")),
        moving=delivery.state in (State.READY, State.LEASED, State.WAITING),
    )


async def _requests(visitor: Visitor, services: PageServices, delivery: DeliveryDetail) -> dict[int, Request]:
    """The requests of the attempts; none when the endpoint was deleted."""
    if not delivery.attempts:
        return {}
    content = await services.store(services.history(visitor).get_content, delivery.event_id)
    known = await services.store(services.storage.catalog.subscriptions, [delivery.supplier_id])
    supplier = known.get(delivery.supplier_id)
    target = supplier.targets.get(delivery.endpoint_id) if supplier is not None else None
    if target is None:
        return {}
    return requests_of(delivery, content, target, visitor.key, public_url=services.public_url)


def spans(accepted_at: datetime, attempts: list[Attempt]) -> list[Span]:
    """How the time since acceptance divides into waiting and exchanges, in their order."""
    found = []
    at = 0.0
    for attempt in attempts:
        start = (attempt.started_at - accepted_at).total_seconds()
        if start > at:
            found.append(Span(kind="waited", number=attempt.number, start=at, length=start - at))
        found.append(Span(kind="sent", number=attempt.number, start=start, length=attempt.duration))
        at = start + attempt.duration
    return found
