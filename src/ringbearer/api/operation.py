"""An operation: one method of one path as data, and the words that describe many of them."""

from dataclasses import KW_ONLY, dataclass, field

import msgspec

EVERYBODY = ""
"""For routes that ask for no key."""

READERS = "admin, read, or the supplier's own"
OPERATORS = "admin or read"
OWNERS = "admin, or the supplier's own"

SUPPLIER = "/v1/suppliers/{supplier_id}"
"""Where a supplier is, and all that is its own."""


@dataclass(frozen=True)
class Operation:
    """One method of one path. `answers` gives a type, a media type or None for nothing, by status."""

    method: str
    path: str
    name: str
    """Unique, and stable: generated clients make their function names of it."""
    tag: str
    summary: str
    answers: dict[int, object]
    _: KW_ONLY
    keys: str
    """The scopes that may do this."""
    problems: tuple[int, ...] = ()
    """Statuses of problems that this operation has besides those that all of its kind have."""
    query: type[msgspec.Struct] | None = None
    body: object = None
    """The type of the JSON body."""
    lines: object = None
    """The type of each line, where the body may also be application/x-ndjson."""
    body_required: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    """Request headers with what they are for."""


def get(
    path: str,
    name: str,
    tag: str,
    summary: str,
    answer: object,
    *,
    keys: str = READERS,
    query: type[msgspec.Struct] | None = None,
    problems: tuple[int, ...] = (),
) -> Operation:
    """An operation that reads, and answers with 200."""
    return Operation(
        "GET", path, name, tag, summary, {200: answer}, keys=keys, query=query, problems=problems
    )
