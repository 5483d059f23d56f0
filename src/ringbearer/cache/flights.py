"""Single flight: whoever misses the same thing at a time shares one load, across threads and event loops.

A load that something overtakes on the way is *spoiled* for it: who waited still gets what was read, nobody who comes
later joins, and nothing of it is kept.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ringbearer.cache.base import Entry

MOST = 500
"""Suppliers in one load; so a batch read is at most one round trip for as many."""


class _Flight:
    """One load under way, or about to start."""

    __slots__ = ("future", "ids", "spoiled")

    def __init__(self, ids: list[str]) -> None:
        self.ids = ids
        self.spoiled: set[str] = set()
        self.future: Future[dict[str, Entry]] = Future()


class Flights:
    """Loads by `load`, and hands what may be kept to `keep`. Both are called in the thread of the load."""

    def __init__(
        self,
        load: Callable[[Sequence[str]], dict[str, Entry]],
        keep: Callable[[Mapping[str, Entry]], None],
    ) -> None:
        self._load = load
        self._keep = keep
        self._lock = threading.Lock()
        self._by_id: dict[str, _Flight] = {}
        self._boarding: _Flight | None = None
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="cache")

    def __repr__(self) -> str:
        return f"<Flights with {len(self._by_id)} suppliers on their way>"

    def close(self) -> None:
        """Wait for what is under way; nothing more is loaded for an event loop then."""
        self._threads.shutdown()

    def fetch(self, supplier_ids: Iterable[str]) -> dict[str, Entry]:
        """Load in this thread what nobody is loading yet, and wait for the rest. Raises what `load` raises."""
        mine: list[str] = []
        others: dict[_Flight, list[str]] = {}
        with self._lock:
            flight = _Flight(mine)
            for supplier_id in supplier_ids:
                running = self._by_id.setdefault(supplier_id, flight)
                if running is flight:
                    mine.append(supplier_id)
                else:
                    others.setdefault(running, []).append(supplier_id)
        if mine:
            self._fly(flight)
        found = flight.future.result() if mine else {}
        for other, wanted in others.items():  # after the own ones: so no two wait for each other
            landed = other.future.result()
            found |= {supplier_id: landed[supplier_id] for supplier_id in wanted}
        return found

    async def fetch_one(self, supplier_id: str) -> Entry:
        """Load one; those asked for at a time travel together. Raises what `load` raises."""
        with self._lock:
            flight = self._by_id.get(supplier_id) or self._board(supplier_id)
        # Whoever goes away must not take the load from the others.
        landed = await asyncio.shield(asyncio.wrap_future(flight.future))
        return landed[supplier_id]

    def spoil(self, supplier_ids: Iterable[str]) -> None:
        """What is on its way for these may be overtaken: it is not kept, and nobody joins it any more."""
        with self._lock:
            for supplier_id in supplier_ids:
                flight = self._by_id.pop(supplier_id, None)
                if flight is not None:
                    flight.spoiled.add(supplier_id)

    def spoil_all(self) -> None:
        """Everything that is on its way may be overtaken."""
        self.spoil(list(self._by_id))

    def _board(self, supplier_id: str) -> _Flight:
        flight = self._boarding
        if flight is None or len(flight.ids) >= MOST:
            flight = _Flight([])
            self._threads.submit(self._depart, flight)
            self._boarding = flight  # it waits for the lock before it departs
        flight.ids.append(supplier_id)
        self._by_id[supplier_id] = flight
        return flight

    def _depart(self, flight: _Flight) -> None:
        with self._lock:
            if self._boarding is flight:
                self._boarding = None
        self._fly(flight)

    def _fly(self, flight: _Flight) -> None:
        try:
            landed = self._load(flight.ids)
        except BaseException as error:
            with self._lock:
                self._arrive(flight)
            flight.future.set_exception(error)
            return
        with self._lock:  # so that a change is either before this, and spoils it, or after, and finds it kept
            self._keep({key: entry for key, entry in landed.items() if key not in flight.spoiled})
            self._arrive(flight)
        flight.future.set_result(landed)

    def _arrive(self, flight: _Flight) -> None:
        for supplier_id in flight.ids:
            if self._by_id.get(supplier_id) is flight:
                del self._by_id[supplier_id]
