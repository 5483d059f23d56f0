"""L3: the store itself, which is the truth; nothing is written to it by way of the cache."""

from collections.abc import Mapping, Sequence

from ringbearer import clock
from ringbearer.cache.base import Entry, Since, Tier, TierState, weigh
from ringbearer.errors import StoreUnavailable
from ringbearer.storage.catalog import Catalog


class StoreTier(Tier):
    """Reads the catalog; who is not in it is known not to exist."""

    name = "l3"

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def __repr__(self) -> str:
        return f"<StoreTier on {self._catalog!r}>"

    def read(self, supplier_ids: Sequence[str], *, version: int) -> dict[str, Entry]:
        """All of them, in one transaction; raises StoreUnavailable, also when it is behind `version`, as a
        replica would be."""
        began = clock.monotonic()
        seen, found = self._catalog.snapshot(supplier_ids)
        if seen < version:
            raise StoreUnavailable(
                f"the store answers as of version {seen}, before {version}, which was seen already"
            )
        return {
            supplier_id: Entry(value, seen, weigh(supplier_id) + weigh(value), began)
            for supplier_id in supplier_ids
            for value in (found.get(supplier_id),)
        }

    def write(self, entries: Mapping[str, Entry]) -> int:
        return 0

    def follow(self, version: int, since: Since) -> None:
        """Nothing to do: it is always right."""

    def forget(self, supplier_ids: Sequence[str]) -> None:
        """Nothing to do: it is always right."""

    def state(self) -> TierState:
        return TierState()
