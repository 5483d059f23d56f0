"""What the cache is measured against: a plain LRU in the process, Redis alone, and S3-FIFO as a policy."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import cast

import msgspec
import redis
from cachetools import LRUCache

from ringbearer.storage.catalog import Catalog, Subscriptions


class Rival:
    """Reads suppliers in batches, and counts what it had to ask the store for."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.asked = self.missed = self.stale = 0
        self.newest: dict[str, int] = {}
        """The version of the last change of a supplier, for counting what is stale."""

    def lookup(self, supplier_ids: Sequence[str]) -> None:
        """Read them all, from wherever they are."""
        raise NotImplementedError

    def _look_at(self, key: str, found: Subscriptions | None) -> None:
        self.stale += found is not None and found.version < self.newest.get(key, 0)

    def _from_store(self, missing: list[str]) -> dict[str, Subscriptions]:
        self.missed += len(missing)
        return self.catalog.subscriptions(missing)


class PlainLru(Rival):
    """`cachetools.LRUCache`, which never hears of a change."""

    def __init__(self, catalog: Catalog, entries: int) -> None:
        super().__init__(catalog)
        self.cache: LRUCache[str, Subscriptions | None] = LRUCache(entries)

    def lookup(self, supplier_ids: Sequence[str]) -> None:
        wanted = set(supplier_ids)
        self.asked += len(wanted)
        missing = []
        for key in wanted:
            try:
                self._look_at(key, self.cache[key])
            except KeyError:
                missing.append(key)
        if missing:
            found = self._from_store(missing)
            for key in missing:
                self.cache[key] = found.get(key)


class RedisOnly(Rival):
    """Every batch asks Redis, at its best: nothing expires, so that changes are never seen."""

    def __init__(self, catalog: Catalog, client: redis.Redis) -> None:
        super().__init__(catalog)
        self.client = client
        self.decoder = msgspec.msgpack.Decoder(Subscriptions)

    def lookup(self, supplier_ids: Sequence[str]) -> None:
        wanted = list(set(supplier_ids))
        self.asked += len(wanted)
        values = cast("list[bytes | None]", self.client.mget([f"plain:{key}" for key in wanted]))
        missing = []
        for key, value in zip(wanted, values, strict=True):
            if value is None:
                missing.append(key)
            else:
                self._look_at(key, self.decoder.decode(value))
        if missing:
            found = self._from_store(missing)
            pipeline = self.client.pipeline(transaction=False)
            for key, subscriptions in found.items():
                pipeline.set(f"plain:{key}", msgspec.msgpack.encode(subscriptions))
            pipeline.execute()


def lru_misses(references: Sequence[str], entries: int) -> float:
    """The share that a cache of so many entries misses when the least recently used goes."""
    cache: OrderedDict[str, None] = OrderedDict()
    missed = 0
    for key in references:
        if key in cache:
            cache.move_to_end(key)
            continue
        missed += 1
        cache[key] = None
        if len(cache) > entries:
            cache.popitem(last=False)
    return missed / len(references)


def s3_fifo_misses(references: Sequence[str], entries: int) -> float:
    """The same by S3-FIFO (J. Yang, Y. Zhang, Z. Qiu, Y. Yue, K. V. Rashmi: FIFO queues are all you need for cache
    eviction, SOSP 2023): a small queue of a tenth, a main one, and a ghost queue of the names that left the small."""
    small, main = deque[str](), deque[str]()
    ghost: OrderedDict[str, None] = OrderedDict()
    frequency: dict[str, int] = {}
    small_room = max(1, entries // 10)
    missed = 0
    for key in references:
        if key in frequency:
            frequency[key] = min(3, frequency[key] + 1)
            continue
        missed += 1
        while len(frequency) >= entries:
            if len(small) >= small_room or not main:
                old = small.popleft()
                if frequency[old] > 1:
                    frequency[old] = 0
                    main.append(old)
                else:
                    del frequency[old]
                    ghost[old] = None
                    if len(ghost) > entries:
                        ghost.popitem(last=False)
            else:
                old = main.popleft()
                if frequency[old] > 0:
                    frequency[old] -= 1
                    main.append(old)
                else:
                    del frequency[old]
        if key in ghost:
            del ghost[key]
            main.append(key)
        else:
            small.append(key)
        frequency[key] = 0
    return missed / len(references)
