"""The request of an attempt, as it was sent: made anew from the event and the endpoint, which nobody keeps twice."""

from collections.abc import Sequence

import msgspec

from ringbearer import clock
from ringbearer.api.checks import MASK
from ringbearer.delivery.routes import Routes
from ringbearer.domain.deliveries import Attempt, Content, DeliveryDetail, Lease
from ringbearer.domain.endpoints import Target
from ringbearer.domain.events import LANES
from ringbearer.domain.keys import Key
from ringbearer.errors import PayloadFailed

_SECRET = frozenset({"authorization"})


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Where an attempt went, with which headers and body. `changed`: the endpoint is not what it was then."""

    url: str
    headers: list[tuple[str, str]]
    body: str
    changed: bool


def requests_of(
    delivery: DeliveryDetail, content: Content, target: Target, key: Key, *, public_url: str
) -> dict[int, Request]:
    """The request of each attempt, by its number; empty when the event does not fit the endpoint any more.

    The signatures are those of the secrets of now. Who may only look sees no header that might hold a secret.
    """
    route = Routes(public_url=public_url).of(target)
    own = {name.lower() for name in target.endpoint.headers} | {"webhook-signature"}
    hidden = _SECRET | own if key.scope == "read" else _SECRET
    found = {}
    for attempt in delivery.attempts:
        lease = _lease(delivery, content, attempt)
        try:
            order = route.order(lease, clock.from_datetime(attempt.started_at))
            body = route.content(lease).decode()
        except PayloadFailed:
            return {}
        found[attempt.number] = Request(
            url=order.url,
            headers=_headers(order.headers, hidden),
            body=body,
            changed=target.endpoint.updated_at > attempt.started_at,
        )
    return found


def _headers(lines: Sequence[str], hidden: frozenset[str] | set[str]) -> list[tuple[str, str]]:
    pairs = [line.partition(":") for line in lines]
    return [
        (name, MASK if name.lower() in hidden else value.strip())
        for name, colon, value in pairs
        if colon and value.strip()
    ]


def _lease(delivery: DeliveryDetail, content: Content, attempt: Attempt) -> Lease:
    return Lease(
        delivery_id=delivery.id,
        event_id=delivery.event_id,
        endpoint_id=delivery.endpoint_id,
        supplier_id=delivery.supplier_id,
        lane=LANES.index(delivery.priority),
        attempt=attempt.number,
        attempt_base=0,
        ordering_key=None,
        accepted_at=clock.from_datetime(delivery.created_at),
        event_type=content.type,
        timestamp=content.timestamp,
        data=content.data,
    )
