"""The one parameter of a statement over a batch: all of its rows, as a JSON document."""

from collections.abc import Iterable, Sequence

import msgspec

_encode = msgspec.json.Encoder().encode


def text_of(rows: Sequence[object]) -> str:
    """What goes into the parameter `:rows` of such a statement (see `Database.rows`)."""
    return _encode(rows).decode()


def keys_of(ids: Iterable[str]) -> str:
    """The same for rows that have nothing but an id."""
    return _encode([(each,) for each in ids]).decode()
