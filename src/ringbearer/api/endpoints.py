"""Endpoints: created, seen, changed, tried, switched on and off, deleted; secrets are shown only when new."""

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Annotated

import msgspec
from litestar import Response, delete, get, patch, post
from msgspec import UNSET, Meta

from ringbearer import clock, ids
from ringbearer.api.answers import empty_answer, json_answer, page
from ringbearer.api.auth import Action, require
from ringbearer.api.checks import MASK
from ringbearer.api.endpoint_forms import (
    DISABLED_BY_REQUEST,
    EndpointChange,
    NewEndpoint,
    changed,
    check_addresses,
    coherent,
    credentials_of,
    form_problems,
    settings_of,
)
from ringbearer.api.reading import ApiRequest, Fields, Nothing, PageQuery, path_id, read_body, read_query
from ringbearer.api.services import ApiServices
from ringbearer.delivery import signing
from ringbearer.delivery.sample import SAMPLE_TYPE, preview
from ringbearer.domain.endpoints import EVENT_TYPE, MAX_EVENT_TYPE, NO_CREDENTIALS, Endpoint, Signing, Target
from ringbearer.domain.keys import Key
from ringbearer.domain.times import Moment
from ringbearer.errors import Conflict, NotFound, PayloadFailed

DEFAULT_GRACE = 86_400.0
"""Seconds that an old secret signs beside the new one."""
MAX_GRACE = 30 * 86_400
MAX_SECRETS = 5
"""Secrets that sign for one endpoint at a time: each adds to the size of every request."""
_MASKED = frozenset({"authorization"})  # what is shown is the request, not the receiver's credentials

_PATH = "/v1/suppliers/{supplier_id:str}/endpoints"
_ONE = _PATH + "/{endpoint_id:str}"


class Rotation(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How to change over to a new secret."""

    grace: Annotated[
        Annotated[float, Meta(ge=0, le=MAX_GRACE)],
        Meta(description=f"seconds, from 0 to {MAX_GRACE}, that the old secret signs beside the new one"),
    ] = DEFAULT_GRACE


class PreviewBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which event is shown: one that was accepted, or one that is made up for the purpose."""

    event_id: Annotated[
        Annotated[str, Meta(pattern=r"^evt_[0-9a-f]{32}$")] | None,
        Meta(
            description="the id of one of the supplier's events, or nothing to make one up of type and data"
        ),
    ] = None
    type: Annotated[str, Meta(description="an event type such as booking.confirmed")] = SAMPLE_TYPE
    data: Annotated[object, Meta(description="any JSON value")] = msgspec.field(
        default_factory=lambda: {"message": "This is a test event from Ringbearer."}
    )


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
    body = await read_body(request, NewEndpoint, partial(form_problems, services.guard))
    given = settings_of(services.guard, body)
    await check_addresses(services.guard, given)
    secret = _first_secret(body)
    now = clock.to_datetime(clock.now())
    endpoint = Endpoint(
        id=ids.endpoint(),
        supplier_id=supplier_id,
        signing=body.signing,
        public_key=_public_key(secret, body.signing),
        created_at=now,
        updated_at=now,
        **given,  # type: ignore[arg-type]  # fields of the same names and types
    )
    credentials = credentials_of(body)(NO_CREDENTIALS)
    await services.store(catalog.add_endpoint, coherent(endpoint), secret, credentials)
    await services.configured(supplier_id)
    shown = EndpointWithSecret(**msgspec.structs.asdict(endpoint), secret=secret)
    return json_answer(shown, 201, {"location": f"/v1/suppliers/{supplier_id}/endpoints/{endpoint.id}"})


@get(_PATH)
async def list_endpoints(
    supplier_id: str, request: ApiRequest, key: Key, services: ApiServices
) -> Response[bytes]:
    """The supplier's endpoints, oldest first."""
    require(key, Action.READ, supplier_id)
    query = read_query(request, PageQuery)
    catalog = services.catalog(key)
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
    return json_answer(_shown(await _find(services, key, supplier_id, endpoint_id), key))


@patch(_ONE)
async def change_endpoint(
    supplier_id: str, endpoint_id: str, request: ApiRequest, key: Key, services: ApiServices
) -> Response[bytes]:
    """Change what the body names; the rest stays as it is."""
    require(key, Action.CHANGE_ENDPOINTS, supplier_id)
    await _find(services, key, supplier_id, endpoint_id)
    body = await read_body(request, EndpointChange, partial(form_problems, services.guard))
    services.changes.take(endpoint_id)
    settings = settings_of(services.guard, body)
    await check_addresses(services.guard, settings)
    now = clock.to_datetime(clock.now())
    after = await services.store(
        services.storage.catalog.change_endpoint,
        supplier_id,
        endpoint_id,
        lambda endpoint: changed(endpoint, settings, now),
        credentials=credentials_of(body),
    )
    await services.configured(supplier_id)
    if body.enabled is not UNSET:
        await services.settle()
    if body.rate_limit is not UNSET:
        parking = services.storage.ledger.parking
        await services.store(parking.limits_changed, [endpoint_id], now=clock.now())
    return json_answer(_shown(after, key))


@delete(_ONE)
async def delete_endpoint(
    supplier_id: str, endpoint_id: str, key: Key, services: ApiServices
) -> Response[None]:
    """Forget the endpoint and its secrets; its unfinished deliveries are cancelled."""
    require(key, Action.CHANGE_ENDPOINTS, supplier_id)
    await _find(services, key, supplier_id, endpoint_id)
    services.changes.take(endpoint_id)
    await services.store(services.storage.catalog.delete_endpoint, supplier_id, endpoint_id)
    await services.configured(supplier_id)
    await services.settle()
    return empty_answer()


@post(_ONE + "/rotate-secret")
async def rotate_secret(
    supplier_id: str, endpoint_id: str, request: ApiRequest, key: Key, services: ApiServices
) -> Response[bytes]:
    """Make a new secret; the ones before it sign beside it until the grace ends."""
    require(key, Action.CHANGE_ENDPOINTS, supplier_id)
    target = await _target(services, key, supplier_id, endpoint_id)
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
    await services.configured(supplier_id)
    shown = NewSecret(secret=secret, public_key=public_key, previous_valid_until=clock.to_datetime(until))
    return json_answer(shown)


@post(_ONE + "/test")
async def test_endpoint(
    supplier_id: str, endpoint_id: str, request: ApiRequest, key: Key, services: ApiServices
) -> Response[bytes]:
    """Send one signed sample event now, also when the endpoint is disabled; answers with the attempt."""
    require(key, Action.CHANGE_ENDPOINTS, supplier_id)
    target = await _target(services, key, supplier_id, endpoint_id)
    await read_body(request, Nothing)
    services.changes.take(endpoint_id)
    return json_answer(await services.tester(target))


@post(_ONE + "/preview")
async def preview_endpoint(
    supplier_id: str, endpoint_id: str, request: ApiRequest, key: Key, services: ApiServices
) -> Response[bytes]:
    """Show the request that an event would make now; nothing is sent."""
    require(key, Action.CHANGE_ENDPOINTS, supplier_id)
    target = await _target(services, key, supplier_id, endpoint_id)
    body = await read_body(request, PreviewBody, _preview_problems)
    event_type, data = body.type, msgspec.json.encode(body.data).decode()
    if body.event_id is not None:
        event, _ = await services.store(services.history(key).get_event, body.event_id)
        if event.supplier_id != supplier_id:
            raise NotFound(f"there is no event {body.event_id!r}, or its retention has ended")
        event_type, data = event.type, bytes(event.data).decode()
    try:
        shown = await asyncio.to_thread(
            preview, target, event_type=event_type, data=data, public_url=services.public_url
        )
    except PayloadFailed as error:
        raise Conflict(f"the event cannot be brought into the endpoint's form: {error}") from None
    headers = {name: MASK if name.lower() in _MASKED else value for name, value in shown.headers.items()}
    return json_answer(msgspec.structs.replace(shown, headers=headers))


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
    await _find(services, key, supplier_id, endpoint_id)
    await read_body(request, Nothing)
    services.changes.take(endpoint_id)
    reason = None if enabled else DISABLED_BY_REQUEST
    await services.store(services.storage.catalog.set_enabled, [endpoint_id], enabled=enabled, reason=reason)
    await services.configured(supplier_id)
    await services.settle()
    return json_answer(_shown(await _find(services, key, supplier_id, endpoint_id), key))


async def _find(services: ApiServices, key: Key, supplier_id: str, endpoint_id: str) -> Endpoint:
    supplier_id, endpoint_id = path_id(supplier_id, "supplier"), path_id(endpoint_id, "endpoint")
    return await services.store(services.catalog(key).get_endpoint, supplier_id, endpoint_id)


async def _target(services: ApiServices, key: Key, supplier_id: str, endpoint_id: str) -> Target:
    """The endpoint with its secrets, as workers have it; what the cache has is brought up to date if it is behind."""
    endpoint = await _find(services, key, supplier_id, endpoint_id)
    targets = await services.cache.get_cached_webhook_endpoints(supplier_id) or []
    target = next((target for target in targets if target.endpoint == endpoint), None)
    if target is None:  # another process changed it just now
        await services.cache.cache_webhook_endpoints(supplier_id, targets)
        targets = await services.cache.get_cached_webhook_endpoints(supplier_id) or []
        target = next((target for target in targets if target.endpoint.id == endpoint_id), None)
    if target is None:  # it was deleted just now
        raise NotFound(f"there is no endpoint {endpoint_id!r}")
    return target


def _preview_problems(fields: Fields) -> Iterator[tuple[str, str]]:
    event_type = fields.get("type", SAMPLE_TYPE)
    if (
        not isinstance(event_type, str)
        or len(event_type) > MAX_EVENT_TYPE
        or not EVENT_TYPE.fullmatch(event_type)
    ):
        yield "/type", "expected an event type such as booking.confirmed"


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
