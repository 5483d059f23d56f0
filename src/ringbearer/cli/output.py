"""What the commands print: tables for people, the API's own JSON for programs."""

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ringbearer import clock

_UNLIMITED = 10_000
"""Columns when nobody looks: a pipe has no width, and a cut id is worthless."""

_STYLES = {
    "delivered": "green",
    "ok": "green",
    "resolved": "green",
    "firing": "bold red",
    "dead": "bold red",
    "error": "bold red",
    "warning": "yellow",
    "scheduled": "yellow",
    "held": "yellow",
    "disabled": "yellow",
}


def console(*, stderr: bool = False) -> Console:
    """Standard output (or standard error) as it is now; as wide as needed when it is not a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else _UNLIMITED)


def note(text: str) -> None:
    """A sentence for the person, on standard error, so that it is in nobody's data."""
    print(plain(text), file=sys.stderr)


def note_more(cursor: str | None) -> None:
    """Says that a list goes on, when it does."""
    if cursor is not None:
        note("there are more: --limit N or --all")


def print_json(answer: bytes) -> None:
    """The JSON exactly as it came."""
    print(answer.decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table of which nothing is cut: what does not fit is folded. None is an empty cell."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console().print(table)


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """One object: names on the left, values on the right; what is None is left out."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        if value is not None:
            table.add_row(name, _cell(value))
    console().print(table)


def print_secret(label: str, secret: str) -> None:
    """A secret that is never shown again, where it cannot be overlooked and is easy to copy."""
    out = console()
    out.print()
    out.print(Text(f"{label} (shown only now; keep it safe):", style="bold yellow"))
    out.print(Text(f"  {plain(secret)}", style="bold"), soft_wrap=True)


def plain(text: str) -> str:
    """The text with control characters made visible: others wrote it, and a terminal would obey them."""
    return "".join(
        character if character == "\n" or unicodedata.category(character)[0] != "C" else _visible(character)
        for character in text
    )


def when(moment: datetime | None, now: int | None = None) -> str:
    """A time for people: the distance up to a day, then the local date and time. `now` is a stored time."""
    if moment is None:
        return ""
    distance = moment - clock.to_datetime(clock.now() if now is None else now)
    if abs(distance) >= timedelta(days=1):
        return f"{moment.astimezone():%Y-%m-%d %H:%M}"
    if abs(distance) < timedelta(seconds=1):
        return "now"
    text = span(abs(distance).total_seconds())
    return f"in {text}" if distance > timedelta() else f"{text} ago"


def exactly(moment: datetime | None) -> str | None:
    """A time for people who look at one thing: local, to the millisecond, with its distance from now."""
    if moment is None:
        return None
    local = moment.astimezone()
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} {local:%Z} ({when(moment)})"


def span(seconds: float) -> str:
    """A duration for people, in the one or two largest units."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min" + (f" {rest} s" if rest else "")
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h" + (f" {minutes} min" if minutes else "")


def _cell(value: object) -> Text:
    text = "" if value is None else plain(str(value))
    return Text(text, style=_STYLES.get(text, ""))


def _visible(character: str) -> str:
    return character.encode("unicode_escape").decode()
