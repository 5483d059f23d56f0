"""What the pages need from the rest of the house, and how a request for a page is read."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import parse_qsl

from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import InternalServerException

from ringbearer.api.auth import Action, Authenticator, require
from ringbearer.api.problems import Refusal
from ringbearer.api.services import StoreCalls
from ringbearer.dashboard.inside import Inside
from ringbearer.dashboard.live import Pulse
from ringbearer.dashboard.sessions import Attempts, Visitor, require_own_origin, require_token
from ringbearer.errors import Forbidden
from ringbearer.monitor.monitor import WebhookPerformanceMonitor
from ringbearer.season import Season
from ringbearer.storage.base import Storage
from ringbearer.storage.history import History

MAX_FORM_BYTES = 64 * 1024
_MAX_FIELDS = 100

PageRequest = Request[object, object, State]


@dataclass(frozen=True, kw_only=True)
class PageServices:
    """Everything that the pages' handlers touch."""

    api: Inside
    storage: Storage
    authenticator: Authenticator
    pulse: Pulse
    monitor: WebhookPerformanceMonitor
    season: Callable[[], Season]
    """The season's plan that is in force."""
    public_url: str = ""
    """Where the service is reached from outside: links in payloads begin with it."""
    store: StoreCalls = field(default_factory=StoreCalls)
    attempts: Attempts = field(default_factory=Attempts)

    def history(self, visitor: Visitor) -> History:
        """The history as this visitor may read it: where the database has row level security, by its rules too."""
        return self.storage.history_for(visitor.key.supplier_id)


def require_everybodys(visitor: Visitor, action: Action) -> None:
    """Let only keys that are not bound to a supplier do this; raises Forbidden."""
    require(visitor.key, action)
    if visitor.key.supplier_id is not None:
        raise Forbidden("this page is about all suppliers; a supplier's key sees its own only")


async def read_form(request: PageRequest) -> dict[str, str]:
    """The fields of a form; of one that comes more than once, the last. Raises Refusal."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refusal(415, "a form was expected")
    try:
        body = await request.body()
    except InternalServerException:
        raise Refusal(400, "the connection ended before the form did") from None
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS))
    except ValueError:
        raise Refusal(400, "the form could not be read") from None


async def read_change(request: PageRequest, visitor: Visitor) -> dict[str, str]:
    """The fields of a form that changes something, from our own page and session; raises Forbidden."""
    require_own_origin(request.headers)
    form = await read_form(request)
    require_token(visitor.session, form.pop("token", None))
    return form


def query_of(request: PageRequest) -> dict[str, str]:
    """The query's parameters that are not empty; of one that comes more than once, the last."""
    given = cast("list[tuple[str, str]]", request.query_params.multi_items())
    return {name: value.strip() for name, value in given if value.strip()}
