"""Values and lines that a command reads: from its arguments, from files, from standard input."""

import sys
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from ringbearer.domain.events import MAX_BATCH_BYTES, MAX_BATCH_EVENTS
from ringbearer.errors import InvalidInput


def read_value(text: str) -> bytes:
    """The text itself, what is in FILE for `@FILE`, or standard input for `-`.

    Raises InvalidInput when the file cannot be read.
    """
    if text == "-":
        return sys.stdin.buffer.read()
    if text.startswith("@"):
        try:
            return Path(text[1:]).read_bytes()
        except OSError as error:
            raise InvalidInput(f"cannot read {text[1:]}: {error.strerror or error}") from error
    return text.encode()


def open_lines(file: Path) -> BinaryIO:
    """The file, or standard input for `-`; raises InvalidInput when it cannot be read."""
    if str(file) == "-":
        return sys.stdin.buffer
    try:
        return file.open("rb")
    except OSError as error:
        raise InvalidInput(f"cannot read {file}: {error.strerror or error}") from error


class Chunk(msgspec.Struct, frozen=True):
    """Lines that fit into one batch request."""

    numbers: list[int]
    """The line number of each event, from 1."""
    body: bytes
    consumed: int
    """Bytes of the file read for it, with empty lines."""


def chunks(
    lines: Iterable[bytes], *, events: int = MAX_BATCH_EVENTS, size: int = MAX_BATCH_BYTES
) -> Generator[Chunk, None, None]:
    """Lines in chunks of at most `events` lines and `size` bytes; empty lines are skipped.

    Raises InvalidInput at a line that is larger than a whole chunk may be.
    """
    numbers: list[int] = []
    body = bytearray()
    consumed = 0
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if len(text) >= size:
            raise InvalidInput(f"line {number} is larger than {size} bytes")
        if text and (len(numbers) == events or len(body) + len(text) + 1 > size):
            yield Chunk(numbers, bytes(body), consumed)
            numbers, body, consumed = [], bytearray(), 0
        consumed += len(line)
        if text:
            numbers.append(number)
            body += text + b"\n"
    if numbers:
        yield Chunk(numbers, bytes(body), consumed)
