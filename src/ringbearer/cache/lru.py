"""L1: entries in the memory of the process, bounded by bytes and by number; the least recently used goes first."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from ringbearer.cache.base import Entry, Since, Tier, TierState

_MOST_CHANGED = 10_000
"""Suppliers whose last change is remembered, so that a load that it overtook is refused."""
_UNKNOWN_SHARE = 8
"""Suppliers that do not exist may take one entry in so many: asking for them drives out nobody who does."""


class LruTier(Tier):
    """Entries in memory. Reading costs a look into a dictionary and a move in a list, and takes no lock."""

    name = "l1"

    def __init__(self, *, max_bytes: int, max_entries: int) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Entry] = OrderedDict()
        self._unknown: OrderedDict[str, Entry] = OrderedDict()
        self._bytes = 0
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._version: int | None = None
        self._changed: dict[str, int] = {}  # at which version at the latest, of those that changed lately
        self._floor = 0  # and below this version anything may have changed
        self.evictions = 0
        """Entries that had to make room since the start."""
        self._overtaken: set[str] = set()  # by a change: wanted, and to be read anew

    def __repr__(self) -> str:
        return f"<LruTier with {len(self)} of {self._max_entries} entries, {self._bytes} bytes>"

    def __len__(self) -> int:
        return len(self._known) + len(self._unknown)

    def peek(self, supplier_id: str) -> Entry | None:
        """The entry, which counts as used now; None when there is none."""
        try:
            entry = self._known[supplier_id]
            self._known.move_to_end(supplier_id)
        except KeyError:  # never there, or taken away in between
            return self._unknown.get(supplier_id)
        return entry

    def has(self, supplier_id: str) -> bool:
        """Whether there is an entry, which does not count as used."""
        return supplier_id in self._known or supplier_id in self._unknown

    def read(self, supplier_ids: Sequence[str], *, version: int) -> dict[str, Entry]:
        found = {}
        for supplier_id in supplier_ids:
            entry = self.peek(supplier_id)
            if entry is not None and (entry.version >= version or version <= (self._version or 0)):
                found[supplier_id] = entry
        return found

    def write(self, entries: Mapping[str, Entry]) -> int:
        kept = 0
        with self._lock:
            for supplier_id, entry in entries.items():
                before = self._known.get(supplier_id) or self._unknown.get(supplier_id)
                least = self._changed.get(supplier_id, self._floor)
                if entry.version < (max(least, before.version) if before is not None else least):
                    continue
                self._drop(supplier_id)
                if entry.weight > self._max_bytes:
                    continue  # nothing else would have room beside it
                self._put(supplier_id, entry)
                kept += 1
            self._evict()
        return kept

    def follow(self, version: int, since: Since) -> None:
        known = self._version
        changed = since(known) if known is not None and version > known else ()
        with self._lock:
            self._version = version
            if known is None or version < known:  # what is here has nothing to be compared with
                self._known.clear()
                self._unknown.clear()
                self._changed.clear()
                self._bytes, self._floor = 0, version
            for supplier_id in changed:
                self._overtake(supplier_id, version)
                self._changed[supplier_id] = version
            if len(self._changed) > _MOST_CHANGED:
                self._changed.clear()
                self._floor = version

    def forget(self, supplier_ids: Sequence[str]) -> None:
        with self._lock:
            for supplier_id in supplier_ids:
                self._overtake(supplier_id, None)

    def expire(self, supplier_ids: Sequence[str]) -> None:
        """Drop these, whose time is over."""
        with self._lock:
            for supplier_id in supplier_ids:
                self._drop(supplier_id)

    def state(self) -> TierState:
        return TierState(len(self), self._bytes, self._max_entries, self._max_bytes)

    def resize(self, *, max_bytes: int, max_entries: int) -> None:
        """Take other bounds; what does not fit any more goes."""
        with self._lock:
            self._max_bytes, self._max_entries = max_bytes, max_entries
            self._evict()

    def take_overtaken(self, most: int) -> list[str]:
        """Some of the suppliers that a change drove out and nobody has read since; each is told of once."""
        with self._lock:
            return [self._overtaken.pop() for _ in range(min(len(self._overtaken), most))]

    def entries(self) -> list[tuple[str, Entry]]:
        """All entries as they stand, the least recently used first, none of which counts as used."""
        with (
            self._lock
        ):  # each list is made without giving way to a reader, who moves entries without the lock
            return [*self._unknown.items(), *self._known.items()]

    def _put(self, supplier_id: str, entry: Entry) -> None:
        (self._unknown if entry.value is None else self._known)[supplier_id] = entry
        self._bytes += entry.weight
        self._overtaken.discard(supplier_id)

    def _overtake(self, supplier_id: str, version: int | None) -> None:
        entry = self._known.get(supplier_id) or self._unknown.get(supplier_id)
        if entry is not None and (version is None or entry.version < version):
            self._drop(supplier_id)
            self._overtaken.add(supplier_id)

    def _drop(self, supplier_id: str) -> None:
        entry = self._known.pop(supplier_id, None) or self._unknown.pop(supplier_id, None)
        if entry is not None:
            self._bytes -= entry.weight

    def _evict(self) -> None:
        while len(self._unknown) > max(1, self._max_entries // _UNKNOWN_SHARE):
            self._drop(next(iter(self._unknown)))
            self.evictions += 1
        while self._known and (len(self) > self._max_entries or self._bytes > self._max_bytes):
            self._drop(next(iter(self._known)))
            self.evictions += 1
