"""API keys: created and shown once, listed without the key itself, deleted."""

from typing import Annotated

import msgspec
from litestar import Response, delete, get, post
from msgspec import Meta

from ringbearer import clock, ids
from ringbearer.api.answers import empty_answer, json_answer, page
from ringbearer.api.auth import Action, require
from ringbearer.api.reading import ApiRequest, Fields, PageQuery, Problems, path_id, read_body, read_query
from ringbearer.api.services import ApiServices
from ringbearer.api.suppliers import Name
from ringbearer.domain import keys
from ringbearer.domain.keys import Key
from ringbearer.errors import Conflict, InvalidInput, NotFound

_LAST = 4


class NewKey(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a new key may do."""

    scope: Annotated[str, Meta(description="admin, publish, read, scaling or supplier:<id>")]
    name: Annotated[Name | None, Meta(description="a name of at most 200 characters, or null")] = None


class KeyWithText(Key, frozen=True, kw_only=True):
    """A new key together with the key itself, which is not shown again."""

    key: str


@post("/v1/keys")
async def create_key(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """Create a key; the only answer that shows it."""
    require(key, Action.KEYS)
    body = await read_body(request, NewKey, _problems)
    await _require_supplier(services, body.scope)
    text = keys.generate()
    made = Key(
        id=ids.key(),
        scope=body.scope,
        name=body.name,
        created_at=clock.to_datetime(clock.now()),
        last_four=text[-_LAST:],
    )
    await services.store(services.storage.catalog.add_key, made, keys.digest(text))
    services.authenticator.forget()
    return json_answer(KeyWithText(**msgspec.structs.asdict(made), key=text), 201)


@get("/v1/keys")
async def list_keys(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """All keys, oldest first."""
    require(key, Action.KEYS)
    query = read_query(request, PageQuery)
    found = await services.store(
        services.storage.catalog.list_keys, limit=query.limit + 1, cursor=query.cursor
    )
    return json_answer(page(found, query.limit))


@delete("/v1/keys/{key_id:str}")
async def delete_key(key_id: str, key: Key, services: ApiServices) -> Response[None]:
    """Forget a key: it stops working at once here, and within a second in every other process."""
    require(key, Action.KEYS)
    if key_id == key.id:
        # Whoever holds the last admin key can thus never lock everybody out.
        raise Conflict("this is the key that you are using; delete it with another admin key")
    await services.store(services.storage.catalog.delete_key, path_id(key_id, "key"))
    services.authenticator.forget()
    return empty_answer()


async def _require_supplier(services: ApiServices, scope: str) -> None:
    _, bound, supplier_id = scope.partition(":")
    if not bound:
        return
    try:
        await services.store(services.storage.catalog.get_supplier, supplier_id)
    except NotFound as error:
        raise InvalidInput(f"/scope: {error}", [("/scope", str(error))]) from None


def _problems(fields: Fields) -> Problems:
    scope = fields.get("scope")
    if isinstance(scope, str) and not keys.SCOPE.fullmatch(scope):
        return [("/scope", "expected admin, publish, read, scaling or supplier:<id>")]
    return []
