"""Journals: lines of JSON that are on the disk before anybody acts on them; many writers share one fsync."""

import asyncio
import os
from pathlib import Path
from typing import TypeVar

import msgspec

_encode = msgspec.json.Encoder().encode
S = TypeVar("S", bound=msgspec.Struct)


class Journal:
    """Appends lines; `write` returns when they survive the loss of this process and of power."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lines: list[bytes] = []
        self._appended = self._written = 0
        self._flush: asyncio.Task[None] | None = None

    async def write(self, entry: msgspec.Struct) -> None:
        """Append one line, and wait until it is on the disk."""
        self._lines.append(_encode(entry))
        self._appended += 1
        mine = self._appended
        while self._written < mine:
            if self._flush is None:
                self._flush = asyncio.create_task(self._write_out())
            await asyncio.shield(self._flush)

    async def _write_out(self) -> None:
        await asyncio.sleep(0)  # whoever is about to write comes along
        lines, self._lines = self._lines, []
        upto = self._appended
        try:
            await asyncio.to_thread(self._to_disk, b"\n".join(lines) + b"\n")
            self._written = upto
        finally:
            self._flush = None

    def _to_disk(self, data: bytes) -> None:
        os.write(self._file, data)
        os.fdatasync(self._file)

    def close(self) -> None:
        """End; what was not waited for may be missing."""
        os.close(self._file)


def read(path: Path, kind: type[S]) -> list[S]:
    """All entries; a line that was cut by a crash is left out, as nobody acted on it."""
    if not path.exists():
        return []
    decode = msgspec.json.Decoder(kind).decode
    return [decode(line) for line in path.read_bytes().split(b"\n")[:-1]]
