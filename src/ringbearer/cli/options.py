"""Options that several commands share, and the words they are written in."""

from datetime import datetime, timedelta
from typing import Annotated

from cyclopts import Group, Parameter

from ringbearer import clock
from ringbearer.errors import InvalidInput

CONNECTION = Group("Connection", sort_key=90)
OUTPUT = Group("Output", sort_key=80)

Json = Annotated[bool, Parameter(name="--json", group=OUTPUT, help="Print the JSON of the API.")]
Limit = Annotated[int, Parameter(name="--limit", group=OUTPUT, help="How many at most.")]
All = Annotated[bool, Parameter(name="--all", group=OUTPUT, help="All of them, however many.")]

_AGE_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def examples(*lines: str) -> str:
    """Command lines as the last paragraph of a help text."""
    return "\n".join(("**Examples**", "", "```", *lines, "```"))


def moment(text: str) -> str:
    """An RFC 3339 time as it is, or an age such as `2h` or `7d` as the RFC 3339 time so long ago.

    Raises InvalidInput for anything else.
    """
    number, unit = text[:-1], text[-1:]
    if number.isascii() and number.isdecimal() and unit in _AGE_UNITS:
        try:
            then = clock.to_datetime(clock.now()) - timedelta(seconds=int(number) * _AGE_UNITS[unit])
        except OverflowError:
            raise InvalidInput(f"{text!r} is longer ago than the calendar goes") from None
        return then.isoformat(timespec="seconds").replace("+00:00", "Z")
    try:
        aware = datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        aware = False
    if not aware:
        raise InvalidInput(f"{text!r} is neither a time such as 2026-06-20T14:00:00Z nor an age such as 2h")
    return text


def duration(text: str) -> float:
    """`250ms`, `2s`, `1.5m`, `1h` or plain seconds, in seconds; raises InvalidInput for anything else."""
    for suffix, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("", 1.0)):
        if text.endswith(suffix):
            try:
                value = float(text.removesuffix(suffix)) * factor
            except ValueError:
                break
            if 0 <= value < float("inf"):
                return value
            break
    raise InvalidInput(f"{text!r} is not a duration such as 2s, 250ms or 1.5m")


def pairs(texts: list[str] | None, separator: str, what: str) -> dict[str, str] | None:
    """Options of the form `name<separator>value` as a dictionary; None when there are none."""
    if texts is None:
        return None
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition(separator)
        if not sign or not name.strip():
            raise InvalidInput(f"{text!r} is not a {what}: write name{separator}value")
        found[name.strip()] = value.strip()
    return found
