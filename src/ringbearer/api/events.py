"""Events: seen with the states of their deliveries; they come in elsewhere, by the ingest routes."""

import msgspec
from litestar import Response, get

from ringbearer.api.answers import json_answer
from ringbearer.api.auth import Action, may_see, require
from ringbearer.api.reading import path_id
from ringbearer.api.services import ApiServices
from ringbearer.domain.deliveries import Delivery
from ringbearer.domain.events import Event
from ringbearer.domain.keys import Key
from ringbearer.errors import NotFound


class EventDetail(Event, frozen=True, kw_only=True):
    """An event with its deliveries."""

    deliveries: list[Delivery]


@get("/v1/events/{event_id:str}")
async def get_event(event_id: str, key: Key, services: ApiServices) -> Response[bytes]:
    """The event, with its deliveries' states."""
    require(key, Action.READ)
    event, deliveries = await services.store(services.history(key).get_event, path_id(event_id, "event"))
    if not may_see(key, event.supplier_id):
        # The store's own words for an event that is not there: the two answers must not differ.
        raise NotFound(f"there is no event {event_id!r}, or its retention has ended")
    return json_answer(EventDetail(**msgspec.structs.asdict(event), deliveries=deliveries))
