"""The doorway: logging in with an API key, and out again."""

import logging
from urllib.parse import quote

from litestar import Response, get, post

from ringbearer import clock
from ringbearer.api.auth import Action, may
from ringbearer.dashboard import sessions
from ringbearer.dashboard.rendering import HEADERS, page
from ringbearer.dashboard.services import PageRequest, PageServices, query_of, read_change, read_form
from ringbearer.dashboard.sessions import Visitor
from ringbearer.domain.keys import digest

_audit = logging.getLogger("ringbearer.audit")


@get("/login")
async def show_login(request: PageRequest) -> Response[str]:
    """The form that asks for a key."""
    return page("login.html", next=own_path(query_of(request).get("next")), wrong=None)


@post("/login")
async def log_in(request: PageRequest, services: PageServices) -> Response[str]:
    """Begin a session if the key is right and may look at anything."""
    sessions.require_own_origin(request.headers)
    address = request.client.host if request.client else "unknown"
    form = await read_form(request)
    presented, target = form.get("key", "").strip(), own_path(form.get("next"))
    key = await services.authenticator.find(digest(presented)) if presented else None
    if key is None or not may(key, Action.READ):
        # Wrong keys only: behind a proxy everybody has one address, and a stranger must not keep the others out. Keys
        # are too long to be guessed; the pause is for the log and the store.
        services.attempts.check(address)
        services.attempts.failed(address)
        _audit.warning("a login was refused", extra={"address": address})
        wrong = (
            "There is no such key, or it was deleted."
            if key is None
            else f"A {key.scope} key may not look at pages. Log in with an admin, read or supplier key."
        )
        return page("login.html", status=401, next=target, wrong=wrong)
    services.attempts.succeeded(address)
    cookie = sessions.begin(services.storage.vault, digest(presented), now=clock.now())
    _audit.info("logged in", extra={"key": key.id, "scope": key.scope, "address": address})
    secure = request.headers.get("origin", "").startswith("https:")
    return redirect(target, {"set-cookie": sessions.cookie_header(cookie, secure=secure)})


@post("/logout")
async def log_out(request: PageRequest, visitor: Visitor, services: PageServices) -> Response[str]:
    """End the session: in this browser, and for whoever else has its cookie."""
    await read_change(request, visitor)
    session = visitor.session
    await services.store(
        services.storage.sessions.end, digest(session.token), until=session.until, now=clock.now()
    )
    _audit.info("logged out", extra={"key": visitor.key.id})
    secure = request.headers.get("origin", "").startswith("https:")
    return redirect("/login", {"set-cookie": sessions.cookie_header("", secure=secure, lifetime=0)})


def own_path(text: str | None) -> str:
    """A path of ours to go to after logging in; whatever might lead elsewhere becomes the first page."""
    if (
        text
        and text.startswith("/")
        and not text.startswith("//")
        and "\\" not in text
        and text.isprintable()
    ):
        return text
    return "/"


def redirect(path: str, headers: dict[str, str] | None = None) -> Response[str]:
    """See other: the browser fetches that page next."""
    return Response("", status_code=303, headers={**HEADERS, "location": path, **(headers or {})})


def login_path(request: PageRequest) -> str:
    """Where somebody without a session goes, and comes back from."""
    wanted = request.scope["path"]
    if request.method != "GET":
        wanted = "/"
    elif request.scope["query_string"]:
        wanted += "?" + request.scope["query_string"].decode("latin-1")
    return "/login" if wanted == "/" else "/login?next=" + quote(wanted, safe="/")
