"""Heads: status and header lines of an answer, read once while they stay the same.

Within a second a receiver's answers have the same head, and so have those of others that run the same server.
"""

import msgspec

MAX_KEPT_HEADERS = 64
MAX_KEPT_HEADER_BYTES = 8 * 1024
"""Characters of header names and values that are kept, all together."""
_MOST_RECENT = 128  # heads, each of which may have 64 KiB
_NOT_STORED = frozenset({"set-cookie", "set-cookie2"})
_BLANK = (b"\r\n", b"\n")
CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], "\ufffd") | {0x09: " "}
"""What becomes of control characters, for `str.translate`."""
_encode = msgspec.json.Encoder().encode


class Head(msgspec.Struct, frozen=True, gc=False):
    """What a head says.

    `headers` are the final answer's as a JSON object, repeated ones joined by a comma; None without any. `shared`: it
    came over HTTP/2 or HTTP/3. `ambiguous`: it tells its length in two ways, which RFC 9112, section 6.3, wants
    treated as an error.
    """

    headers: str | None
    shared: bool
    ambiguous: bool


_RECENT: dict[bytes, Head] = {}


def read(head: bytes) -> Head:
    """What a head says, as libcurl hands it over: interim answers too, with status lines, line ends and blank lines."""
    known = _RECENT.get(head)
    if known is None:
        if len(_RECENT) >= _MOST_RECENT:
            _RECENT.clear()
        known = _RECENT[head] = Head(
            headers=_headers(head),
            shared=head.startswith((b"HTTP/2", b"HTTP/3")),
            ambiguous=_ambiguous(head),
        )
    return known


def value(head: bytes, name: str) -> str | None:
    """The first value of a header of the final answer, by its lower-case name."""
    for line in _final_block(_lines(head)):
        key, _, found = line.partition(b":")
        if key.decode("latin-1").strip().lower() == name:
            return found.decode("latin-1").strip()
    return None


def whole(head: bytes) -> bool:
    """Whether the final answer's head came to its end."""
    lines = _lines(head)
    return any(line in _BLANK for line in lines[_final_status_line(lines) + 1 :])


def _headers(head: bytes) -> str | None:
    kept: dict[str, str] = {}
    left = MAX_KEPT_HEADER_BYTES
    for line in _final_block(_lines(head)):
        left -= len(line)
        if left < 0 or len(kept) >= MAX_KEPT_HEADERS:
            break
        text = line.decode("latin-1").strip()
        if not text.isprintable():
            text = text.translate(CONTROLS)
        name, colon, said = text.partition(":")
        name = name.rstrip().lower()
        if not colon or not name or name in _NOT_STORED:
            continue
        said = said.lstrip()
        kept[name] = f"{kept[name]}, {said}" if name in kept else said
    return _encode(kept).decode() if kept else None


def _ambiguous(head: bytes) -> bool:
    text = head.lower()
    return b"\ntransfer-encoding:" in text and b"\ncontent-length:" in text


def _lines(head: bytes) -> list[bytes]:
    """The lines with their ends; no other than a line feed ends one."""
    *lines, rest = [line + b"\n" for line in head.split(b"\n")]
    return [*lines, rest[:-1]] if rest != b"\n" else lines


def _final_block(lines: list[bytes]) -> list[bytes]:
    """The header lines after the last status line, without those after the blank line: trailers."""
    start = _final_status_line(lines)
    for end in range(start + 1, len(lines)):
        if lines[end] in _BLANK:
            return lines[start + 1 : end]
    return lines[start + 1 :]


def _final_status_line(lines: list[bytes]) -> int:
    """Where the last status line is: the first line, or one after a blank line. -1 when there is none."""
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].startswith(b"HTTP/") and (index == 0 or lines[index - 1] in _BLANK):
            return index
    return -1
