"""The pages as one ASGI application beside the management API, and which paths are theirs."""

from http import HTTPStatus
from typing import cast

from litestar import Litestar, Response, get
from litestar.di import Provide
from litestar.exceptions import HTTPException

from ringbearer import clock
from ringbearer.api.problems import answer_to
from ringbearer.dashboard import (
    alerts,
    deliveries,
    doorway,
    endpoints,
    finding,
    inspector,
    levels,
    now,
    season,
    suppliers,
)
from ringbearer.dashboard.assets import assets
from ringbearer.dashboard.doorway import login_path, redirect
from ringbearer.dashboard.rendering import HEADERS, page
from ringbearer.dashboard.services import MAX_FORM_BYTES, PageRequest, PageServices
from ringbearer.dashboard.sessions import COOKIE, Visitor, resume
from ringbearer.domain.keys import digest
from ringbearer.errors import NotFound, Unauthorized

_FOREVER = "public, max-age=31536000, immutable"


@get("/assets/{name:str}", sync_to_thread=False)
def get_asset(name: str, request: PageRequest) -> Response[bytes]:
    """A file of the pages; its name changes with its content, so that it may be kept for good."""
    asset = assets().get(name)
    if asset is None:
        raise NotFound("there is no such file")
    headers = {**HEADERS, "cache-control": _FOREVER, "etag": asset.etag}
    if request.headers.get("if-none-match") == asset.etag:
        return Response(b"", status_code=304, headers=headers)
    return Response(asset.body, media_type=asset.media_type, headers=headers)


HANDLERS = (
    get_asset,
    doorway.show_login,
    doorway.log_in,
    doorway.log_out,
    now.show_now,
    now.stream_now,
    finding.find,
    deliveries.list_deliveries,
    deliveries.list_dead_letters,
    deliveries.retry,
    deliveries.propose_replay,
    deliveries.count_replay,
    deliveries.start_replay,
    deliveries.show_replay,
    inspector.show_delivery,
    suppliers.list_suppliers,
    suppliers.show_supplier,
    endpoints.list_endpoints,
    endpoints.show_endpoint,
    endpoints.act,
    season.show_season,
    season.show_forecast,
    levels.show_levels,
    alerts.list_alerts,
    alerts.acknowledge,
    alerts.silence,
    alerts.end_silence,
    alerts.test_channel,
)
"""Every page, and everything that a page does."""

_ROOMS = frozenset(path.split("/")[1] for handler in HANDLERS for path in handler.paths)


def is_page(path: str) -> bool:
    """Whether a path belongs to the pages."""
    return path.startswith("/") and path.split("/", 2)[1] in _ROOMS


def create_dashboard(services: PageServices) -> Litestar:
    """The application; it starts and stops nothing, and belongs to one event loop."""
    return Litestar(
        route_handlers=HANDLERS,
        dependencies={
            "services": Provide(lambda: services, sync_to_thread=False),
            "visitor": Provide(_visitor),
        },
        exception_handlers={HTTPException: _explain, Exception: _explain},
        request_max_body_size=MAX_FORM_BYTES,
        openapi_config=None,
        logging_config=None,
        debug=False,
    )


async def _visitor(request: PageRequest, services: PageServices) -> Visitor:
    """Who looks; raises Unauthorized when there is no session, it was ended, or its key was deleted."""
    session = resume(services.storage.vault, request.cookies.get(COOKIE), now=clock.now())
    key = await services.authenticator.find(session.digest) if session is not None else None
    if (
        session is None
        or key is None
        or await services.store(services.storage.sessions.ended, digest(session.token))
    ):
        raise Unauthorized("log in to see this page")
    request.state.visitor = visitor = Visitor(key, session)
    return visitor


def _explain(request: PageRequest, error: Exception) -> Response[str]:
    """The page that tells what went wrong, or the doorway to whoever has no session."""
    if isinstance(error, Unauthorized):
        return _to_the_door(request)
    if isinstance(error, HTTPException) and error.status_code < 500:
        error = NotFound("There is no such page.") if error.status_code == 404 else error
    answer = answer_to(error)
    status = error.status_code if isinstance(error, HTTPException) else answer.status
    detail = str(error) if status < 500 and not isinstance(error, HTTPException) else ""
    visitor = cast("Visitor | None", getattr(request.state, "visitor", None))
    headers = {"retry-after": answer.headers["retry-after"]} if "retry-after" in answer.headers else {}
    return page(
        "error.html",
        visitor,
        status=status,
        headers=headers,
        code=status,
        title=HTTPStatus(status).phrase,
        detail=detail,
    )


def _to_the_door(request: PageRequest) -> Response[str]:
    path = login_path(request)
    if request.headers.get("hx-request"):
        return Response("", status_code=401, headers={**HEADERS, "hx-redirect": path})
    if request.headers.get("sec-fetch-site") == "cross-site" and request.method == "GET":
        # The browser keeps a strict cookie back when somebody comes from elsewhere, say from a chat. A page
        # of ours that asks for the same page again gets it.
        return page("again.html")
    return redirect(path)
