"""Payload profiles: what of an event goes to an endpoint, in which form and in which encoding.

 profile   body
 full      {"id","type","timestamp","data"}: the publisher's data, byte for byte
 thin      {"id","type","timestamp","link"}: the receiver fetches the event when it wants to know more
 compact   {"id","type","timestamp","data"}: the fields that the endpoint selects, without null and empty ones

An endpoint that pinned a version of events gets their data in that version's shape, where there is one, before
its profile is made of it. All of it is a function of the event and the endpoint's options, so that each attempt has the same bytes. What
is signed is the body before it is compressed: what a receiver's framework hands over as the body.
"""

import gzip
from collections.abc import Callable, Mapping, Sequence

import msgspec
import zstandard

from ringbearer.delivery.selection import MAX_STEPS, Selection, compiled, weigh
from ringbearer.domain.deliveries import Lease
from ringbearer.domain.endpoints import Compression, Target
from ringbearer.domain.events import body
from ringbearer.errors import PayloadFailed

Content = Callable[[Lease], bytes]
"""Makes the bytes that are signed; raises PayloadFailed."""

MAX_VALUES = 20_000
"""Values in the data of a compact payload that selects nothing: 10 ms at most. Few events of 256 KiB have so many."""

_GZIP_LEVEL = 6
_ZSTD_LEVEL = 3
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def content_for(target: Target, *, public_url: str) -> Content:
    """What makes an endpoint's bodies. `public_url` is where the links of thin ones begin."""
    endpoint = target.endpoint
    if endpoint.payload == "thin":
        return _thin(public_url)
    shapes = {event_type: compiled(expression) for event_type, expression in target.shapes.items()}
    if endpoint.payload == "compact":
        return _compact(compiled(endpoint.fields) if endpoint.fields is not None else None, shapes)
    return _shaped(shapes) if shapes else _full


def encoder_for(compression: Compression | None) -> Callable[[bytes], bytes] | None:
    """What compresses bodies, the same bytes to the same bytes; None when nothing does."""
    if compression == "gzip":
        return _gzip
    if compression == "zstd":
        return _zstd
    return None


def without_empty(value: object) -> object:
    """The value without members that are null, "", [] or {}, all the way down; lists keep their places."""
    if isinstance(value, dict):
        kept = ((name, without_empty(item)) for name, item in value.items())
        return {name: item for name, item in kept if not _empty(item)}
    if isinstance(value, list):
        return [without_empty(item) for item in value]
    return value


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value)


def _full(lease: Lease) -> bytes:
    return body(lease.event_id, lease.event_type, lease.timestamp, lease.data)


def _thin(public_url: str) -> Content:
    link = f"{public_url.rstrip('/')}/v1/events/"

    def content(lease: Lease) -> bytes:
        return _encode(
            {
                "id": lease.event_id,
                "type": lease.event_type,
                "timestamp": lease.timestamp,
                "link": link + lease.event_id,
            }
        )

    return content


def _shaped(shapes: Mapping[str, Selection]) -> Content:
    def content(lease: Lease) -> bytes:
        shape = shapes.get(lease.event_type)
        if shape is None:
            return _full(lease)
        return _with_data(lease, lambda data: _bounded(shape.of(data)))

    return content


def _compact(fields: Selection | None, shapes: Mapping[str, Selection]) -> Content:
    def content(lease: Lease) -> bytes:
        selections = [each for each in (shapes.get(lease.event_type), fields) if each is not None]
        return _with_data(lease, lambda data: without_empty(_selected(data, selections)))

    return content


def _selected(data: object, selections: Sequence[Selection]) -> object:
    if not selections:
        return _bounded(data, MAX_VALUES)
    for selection in selections:
        data = _bounded(selection.of(data))
    return data


def _with_data(lease: Lease, change: Callable[[object], object]) -> bytes:
    """The full body with other data."""
    try:
        text = _encode(change(_decode(lease.data))).decode()
    except RecursionError:
        raise PayloadFailed("the data is nested too deep for another form") from None
    except (
        msgspec.MsgspecError,
        ValueError,
    ) as error:  # 1e999, or a key that is no text: kept in full, told in full
        raise PayloadFailed(f"the data cannot be put into another form: {error}") from None
    return body(lease.event_id, lease.event_type, lease.timestamp, text)


def _bounded(data: object, most: int = MAX_STEPS) -> object:
    if weigh(data, most) > most:
        raise PayloadFailed(f"the data has more than {most:,} values in this form")
    return data


def _gzip(content: bytes) -> bytes:
    return gzip.compress(content, _GZIP_LEVEL, mtime=0)  # without a time, so that each attempt has the same


def _zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(content)
