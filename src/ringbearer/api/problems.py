"""Problems: every error of the API as an RFC 9457 body, and the one table of which has which status."""

import logging
import math
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import NamedTuple

import msgspec

from ringbearer.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    Overloaded,
    RingbearerError,
    StoreUnavailable,
    TooManyRequests,
    Unauthorized,
)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_STORE = 1
"""Seconds after which a client may come again when the store could not take its request."""
MAX_ERRORS = 50
"""Places that one problem names; a request with more than that is not read by a person."""

_log = logging.getLogger(__name__)


class Place(msgspec.Struct, frozen=True):
    """One thing that is wrong: a JSON pointer into the body, or `/name` of a query parameter, and why."""

    pointer: str
    message: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every error answer holds. `errors` is there when the request was understood but is not valid."""

    # No default: `type` is always written, although RFC 9457 would take its absence for about:blank.
    type: str
    title: str
    status: int
    detail: str
    errors: tuple[Place, ...] = ()


class Answer(NamedTuple):
    """A whole error response, for whichever server part sends it. Header names are in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes


class Refusal(RingbearerError):
    """A request that is refused for its form: its method, media type, size or syntax."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})


def problem(
    status: int, detail: str, *, title: str | None = None, errors: Iterable[tuple[str, str]] = ()
) -> bytes:
    """The body of a problem; the title is the status's own phrase unless given."""
    return msgspec.json.encode(
        Problem(
            type="about:blank",
            title=title or HTTPStatus(status).phrase,
            status=status,
            detail=detail,
            errors=tuple(Place(*error) for error in errors)[:MAX_ERRORS],
        )
    )


def answer_to(error: Exception) -> Answer:
    """The response to an error; one that nobody expected is logged, and answered without its details."""
    status, detail, headers, errors = _read(error)
    headers = {"content-type": MEDIA_TYPE, "cache-control": "no-store", **headers}
    return Answer(status, headers, problem(status, detail, errors=errors))


_Reading = tuple[int, str, dict[str, str], tuple[tuple[str, str], ...]]


def _read(error: Exception) -> _Reading:
    """Status, detail, headers and places of an error."""
    match error:
        case Refusal():
            return error.status, str(error), error.headers, ()
        case InvalidInput():
            return 422, str(error), {}, error.problems
        case Unauthorized():
            return 401, str(error), {"www-authenticate": "Bearer"}, ()
        case Forbidden():
            return 403, str(error), {}, ()
        case NotFound():
            return 404, str(error), {}, ()
        case Conflict():
            return 409, str(error), {}, ()
        case TooManyRequests():
            return 429, str(error), {"retry-after": str(max(1, math.ceil(error.retry_after)))}, ()
        case StoreUnavailable():
            return _unavailable(error)
    _log.error("a request failed in a way that nobody expected", exc_info=error)
    return 500, "something went wrong inside; the log says what", {}, ()


def _unavailable(error: StoreUnavailable) -> _Reading:
    # What the database said may name hosts and paths: the log may know, the caller need not.
    if isinstance(error, Overloaded):
        detail = "too much waits for the store already; nothing of this request was taken"
    else:
        _log.warning("the store is not available: %s", error)
        detail = "the store cannot take or answer anything now; nothing of this request was taken"
    return 503, detail, {"retry-after": str(RETRY_AFTER_STORE)}, ()
