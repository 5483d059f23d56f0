"""Routes: what sending to an endpoint needs, worked out once per version of the endpoint."""

from collections import OrderedDict

import msgspec

from ringbearer import __version__, clock
from ringbearer.delivery.courier import Order
from ringbearer.delivery.signing import Signer
from ringbearer.domain.deliveries import Lease
from ringbearer.domain.endpoints import Endpoint, Target
from ringbearer.domain.events import body

_MAX_ROUTES = 50_000
_COMMON = (
    "content-type: application/json",
    f"user-agent: Ringbearer/{__version__}",
    "expect:",  # libcurl would ask before it sends a large body, which costs a round trip
)


class Route(msgspec.Struct, frozen=True, gc=False):
    """An endpoint, ready to be sent to."""

    endpoint: Endpoint
    version: int
    signer: Signer
    headers: tuple[str, ...]

    def order(self, lease: Lease, now: int) -> Order:
        """The signed exchange for a delivery at a stored time."""
        payload = body(lease.event_id, lease.event_type, lease.timestamp, lease.data)
        seconds = now // clock.SECOND
        return Order(
            token=(lease, self),
            url=self.endpoint.url,
            headers=[
                *self.headers,
                f"webhook-id: {lease.event_id}",
                f"webhook-timestamp: {seconds}",
                f"webhook-signature: {self.signer.sign(lease.event_id, seconds, payload, now)}",
                f"ringbearer-attempt: {lease.attempt}",
            ],
            body=payload,
            timeout=self.endpoint.timeout,
        )


class Routes:
    """A bounded table of routes; the ones not used for longest go first."""

    def __init__(self) -> None:
        self._routes: OrderedDict[str, Route] = OrderedDict()

    def of(self, target: Target) -> Route:
        """The route to a target; worked out anew when its version is another."""
        endpoint = target.endpoint
        route = self._routes.get(endpoint.id)
        if route is None or route.version != target.version:
            route = self._routes[endpoint.id] = _route(target)
            if len(self._routes) > _MAX_ROUTES:
                self._routes.popitem(last=False)
        self._routes.move_to_end(endpoint.id)
        return route


def _route(target: Target) -> Route:
    custom = tuple(_header(name, value) for name, value in target.endpoint.headers.items())
    return Route(target.endpoint, target.version, Signer(target.secrets), _COMMON + custom)


def _header(name: str, value: str) -> str:
    return f"{name}: {value}" if value.strip() else f"{name};"  # libcurl's way to send an empty one
