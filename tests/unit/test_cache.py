"""The cache reads the store once for all who ask, forgets what changed, and never brings back what it forgot."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from ringbearer import ids
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.cache.shelf import MAX_ENDPOINTS, DeliveryMetrics
from ringbearer.domain.endpoints import Endpoint
from ringbearer.domain.suppliers import Supplier
from ringbearer.errors import StoreUnavailable
from ringbearer.storage.base import open_storage
from ringbearer.storage.catalog import Catalog, Subscriptions
from ringbearer.storage.database import Database
from ringbearer.storage.vault import Vault, generate_key
from ringbearer.telemetry import Telemetry
from tools import migrated_sqlite, turn

NOW = datetime.now(UTC)
VAULT = Vault([generate_key()])


class WatchedCatalog(Catalog):
    """The real one; remembers what was read, and can be made to dwell after it has."""

    def __init__(self, database: Database, vault: Vault) -> None:
        super().__init__(database, vault)
        self.reads: list[list[str]] = []
        self.read_done, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.fails = False

    def snapshot(self, supplier_ids: Sequence[str]) -> tuple[int, dict[str, Subscriptions]]:
        self.reads.append(list(supplier_ids))
        if self.fails:
            assert self.go_on.wait(30)
            raise StoreUnavailable("for the test")
        found = super().snapshot(supplier_ids)
        self.read_done.set()
        assert self.go_on.wait(30)
        return found


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[WatchedCatalog]:
    with open_storage(migrated_sqlite(tmp_path / "store.db"), VAULT) as storage:
        made = WatchedCatalog(storage.database, VAULT)
        for supplier_id in ("a", "b", "c", "d"):
            put(made, supplier_id)
        yield made


def put(catalog: Catalog, supplier_id: str, name: str | None = None) -> None:
    catalog.put_supplier(Supplier(id=supplier_id, name=name, created_at=NOW, updated_at=NOW))


def name_of(entry: Subscriptions | None) -> str | None:
    assert entry is not None
    return entry.supplier.name


def manager(catalog: Catalog, telemetry: Telemetry | None = None, most: int = 100) -> WebhookCacheManager:
    return WebhookCacheManager(catalog=catalog, telemetry=telemetry or Telemetry(), max_suppliers=most)


def test_what_is_missing_costs_one_read_and_what_is_known_none(catalog: WatchedCatalog) -> None:
    cache = manager(catalog)
    found = cache.lookup(["a", "b", "unknown"])
    assert {key: entry is not None for key, entry in found.items()} == {
        "a": True,
        "b": True,
        "unknown": False,
    }
    assert cache.lookup(["b", "c", "unknown"]).keys() == {"b", "c", "unknown"}
    assert cache.lookup(["a", "unknown"])["unknown"] is None
    assert cache.lookup([]) == {}
    assert catalog.reads == [["a", "b", "unknown"], ["c"]]
    memory, store = cache.figures()
    assert (memory.tier, memory.hits, memory.misses, memory.writes, memory.entries) == ("l1", 4, 4, 4, 4)
    assert (store.tier, store.hits, store.misses) == ("l3", 4, 0)


def test_peeking_never_reads(catalog: WatchedCatalog) -> None:
    cache = manager(catalog)
    assert cache.peek("a") == (False, None)
    cache.lookup(["a", "unknown"])
    hit, entry = cache.peek("a")
    assert hit
    assert entry is not None
    assert cache.peek("unknown") == (True, None)
    assert len(catalog.reads) == 1


def test_many_who_miss_the_same_one_share_one_read(catalog: WatchedCatalog) -> None:
    cache = manager(catalog)

    async def ask() -> list[Subscriptions | None]:
        catalog.go_on.clear()
        asking = [asyncio.ensure_future(cache.get("a")) for _ in range(50)]
        await asyncio.to_thread(catalog.read_done.wait, 30)
        asking += [asyncio.ensure_future(cache.get("a")) for _ in range(50)]
        await turn()
        catalog.go_on.set()
        found = [await each for each in asking]
        assert await cache.get("a") is found[0]
        return found

    found = asyncio.run(ask())
    assert {id(entry) for entry in found} == {id(found[0])}
    assert catalog.reads == [["a"]]


def test_one_who_goes_away_does_not_take_the_read_from_the_others(catalog: WatchedCatalog) -> None:
    cache = manager(catalog)

    async def ask() -> Subscriptions | None:
        catalog.go_on.clear()
        first, second = (asyncio.ensure_future(cache.get("a")) for _ in range(2))
        await asyncio.to_thread(catalog.read_done.wait, 30)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        catalog.go_on.set()
        return await second

    assert asyncio.run(ask()) is not None
    assert len(catalog.reads) == 1


def test_a_failed_read_is_told_to_all_and_not_remembered(catalog: WatchedCatalog) -> None:
    cache = manager(catalog)

    async def ask() -> None:
        catalog.fails = True
        catalog.go_on.clear()
        asking = [asyncio.ensure_future(cache.get("a")) for _ in range(3)]
        await turn()
        catalog.go_on.set()
        told = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(each) for each in told] == [StoreUnavailable] * 3
        catalog.fails = False
        assert await cache.get("a") is not None

    asyncio.run(ask())
    assert len(catalog.reads) == 2


def test_when_it_is_full_the_least_recently_used_goes(catalog: WatchedCatalog) -> None:
    cache = manager(catalog, most=2)
    cache.lookup(["a"])
    cache.lookup(["b"])
    cache.lookup(["a"])
    cache.lookup(["c"])
    assert [cache.peek(key)[0] for key in "abc"] == [True, False, True]
    cache.peek("a")
    cache.lookup(["d"])
    assert [cache.peek(key)[0] for key in "acd"] == [True, False, True]
    cache.lookup(["a", "b", "c", "d"])
    assert sum(cache.peek(key)[0] for key in "abcd") == 2


def test_what_was_invalidated_is_read_again(catalog: WatchedCatalog) -> None:
    cache = manager(catalog)
    cache.lookup(["a", "b"])
    put(catalog, "a", "new")
    cache.invalidate(["a", "never seen"])
    assert cache.peek("b")[0]
    assert name_of(cache.lookup(["a"])["a"]) == "new"


def test_a_read_that_was_overtaken_by_a_change_is_not_kept(catalog: WatchedCatalog) -> None:
    cache = manager(catalog)
    catalog.go_on.clear()
    reader = threading.Thread(target=cache.lookup, args=(["a"],))
    reader.start()
    assert catalog.read_done.wait(30)
    put(catalog, "a", "new")
    cache.invalidate(["a"])
    catalog.go_on.set()
    reader.join(30)
    assert cache.peek("a") == (False, None)
    assert name_of(cache.lookup(["a"])["a"]) == "new"


def test_refreshing_forgets_exactly_what_changed_in_the_store(catalog: WatchedCatalog) -> None:
    cache = manager(catalog)
    assert cache.refresh() == 0
    cache.lookup(["a", "b", "new"])
    assert cache.refresh() == 0
    put(catalog, "a", "changed")
    put(catalog, "new", "was unknown")
    endpoint = Endpoint(
        id=ids.endpoint(), supplier_id="c", url="https://h.example", created_at=NOW, updated_at=NOW
    )
    catalog.add_endpoint(endpoint, "whsec_x")
    assert cache.refresh() == 3
    assert [cache.peek(key)[0] for key in ("a", "b", "new")] == [False, True, False]
    assert name_of(cache.lookup(["new"])["new"]) == "was unknown"
    assert cache.refresh() == 0
    catalog.change_endpoint("c", endpoint.id, lambda e: replace(e, enabled=False))
    catalog.delete_supplier("a")
    assert cache.refresh() == 2
    assert cache.lookup(["a"]) == {"a": None}


def test_the_first_refresh_forgets_what_was_read_before_any_version_was_known(
    catalog: WatchedCatalog,
) -> None:
    cache = manager(catalog)
    cache.lookup(["a"])
    put(catalog, "a", "changed before the first look")
    cache.refresh()
    assert name_of(cache.lookup(["a"])["a"]) == "changed before the first look"


def test_it_tells_its_state(catalog: WatchedCatalog) -> None:
    cache = manager(catalog, most=5)
    cache.lookup(["a"])
    assert repr(cache) == "<WebhookCacheManager with 1 of 5 suppliers, version None>"


# ── how endpoints do ────────────────────────────────────────────────────────────────────────────────────────


def metrics(endpoint_id: str, *, delivered: int, at: datetime = NOW) -> DeliveryMetrics:
    """An hour in which so many attempts were made, all of which delivered."""
    return DeliveryMetrics(
        endpoint_id=endpoint_id,
        supplier_id="a",
        measured_at=at,
        window=3_600.0,
        attempts=delivered,
        delivered=delivered,
        failed=0,
        dead=0,
        success=1.0,
        answer_p50=0.1,
        answer_p99=0.2,
    )


def test_figures_of_an_endpoint_are_kept_until_newer_ones_come(catalog: WatchedCatalog) -> None:
    cache = manager(catalog)

    async def use() -> None:
        assert await cache.get_cached_delivery_metrics("ep_1") is None
        first, newer = (
            metrics("ep_1", delivered=1),
            metrics("ep_1", delivered=2, at=NOW + timedelta(seconds=1)),
        )
        wrote = await cache.cache_delivery_metrics(first)
        assert (wrote.before, wrote.after) == (None, first)
        assert await cache.get_cached_delivery_metrics("ep_1") == first
        wrote = await cache.cache_delivery_metrics(newer)
        assert (wrote.before, wrote.after) == (first, newer)
        late = await cache.cache_delivery_metrics(first)
        assert (late.after, late.reason) == (newer, "there are newer ones")
        assert await cache.get_cached_delivery_metrics("ep_1") == newer
        assert await cache.get_cached_delivery_metrics("ep_2") is None

    asyncio.run(use())


def test_figures_of_so_many_endpoints_are_kept_and_the_oldest_go(catalog: WatchedCatalog) -> None:
    cache = manager(catalog)

    async def use() -> None:
        for n in range(MAX_ENDPOINTS + 1):
            await cache.cache_delivery_metrics(metrics(f"ep_{n}", delivered=n))
        assert await cache.get_cached_delivery_metrics("ep_0") is None
        last = await cache.get_cached_delivery_metrics(f"ep_{MAX_ENDPOINTS}")
        assert last is not None
        assert last.delivered == MAX_ENDPOINTS

    asyncio.run(use())
