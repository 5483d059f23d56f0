"""Events: published, seen, and how they look in older versions."""

import msgspec

from ringbearer.api.answers import Page
from ringbearer.api.events import EventDetail
from ringbearer.api.ingest import BatchAnswer
from ringbearer.api.operation import Operation, get
from ringbearer.api.shapes import ShapeBody, ShapesQuery
from ringbearer.domain.events import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, MAX_DATA_BYTES, NewEvent
from ringbearer.storage.shapes import Shape


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """An event that is on the disk. `duplicate`: its idempotency key stood for it already."""

    id: str
    deliveries: int
    duplicate: bool


class ShapePage(Page[Shape]):
    """A part of the list of shapes."""


_MIB = 1024 * 1024
_SHAPE = "/v1/event-types/{event_type}/versions/{version}"

INGEST: tuple[Operation, ...] = (
    Operation(
        "POST",
        "/v1/events",
        "publishEvent",
        "Events",
        f"Publish an event; the data may have {MAX_DATA_BYTES // 1024} KiB. 202 means: it is on the disk.",
        {202: Accepted},
        keys="admin or publish",
        body=NewEvent,
        headers={"Idempotency-Key": "Same as `idempotency_key` in the body."},
        problems=(404, 409, 429),
    ),
    Operation(
        "POST",
        "/v1/events/batch",
        "publishBatch",
        "Events",
        f"Publish at most {MAX_BATCH_EVENTS:,} events in at most {MAX_BATCH_BYTES // _MIB} MiB; "
        "each is taken or rejected on its own.",
        {202: BatchAnswer},
        keys="admin or publish",
        body=list[NewEvent],
        lines=NewEvent,
        problems=(429,),
    ),
)
OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "PUT",
        _SHAPE,
        "putShape",
        "Events",
        "Say how an event type's data looked in a version, for endpoints that pinned it; 201 when that is new.",
        {201: Shape, 200: Shape},
        keys="admin",
        body=ShapeBody,
        problems=(409,),
    ),
    get(
        "/v1/event-types/versions",
        "listShapes",
        "Events",
        "List the shapes of all versions, by event type.",
        ShapePage,
        query=ShapesQuery,
    ),
    Operation(
        "DELETE",
        _SHAPE,
        "deleteShape",
        "Events",
        "Forget a version's shape: events of that type go as they are published.",
        {204: None},
        keys="admin",
        problems=(404,),
    ),
    get(
        "/v1/events/{event_id}",
        "getEvent",
        "Events",
        "See an event, with its deliveries' states.",
        EventDetail,
        problems=(404,),
    ),
)
