"""The options of an endpoint, as the commands that create and change it take them."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Group, Parameter

from ringbearer.cli.inputs import read_value
from ringbearer.cli.options import duration, pairs
from ringbearer.domain.endpoints import Compression, HttpVersion, Ordering, Profile, RateLimit, TlsVersion
from ringbearer.errors import InvalidInput

ENDPOINT = Group("Endpoint", sort_key=10)


@Parameter(name="*", group=ENDPOINT)
@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What may be set when an endpoint is made and changed later; None is unset."""

    event_types: Annotated[
        list[str] | None,
        Parameter(name="--event-types", help="Types it wants, comma-separated or repeated: a.b, a.*, *."),
    ] = None
    description: Annotated[str | None, Parameter(name="--description", help="A note for people.")] = None
    headers: Annotated[
        list[str] | None, Parameter(name="--header", help="Header to send along, 'name: value'; repeatable.")
    ] = None
    rate_limit: Annotated[
        str | None, Parameter(name="--rate-limit", help="Sends in a period, such as 100/60s.")
    ] = None
    max_concurrency: Annotated[
        int | None, Parameter(name="--max-concurrency", help="Sends at the same time.")
    ] = None
    timeout: Annotated[
        str | None, Parameter(name="--timeout", help="Time for the whole exchange, such as 10s.")
    ] = None
    retry_schedule: Annotated[
        str | None,
        Parameter(name="--retry-schedule", help="Waits before each further try, such as 5s,5m,30m,2h."),
    ] = None

    payload: Annotated[
        Profile | None, Parameter(name="--payload", help="All data, a link alone, or selected fields.")
    ] = None
    fields: Annotated[
        str | None, Parameter(name="--fields", help="JMESPath over the data, for the compact payload.")
    ] = None
    event_version: Annotated[
        str | None, Parameter(name="--event-version", help="Version in whose shapes events are sent.")
    ] = None
    compression: Annotated[
        Compression | None, Parameter(name="--compression", help="How the body is encoded.")
    ] = None
    ordering: Annotated[
        Ordering | None,
        Parameter(name="--ordering", help="In order by ordering key, for the whole endpoint, or not at all."),
    ] = None
    http_version: Annotated[
        HttpVersion | None, Parameter(name="--http-version", help="HTTP/2 where offered, never, or HTTP/3.")
    ] = None
    tls_min: Annotated[
        TlsVersion | None, Parameter(name="--tls-min", help="The oldest TLS that is spoken.")
    ] = None
    ca: Annotated[
        str | None,
        Parameter(name="--ca", help="Authorities (PEM) that vouch for the receiver; @FILE or - reads them."),
    ] = None
    client_certificate: Annotated[
        str | None,
        Parameter(name="--client-certificate", help="Certificate (PEM) that is shown to it; @FILE reads it."),
    ] = None
    client_key: Annotated[
        str | None, Parameter(name="--client-key", help="Its private key (PEM); @FILE or - reads it.")
    ] = None
    basic: Annotated[
        str | None,
        Parameter(name="--basic", help="Basic authentication, user:password; @FILE or - reads it."),
    ] = None
    oauth2: Annotated[
        list[str] | None,
        Parameter(
            name="--oauth2",
            help="OAuth 2, name=value: token_url, client_id, client_secret, scope, audience, client_auth; repeatable. "
            "A value @FILE reads it.",
        ),
    ] = None

    def body(self) -> dict[str, object]:
        """The wishes that were given, in the words of the API; InvalidInput when one is malformed."""
        wishes: dict[str, object] = {
            "event_types": _words(self.event_types),
            "description": self.description,
            "headers": pairs(self.headers, ":", "header"),
            "rate_limit": None if self.rate_limit is None else rate(self.rate_limit),
            "max_concurrency": self.max_concurrency,
            "timeout": None if self.timeout is None else duration(self.timeout),
            "retry_schedule": None if self.retry_schedule is None else _durations(self.retry_schedule),
            "payload": self.payload,
            "fields": self.fields,
            "event_version": self.event_version,
            "compression": self.compression,
            "ordering": self.ordering,
            "http_version": self.http_version,
            "tls_min": self.tls_min,
            "ca": _read(self.ca),
            "client_certificate": _read(self.client_certificate),
            "client_key": _read(self.client_key),
            "auth": self._auth(),
        }
        return {name: value for name, value in wishes.items() if value is not None}

    def _auth(self) -> dict[str, str] | None:
        oauth2 = pairs(self.oauth2, "=", "part of --oauth2")
        if oauth2 is None:
            return _basic(_read(self.basic))
        if self.basic is not None:
            raise InvalidInput("give --basic or --oauth2, not both")
        return {"type": "oauth2"} | {
            name: read_value(value).decode().strip() for name, value in oauth2.items()
        }


NO_WISHES = Wishes()


def rate(text: str) -> RateLimit:
    """`100/60s` as a rate limit; raises InvalidInput when it is written otherwise."""
    requests, slash, period = text.partition("/")
    if not slash or not requests.strip().isdecimal():
        raise InvalidInput(f"{text!r} is not a rate such as 100/60s")
    return RateLimit(requests=int(requests), period=duration(period.strip()))


def _words(texts: list[str] | None) -> list[str] | None:
    if texts is None:
        return None
    return [word.strip() for text in texts for word in text.split(",") if word.strip()]


def _durations(text: str) -> list[float]:
    return [duration(part.strip()) for part in text.split(",") if part.strip()]


def _read(text: str | None) -> str | None:
    return None if text is None else read_value(text).decode()


def _basic(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    username, colon, password = text.rstrip("\r\n").partition(":")
    if not colon:
        raise InvalidInput("--basic takes user:password, with a colon between them")
    return {"type": "basic", "username": username, "password": password}
