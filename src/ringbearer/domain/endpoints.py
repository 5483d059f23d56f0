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

Signing = Literal["hmac", "ed25519"]


class RateLimit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most `requests` sends in any `period` seconds."""

    requests: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    period: Annotated[float, msgspec.Meta(ge=0.001, le=31 * 86_400)]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
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


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint with the secrets that sign for it now: what the hot path needs, and nobody else may see.

    `secrets` are `whsec_…` / `whsk_…` strings, newest first, each with the stored time when it stops signing
    (None: never). `version` grows with every change of the endpoint.
    """

    endpoint: Endpoint
    secrets: tuple[tuple[str, int | None], ...]
    version: int


def matches(patterns: Iterable[str], event_type: str) -> bool:
    """Whether any pattern matches the type: exactly, by `prefix.*` (at least one more word), or by `*`."""
    for pattern in patterns:
        if pattern == "*" or pattern == event_type:
            return True
        if pattern.endswith(".*") and event_type.startswith(pattern[:-1]) and len(event_type) >= len(pattern):
            return True
    return False
