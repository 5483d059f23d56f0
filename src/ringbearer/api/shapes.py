"""Shapes of events: how an event type's data looked in an older version, for endpoints that pinned it."""

from collections.abc import Iterator
from typing import Annotated

import msgspec
from litestar import Response, delete, get, put
from msgspec import Meta

from ringbearer import clock
from ringbearer.api.answers import empty_answer, json_answer
from ringbearer.api.auth import Action, require
from ringbearer.api.reading import ApiRequest, Fields, Limit, read_body, read_query
from ringbearer.api.services import ApiServices
from ringbearer.delivery.selection import MAX_EXPRESSION, compiled
from ringbearer.domain.endpoints import EVENT_TYPE, EVENT_VERSION, MAX_EVENT_TYPE
from ringbearer.domain.keys import Key
from ringbearer.errors import InvalidInput
from ringbearer.storage.shapes import Shape

_ONE = "/v1/event-types/{event_type:str}/versions/{version:str}"


class ShapeBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What makes the data of a version."""

    expression: Annotated[
        Annotated[str, Meta(min_length=1, max_length=MAX_EXPRESSION)],
        Meta(
            description=f"a JMESPath expression of 1 to {MAX_EXPRESSION} characters that makes the version's data "
            "out of the data as published"
        ),
    ]


class ShapesQuery(msgspec.Struct, kw_only=True):
    """Which part of the list is asked for."""

    limit: Limit = 50
    cursor: Annotated[
        Annotated[str, Meta(max_length=200)] | None, Meta(description="the `next` of the page before")
    ] = None


@put(_ONE)
async def put_shape(
    event_type: str, version: str, request: ApiRequest, key: Key, services: ApiServices
) -> Response[bytes]:
    """Register a version's shape (201) or replace it (200); endpoints that pinned it get it from then on."""
    require(key, Action.CHANGE_SUPPLIERS)
    _check(event_type, version)
    body = await read_body(request, ShapeBody, _problems)
    shape = Shape(
        event_type=event_type,
        version=version,
        expression=body.expression,
        updated_at=clock.to_datetime(clock.now()),
    )
    created = await services.store(services.storage.shapes.put, shape)
    await services.configured()
    return json_answer(shape, 201 if created else 200)


@get("/v1/event-types/versions")
async def list_shapes(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """The shapes of all versions, by event type."""
    require(key, Action.READ)
    query = read_query(request, ShapesQuery)
    after = None
    if query.cursor is not None:
        event_type, _, version = query.cursor.partition("/")
        after = event_type, version
    found = await services.store(services.storage.shapes.list, limit=query.limit + 1, after=after)
    more = found[query.limit - 1] if len(found) > query.limit else None
    return json_answer(
        {
            "items": found[: query.limit],
            "next": None if more is None else f"{more.event_type}/{more.version}",
        }
    )


@delete(_ONE)
async def delete_shape(event_type: str, version: str, key: Key, services: ApiServices) -> Response[None]:
    """Forget a version's shape; events of that type go as they are published."""
    require(key, Action.CHANGE_SUPPLIERS)
    await services.store(services.storage.shapes.delete, event_type, version)
    await services.configured()
    return empty_answer()


def _check(event_type: str, version: str) -> None:
    if len(event_type) > MAX_EVENT_TYPE or not EVENT_TYPE.fullmatch(event_type):
        message = "expected an event type such as booking.confirmed in the path"
        raise InvalidInput(message, [("/event_type", message)])
    if not EVENT_VERSION.fullmatch(version):
        message = "expected a version of 1 to 32 letters, digits, '.', '_' and '-' in the path"
        raise InvalidInput(message, [("/version", message)])


def _problems(fields: Fields) -> Iterator[tuple[str, str]]:
    expression = fields.get("expression")
    if isinstance(expression, str):
        try:
            compiled(expression)
        except InvalidInput as error:
            yield "/expression", str(error)
