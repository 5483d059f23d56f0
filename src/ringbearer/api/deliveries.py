"""Deliveries: listed, seen with their attempts, sent again one by one or, paced, by the thousand."""

from typing import Annotated, Literal

import msgspec
from litestar import Response, get, post
from msgspec import Meta

from ringbearer import clock
from ringbearer.api.answers import Page, json_answer
from ringbearer.api.auth import Action, may_see, require
from ringbearer.api.reading import ApiRequest, Cursor, Limit, Nothing, path_id, read_body, read_query
from ringbearer.api.services import ApiServices
from ringbearer.domain.deliveries import DeliveryDetail, State
from ringbearer.domain.keys import Key
from ringbearer.domain.times import Moment
from ringbearer.errors import Conflict, NotFound
from ringbearer.storage.history import Filter, Replay

_RETRIED = frozenset({State.DEAD, State.DELIVERED, State.SCHEDULED})
"""States in which a retry changes something; in the others a delivery is on its way already."""

Text = Annotated[str, Meta(max_length=128)]


class DeliveryFilter(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which deliveries are meant; all conditions hold at once."""

    supplier_id: Annotated[Text | None, Meta(description="a supplier's id")] = None
    endpoint_id: Annotated[Text | None, Meta(description="an endpoint's id")] = None
    event_id: Annotated[Text | None, Meta(description="an event's id")] = None
    event_type: Annotated[Text | None, Meta(description="an event type, exactly")] = None
    after: Annotated[
        Moment | None,
        Meta(description="a time with a zone, such as 2027-06-19T14:00:00Z: events accepted then or later"),
    ] = None
    before: Annotated[
        Moment | None,
        Meta(description="a time with a zone, such as 2027-06-19T14:00:00Z: events accepted before then"),
    ] = None

    def to_store(self, key: Key, state: State | None) -> Filter:
        """The same for the store; a key that is bound to a supplier means only that supplier's deliveries.

        Raises NotFound when such a key asks for another supplier's.
        """
        if self.supplier_id is not None and not may_see(key, self.supplier_id):
            raise NotFound(f"there is no supplier {self.supplier_id!r}")
        return Filter(
            supplier_id=key.supplier_id or self.supplier_id,
            endpoint_id=self.endpoint_id,
            event_id=self.event_id,
            event_type=self.event_type,
            state=state,
            after=self.after,
            before=self.before,
        )


class DeliveriesQuery(DeliveryFilter, kw_only=True, forbid_unknown_fields=True):
    """Which deliveries are listed."""

    state: Annotated[State | None, Meta(description=f"a state: {', '.join(State)}")] = None
    limit: Limit = 50
    cursor: Cursor = None


class ReplayBody(DeliveryFilter, kw_only=True, forbid_unknown_fields=True):
    """Which deliveries are sent again: dead letters, unless the state says otherwise."""

    state: Annotated[
        Literal["dead", "delivered", "scheduled"],
        Meta(description="dead (default), delivered or scheduled: no others can be sent again"),
    ] = "dead"


class ReplayStarted(msgspec.Struct, frozen=True, kw_only=True):
    """How many deliveries a replay means, and where to ask how far it is."""

    matched: int
    replay_id: str


class ReplayProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a replay is; `moved` counts those that were really queued."""

    id: str
    filter: Filter
    matched: int
    moved: int
    created_at: Moment
    finished_at: Moment | None


@get("/v1/deliveries")
async def list_deliveries(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """The deliveries that the filter means and the key may see, newest first.

    A page may be empty and have a `next`: so far was looked, and there is more to look at.
    """
    require(key, Action.READ)
    query = read_query(request, DeliveriesQuery)
    found = await services.store(
        services.history(key).find,
        query.to_store(key, query.state),
        limit=query.limit,
        older=query.cursor,
    )
    return json_answer(Page(found.items, found.older))


@get("/v1/deliveries/{delivery_id:str}")
async def get_delivery(delivery_id: str, key: Key, services: ApiServices) -> Response[bytes]:
    """One delivery with its attempts."""
    require(key, Action.READ)
    return json_answer(await _find(services, key, delivery_id))


@post("/v1/deliveries/{delivery_id:str}/retry")
async def retry_delivery(
    delivery_id: str, request: ApiRequest, key: Key, services: ApiServices
) -> Response[bytes]:
    """Make the delivery due now; one that is on its way already stays as it is."""
    require(key, Action.RETRY)
    delivery = await _find(services, key, delivery_id)
    await read_body(request, Nothing)
    if delivery.state is State.HELD:
        raise Conflict("the delivery is held because its endpoint is disabled; enable the endpoint first")
    if delivery.state is State.CANCELLED:
        raise Conflict("the delivery is cancelled because its endpoint was deleted; it cannot be sent again")
    if delivery.state in _RETRIED:
        await services.store(services.storage.ledger.replay, [delivery_id], now=clock.now())
        services.wake()
        delivery = await _find(services, key, delivery_id)
    return json_answer(delivery, 202)


@post("/v1/deliveries/replay")
async def start_replay(request: ApiRequest, key: Key, services: ApiServices) -> Response[bytes]:
    """Send many deliveries again, paced so that live traffic goes first."""
    require(key, Action.RETRY)
    body = await read_body(request, ReplayBody)
    wanted = body.to_store(key, State(body.state))
    replay = await services.store(services.storage.history.start_replay, wanted)
    started = ReplayStarted(matched=replay.matched, replay_id=replay.id)
    return json_answer(started, 202, {"location": f"/v1/deliveries/replay/{replay.id}"})


@get("/v1/deliveries/replay/{replay_id:str}")
async def get_replay(replay_id: str, key: Key, services: ApiServices) -> Response[bytes]:
    """How far a replay is."""
    require(key, Action.READ)
    replay = await services.store(services.storage.history.get_replay, path_id(replay_id, "replay"))
    if key.supplier_id is not None and replay.filter.supplier_id != key.supplier_id:
        raise NotFound(
            f"there is no replay {replay_id!r}"
        )  # the store's own words, as for one that is not there
    return json_answer(_progress(replay))


async def _find(services: ApiServices, key: Key, delivery_id: str) -> DeliveryDetail:
    delivery_id = path_id(delivery_id, "delivery")
    delivery = await services.store(services.history(key).get_delivery, delivery_id)
    if not may_see(key, delivery.supplier_id):
        # The store's own words for a delivery that is not there: the two answers must not differ.
        raise NotFound(f"there is no delivery {delivery_id!r}, or its retention has ended")
    return delivery


def _progress(replay: Replay) -> ReplayProgress:
    return ReplayProgress(
        id=replay.id,
        filter=replay.filter,
        matched=replay.matched,
        moved=replay.moved,
        created_at=replay.created_at,
        finished_at=replay.finished_at,
    )
