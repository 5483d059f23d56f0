"""Routes: what sending to an endpoint needs, worked out once per version of the endpoint."""

from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice

import msgspec

from ringbearer import __version__, clock
from ringbearer.delivery.handle import Order
from ringbearer.delivery.payload import Content, content_for, encoder_for
from ringbearer.delivery.signing import Signer
from ringbearer.delivery.ways import Way
from ringbearer.domain import traces
from ringbearer.domain.deliveries import Lease
from ringbearer.domain.endpoints import BasicAuth, Endpoint, Grant, OAuth2, Target

_MAX_ROUTES = 50_000
_COMMON = (
    "content-type: application/json",
    f"user-agent: Ringbearer/{__version__}",
)


class Parcel(Order, kw_only=True, gc=False):
    """The exchange that one attempt of a delivery is."""

    lease: Lease
    route: "Route"


class Route(msgspec.Struct, frozen=True, gc=False):
    """An endpoint, ready to be sent to."""

    endpoint: Endpoint
    version: int
    signer: Signer
    headers: tuple[str, ...]
    content: Content
    encode: Callable[[bytes], bytes] | None
    way: Way | None
    grant: Grant | None

    def order(self, lease: Lease, now: int) -> Parcel:
        """The signed exchange for a delivery at a stored time; raises PayloadFailed."""
        content = self.content(lease)
        seconds = now // clock.SECOND
        headers = [
            *self.headers,
            f"webhook-id: {lease.event_id}",
            f"webhook-timestamp: {seconds}",
            f"webhook-signature: {self.signer.sign(lease.event_id, seconds, content, now)}",
            f"ringbearer-attempt: {lease.attempt}",
        ]
        if lease.trace is not None:
            lease.span = traces.new_span()
            headers += traces.headers(traces.child(lease.trace, lease.span))
        return Parcel(
            token=None,
            lease=lease,
            route=self,
            url=self.endpoint.url,
            headers=headers,
            body=content if self.encode is None else self.encode(content),
            timeout=self.endpoint.timeout,
            way=self.way,
            grant=self.grant,
        )


class Routes:
    """A bounded table of routes; the ones not used for longest go first.

    `public_url` is where the service is reached from outside, for the links of thin payloads; when it is empty
    they are paths alone.
    """

    def __init__(self, *, public_url: str = "") -> None:
        self._public_url = public_url
        self._routes: OrderedDict[str, Route] = OrderedDict()

    def of(self, target: Target) -> Route:
        """The route to a target; worked out anew when its version is another."""
        endpoint = target.endpoint
        route = self._routes.get(endpoint.id)
        if route is None or route.version != target.version:
            route = self._routes[endpoint.id] = _route(target, self._public_url)
            if len(self._routes) > _MAX_ROUTES:
                self._routes.popitem(last=False)
        self._routes.move_to_end(endpoint.id)
        return route

    def latest(self, most: int) -> list[Route]:
        """The routes that were used last, at most so many, the latest first."""
        return list(islice(reversed(self._routes.values()), most))


def _route(target: Target, public_url: str) -> Route:
    endpoint = target.endpoint
    headers = [*_COMMON, *(_header(name, value) for name, value in endpoint.headers.items())]
    if isinstance(endpoint.auth, BasicAuth):
        headers.append(basic(endpoint.auth.username, target.credentials.auth or ""))
    if endpoint.compression is not None:
        headers.append(f"content-encoding: {endpoint.compression}")
    if endpoint.event_version is not None:
        headers.append(f"ringbearer-event-version: {endpoint.event_version}")
    return Route(
        endpoint,
        target.version,
        Signer(target.secrets),
        tuple(headers),
        content_for(target, public_url=public_url),
        encoder_for(endpoint.compression),
        _way(target),
        _grant(target),
    )


def _way(target: Target) -> Way | None:
    endpoint = target.endpoint
    way = Way(
        http_version=endpoint.http_version,
        tls_min=endpoint.tls_min,
        ca=_bytes(endpoint.ca),
        certificate=_bytes(endpoint.client_certificate),
        key=_bytes(target.credentials.client_key),
    )
    return None if way == Way() else way


def _grant(target: Target) -> Grant | None:
    auth = target.endpoint.auth
    if not isinstance(auth, OAuth2):
        return None
    return Grant(
        token_url=auth.token_url,
        client_id=auth.client_id,
        client_secret=target.credentials.auth or "",
        scope=auth.scope,
        audience=auth.audience,
        client_auth=auth.client_auth,
    )


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def basic(username: str, password: str) -> str:
    """The header of Basic authentication, in UTF-8 (RFC 7617)."""
    return "authorization: Basic " + b64encode(f"{username}:{password}".encode()).decode()


def _header(name: str, value: str) -> str:
    return f"{name}: {value}" if value.strip() else f"{name};"  # libcurl's way to send an empty one
