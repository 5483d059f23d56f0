"""The cache when something is away, slow or empty: who asks is answered, or told at once, and never wrongly."""

import asyncio
import multiprocessing
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trustme

from chaos.ports import free_port
from chaos.redis_servers import Server, one_server, sentinel_servers, wait_until
from contract.making import add_endpoint, supplier
from ringbearer import clock
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.cache.redis import RedisTier
from ringbearer.errors import StoreUnavailable
from ringbearer.redis_link import open_redis
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.catalog import Catalog, Subscriptions
from ringbearer.storage.vault import Vault, generate_key
from ringbearer.telemetry import CacheWorked, Telemetry
from tools import migrated_sqlite, require_tool, turn

SOON = 30.0


class Watched(Catalog):
    """The real one; counts what it is asked, and can be away."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage.database, storage.vault)
        self.reads: list[list[str]] = []
        self.away = False
        self.gate = threading.Event()
        self.gate.set()

    def snapshot(self, supplier_ids: Sequence[str]) -> tuple[int, dict[str, Subscriptions]]:
        self.reads.append(list(supplier_ids))
        self._check()
        assert self.gate.wait(SOON)
        return super().snapshot(supplier_ids)

    def version(self) -> int:
        self._check()
        return super().version()

    def changes(self, version: int) -> tuple[int, set[str]]:
        self._check()
        return super().changes(version)

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("for the test")


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Watched]:
    with open_storage(migrated_sqlite(tmp_path / "store.db"), Vault([generate_key()])) as storage:
        for name in "abcd":
            add_endpoint(storage, name)
        yield Watched(storage)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A Redis that may be killed."""
    with one_server(tmp_path / "redis") as started:
        yield started


Make = Callable[..., WebhookCacheManager]


@pytest.fixture
def make(catalog: Watched, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes caches as those of several processes, that have looked at the store's version once."""
    made: list[WebhookCacheManager] = []
    vault = Vault([generate_key()])

    def one(redis: Server | None = None, **options: float) -> WebhookCacheManager:
        shared = None if redis is None else RedisTier(open_redis(redis.url, vault, timeout=0.2))
        cache = WebhookCacheManager(catalog=catalog, shared=shared, **options)  # type: ignore[arg-type]
        cache.refresh()
        made.append(cache)
        return cache

    yield one
    for cache in made:
        cache.close()


# ── Redis ───────────────────────────────────────────────────────────────────────────────────────────────


def test_what_one_process_read_another_has_from_redis(catalog: Watched, make: Make, server: Server) -> None:
    one, other = make(server), make(server)
    found = one.lookup(["a", "b", "nobody"])
    again = other.lookup(["a", "nobody", "b"])
    assert {k: v and v.targets for k, v in again.items()} == {k: v and v.targets for k, v in found.items()}
    assert catalog.reads == [["a", "b", "nobody"]]
    _, shared, store = other.figures()
    assert (shared.hits, shared.misses, store.hits) == (3, 0, 0)
    assert shared.latency_p99 is not None


def test_a_change_reaches_the_other_process_through_redis_too(
    catalog: Watched, make: Make, server: Server
) -> None:
    one, other = make(server), make(server)
    one.lookup(["a"])
    other.lookup(["a"])
    catalog.put_supplier(supplier("a", name="changed"))
    one.invalidate(["a"])
    assert _name(one, "a") == "changed", "at once where it was made, whatever Redis has"
    other.refresh()
    assert _name(other, "a") == "changed"


def test_without_redis_the_store_answers_and_redis_is_left_alone(
    catalog: Watched, make: Make, server: Server
) -> None:
    cache = make(server)
    cache.lookup(["a"])
    server.kill()
    assert _name(cache, "b") is None
    assert cache.lookup(["c", "d"])["c"] is not None
    catalog.put_supplier(supplier("a", name="changed"))
    assert cache.refresh() == 1
    assert _name(cache, "a") == "changed"
    assert catalog.reads == [["a"], ["b"], ["c", "d"], ["a"]]


def test_a_redis_that_comes_back_empty_is_used_again(
    catalog: Watched, make: Make, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringbearer.cache.redis._FIRST_PAUSE", 0.0)
    monkeypatch.setattr("ringbearer.cache.redis._LONGEST_PAUSE", 0.0)
    one, other = make(server), make(server)
    one.lookup(["a"])
    server.kill()
    one.lookup(["b"])
    server.start()
    catalog.put_supplier(supplier("a", name="changed"))

    def shared() -> bool:
        for cache in (one, other):
            cache.refresh()
            cache.invalidate(["a"])
            cache.refresh()
        one.lookup(["a"])
        reads = len(catalog.reads)
        assert _name(other, "a") == "changed"
        return len(catalog.reads) == reads

    wait_until(shared, "the second to read what the first one wrote")


def test_a_redis_that_hangs_costs_one_wait_and_no_answer(
    make: Make, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make(server)
    monkeypatch.setattr("ringbearer.cache.redis._FIRST_PAUSE", 600.0)
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        assert [cache.lookup([name])[name] is not None for name in "abcd"] == [True] * 4
        assert cache.figures()[1].failures == 1, "only the first one waited for Redis"
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_a_redis_whose_primary_dies_is_used_again_when_another_took_over(
    catalog: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringbearer.cache.redis._FIRST_PAUSE", 0.05)
    monkeypatch.setattr("ringbearer.cache.redis._LONGEST_PAUSE", 0.05)
    vault = Vault([generate_key()])
    with sentinel_servers(tmp_path / "group") as group:
        one, two = (
            WebhookCacheManager(catalog=catalog, shared=RedisTier(open_redis(group.url, vault, timeout=0.5)))
            for _ in range(2)
        )
        with closing(one), closing(two):
            for cache in (one, two):
                cache.refresh()
            one.lookup("ab")
            (victim,) = group.primaries()
            victim.kill()
            catalog.put_supplier(supplier("a", name="changed"))
            for cache in (one, two):
                cache.refresh()
                assert _name(cache, "a") == "changed", "the store answers meanwhile"
                assert cache.lookup("bcd")["d"] is not None

            def shared_again() -> bool:
                for cache in (one, two):
                    cache.refresh()
                    cache._l1.expire(["a"])
                before = two.figures()[1].hits
                assert (_name(one, "a"), _name(two, "a")) == ("changed", "changed")
                return two.figures()[1].hits > before

            wait_until(shared_again, "the second to read from the new primary")
            assert victim not in group.primaries()


def test_redis_is_reached_by_tls_and_only_where_its_certificate_is_right(
    catalog: Watched, tmp_path: Path
) -> None:
    authority, stranger, vault = trustme.CA(), trustme.CA(), Vault([generate_key()])
    with tls_server(tmp_path / "tls", authority) as url:
        for name, ca, hits in (("right", authority, 1), ("wrong", stranger, 0)):
            path = tmp_path / f"{name}.pem"
            ca.cert_pem.write_to_path(path)
            caches = [
                WebhookCacheManager(
                    catalog=catalog, shared=RedisTier(open_redis(f"{url}?ca_file={path}", vault))
                )
                for _ in range(2)
            ]
            for cache in caches:
                cache.refresh()
                assert cache.lookup("a")["a"] is not None, "the store answers in any case"
            shared = caches[1].figures()[1]
            assert (shared.hits, shared.failures > 0) == (hits, not hits)
            for cache in caches:
                cache.close()


@contextmanager
def tls_server(directory: Path, authority: trustme.CA) -> Iterator[str]:
    """A Redis that speaks nothing but TLS, with a certificate of that authority; its address."""
    binary, port = Path(require_tool("redis-server")), free_port()
    directory.mkdir()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    options = ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
    for option, name in (("cert", "cert"), ("key", "key"), ("ca-cert", "ca")):
        options += [f"--tls-{option}-file", str(directory / f"{name}.pem")]
    server = Server(directory / "data", port, tuple(options), binary)
    try:
        server.start()
        yield f"rediss://127.0.0.1:{port}/0"
    finally:
        server.kill()


# ── the store ───────────────────────────────────────────────────────────────────────────────────────────


def test_while_the_store_is_away_memory_is_believed_for_a_time(
    catalog: Watched, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make(stale_seconds=300.0)
    cache.lookup(["a"])
    catalog.away = True
    with pytest.raises(StoreUnavailable):
        cache.refresh()
    assert cache.peek("a")[0]
    assert cache.lookup(["a"])["a"] is not None
    with pytest.raises(StoreUnavailable):
        cache.lookup(["a", "b"])
    with pytest.raises(StoreUnavailable):
        cache.lookup(["a"], fresh=True)


def test_after_that_time_nobody_is_sent_anything_on_its_word(catalog: Watched, make: Make) -> None:
    cache = make(stale_seconds=0.0)
    cache.lookup(["a"])
    catalog.away = True
    with pytest.raises(StoreUnavailable):
        cache.lookup(["a"])
    assert cache.peek("a") == (False, None)
    with pytest.raises(StoreUnavailable):
        asyncio.run(cache.get("a"))
    assert asyncio.run(cache.monitor_cache_performance()).trusted is False
    catalog.away = False
    assert _name(cache, "a") is None
    assert asyncio.run(cache.get("a")) is not None


# ── many who ask ────────────────────────────────────────────────────────────────────────────────────────


def test_a_thousand_who_miss_at_a_time_make_one_query(catalog: Watched, make: Make) -> None:
    cache = make()
    catalog.gate.clear()

    async def ask() -> None:
        asking = [asyncio.ensure_future(cache.get("a")) for _ in range(1_000)]
        await turn()
        with ThreadPoolExecutor(8) as threads:
            blocked = [threads.submit(cache.lookup, ["a"]) for _ in range(8)]
            await asyncio.to_thread(_wait_for_misses, cache, 1_008)
            catalog.gate.set()
            found = {id(each) for each in await asyncio.gather(*asking)}
            found |= {id(each.result()["a"]) for each in blocked}
        assert len(found) == 1

    asyncio.run(ask())
    assert catalog.reads == [["a"]]


def test_those_who_miss_different_ones_at_a_time_travel_together(catalog: Watched, make: Make) -> None:
    cache = make()
    catalog.gate.clear()

    async def ask() -> None:
        asking = [asyncio.ensure_future(cache.get(f"s{n}")) for n in range(400)]
        await turn()
        catalog.gate.set()
        assert await asyncio.gather(*asking) == [None] * 400

    asyncio.run(ask())
    assert sum(map(len, catalog.reads)) == 400
    assert len(catalog.reads) <= 3


def test_two_batches_that_wait_for_each_others_suppliers_both_end(catalog: Watched, make: Make) -> None:
    cache = make()
    with ThreadPoolExecutor(8) as threads:
        for _ in range(20):
            cache.invalidate("abcd")
            batches = [threads.submit(cache.lookup, order) for order in ("abcd", "dcba", "badc", "cd") * 2]
            assert all(len(batch.result(SOON)) in (2, 4) for batch in batches)


# ── upkeep ──────────────────────────────────────────────────────────────────────────────────────────────


def test_what_a_change_drove_out_is_there_again_before_anybody_asks(catalog: Watched, make: Make) -> None:
    cache = make()
    cache.lookup(["a", "b"])
    catalog.put_supplier(supplier("a", name="changed"))
    cache._keeper.step()
    hit, found = cache.peek("a")
    assert hit
    assert found is not None
    assert found.supplier.name == "changed"
    assert catalog.reads == [["a", "b"], ["a"]]
    cache._keeper.step()
    assert len(catalog.reads) == 2


def test_entries_grow_old_only_while_the_store_can_replace_them(
    catalog: Watched, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make(stale_seconds=86_400.0)
    cache._keeper._next_optimize = float("inf")  # which would set another lifetime
    cache.lookup(["a", "b"])
    cache.lookup(["c", "d"])
    real = clock.monotonic
    for ahead, away, reads, there in (
        (0.9, True, [], "abcd"),
        (0.9, False, [["c", "d"]], "abcd"),  # those used last, of which the others will not be asked for
        (1.1, True, [], "abcd"),
        (1.1, False, [], "cd"),
    ):
        later = real() + ahead * cache._l1.lifetime
        monkeypatch.setattr("ringbearer.clock.monotonic", lambda later=later: later)
        catalog.away, before = away, len(catalog.reads)
        if away:
            with pytest.raises(StoreUnavailable):
                cache._keeper.step()
        else:
            cache._keeper._next_upkeep = 0.0
            cache._keeper.step()
        assert catalog.reads[before:] == reads
        assert "".join(name for name in "abcd" if cache._l1.has(name)) == there
    monkeypatch.undo()


def test_what_it_did_is_told_to_telemetry_in_parts(catalog: Watched) -> None:
    told: list[CacheWorked] = []
    telemetry = Telemetry()
    telemetry.listen(CacheWorked, told.append)
    cache = WebhookCacheManager(catalog=catalog, telemetry=telemetry)
    cache.refresh()
    cache.lookup(["a", "b"])
    cache._keeper.step()
    cache.peek("a")
    cache.close()
    memory = [report.tiers[0] for report in told]
    assert [(work.hits, work.misses) for work in memory] == [(0, 2), (1, 0)]
    assert memory[0].entries == 2
    store = [report.tiers[1] for report in told]
    assert [(work.hits, len(work.latencies)) for work in store] == [(2, 1), (0, 0)]


# ── what is asked of it by name ─────────────────────────────────────────────────────────────────────────


def test_endpoints_are_cached_as_the_store_has_them(catalog: Watched, make: Make) -> None:
    cache = make()

    async def use() -> None:
        assert await cache.get_cached_webhook_endpoints("nobody") is None
        (target,) = await cache.get_cached_webhook_endpoints("a") or []
        assert target.secrets
        wrote = await cache.cache_webhook_endpoints("a", [target])
        assert (wrote.cached, wrote.refused) == ((target.endpoint.id,), ())
        assert wrote.before == (target.endpoint.id,)
        catalog.set_enabled([target.endpoint.id], enabled=False)
        late = await cache.cache_webhook_endpoints("a", [target])
        assert late.refused == (target.endpoint.id,), "an older one never takes the place of a newer one"
        assert late.version > wrote.version
        (now,) = await cache.get_cached_webhook_endpoints("a") or []
        assert now.endpoint.enabled is False

        catalog.set_enabled([target.endpoint.id], enabled=True)
        forgot = await cache.invalidate_endpoint_cache("a", "never-seen")
        assert forgot.suppliers == ("a",)
        assert forgot.version_after == catalog.version() > (forgot.version_before or 0)
        assert (await cache.invalidate_endpoint_cache("a")).reason == "nothing had changed in the store"
        (enabled,) = await cache.get_cached_webhook_endpoints("a") or []
        assert enabled.endpoint.enabled is True

    asyncio.run(use())


def _name(cache: WebhookCacheManager, supplier_id: str) -> str | None:
    found = cache.lookup([supplier_id])[supplier_id]
    assert found is not None
    return found.supplier.name


def _wait_for_misses(cache: WebhookCacheManager, misses: int) -> None:
    wait_until(lambda: cache.figures()[0].misses == misses, "all to have asked")


# ── several processes ───────────────────────────────────────────────────────────────────────────────────


def test_no_process_ever_reads_less_than_it_followed(tmp_path: Path, redis_url: str) -> None:
    key = generate_key()
    with open_storage(migrated_sqlite(tmp_path / "store.db"), Vault([key])) as storage:
        for name in "abc":
            storage.catalog.put_supplier(supplier(name))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=spawn) as processes:
        runs = [
            processes.submit(_live, str(tmp_path / "store.db"), redis_url, key, seed) for seed in range(3)
        ]
        checked = [run.result(120) for run in runs]
    assert all(from_redis for _, from_redis in checked), "none of them read anything that another one wrote"
    assert sum(reads for reads, _ in checked) > 100


def _live(path: str, redis_url: str, key: str, seed: int) -> tuple[int, int]:
    """Change, forget, follow and read at random; returns how many reads were right, and how many Redis answered."""
    rng = random.Random(seed)
    vault = Vault([key])
    with open_storage(f"sqlite:///{path}", vault) as storage:
        tier = RedisTier(open_redis(redis_url, vault, timeout=5))
        cache = WebhookCacheManager(catalog=storage.catalog, shared=tier)
        cache.refresh()
        reads = 0
        for _ in range(250):
            name = rng.choice("abc")
            step = rng.random()
            if step < 0.1:
                storage.catalog.put_supplier(supplier(name))
                if rng.random() < 0.5:
                    cache.invalidate([name])
            elif step < 0.5:
                cache._l1.expire([name])  # as if it had to make room: the next read goes to Redis
            else:
                truth = storage.catalog.subscriptions([name])[name].version
                cache.refresh()
                found = cache.lookup([name])[name]
                assert found is not None
                assert found.version >= truth, (seed, name, found.version, truth)
                reads += 1
        from_redis = cache.figures()[1].hits
        cache.close()
    return reads, from_redis
