"""*Deliveries* and *Dead letters*: found by filters, page by page; sent again one by one or many at a time."""

from collections.abc import Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from litestar import Response, get, post

from ringbearer.api.auth import Action, require
from ringbearer.api.deliveries import ReplayProgress, ReplayStarted
from ringbearer.dashboard.audit import note
from ringbearer.dashboard.doorway import redirect
from ringbearer.dashboard.rendering import number, page
from ringbearer.dashboard.services import PageRequest, PageServices, query_of, read_change
from ringbearer.dashboard.sessions import Visitor
from ringbearer.domain.deliveries import State
from ringbearer.errors import InvalidInput
from ringbearer.storage.search import Filter

_PER_PAGE = 50
_FIELDS = ("supplier_id", "endpoint_id", "event_id", "event_type", "state", "after", "before", "zone")
_REPLAYED = (State.DEAD, State.DELIVERED, State.SCHEDULED)


@get("/deliveries")
async def list_deliveries(request: PageRequest, visitor: Visitor, services: PageServices) -> Response[str]:
    """Deliveries that the filter means, newest first."""
    return await _list(request, visitor, services, "Deliveries")


@get("/dead-letters")
async def list_dead_letters(request: PageRequest, visitor: Visitor, services: PageServices) -> Response[str]:
    """Deliveries that were given up."""
    return await _list(request, visitor, services, "Dead letters", state=State.DEAD.value)


async def _list(
    request: PageRequest, visitor: Visitor, services: PageServices, room: str, **fixed: str
) -> Response[str]:
    query = query_of(request)
    given = {name: query[name] for name in _FIELDS if name in query} | fixed
    found = await services.store(
        services.history(visitor).find,
        read_filter(given, visitor),
        limit=_PER_PAGE,
        older=query.get("older"),
        newer=query.get("newer"),
    )
    return page(
        "deliveries.html",
        visitor,
        room=room,
        path=request.scope["path"],
        found=found,
        given=given,
        filtered=any(name not in fixed and name != "zone" for name in given),
        elsewhere="older" in query or "newer" in query,
        states=list(State),
    )


@post("/deliveries/{delivery_id:str}/retry")
async def retry(
    delivery_id: str, request: PageRequest, visitor: Visitor, services: PageServices
) -> Response[str]:
    """Make a delivery due now."""
    await read_change(request, visitor)
    await services.api.send(visitor.key, "POST", f"/v1/deliveries/{delivery_id}/retry", {})
    note("retry", visitor, delivery=delivery_id)
    return redirect(f"/deliveries/{delivery_id}?said=retried")


# ── replays ─────────────────────────────────────────────────────────────────────────────────────────────────


@get("/replay")
async def propose_replay(request: PageRequest, visitor: Visitor) -> Response[str]:
    """What a replay of what the filter means would be; nothing happens yet."""
    require(visitor.key, Action.RETRY)
    given = _replayed(query_of(request))
    read_filter(given, visitor)
    return page("replay.html", visitor, given=given, states=_REPLAYED)


@get("/replay/count")
async def count_replay(request: PageRequest, visitor: Visitor, services: PageServices) -> Response[str]:
    """How many deliveries that is; on its own, since counting millions takes a while."""
    require(visitor.key, Action.RETRY)
    wanted = read_filter(_replayed(query_of(request)), visitor)
    counted = await services.store(services.history(visitor).count, wanted)
    return page("parts/counted.html", visitor, counted=counted, shown=number(counted))


@post("/replay")
async def start_replay(request: PageRequest, visitor: Visitor, services: PageServices) -> Response[str]:
    """Begin it, and go where its progress is shown."""
    form = _replayed(await read_change(request, visitor))
    wanted = read_filter(form, visitor)
    body = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name in Filter.__struct_fields__
        if (value := getattr(wanted, name)) is not None
    }
    started = await services.api.send(visitor.key, "POST", "/v1/deliveries/replay", body, ReplayStarted)
    note("replay", visitor, replay=started.replay_id, matched=started.matched)
    return redirect(f"/replay/{started.replay_id}")


@get("/replay/{replay_id:str}")
async def show_replay(replay_id: str, visitor: Visitor, services: PageServices) -> Response[str]:
    """How far a replay is; the page renews itself until it is done."""
    progress = await services.api.get(visitor.key, f"/v1/deliveries/replay/{replay_id}", ReplayProgress)
    return page("replaying.html", visitor, replay=progress)


def _replayed(given: Mapping[str, str]) -> dict[str, str]:
    """The filter's fields, with a state that can be replayed."""
    kept = {name: given[name] for name in _FIELDS if given.get(name)}
    if kept.get("state") not in set(_REPLAYED):
        kept["state"] = State.DEAD.value
    return kept


# ── filters ─────────────────────────────────────────────────────────────────────────────────────────────────


def read_filter(given: Mapping[str, str], visitor: Visitor) -> Filter:
    """The filter that a form's fields mean to this visitor; raises InvalidInput."""
    problems = []
    times: dict[str, datetime | None] = {"after": None, "before": None}
    for name in times:
        if name in given:
            try:
                times[name] = _moment(given[name], given.get("zone"))
            except ValueError:
                problems.append((f"/{name}", "expected a date and time such as 2027-06-19T14:00"))
    state = given.get("state")
    if state is not None and state not in set(State):
        problems.append(("/state", f"expected one of {', '.join(State)}"))
    if problems:
        raise InvalidInput(": ".join(problems[0]), problems)
    return Filter(
        supplier_id=visitor.key.supplier_id or given.get("supplier_id"),
        endpoint_id=given.get("endpoint_id"),
        event_id=given.get("event_id"),
        event_type=given.get("event_type"),
        state=State(state) if state is not None else None,
        **times,
    )


def _moment(text: str, zone: str | None) -> datetime:
    """A time as a form has it, in the viewer's zone; raises ValueError."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is not None:
        return found
    try:
        return found.replace(tzinfo=ZoneInfo(zone) if zone else UTC)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return found.replace(tzinfo=UTC)
