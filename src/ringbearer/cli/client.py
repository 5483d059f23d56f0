"""The way from a command to a running service: address, key, requests, and what went wrong in words."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import msgspec
from cyclopts import Parameter

from ringbearer.cli.options import CONNECTION
from ringbearer.errors import ConfigurationError, RingbearerError

DEFAULT_SERVER = "http://127.0.0.1:8200"
PAGE = 250
"""Items that the API gives at most in one page."""

_TIMEOUT = 60.0
"""Seconds; a batch of 10,000 events on a slow disk takes a few."""

T = TypeVar("T")


class ServiceError(RingbearerError):
    """The service refused, or did not answer. `status` is None when there was no answer.

    `retry_after` is how many seconds the service asks to wait, where it asks.
    """

    def __init__(self, message: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class Page(msgspec.Struct, Generic[T]):
    """A part of a list; `next` is the cursor of the rest."""

    items: list[T]
    next: str | None = None


class Client:
    """Requests to one service. Every method raises ServiceError when the answer is not a success."""

    def __init__(self, server: str, key: str) -> None:
        self.server = server.rstrip("/")
        self._http = httpx.Client(
            headers={"authorization": f"Bearer {key}"},
            timeout=_TIMEOUT,
            verify=server.lower().startswith("https:"),  # reading all authorities takes as long as a request
            # A proxy that the environment names cannot reach this machine's own loopback address.
            trust_env=not is_local(server),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.close()

    def get(self, path: str, parameters: Mapping[str, str | None] | None = None) -> bytes:
        """The body of the answer; parameters that are None are not sent."""
        given = {name: value for name, value in (parameters or {}).items() if value is not None}
        return self._request("GET", path, parameters=given)

    def send(self, method: str, path: str, body: object = None) -> bytes:
        """Sends `body` as JSON, unless it is None."""
        content = None if body is None else msgspec.json.encode(body)
        return self._request(method, path, content=content, content_type="application/json")

    def send_lines(self, path: str, lines: bytes) -> bytes:
        """Posts newline-delimited JSON."""
        return self._request("POST", path, content=lines, content_type="application/x-ndjson")

    def items(
        self, path: str, parameters: Mapping[str, str | None] | None = None, *, limit: int | None
    ) -> bytes:
        """A list of at most `limit` items (None: all), page after page.

        The answer of a single page is the API's own; several are joined into one of the same shape.
        """
        first, page = self._page(path, parameters, None, limit)
        if page.next is None or len(page.items) == limit:
            return first
        found = page.items
        while page.next is not None and (limit is None or len(found) < limit):
            rest = None if limit is None else limit - len(found)
            _, page = self._page(path, parameters, page.next, rest)
            found.extend(page.items)
        return msgspec.json.encode(Page(items=found, next=page.next))

    def _page(
        self, path: str, parameters: Mapping[str, str | None] | None, cursor: str | None, limit: int | None
    ) -> tuple[bytes, Page[msgspec.Raw]]:
        size = PAGE if limit is None else min(limit, PAGE)
        answer = self.get(path, {**(parameters or {}), "limit": str(size), "cursor": cursor})
        return answer, decode(answer, Page[msgspec.Raw])

    def _request(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, str] | None = None,
        content: bytes | None = None,
        content_type: str | None = None,
    ) -> bytes:
        headers = {"content-type": content_type} if content is not None and content_type else {}
        try:
            response = self._http.request(
                method, self.server + path, params=parameters, content=content, headers=headers
            )
        except httpx.HTTPError as error:
            raise _unreachable(self.server, error) from error
        except httpx.InvalidURL as error:
            raise ConfigurationError(f"{self.server!r} is not an address: {error}") from error
        if not response.is_success:
            raise _refusal(self.server, response)
        return response.content


@Parameter(name="*", group=CONNECTION)
@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where the service is and which key opens it."""

    server: Annotated[
        str, Parameter(name="--server", env_var="RINGBEARER_URL", help="Address of the service.")
    ] = DEFAULT_SERVER
    key: Annotated[
        str | None,
        Parameter(
            name="--key",
            env_var=["RINGBEARER_KEY", "RINGBEARER_ADMIN_KEY"],
            help="API key; for a service on this machine also read from admin.key in the data directory.",
        ),
    ] = None

    def open(self) -> Client:
        """A client with that key; raises ConfigurationError when there is none or the address is none."""
        if not _is_address(self.server):
            raise ConfigurationError(f"{self.server!r} is not an address such as {DEFAULT_SERVER}")
        key = self.key or _key_of_this_machine(self.server)
        if not key.isascii() or not key.isprintable():
            raise ConfigurationError("the key has characters that no key has")
        return Client(self.server, key)


DEFAULT_CONNECTION = Connection()


def decode(answer: bytes, kind: type[T]) -> T:
    """The answer as that type; raises ServiceError when it is something else."""
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ServiceError(f"the answer is not what this version of ringbearer expects: {error}") from error


def path(*parts: str) -> str:
    """The path of an object below `/v1`, each part escaped."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def is_local(server: str) -> bool:
    """Whether the address is this machine's loopback."""
    host = urlsplit(server).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(server: str) -> bool:
    try:
        parts = urlsplit(server)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _key_of_this_machine(server: str) -> str:
    advice = "pass --key, or set RINGBEARER_KEY"
    if not is_local(server):
        # The admin key of this machine's service is nobody else's business.
        raise ConfigurationError(f"no key for {server}: {advice}")
    from ringbearer import settings

    file = Path(settings.load({}).data_dir) / "admin.key"
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"no key: {advice} ({file}: {error.strerror or error})") from error


def _unreachable(server: str, error: httpx.HTTPError) -> ServiceError:
    if isinstance(error, httpx.ConnectError) and "SSL" in str(error):
        return ServiceError(
            f"there is no TLS that can be trusted at {server}; is its address http://…? ({error})"
        )
    if isinstance(error, httpx.ConnectError):
        start = "; start it with `ringbearer up`" if is_local(server) else ""
        return ServiceError(f"nothing answers at {server}{start} ({error})")
    if isinstance(error, httpx.TimeoutException):
        return ServiceError(f"{server} took longer than {_TIMEOUT:.0f} s to answer")
    return ServiceError(f"the exchange with {server} broke off: {error or type(error).__name__}")


class _Problem(msgspec.Struct):
    title: str = ""
    detail: str = ""
    errors: list["_Place"] = []


class _Place(msgspec.Struct):
    pointer: str = ""
    message: str = ""


def _refusal(server: str, response: httpx.Response) -> ServiceError:
    try:
        problem = msgspec.json.decode(response.content, type=_Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        problem = _Problem(title=f"{server} does not answer like Ringbearer")
    said = ": ".join(part for part in (problem.title, problem.detail) if part) or response.reason_phrase
    lines = [f"{said} ({response.status_code})"]
    lines += [f"  {place.pointer}: {place.message}" for place in problem.errors]
    if response.status_code == httpx.codes.UNAUTHORIZED:
        lines.append("  the key is given with --key, RINGBEARER_KEY or RINGBEARER_ADMIN_KEY")
    retry_after = _seconds(response.headers.get("retry-after"))
    if retry_after is not None:
        lines.append(f"  try again in {retry_after:.0f} s")
    return ServiceError("\n".join(lines), response.status_code, retry_after)


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isascii() and header.isdecimal() else None
