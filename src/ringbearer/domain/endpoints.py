"""An endpoint: a URL that wants some event types of its supplier, with the way it likes to be called."""

import re
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from ringbearer.domain.times import Moment

EVENT_TYPE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
"""An event type: words of letters, digits, `_` and `-`, joined by dots; at most 128 characters."""
MAX_EVENT_TYPE = 128

DEFAULT_TIMEOUT = 10.0
"""Seconds for the whole exchange: connecting, sending, headers and body."""
DEFAULT_RETRY_SCHEDULE = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 36_000.0)
"""Seconds to wait before each further try: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 10 h (Standard Webhooks' advice)."""

EVENT_VERSION = re.compile(r"[A-Za-z0-9._-]{1,32}")
WHOLE_ENDPOINT = ""
"""The ordering key of every delivery to an endpoint that is served in order; no publisher can give this one."""

Signing = Literal["hmac", "ed25519"]
Profile = Literal["full", "thin", "compact"]
Compression = Literal["gzip", "zstd"]
Ordering = Literal["none", "key", "endpoint"]
TlsVersion = Literal["1.2", "1.3"]
HttpVersion = Literal["auto", "1.1", "3"]
ClientAuth = Literal["basic", "post"]


class RateLimit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most `requests` sends in any `period` seconds."""

    requests: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    period: Annotated[float, msgspec.Meta(ge=0.001, le=31 * 86_400)]


class BasicAuth(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="basic"
):
    """Name and password in each request (RFC 7617); the password is kept apart."""

    username: str


class OAuth2(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="oauth2"
):
    """A bearer token by client credentials (RFC 6749, section 4.4); the client's secret is kept apart.

    `client_auth` says how the client shows its secret to the token URL: in a Basic header, or in the form.
    """

    token_url: str
    client_id: str
    scope: str | None = None
    audience: str | None = None
    client_auth: ClientAuth = "basic"


class Grant(msgspec.Struct, frozen=True):
    """All that a token URL wants to know: an OAuth2 with its secret."""

    token_url: str
    client_id: str
    client_secret: str
    scope: str | None
    audience: str | None
    client_auth: ClientAuth

    def __repr__(self) -> str:
        return f"<Grant of {self.client_id!r} at {self.token_url}>"


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an endpoint likes to be called, as far as it is not the same for everyone. Nothing in it is secret.

    `fields` is a JMESPath expression over an event's data, for the compact profile. `ca` holds the authorities
    that vouch for the receiver instead of the usual ones, `client_certificate` what it is shown of us, both PEM.
    """

    payload: Profile = "full"
    fields: str | None = None
    compression: Compression | None = None
    ordering: Ordering = "key"
    http_version: HttpVersion = "auto"
    tls_min: TlsVersion = "1.2"
    ca: str | None = None
    client_certificate: str | None = None
    auth: BasicAuth | OAuth2 | None = None


class Endpoint(Options, frozen=True, kw_only=True, omit_defaults=False):
    """Where and how one supplier wants to be told. Times in seconds."""

    id: str
    supplier_id: str
    url: str
    event_types: tuple[str, ...] = ("*",)
    description: str | None = None
    headers: dict[str, str] = {}
    rate_limit: RateLimit | None = None
    max_concurrency: int | None = None
    timeout: float = DEFAULT_TIMEOUT
    event_version: str | None = None
    """Which shape of events it wants, where one is registered; None: as they are published."""
    retry_schedule: tuple[float, ...] = DEFAULT_RETRY_SCHEDULE
    signing: Signing = "hmac"
    public_key: str | None = None
    enabled: bool = True
    disabled_reason: str | None = None
    created_at: Moment
    updated_at: Moment

    def wants(self, event_type: str) -> bool:
        """Whether one of the patterns matches: exactly, by `prefix.*`, or by `*`."""
        return matches(self.event_types, event_type)


class Credentials(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The secret halves of an endpoint's `auth` and `client_certificate`."""

    auth: str | None = None
    """The password, or the secret of the OAuth 2 client."""
    client_key: str | None = None
    """The private key, PEM."""

    def __repr__(self) -> str:
        return f"<Credentials {'with' if self.auth else 'without'} auth>"


NO_CREDENTIALS = Credentials()


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint with the secrets that sign for it now: what the hot path needs, and nobody else may see.

    `secrets` are `whsec_…` / `whsk_…` strings, newest first, each with the stored time when it stops signing
    (None: never). `version` grows with every change of the endpoint.
    """

    endpoint: Endpoint
    secrets: tuple[tuple[str, int | None], ...]
    version: int
    credentials: Credentials = NO_CREDENTIALS
    shapes: dict[str, str] = {}
    """What makes an event type's data in the endpoint's `event_version`: JMESPath expressions."""


def matches(patterns: Iterable[str], event_type: str) -> bool:
    """Whether any pattern matches the type: exactly, by `prefix.*` (at least one more word), or by `*`."""
    for pattern in patterns:
        if pattern == "*" or pattern == event_type:
            return True
        if pattern.endswith(".*") and event_type.startswith(pattern[:-1]) and len(event_type) >= len(pattern):
            return True
    return False
