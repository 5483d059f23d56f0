"""The miss-ratio curve is that of a real LRU cache, and what follows from it is what was asked for."""

import asyncio
import bisect
import itertools
import random
from collections import OrderedDict
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.cache.shards import Curve, ReuseDistances
from ringbearer.cache.tuner import upkeep
from ringbearer.cache.tuning import Sizing, lifetime, size
from ringbearer.domain.suppliers import Supplier
from ringbearer.storage.base import open_storage
from ringbearer.storage.vault import Vault, generate_key
from tools import migrated_sqlite

NOW = datetime.now(UTC)


def zipf(keys: int, length: int, *, skew: float = 0.9, seed: int = 7) -> list[str]:
    rng = random.Random(seed)
    weights = list(itertools.accumulate(1 / (rank + 1) ** skew for rank in range(keys)))
    return [f"s{bisect.bisect(weights, rng.random() * weights[-1])}" for _ in range(length)]


def misses_of_a_real_one(trace: list[str], entries: int) -> float:
    cache: OrderedDict[str, None] = OrderedDict()
    missed = 0
    for key in trace:
        if key in cache:
            cache.move_to_end(key)
            continue
        missed += 1
        cache[key] = None
        if len(cache) > entries:
            cache.popitem(last=False)
    return missed / len(trace)


def test_without_sampling_the_curve_is_exact_but_for_its_steps() -> None:
    trace = zipf(500, 5_000)
    distances = ReuseDistances()
    distances.feed(trace)
    assert distances.rate == 1
    curve = distances.curve()
    assert curve.references == len(trace)
    for entries, ratio in zip(curve.sizes, curve.miss_ratios, strict=True):
        assert ratio == pytest.approx(misses_of_a_real_one(trace, entries), abs=1e-9)
    assert curve.miss_ratio(0) == 1.0
    assert curve.miss_ratio(10_000) == curve.miss_ratios[-1] == len(set(trace)) / len(trace)


def test_with_sampling_it_stays_close_and_bounded() -> None:
    trace = zipf(4_000, 40_000)
    distances = ReuseDistances(max_followed=512)
    for start in range(0, len(trace), 500):
        part = trace[start : start + 500]
        distances.feed([key for key in part if not hash(key) & distances.mask], total=len(part))
    assert distances.rate <= 1 / 4
    assert distances.keys == pytest.approx(len(set(trace)), rel=0.2)
    curve = distances.curve()
    errors = [
        abs(curve.miss_ratio(n) - misses_of_a_real_one(trace, n)) for n in (100, 400, 1_000, 2_500, 4_000)
    ]
    assert sum(errors) / len(errors) < 0.06  # hash seeds differ from run to run: 0.01 to 0.04 were seen


@given(st.lists(st.integers(0, 40), max_size=300), st.integers(4, 64))
def test_the_curve_never_rises_and_is_a_ratio(keys: list[int], most: int) -> None:
    distances = ReuseDistances(max_followed=most)
    distances.feed(map(str, keys))
    distances.fade()
    curve = distances.curve()
    assert list(curve.sizes) == sorted(set(curve.sizes))
    assert list(curve.miss_ratios) == sorted(curve.miss_ratios, reverse=True)
    assert all(0 <= ratio <= 1 for ratio in curve.miss_ratios)


CURVE = Curve((100, 200, 400, 800, 1_600), (0.5, 0.2, 0.05, 0.008, 0.002), references=10_000, rate=1.0)


@pytest.mark.parametrize(
    ("max_bytes", "entries", "reason"),
    [
        (10_000_000, 1_000, "reaches the target"),
        (600_000, 500, "as well as any size within the limit"),
        (1_000, 1, "as well as any size within the limit"),
    ],
)
def test_the_smallest_size_that_reaches_the_target_within_the_limit(
    max_bytes: int, entries: int, reason: str
) -> None:
    before = Sizing(20_000, 10_000_000, None)
    decision = size(CURVE, before, bytes_per_entry=1_000, max_bytes=max_bytes, max_entries=20_000)
    assert decision.after.entries == entries
    assert decision.after.bytes <= max_bytes
    assert decision.before.miss_ratio == 0.002
    assert decision.after.miss_ratio == CURVE.miss_ratio(entries)
    assert reason in decision.reason


def test_cold_misses_that_no_size_avoids_do_not_make_it_large() -> None:
    flat = Curve((100, 200, 400, 800), (0.5, 0.0605, 0.06, 0.06), references=10_000, rate=1.0)
    decision = size(flat, Sizing(20_000, 1, None), bytes_per_entry=10, max_bytes=10**9, max_entries=20_000)
    assert decision.after.entries == 250


def test_what_was_warmed_keeps_its_room() -> None:
    before = Sizing(20_000, 10**9, None)
    decision = size(CURVE, before, bytes_per_entry=1_000, max_bytes=10**9, max_entries=20_000, least=3_000)
    assert decision.after.entries == 3_000
    assert "warmed" in decision.reason
    assert decision.after.bytes >= 8 * 2**20, "one large supplier finds room"


@pytest.mark.parametrize("before", [950, 1_000, 1_090])
def test_what_is_nearly_right_is_left_alone(before: int) -> None:
    sizing = Sizing(before, 10**7, None)
    decision = size(CURVE, sizing, bytes_per_entry=1_000, max_bytes=10**7, max_entries=20_000)
    assert decision.after == decision.before


def test_entries_that_grew_get_more_room_though_there_are_no_more_of_them() -> None:
    sizing = Sizing(1_000, 10**7, None)
    decision = size(CURVE, sizing, bytes_per_entry=50_000, max_bytes=10**9, max_entries=20_000)
    assert abs(decision.after.entries - 1_000) < 100
    assert decision.after.bytes >= decision.after.entries * 50_000


def test_a_few_references_decide_nothing() -> None:
    few = Curve((1,), (0.5,), references=199, rate=1.0)
    decision = size(few, Sizing(5, 5, None), bytes_per_entry=1, max_bytes=10**9, max_entries=10)
    assert decision.after == decision.before
    assert "too little" in decision.reason


def test_lifetimes_follow_from_how_often_suppliers_change() -> None:
    assert lifetime(0, 1e9) == 24 * 3_600
    assert lifetime(5, 0) == 24 * 3_600
    once_a_day = lifetime(1_000, 1_000 * 86_400)
    assert once_a_day == pytest.approx(868, rel=0.01)  # 1 % of a day, about
    assert lifetime(2_000, 1_000 * 86_400) == pytest.approx(once_a_day / 2)
    assert lifetime(1_000, 1_000) == 60


def test_what_is_used_is_read_anew_in_time_and_the_rest_let_go() -> None:
    ages = [
        ("old", 101.0),
        ("unused", 90.0),
        ("young", 10.0),
        ("used", 81.0),
        ("late", 101.0),
        ("fresh", 80.0),
    ]
    todo = upkeep(ages, lifetime=100.0)
    assert todo.expired == ("old", "late")
    assert todo.due == ("used",)
    assert upkeep([], lifetime=1.0).due == ()


def test_live_traffic_sets_the_size(tmp_path: Path) -> None:
    asyncio.run(check_live_traffic(tmp_path))


async def check_live_traffic(tmp_path: Path) -> None:
    with open_storage(migrated_sqlite(tmp_path / "store.db"), Vault([generate_key()])) as storage:
        for n in range(300):
            storage.catalog.put_supplier(Supplier(id=f"s{n}", created_at=NOW, updated_at=NOW))
        async with WebhookCacheManager(catalog=storage.catalog) as cache:
            cache.refresh()
            cache.lookup(f"s{n}" for n in range(300))
            for _ in range(600):
                for n in range(80):  # of 300 suppliers, 80 are asked for
                    assert cache.peek(f"s{n}")[0]
            found = await cache.optimize_cache_hit_ratio()
            assert found.before.entries == 20_000
            assert 80 <= found.after.entries <= 120
            assert found.after.bytes < found.before.bytes
            assert "reaches the target" in found.reason or "as well as any" in found.reason
            assert all(cache.peek(f"s{n}")[0] for n in range(80)), "those that are used stay"
            told = await cache.monitor_cache_performance()
            assert told.tiers[0].entries == told.tiers[0].max_entries == found.after.entries
            assert told.tiers[0].evictions == 300 - found.after.entries
            assert told.last_optimization == found
            warmed = await cache.warm_cache_for_peak_season([f"s{n}" for n in range(300)])
            assert warmed.left == 0
            await cache.optimize_cache_hit_ratio()
            assert all(cache.peek(f"s{n}")[0] for n in range(300)), "a peak is given room, and keeps it"
