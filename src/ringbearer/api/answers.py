"""Answers: JSON that no cache keeps, and pages of lists."""

from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec
from litestar import Response

_JSON = "application/json"
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class Identified(Protocol):
    """Whatever a list can be continued after."""

    @property
    def id(self) -> str: ...


T = TypeVar("T")
I = TypeVar("I", bound=Identified)  # noqa: E741  an item


class Page(msgspec.Struct, Generic[T]):
    """A part of a list. `next`, when there is more, is the `cursor` of the part after it."""

    items: list[T]
    next: str | None


def json_answer(
    value: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response[bytes]:
    """The value as JSON."""
    return Response(
        msgspec.json.encode(value),
        status_code=status,
        media_type=_JSON,
        headers={**_HEADERS, **(headers or {})},
    )


def empty_answer() -> Response[None]:
    """204: done, and there is nothing to say."""
    return Response(None, status_code=204, headers=_HEADERS)


def page(found: Sequence[I], limit: int) -> Page[I]:
    """A page out of `limit` + 1 items asked for: the one too many only tells that there are more."""
    items = list(found[:limit])
    return Page(items, items[-1].id if len(found) > limit else None)
