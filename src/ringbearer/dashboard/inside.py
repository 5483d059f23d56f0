"""The pages' way to the API: requests that stay inside the process and pass through every rule of it.

What a page shows or changes, it asks the API for, as any client does, on behalf of the key that logged in. So
scopes, limits and checks stand in one place only, and a page can do nothing that its key could not.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec

from ringbearer.api.auth import KEY_IN_SCOPE
from ringbearer.domain.keys import Key
from ringbearer.errors import Conflict, Forbidden, InvalidInput, NotFound, StoreUnavailable, TooManyRequests

Message = MutableMapping[str, Any]
Application = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]
"""An ASGI 3 application."""
T = TypeVar("T")


class _Problem(msgspec.Struct):
    status: int
    detail: str
    errors: list[dict[str, str]] = []


class Inside:
    """Calls the management API in the name of a key."""

    def __init__(self, api: Application) -> None:
        self._api = api

    async def get(self, key: Key, path: str, kind: type[T], query: Mapping[str, object] | None = None) -> T:
        """What the API answers, as that type; raises the error that the API's problem tells."""
        given = {name: str(value) for name, value in (query or {}).items() if value not in (None, "")}
        return msgspec.json.decode(await self._call(key, "GET", path, urlencode(given)), type=kind)

    async def send(
        self,
        key: Key,
        method: str,
        path: str,
        body: object,
        kind: type[T] = object,  # type: ignore[assignment]
    ) -> T:
        """Change something; what the API answers, as that type. Raises as `get` does."""
        answer = await self._call(key, method, path, "", msgspec.json.encode(body))
        return msgspec.json.decode(answer or b"null", type=kind)

    async def _call(self, key: Key, method: str, path: str, query: str, body: bytes = b"") -> bytes:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ],
            "client": None,
            "server": None,
            KEY_IN_SCOPE: key,
        }
        status, retry_after, parts = 500, 1.0, []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status, retry_after
            if message["type"] == "http.response.start":
                status = message["status"]
                retry_after = float(dict(message["headers"]).get(b"retry-after", b"1"))
            else:
                parts.append(message.get("body", b""))

        await self._api(scope, receive, send)
        answer = b"".join(parts)
        if status >= 400:
            raise _error(answer, retry_after)
        return answer


def _error(answer: bytes, retry_after: float) -> Exception:
    """The error of the house that a problem tells."""
    problem = msgspec.json.decode(answer, type=_Problem)
    match problem.status:
        case 403:
            return Forbidden(problem.detail)
        case 404:
            return NotFound(problem.detail)
        case 409:
            return Conflict(problem.detail)
        case 422 | 400:
            return InvalidInput(problem.detail, [(e["pointer"], e["message"]) for e in problem.errors])
        case 429:
            return TooManyRequests(problem.detail, retry_after)
        case 503:
            return StoreUnavailable(problem.detail)
    return RuntimeError(f"the API answered {problem.status}: {problem.detail}")
