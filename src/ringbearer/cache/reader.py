"""The reader: reads through the tiers, follows the store's version, and never brings back what was overtaken."""

import itertools
import threading
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache

from ringbearer import clock
from ringbearer.cache.base import Entry, Tier
from ringbearer.cache.figures import Tally
from ringbearer.cache.flights import Flights
from ringbearer.cache.lru import LruTier
from ringbearer.cache.store import StoreTier
from ringbearer.storage.catalog import Catalog, Subscriptions

_TIMED = 1023
"""One peek in so many and one is timed: reading a clock twice costs as much as the peek."""
_MOST_DOUBTS = 50_000
"""Suppliers doubted one by one; when there are more, everybody is."""
_MAX_SEEN = 1 << 16
"""References that wait to be looked at; what comes beyond drives out the oldest."""


class Reader:
    """L1 ▸ L2 ▸ L3 as one place to read from. Safe to use from several threads and event loops.

    Coherence in one sentence: a process believes an entry only if every change that it knows of, by its own deed or
    by the version that it followed, is in it; and it looks at the version at least as often as its follower says.
    """

    def __init__(self, *, catalog: Catalog, l1: LruTier, l2: Tier, stale_seconds: float) -> None:
        self._catalog = catalog
        self._l1 = l1
        self._l2 = l2
        self._l3 = StoreTier(catalog)
        self._stale_seconds = stale_seconds
        self._flights = Flights(self._load, self._keep)
        self._refreshing = threading.Lock()
        self._counting = threading.Lock()
        self._doubts: dict[str, int] = {}
        self._doubt = itertools.count(1)
        self._all_doubted = 0  # as if everybody had this number among the doubts; 0: nobody
        self._confirmed = clock.monotonic()
        self._trusted = True
        self.version: int | None = None
        """The version that was followed last; None before the first time."""
        self.tallies = {"l1": Tally(), "l2": Tally(), "l3": Tally()}
        self.peeks = 0
        """Peeks that found something; counted apart, since they take no lock."""
        self._changes = 0
        self.mask = 0
        """Of references whose hash has none of these bits, the supplier goes to `seen`."""
        self.seen: deque[str] = deque(maxlen=_MAX_SEEN)

    def __repr__(self) -> str:
        return f"<Reader of {len(self._l1)} suppliers at version {self.version}>"

    @property
    def asked(self) -> int:
        """Requests since the start."""
        tally = self.tallies["l1"]
        return self.peeks + tally.hits + tally.misses

    @property
    def trusted(self) -> bool:
        """Whether memory is believed."""
        return self._trusted

    @property
    def confirmed_ago(self) -> float:
        """Seconds since the store last confirmed its version."""
        return clock.monotonic() - self._confirmed

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────

    def peek(self, supplier_id: str) -> tuple[bool, Subscriptions | None]:
        """Whether the supplier is in memory, and what is known of it; never blocks."""
        entry = self._l1.peek(supplier_id)
        if entry is None or not self._trusted:
            return False, None  # counted by whoever reads it then
        self.peeks += 1
        if not hash(supplier_id) & self.mask:
            self.seen.append(supplier_id)
        if not self.peeks & _TIMED:
            self._time_a_peek(supplier_id)
        return True, entry.value

    def lookup(self, supplier_ids: Iterable[str], *, fresh: bool = False) -> dict[str, Subscriptions | None]:
        """The suppliers, None for unknown ones; what is missing costs at most one round trip per tier.

        `fresh` asks the store whatever the tiers know. Blocks when something is missing; raises StoreUnavailable
        then.
        """
        wanted = list(dict.fromkeys(supplier_ids))
        self.check_trust()
        found: dict[str, Subscriptions | None] = {}
        if not fresh and self._trusted:
            for supplier_id in wanted:
                entry = self._l1.peek(supplier_id)
                if entry is not None:
                    found[supplier_id] = entry.value
        missing = [supplier_id for supplier_id in wanted if supplier_id not in found]
        self._note(wanted, len(found))
        if missing:
            if fresh:
                self.doubt(missing)
            elif not self._trusted:
                self._doubt_all(missing)
            found |= {key: entry.value for key, entry in self._flights.fetch(missing).items()}
        return found

    async def get(self, supplier_id: str) -> Subscriptions | None:
        """The supplier, None when unknown; those who miss at a time share one load. Raises StoreUnavailable."""
        entry = self._l1.peek(supplier_id) if self._trusted else None
        self._note([supplier_id], 0 if entry is None else 1)
        if entry is None:
            if not self._trusted:
                self._doubt_all([supplier_id])
            entry = await self._flights.fetch_one(supplier_id)
        return entry.value

    def load(self, supplier_ids: Iterable[str]) -> dict[str, Entry]:
        """Read these anew into memory, from the store when they are in memory already; counts no request.

        Blocks; raises StoreUnavailable.
        """
        wanted = list(dict.fromkeys(supplier_ids))
        self._doubt_all(key for key in wanted if self._l1.has(key))
        return self._flights.fetch(wanted) if wanted else {}

    # ── following changes ───────────────────────────────────────────────────────────────────────────────

    def doubt(self, supplier_ids: Iterable[str]) -> None:
        """Believe nothing that was read of these before now; what is on its way is not kept."""
        doubted = list(supplier_ids)
        self._doubt_all(doubted)
        self._flights.spoil(doubted)
        self._l1.forget(doubted)

    def refresh(self) -> set[str]:
        """Look at the store's version, and forget what changed since the last time; returns which suppliers.

        Blocks; raises StoreUnavailable.
        """
        with self._refreshing:
            began, doubts = clock.monotonic(), next(self._doubt)
            known = self.version
            version, changed = self._look(known)

            @cache
            def since(after: int) -> Collection[str]:
                return changed if after == known else self._catalog.changes(after)[1]

            if known is None or version < known:
                self._flights.spoil_all()
            self._changes += sum(map(self._l1.has, changed))
            self._flights.spoil(changed)
            self._l1.follow(version, since)
            self.version = version
            self._l2.follow(version, since)
            self._confirmed, self._trusted = began, True
            for supplier_id, number in list(self._doubts.items()):
                if number < doubts:
                    self._doubts.pop(supplier_id, None)
            if self._all_doubted < doubts:
                self._all_doubted = 0
            return changed

    def take_changes(self) -> int:
        """How many of the suppliers in memory were changed elsewhere since this was asked last."""
        changes, self._changes = self._changes, 0
        return changes

    def check_trust(self) -> bool:
        """Whether the store confirmed its version within the time that memory may be believed without."""
        self._trusted = clock.monotonic() - self._confirmed <= self._stale_seconds
        return self._trusted

    def close(self) -> None:
        """Let what is under way end, and close the second tier."""
        self._flights.close()
        self._l2.close()

    # ── the steps ───────────────────────────────────────────────────────────────────────────────────────

    def _look(self, known: int | None) -> tuple[int, set[str]]:
        return (self._catalog.version(), set()) if known is None else self._catalog.changes(known)

    def _load(self, supplier_ids: Sequence[str]) -> dict[str, Entry]:
        """In whichever thread asks first: from L2 what it has, from the store the rest, which L2 learns then."""
        version = self.version
        nobody = version is None or self._all_doubted
        believed = [] if nobody else [key for key in supplier_ids if key not in self._doubts]
        found = self._ask(self._l2, believed, version or 0) if believed else {}
        missing = [key for key in supplier_ids if key not in found]
        if missing:
            read = self._ask(self._l3, missing, version or 0)
            self.tallies["l2"].writes += self._l2.write(read)
            found |= read
        return found

    def _keep(self, entries: Mapping[str, Entry]) -> None:
        self.tallies["l1"].writes += self._l1.write(entries)

    def _ask(self, tier: Tier, supplier_ids: Sequence[str], version: int) -> dict[str, Entry]:
        tally, began = self.tallies[tier.name], clock.monotonic()
        try:
            found = tier.read(supplier_ids, version=version)
        except Exception:
            tally.failures += 1
            raise
        with self._counting:
            tally.took(clock.monotonic() - began)
            tally.hits += len(found)
            tally.misses += len(supplier_ids) - len(found)
        return found

    def _doubt_all(self, supplier_ids: Iterable[str]) -> None:
        number = next(self._doubt)
        for supplier_id in supplier_ids:
            self._doubts[supplier_id] = number
        if len(self._doubts) > _MOST_DOUBTS:  # the store is away, and is asked for ever new suppliers
            self._doubts.clear()
            self._all_doubted = number

    def _note(self, wanted: Sequence[str], hits: int) -> None:
        tally = self.tallies["l1"]
        with self._counting:
            tally.hits += hits
            tally.misses += len(wanted) - hits
        mask = self.mask
        self.seen.extend([key for key in wanted if not hash(key) & mask])

    def _time_a_peek(self, supplier_id: str) -> None:
        began = clock.monotonic()
        self._l1.peek(supplier_id)
        self.tallies["l1"].took(clock.monotonic() - began)
