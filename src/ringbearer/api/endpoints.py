"""Endpoints: created, seen, changed, tried, switched on and off, deleted; secrets are shown only when new."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Annotated

import msgspec
from litestar import Response, delete, get, patch, post
from msgspec import UNSET, Meta, UnsetType

from ringbearer import clock, ids
from ringbearer.api.answers import empty_answer, json_answer, page
from ringbearer.api.auth import Action, require
from ringbearer.api.checks import MASK, MAX_HEADERS, event_type_problems, header_problems
from ringbearer.api.reading import ApiRequest, Fields, Nothing, PageQuery, path_id, read_body, read_query
from ringbearer.api.services import ApiServices
from ringbearer.delivery import signing
from ringbearer.domain.endpoints import (
    DEFAULT_RETRY_SCHEDULE,
    DEFAULT_TIMEOUT,
    Endpoint,
    RateLimit,
    Signing,
    Target,
)
from ringbearer.domain.keys import Key
from ringbearer.domain.times import Moment
from ringbearer.errors import Conflict, InvalidInput, NotFound, UrlRefused

DEFAULT_GRACE = 86_400.0
"""Seconds that an old secret signs beside the new one."""
MAX_GRACE = 30 * 86_400
MAX_SECRETS = 5
"""Secrets that sign for one endpoint at a time: each adds to the size of every request."""
DISABLED_BY_REQUEST = "disabled by request"

_PATH = "/v1/suppliers/{supplier_id:str}/endpoints"
_ONE = _PATH + "/{endpoint_id:str}"

Seconds = Annotated[float, Meta(ge=1, le=7 * 86_400)]


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


class NewEndpoint(EndpointChange, kw_only=True, forbid_unknown_fields=True):
    """A new endpoint; what is left out has its default."""

    url: Annotated[str, Meta(description="an http or https URL that the public can reach")]
    signing: Annotated[Signing, Meta(description="hmac (default) or ed25519")] = "hmac"
    secret: Annotated[
        Annotated[str, Meta(max_length=200)] | None,
        Meta(description="a whsec_ secret (hmac) or whsk_ key (ed25519); null or nothing to have one made"),
    ] = None


class Rotation(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How to change over to a new secret."""

    grace: Annotated[
        Annotated[float, Meta(ge=0, le=MAX_GRACE)],
        Meta(description=f"seconds, from 0 to {MAX_GRACE}, that the old secret signs beside the new one"),
    ] = DEFAULT_GRACE


class EndpointWithSecret(Endpoint, frozen=True, kw_only=True):
    """A new endpoint with its signing secret, which is not shown again."""

    secret: str


class NewSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A new signing secret, which is not shown again, and until when the ones before it sign too."""

    secret: str
    public_key: str | None
    previous_valid_until: Moment


@post(_PATH)
async def create_endpoint(
    supplier_id: str, request: ApiRequest, key: Key, services: ApiServices
) -> Response[bytes]:
    """Create an endpoint; the only answer besides rotate-secret that shows the secret."""
    require(key, Action.CHANGE_ENDPOINTS, supplier_id)
    catalog = services.storage.catalog
    await services.store(catalog.get_supplier, path_id(supplier_id, "supplier"))
    body = await read_body(request, NewEndpoint, partial(_problems, services))
    await services.guard.check_resolved(services.guard.check_url(body.url))
    secret = _first_secret(body)
    now = clock.to_datetime(clock.now())
    endpoint = Endpoint(
        id=ids.endpoint(),
        supplier_id=supplier_id,
        signing=body.signing,
        public_key=_public_key(secret, body.signing),
        created_at=now,
        updated_at=now,
        **_settings(services, body),  # type: ignore[arg-type]  # fields of the same names and types
    )
    await services.store(catalog.add_endpoint, endpoint, secret)
    services.invalidate(supplier_id)
    shown = EndpointWithSecret(**msgspec.structs.asdict(endpoint), secret=secret)
    return json_answer(shown, 201, {"location": f"/v1/suppliers/{supplier_id}/endpoints/{endpoint.id}"})


@get(_PATH)
async def list_endpoints(
    supplier_id: str, request: ApiRequest, key: Key, services: ApiServices
) -> Response[bytes]:
    """The supplier's endpoints, oldest first."""
    require(key, Action.READ, supplier_id)
    query = read_query(request, PageQuery)
    catalog = services.storage.catalog
    await services.store(catalog.get_supplier, path_id(supplier_id, "supplier"))
    found = await services.store(
        catalog.list_endpoints, supplier_id, limit=query.limit + 1, cursor=query.cursor
    )
    return json_answer(page([_shown(endpoint, key) for endpoint in found], query.limit))


@get(_ONE)
async def get_endpoint(
    supplier_id: str, endpoint_id: str, key: Key, services: ApiServices
) -> Response[bytes]:
    """One endpoint, without its secret."""
    require(key, Action.READ, supplier_id)
    return json_answer(_shown(await _find(services, supplier_id, endpoint_id), key))


@patch(_ONE)
async def change_endpoint(
    supplier_id: str, endpoint_id: str, request: ApiRequest, key: Key, services: ApiServices
) -> Response[bytes]:
    """Change what the body names; the rest stays as it is."""
    require(key, Action.CHANGE_ENDPOINTS, supplier_id)
    await _find(services, supplier_id, endpoint_id)
    body = await read_body(request, EndpointChange, partial(_problems, services))
    services.changes.take(endpoint_id)
    settings = _settings(services, body)
    if isinstance(body.url, str):
        await services.guard.check_resolved(services.guard.check_url(body.url))
    now = clock.to_datetime(clock.now())
    changed = await services.store(
        services.storage.catalog.change_endpoint,
        supplier_id,
        endpoint_id,
        lambda endpoint: _changed(endpoint, settings, now),
    )
    services.invalidate(supplier_id)
    if body.enabled is not UNSET:
        await services.settle()
    return json_answer(_shown(changed, key))


@delete(_ONE)
async def delete_endpoint(
    supplier_id: str, endpoint_id: str, key: Key, services: ApiServices
) -> Response[None]:
    """Forget the endpoint and its secrets; its unfinished deliveries are cancelled."""
    require(key, Action.CHANGE_ENDPOINTS, supplier_id)
    await _find(services, supplier_id, endpoint_id)
    services.changes.take(endpoint_id)
    await services.store(services.storage.catalog.delete_endpoint, supplier_id, endpoint_id)
    services.invalidate(supplier_id)
    await services.settle()
    return empty_answer()


@post(_ONE + "/rotate-secret")
async def rotate_secret(
    supplier_id: str, endpoint_id: str, request: ApiRequest, key: Key, services: ApiServices
) -> Response[bytes]:
    """Make a new secret; the ones before it sign beside it until the grace ends."""
    require(key, Action.CHANGE_ENDPOINTS, supplier_id)
    target = await _target(services, supplier_id, endpoint_id)
    body = await read_body(request, Rotation)
    now = clock.now()
    if body.grace > 0 and _signing_at(target, now) >= MAX_SECRETS:
        raise Conflict(
            f"{MAX_SECRETS} secrets sign for this endpoint already, which is the most; wait until the first "
            "of them ends, or rotate with a grace of 0"
        )
    services.changes.take(endpoint_id)
    kind = target.endpoint.signing
    secret = signing.generate_secret(kind)
    public_key = _public_key(secret, kind)
    until = now + int(body.grace * clock.SECOND)
    await services.store(
        services.storage.catalog.rotate_secret,
        supplier_id,
        endpoint_id,
        secret,
        public_key=public_key,
        old_until=until,
        now=now,
    )
    services.invalidate(supplier_id)
    shown = NewSecret(secret=secret, public_key=public_key, previous_valid_until=clock.to_datetime(until))
    return json_answer(shown)


@post(_ONE + "/test")
async def test_endpoint(
    supplier_id: str, endpoint_id: str, request: ApiRequest, key: Key, services: ApiServices
) -> Response[bytes]:
    """Send one signed sample event now, also when the endpoint is disabled; answers with the attempt."""
    require(key, Action.CHANGE_ENDPOINTS, supplier_id)
    target = await _target(services, supplier_id, endpoint_id)
    await read_body(request, Nothing)
    services.changes.take(endpoint_id)
    return json_answer(await services.tester(target))


@post(_ONE + "/enable")
async def enable_endpoint(
    supplier_id: str, endpoint_id: str, request: ApiRequest, key: Key, services: ApiServices
) -> Response[bytes]:
    """Send again; held deliveries are released."""
    return await _switch(services, key, request, supplier_id, endpoint_id, enabled=True)


@post(_ONE + "/disable")
async def disable_endpoint(
    supplier_id: str, endpoint_id: str, request: ApiRequest, key: Key, services: ApiServices
) -> Response[bytes]:
    """Send nothing more; deliveries are held until the endpoint is enabled."""
    return await _switch(services, key, request, supplier_id, endpoint_id, enabled=False)


async def _switch(
    services: ApiServices, key: Key, request: ApiRequest, supplier_id: str, endpoint_id: str, *, enabled: bool
) -> Response[bytes]:
    require(key, Action.CHANGE_ENDPOINTS, supplier_id)
    await _find(services, supplier_id, endpoint_id)
    await read_body(request, Nothing)
    services.changes.take(endpoint_id)
    reason = None if enabled else DISABLED_BY_REQUEST
    await services.store(services.storage.catalog.set_enabled, [endpoint_id], enabled=enabled, reason=reason)
    services.invalidate(supplier_id)
    await services.settle()
    return json_answer(_shown(await _find(services, supplier_id, endpoint_id), key))


async def _find(services: ApiServices, supplier_id: str, endpoint_id: str) -> Endpoint:
    supplier_id, endpoint_id = path_id(supplier_id, "supplier"), path_id(endpoint_id, "endpoint")
    return await services.store(services.storage.catalog.get_endpoint, supplier_id, endpoint_id)


async def _target(services: ApiServices, supplier_id: str, endpoint_id: str) -> Target:
    await _find(services, supplier_id, endpoint_id)
    known = await services.store(services.storage.catalog.subscriptions, [supplier_id])
    target = known[supplier_id].targets.get(endpoint_id) if supplier_id in known else None
    if target is None:  # it was deleted just now
        raise NotFound(f"there is no endpoint {endpoint_id!r}")
    return target


def _first_secret(body: NewEndpoint) -> str:
    if body.secret is None:
        return signing.generate_secret(body.signing)
    return signing.validate_secret(body.secret, body.signing)


def _signing_at(target: Target, now: int) -> int:
    return sum(1 for _, until in target.secrets if until is None or until > now)


def _public_key(secret: str, kind: Signing) -> str | None:
    return signing.public_key(secret) if kind == "ed25519" else None


def _shown(endpoint: Endpoint, key: Key) -> Endpoint:
    """The endpoint as this key may see it: header values may be the receiver's credentials."""
    if key.scope != "read":
        return endpoint
    return msgspec.structs.replace(endpoint, headers=dict.fromkeys(endpoint.headers, MASK))


_SETTINGS = tuple(field.name for field in msgspec.structs.fields(EndpointChange))


def _settings(services: ApiServices, body: EndpointChange) -> dict[str, object]:
    """The fields of an Endpoint that the body sets."""
    given: dict[str, object] = {
        name: value for name in _SETTINGS if (value := getattr(body, name)) is not UNSET
    }
    if isinstance(body.url, str):
        given["url"] = services.guard.check_url(body.url)
    if isinstance(body.event_types, tuple):
        given["event_types"] = tuple(dict.fromkeys(body.event_types))
    if isinstance(body.enabled, bool):
        given["disabled_reason"] = None if body.enabled else DISABLED_BY_REQUEST
    return given


def _changed(endpoint: Endpoint, settings: dict[str, object], now: datetime) -> Endpoint:
    if endpoint.disabled_reason is not None and settings.get("enabled") is False:
        settings = settings | {"disabled_reason": endpoint.disabled_reason}
    return msgspec.structs.replace(endpoint, updated_at=now, **settings)


def _problems(services: ApiServices, fields: Fields) -> Iterator[tuple[str, str]]:
    url, types, headers = fields.get("url"), fields.get("event_types"), fields.get("headers")
    if isinstance(url, str):
        try:
            services.guard.check_url(url)
        except UrlRefused as refused:
            yield from refused.problems
    if isinstance(types, tuple):
        yield from event_type_problems(types)
    if isinstance(headers, dict):
        yield from header_problems(headers)
    secret = fields.get("secret")
    if isinstance(secret, str):
        kind: Signing = "ed25519" if fields.get("signing") == "ed25519" else "hmac"
        try:
            signing.validate_secret(secret, kind)
        except InvalidInput as error:
            yield from error.problems
