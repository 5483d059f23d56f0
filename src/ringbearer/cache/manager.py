"""The cache of suppliers and their endpoints: in the process, followed by version, filled from the store."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Iterable

from ringbearer.storage.catalog import Catalog, Subscriptions
from ringbearer.telemetry import CacheAsked, Telemetry

MAX_SUPPLIERS = 20_000


class WebhookCacheManager:
    """The only way anyone reads an endpoint on the hot path.

    Entries are suppliers with all their endpoints; unknown suppliers are remembered as such. When it is full,
    the least recently used goes. A change anywhere is seen at the next `refresh`, which costs one small query
    as long as nothing changed. Safe to use from several threads.
    """

    def __init__(self, *, catalog: Catalog, telemetry: Telemetry, max_suppliers: int = MAX_SUPPLIERS) -> None:
        self._catalog = catalog
        self._telemetry = telemetry
        self._max = max_suppliers
        self._entries: OrderedDict[str, Subscriptions | None] = OrderedDict()
        self._lock = threading.Lock()
        self._epoch = 0
        self._version: int | None = None
        self._loading: dict[str, asyncio.Future[Subscriptions | None]] = {}

    def __repr__(self) -> str:
        return f"<WebhookCacheManager with {len(self._entries)} of {self._max} suppliers, version {self._version}>"

    def lookup(self, supplier_ids: Iterable[str]) -> dict[str, Subscriptions | None]:
        """The suppliers, None for unknown ones; all that are missing cost one read of the store.

        Blocks when something is missing; raises StoreUnavailable then.
        """
        found: dict[str, Subscriptions | None] = {}
        missing = []
        with self._lock:
            epoch = self._epoch
            for supplier_id in supplier_ids:
                if supplier_id in self._entries:
                    self._entries.move_to_end(supplier_id)
                    found[supplier_id] = self._entries[supplier_id]
                else:
                    missing.append(supplier_id)
        self._telemetry.emit(CacheAsked(len(found), len(missing)))
        if missing:
            loaded = self._catalog.subscriptions(missing)
            fresh = {supplier_id: loaded.get(supplier_id) for supplier_id in missing}
            self._store(fresh, epoch)
            found |= fresh
        return found

    def peek(self, supplier_id: str) -> tuple[bool, Subscriptions | None]:
        """Whether the supplier is in the cache, and what is known of it; never blocks."""
        try:
            entry = self._entries[supplier_id]
            self._entries.move_to_end(supplier_id)
        except KeyError:
            return False, None
        return True, entry

    async def get(self, supplier_id: str) -> Subscriptions | None:
        """The supplier, None when unknown; many who miss the same one at a time share one read of the store."""
        hit, entry = self.peek(supplier_id)
        if hit:
            return entry
        running = self._loading.get(supplier_id)
        if running is None:
            running = asyncio.ensure_future(asyncio.to_thread(self._load, supplier_id))
            self._loading[supplier_id] = running
            running.add_done_callback(lambda _: self._loading.pop(supplier_id, None))
        return await asyncio.shield(running)

    def invalidate(self, supplier_ids: Iterable[str]) -> None:
        """Forget suppliers; a load that is under way will not bring back what it read before."""
        with self._lock:
            self._epoch += 1
            for supplier_id in supplier_ids:
                self._entries.pop(supplier_id, None)

    def refresh(self) -> int:
        """Forget what changed in the store since the last time; returns how many suppliers that were.

        Blocks; raises StoreUnavailable.
        """
        version = self._catalog.version()
        if self._version is None:
            with self._lock:  # entries from before the first look have an unknown version
                self._entries.clear()
                self._epoch += 1
            self._version = version
            return 0
        if version == self._version:
            return 0
        changed = self._catalog.changed_since(self._version)
        self.invalidate(changed)
        self._version = version
        return len(changed)

    def _load(self, supplier_id: str) -> Subscriptions | None:
        return self.lookup([supplier_id])[supplier_id]

    def _store(self, fresh: dict[str, Subscriptions | None], epoch: int) -> None:
        with self._lock:
            if self._epoch != epoch:
                return  # something changed while this was read: whoever asks next reads anew
            for supplier_id, entry in fresh.items():
                self._entries[supplier_id] = entry
                self._entries.move_to_end(supplier_id)
            while len(self._entries) > self._max:
                self._entries.popitem(last=False)
