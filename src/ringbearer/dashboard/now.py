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
from ringbearer.errors import Overloaded

_RATES = ("accepted", "attempts", "retries")
_ASK_AGAIN = 10  # looks between two questions whether the session still holds


@get("/")
async def show_now(visitor: Visitor, services: PageServices) -> Response[str]:
    """The first page; a supplier's key sees its supplier instead, since what is here is everybody's."""
    if visitor.key.supplier_id is not None:
        return redirect(f"/suppliers/{visitor.key.supplier_id}")
    return page("now.html", visitor, now=await services.pulse.newest(), samples=_samples(services))


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


async def _events(visitor: Visitor, services: PageServices) -> AsyncIterator[bytes]:
    looks = 0
    async for found in services.pulse.watch():
        if looks % _ASK_AGAIN == 0 and not await _still_in(visitor, services):
            yield b"event: gone\ndata: \n\n"
            return
        looks += 1
        yield _event("figures", fragment("parts/now.html", "figures", found))
        yield _event("system", fragment("parts/now.html", "system", found))
        yield _event("newest", fragment("parts/now.html", "newest", found))
        yield _event("sample", msgspec.json.encode(_sample(found)).decode())


async def _still_in(visitor: Visitor, services: PageServices) -> bool:
    if clock.now() >= visitor.session.until:
        return False
    if await services.authenticator.find(visitor.session.digest) is None:
        return False
    return not await services.store(services.storage.sessions.ended, digest(visitor.session.token))


def _event(name: str, text: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in text.splitlines() if line.strip())
    return f"event: {name}\n{lines}\n".encode()


def _samples(services: PageServices) -> list[list[float | None]]:
    return [_sample(found) for found in services.pulse.kept]


def _sample(found: Vitals) -> list[float | None]:
    """A point of the chart: seconds since the epoch; deliveries accepted, tries, and repeated tries a second."""
    return [found.at / clock.SECOND, *(round(found.total(name), 1) for name in _RATES)]
