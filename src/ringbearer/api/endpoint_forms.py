"""What may be said of an endpoint in a request, what is wrong with it, and what it makes of an Endpoint."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ringbearer import clock
from ringbearer.api.checks import MAX_HEADERS, event_type_problems, header_problems
from ringbearer.api.reading import Fields
from ringbearer.api.services import UrlGuard
from ringbearer.delivery import signing
from ringbearer.delivery.certificates import check_authorities, check_client
from ringbearer.delivery.selection import MAX_EXPRESSION, compiled
from ringbearer.domain.endpoints import (
    DEFAULT_RETRY_SCHEDULE,
    DEFAULT_TIMEOUT,
    EVENT_VERSION,
    BasicAuth,
    Compression,
    Credentials,
    Endpoint,
    HttpVersion,
    OAuth2,
    Ordering,
    Profile,
    RateLimit,
    Signing,
    TlsVersion,
)
from ringbearer.errors import InvalidInput, UrlRefused

DISABLED_BY_REQUEST = "disabled by request"

Seconds = Annotated[float, Meta(ge=1, le=7 * 86_400)]
_Text = Annotated[str, Meta(min_length=1, max_length=500)]
_Secret = Annotated[str, Meta(min_length=1, max_length=2_000)]


class BasicAuthWithPassword(BasicAuth, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="basic"):
    """Name and password for each request; the password is not shown again."""

    username: _Text
    password: _Secret


class OAuth2WithSecret(OAuth2, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="oauth2"):
    """OAuth 2 client credentials; the client's secret is not shown again."""

    token_url: str
    client_id: _Text
    client_secret: _Secret
    scope: _Text | None = None
    audience: _Text | None = None


class EndpointChange(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What of an endpoint changes; what is left out stays as it is."""

    url: Annotated[str | UnsetType, Meta(description="an http or https URL that the public can reach")] = (
        UNSET
    )
    event_types: Annotated[
        Annotated[tuple[str, ...], Meta(min_length=1, max_length=50)] | UnsetType,
        Meta(
            description="1 to 50 patterns: an event type such as booking.confirmed, all below one such as "
            "booking.*, or * for everything"
        ),
    ] = UNSET
    description: Annotated[
        Annotated[str, Meta(max_length=500)] | UnsetType | None,
        Meta(description="a text of at most 500 characters, or null"),
    ] = UNSET
    headers: Annotated[
        dict[str, str] | UnsetType,
        Meta(description=f"names and values of at most {MAX_HEADERS} headers that every request shall carry"),
    ] = UNSET
    rate_limit: Annotated[
        RateLimit | UnsetType | None,
        Meta(
            description="requests (1 to 1,000,000) in any period (0.001 to 2,678,400 seconds), "
            "or null for no limit"
        ),
    ] = UNSET
    max_concurrency: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)] | UnsetType | None,
        Meta(
            description="how many requests may be under way at a time, from 1 to 10,000, or null for no limit"
        ),
    ] = UNSET
    timeout: Annotated[
        Annotated[float, Meta(ge=1, le=30)] | UnsetType,
        Meta(description=f"seconds for one whole exchange, from 1 to 30 (default {DEFAULT_TIMEOUT:g})"),
    ] = UNSET
    retry_schedule: Annotated[
        Annotated[tuple[Seconds, ...], Meta(max_length=20)] | UnsetType,
        Meta(
            description="at most 20 waits in seconds, each from 1 to 604,800, before each further try "
            f"(default {', '.join(f'{wait:g}' for wait in DEFAULT_RETRY_SCHEDULE)})"
        ),
    ] = UNSET
    enabled: Annotated[
        bool | UnsetType, Meta(description="true or false: whether deliveries are sent, or held")
    ] = UNSET
    payload: Annotated[
        Profile | UnsetType,
        Meta(
            description="full (default): the data as published; thin: a link instead of the data; compact: "
            "selected fields, without null and empty ones"
        ),
    ] = UNSET
    fields: Annotated[
        Annotated[str, Meta(min_length=1, max_length=MAX_EXPRESSION)] | UnsetType | None,
        Meta(
            description=f"a JMESPath expression of 1 to {MAX_EXPRESSION} characters that selects from the data, "
            "for the compact payload, or null for all of it"
        ),
    ] = UNSET
    event_version: Annotated[
        Annotated[str, Meta(pattern=f"^{EVENT_VERSION.pattern}$")] | UnsetType | None,
        Meta(
            description="a version of 1 to 32 letters, digits, '.', '_' and '-', in whose shapes the data is sent "
            "where there are any; or null for the data as published"
        ),
    ] = UNSET
    compression: Annotated[
        Compression | UnsetType | None,
        Meta(description="gzip, zstd, or null (default): how the body is encoded"),
    ] = UNSET
    ordering: Annotated[
        Ordering | UnsetType,
        Meta(
            description="key (default): in order where events have the same ordering_key; endpoint: everything "
            "in order, one at a time; none: in no order"
        ),
    ] = UNSET
    http_version: Annotated[
        HttpVersion | UnsetType,
        Meta(
            description="auto (default): HTTP/2 where the receiver offers it; 1.1: never; 3: HTTP/3 as well"
        ),
    ] = UNSET
    tls_min: Annotated[
        TlsVersion | UnsetType, Meta(description="1.2 (default) or 1.3: the oldest TLS that is spoken")
    ] = UNSET
    ca: Annotated[
        str | UnsetType | None,
        Meta(
            description="certificates (PEM) of the only authorities that may vouch for the receiver, "
            "or null for the usual ones"
        ),
    ] = UNSET
    client_certificate: Annotated[
        str | UnsetType | None,
        Meta(
            description="the certificate (PEM), its chain behind it, that is shown to a receiver who asks for one, "
            "together with client_key; or null"
        ),
    ] = UNSET
    client_key: Annotated[
        str | UnsetType,
        Meta(description="the private key (PEM) of client_certificate; it is not shown again"),
    ] = UNSET
    auth: Annotated[
        BasicAuthWithPassword | OAuth2WithSecret | UnsetType | None,
        Meta(
            description="type basic with username and password; or type oauth2 with token_url, client_id, "
            "client_secret and, if need be, scope, audience and client_auth (basic or post); or null"
        ),
    ] = UNSET


class NewEndpoint(EndpointChange, kw_only=True, forbid_unknown_fields=True):
    """A new endpoint; what is left out has its default."""

    url: Annotated[str, Meta(description="an http or https URL that the public can reach")]
    signing: Annotated[Signing, Meta(description="hmac (default) or ed25519")] = "hmac"
    secret: Annotated[
        Annotated[str, Meta(max_length=200)] | None,
        Meta(description="a whsec_ secret (hmac) or whsk_ key (ed25519); null or nothing to have one made"),
    ] = None


_SECRET = frozenset({"client_key"})
_SETTINGS = tuple(field.name for field in msgspec.structs.fields(EndpointChange) if field.name not in _SECRET)


def settings_of(guard: UrlGuard, body: EndpointChange) -> dict[str, object]:
    """The fields of an Endpoint that the body sets; raises UrlRefused."""
    given: dict[str, object] = {
        name: value for name in _SETTINGS if (value := getattr(body, name)) is not UNSET
    }
    if isinstance(body.url, str):
        given["url"] = guard.check_url(body.url)
    if isinstance(body.event_types, tuple):
        given["event_types"] = tuple(dict.fromkeys(body.event_types))
    if isinstance(body.enabled, bool):
        given["disabled_reason"] = None if body.enabled else DISABLED_BY_REQUEST
    if isinstance(body.auth, BasicAuthWithPassword):
        given["auth"] = BasicAuth(username=body.auth.username)
    elif isinstance(body.auth, OAuth2WithSecret):
        given["auth"] = OAuth2(
            token_url=guard.check_url(body.auth.token_url),
            client_id=body.auth.client_id,
            scope=body.auth.scope,
            audience=body.auth.audience,
            client_auth=body.auth.client_auth,
        )
    return given


async def check_addresses(guard: UrlGuard, settings: dict[str, object]) -> None:
    """Look at the addresses behind the names of the URLs that are set; raises UrlRefused."""
    url, auth = settings.get("url"), settings.get("auth")
    if isinstance(url, str):
        await guard.check_resolved(url)
    if isinstance(auth, OAuth2):
        try:
            await guard.check_resolved(auth.token_url)
        except UrlRefused as error:
            raise InvalidInput(
                f"the token URL is refused: {error.reason}", [("/auth/token_url", error.reason)]
            ) from None


def credentials_of(body: EndpointChange) -> Callable[[Credentials], Credentials]:
    """What the body makes of an endpoint's credentials."""
    given: dict[str, str | None] = {}
    if body.auth is not UNSET:
        given["auth"] = _secret_of(body.auth)
    if body.client_certificate is not UNSET:
        given["client_key"] = body.client_key if isinstance(body.client_key, str) else None
    return lambda credentials: msgspec.structs.replace(credentials, **given)


def _secret_of(auth: BasicAuthWithPassword | OAuth2WithSecret | None) -> str | None:
    match auth:
        case BasicAuthWithPassword():
            return auth.password
        case OAuth2WithSecret():
            return auth.client_secret
    return None


def changed(endpoint: Endpoint, settings: dict[str, object], now: datetime) -> Endpoint:
    """The endpoint with other settings; raises InvalidInput when they contradict those that stay."""
    if endpoint.disabled_reason is not None and settings.get("enabled") is False:
        settings = settings | {"disabled_reason": endpoint.disabled_reason}
    return coherent(msgspec.structs.replace(endpoint, updated_at=now, **settings))


def coherent(endpoint: Endpoint) -> Endpoint:
    """The endpoint itself; raises InvalidInput when its settings contradict each other."""
    problems = []
    if endpoint.fields is not None and endpoint.payload != "compact":
        problems.append(("/fields", "expected the payload compact, which alone selects fields; or null here"))
    if endpoint.auth is not None and any(name.lower() == "authorization" for name in endpoint.headers):
        problems.append(("/auth", "expected no header named Authorization beside it; or null here"))
    if problems:
        raise InvalidInput(problems[0][1], problems)
    return endpoint


def form_problems(guard: UrlGuard, fields: Fields) -> Iterator[tuple[str, str]]:
    """What is wrong with the fields of a request that types cannot say."""
    url, types, headers = fields.get("url"), fields.get("event_types"), fields.get("headers")
    if isinstance(url, str):
        yield from _refused("/url", lambda: guard.check_url(url))
    if isinstance(types, tuple):
        yield from event_type_problems(types)
    if isinstance(headers, dict):
        yield from header_problems(headers)
    secret = fields.get("secret")
    if isinstance(secret, str):
        kind: Signing = "ed25519" if fields.get("signing") == "ed25519" else "hmac"
        yield from _refused("/secret", lambda: signing.validate_secret(secret, kind))
    selection = fields.get("fields")
    if isinstance(selection, str):
        yield from _refused("/fields", lambda: compiled(selection))
    auth = fields.get("auth")
    if isinstance(auth, BasicAuth) and ":" in auth.username:
        yield "/auth/username", "expected a name without a colon, which ends it (RFC 7617)"
    if isinstance(auth, OAuth2):
        yield from _refused("/auth/token_url", lambda: guard.check_url(auth.token_url))
    yield from _certificate_problems(fields)


def _certificate_problems(fields: Fields) -> Iterator[tuple[str, str]]:
    now = clock.to_datetime(clock.now())
    ca, certificate, key = (fields.get(name) for name in ("ca", "client_certificate", "client_key"))
    if isinstance(ca, str):
        yield from _refused("/ca", lambda: check_authorities(ca, now))
    if isinstance(certificate, str) and isinstance(key, str):
        yield from _refused("/client_certificate", lambda: check_client(certificate, key, now))
    elif isinstance(certificate, str):
        yield "/client_key", "expected the private key of client_certificate; the two come together"
    elif isinstance(key, str):
        yield "/client_certificate", "expected the certificate of client_key; the two come together"


def _refused(place: str, check: Callable[[], object]) -> Iterator[tuple[str, str]]:
    try:
        check()
    except UrlRefused as error:
        yield place, error.reason
    except InvalidInput as error:
        yield from error.problems or ((place, str(error)),)
