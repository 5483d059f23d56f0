"""What may be configured: rules for headers, event types, time zones and metadata that types cannot say."""

import functools
import re
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from ringbearer.api.reading import pointer
from ringbearer.domain.endpoints import EVENT_TYPE, MAX_EVENT_TYPE

MASK = "***"
"""Stands for header values that the reader may not see."""
MAX_HEADERS = 30
MAX_HEADER_BYTES = 4 * 1024
MAX_METADATA_BYTES = 16 * 1024

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # RFC 9110, section 5.6.2
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")

FORBIDDEN_HEADERS = frozenset(
    {
        "host",
        "user-agent",
        "cookie",
        "cookie2",
        "expect",
        "date",
        "accept-encoding",
        # of the connection, not of the message
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        # what tells a receiver where a request came from is not the endpoint's owner's to claim
        "via",
        "forwarded",
        "x-real-ip",
        # of the trace that an event belongs to
        "traceparent",
        "tracestate",
    }
)
FORBIDDEN_PREFIXES = ("content-", "proxy-", "webhook-", "ringbearer-", "x-forwarded-")


def header_problems(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is wrong with an endpoint's own headers."""
    if len(headers) > MAX_HEADERS:
        yield "/headers", f"expected at most {MAX_HEADERS} headers"
        return
    seen: set[str] = set()
    for name, value in headers.items():
        lower = name.lower()
        place = pointer("headers", name)
        if not _TOKEN.fullmatch(name):
            yield place, "expected a header name: 1 to 128 letters, digits or any of !#$%&'*+-.^_`|~"
        elif lower in FORBIDDEN_HEADERS or lower.startswith(FORBIDDEN_PREFIXES):
            yield place, "expected another header: this one is set by Ringbearer or belongs to the connection"
        elif lower in seen:
            yield place, "expected each header once, whatever its capitals"
        seen.add(lower)
        if len(value) > MAX_HEADER_BYTES or not _VALUE.fullmatch(value):
            yield (
                place,
                f"expected 1 to {MAX_HEADER_BYTES} visible ASCII characters, with blanks only between them",
            )
        elif value == MASK:
            yield place, "expected the value itself, not the mask that is shown instead of it"


def event_type_problems(patterns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What is wrong with the patterns of event types."""
    for index, pattern in enumerate(patterns):
        exact = pattern.removesuffix(".*")
        if pattern != "*" and (len(pattern) > MAX_EVENT_TYPE or not EVENT_TYPE.fullmatch(exact)):
            yield (
                pointer("event_types", index),
                "expected '*', an event type such as booking.confirmed, or all below one such as booking.*",
            )


def timezone_problems(name: str) -> Iterator[tuple[str, str]]:
    """What is wrong with the name of a time zone."""
    if name not in _timezones():
        yield "/timezone", "expected a time zone of the IANA database, such as Europe/Berlin"


def metadata_problems(metadata: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """What is wrong with a supplier's metadata, whose depth is bounded already."""
    try:
        size = len(msgspec.json.encode(metadata))
    except (OverflowError, RecursionError, ValueError):
        size = MAX_METADATA_BYTES + 1
    if size > MAX_METADATA_BYTES:
        yield "/metadata", f"expected at most {MAX_METADATA_BYTES} bytes of JSON"


@functools.cache  # it reads several hundred files
def _timezones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())
