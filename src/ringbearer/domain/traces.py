"""Trace contexts as W3C Trace Context has them: taken from publishers, kept with the event, passed on to receivers.

What is kept is one text: a `traceparent` of version 00, and after a blank the `tracestate` when there is one.
"""

import random
import re
import secrets

import msgspec

MAX_STATE = 512
"""Characters of a `tracestate`: as many as the recommendation asks everybody to pass on."""

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_STATE = re.compile(r"[\x20-\x7e\t]+")
_MAX_MEMBERS = 32
_FLAGS = 0x03  # sampled and random; the others are not defined, and must not be passed on
_SAMPLED = 0x01
_random = random.Random()  # noqa: S311  ids tell spans apart, and open nothing


class Span(msgspec.Struct, frozen=True, gc=False):
    """What a kept context says. Ids are hexadecimal, as they travel."""

    trace_id: str
    span_id: str
    sampled: bool
    state: str


def kept(traceparent: str | None, tracestate: str | None = None) -> str | None:
    """The text to keep of a publisher's headers; None without a valid `traceparent`.

    Source: W3C Trace Context, sections 3.2 and 3.3: what is malformed is as if it had not been sent, and a malformed
    `tracestate` does not spoil its `traceparent`.
    """
    found = _PARENT.fullmatch(traceparent.strip(" \t")) if traceparent is not None else None
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return None
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    state = tracestate.strip(" \t") if tracestate is not None else ""
    if len(state) > MAX_STATE or state.count(",") >= _MAX_MEMBERS or not _STATE.fullmatch(state):
        state = ""
    return _text(trace_id, span_id, int(flags, 16), state)


def read(context: str) -> Span:
    """What a kept context says."""
    return Span(context[3:35], context[36:52], bool(int(context[53:55], 16) & _SAMPLED), context[56:])


def child(context: str, span_id: str) -> str:
    """The same trace with another span as the parent of what follows."""
    return f"{context[:36]}{span_id}{context[52:]}"


def begin() -> str:
    """The context of a new trace, which is sampled."""
    return _text(secrets.token_hex(16), new_span(), _FLAGS, "")


def new_span() -> str:
    """The id of a new span."""
    return f"{_random.getrandbits(64) or 1:016x}"


def headers(context: str) -> list[str]:
    """The header lines that carry a context."""
    lines = [f"traceparent: {context[:55]}"]
    if len(context) > 55:
        lines.append(f"tracestate: {context[56:]}")
    return lines


def _text(trace_id: str, span_id: str, flags: int, state: str) -> str:
    parent = f"00-{trace_id}-{span_id}-{flags & _FLAGS:02x}"
    return f"{parent} {state}" if state else parent
