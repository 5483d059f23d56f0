"""Pages of lists in the order of ids, with the cursors of those beside them."""

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from ringbearer.api.answers import Identified

PER_PAGE = 50

I = TypeVar("I", bound=Identified)  # noqa: E741  an item


class Window(msgspec.Struct, Generic[I], frozen=True):
    """A page: its items, and the cursors of the page before and after, where there are such."""

    items: Sequence[I]
    before: str | None
    after: str | None


def window(found: Sequence[I], query: Mapping[str, str]) -> Window[I]:
    """The page out of one item more than it has, as it was asked for by the query's `before` or `after`."""
    more = len(found) > PER_PAGE
    if "before" in query:
        items = found[1:] if more else found
        return Window(items, items[0].id if more else None, items[-1].id if items else None)
    items = found[:PER_PAGE]
    return Window(
        items,
        items[0].id if items and "after" in query else None,
        items[-1].id if more else None,
    )
