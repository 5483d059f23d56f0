"""*Now*: what is going on this second, for as long as the page is open."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from litestar import Response, get
from litestar.response import Stream

from ringbearer import clock
from ringbearer.dashboard.doorway import redirect
from ringbearer.dashboard.rendering import HEADERS, fragment, page
from ringbearer.dashboard.services import PageServices
from ringbearer.dashboard.sessions import Visitor
from ringbearer.dashboard.vitals import Vitals
from ringbearer.domain.keys import digest
from ringbearer.errors import Overloaded, StoreUnavailable

_ASK_AGAIN = 10  # looks between two questions whether the session still holds
_PARTS = ("figures", "system", "newest")


@get("/")
async def show_now(visitor: Visitor, services: PageServices) -> Response[str]:
    """The first page; a supplier's key sees its supplier instead, since what is here is everybody's."""
    if visitor.key.supplier_id is not None:
        return redirect(f"/suppliers/{visitor.key.supplier_id}")
    found = await services.pulse.newest()
    return page("now.html", visitor, now=found, points=list(services.pulse.points))


@get("/live")
async def stream_now(visitor: Visitor, services: PageServices) -> Response[Any]:
    """The same once a second, as server-sent events."""
    if visitor.key.supplier_id is not None:
        return Response("", status_code=403, headers=HEADERS)
    if services.pulse.full:
        raise Overloaded("as many people watch this page as may at a time")
    return Stream(
        _events(visitor, services),
        media_type="text/event-stream",
        headers={**HEADERS, "x-accel-buffering": "no"},
    )


def paint(found: Vitals) -> bytes:
    """A look as server-sent events."""
    parts = [_event(name, fragment("parts/now.html", name, found)) for name in _PARTS]
    return b"".join((*parts, _event("sample", msgspec.json.encode(found.point).decode())))


async def _events(visitor: Visitor, services: PageServices) -> AsyncIterator[bytes]:
    looks = 0
    async for painted in services.pulse.watch():
        if painted is None:
            yield _event("blind", "")
            continue
        try:
            if looks % _ASK_AGAIN == 0 and not await _still_in(visitor, services):
                yield _event("gone", "")
                return
        except StoreUnavailable:  # nothing is shown until that was answered
            yield _event("blind", "")
            continue
        looks += 1
        yield painted


async def _still_in(visitor: Visitor, services: PageServices) -> bool:
    if clock.now() >= visitor.session.until:
        return False
    if await services.authenticator.find(visitor.session.digest) is None:
        return False
    return not await services.store(services.storage.sessions.ended, digest(visitor.session.token))


def _event(name: str, text: str) -> bytes:
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    return "".join((f"event: {name}\n", *(f"data: {line}\n" for line in lines), "\n")).encode()
