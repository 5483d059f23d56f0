"""Which suppliers are the busiest, and that they are warmed before a peak of the plan."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from contract.making import add_endpoint, admission, nobody, supplier
from ringbearer import clock
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.cache.planned import PlannedWarming
from ringbearer.errors import StoreUnavailable
from ringbearer.season import Season, SeasonScalingConfig
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.heat import Heat
from ringbearer.storage.vault import Vault, generate_key
from tools import migrated_sqlite

HOUR = 3_600 * clock.SECOND
DAY = 24 * HOUR


def deliver(storage: Storage, supplier_id: str, at: int, count: int) -> None:
    """So many deliveries of a supplier, accepted at that time."""
    storage.ledger.accept([admission(supplier_id=supplier_id, at=at) for _ in range(count)])


def test_the_busiest_come_first_and_only_those_of_the_span(storage: Storage) -> None:
    now = clock.now()
    since = now - 12 * HOUR
    for at, supplier_id, count in (
        (since, "at-the-start", 1),
        (now - 11 * HOUR, "busy", 3),
        (now - HOUR, "busy", 3),
        (now - 5 * HOUR, "middling", 4),
        (now - 2 * HOUR, "also-middling", 4),
        (since - clock.SECOND, "before", 9),
        (now + HOUR, "after", 9),
    ):
        deliver(storage, supplier_id, at, count)
    storage.ledger.accept([nobody(supplier_id="without-endpoints", at=now - HOUR)])
    assert storage.heat.hottest(since, now, most=9) == ["busy", "also-middling", "middling", "at-the-start"]
    assert storage.heat.hottest(since, now, most=2) == ["busy", "also-middling"]
    assert storage.heat.hottest(now - 3 * HOUR, now - 2 * HOUR - 1, most=9) == []


def test_a_busy_hour_does_not_hide_the_others(storage: Storage) -> None:
    now = clock.now()
    deliver(storage, "bulk", now - 90 * 60 * clock.SECOND, 700)
    for hours in (3, 5, 7):
        deliver(storage, "steady", now - hours * HOUR, 200)
    assert storage.heat.hottest(now - DAY, now, most=9) == ["steady", "bulk"]  # 600, and 500 of the first 500


@pytest.fixture
def own(tmp_path: Path) -> Storage:
    """On SQLite, where deliveries of a week ago find a place."""
    return open_storage(migrated_sqlite(tmp_path / "store.db"), Vault([generate_key()]))


def test_last_weeks_coming_day_goes_before_yesterday(own: Storage) -> None:
    now = clock.now()
    week_ago = now - 7 * DAY
    for supplier_id, at, count in (
        ("tonight", week_ago + 10 * HOUR, 5),
        ("tomorrow", week_ago + 22 * HOUR, 4),
        ("too-far", week_ago + 25 * HOUR, 9),
        ("long-ago", week_ago - 2 * HOUR, 9),
        ("yesterday", now - 20 * HOUR, 3),
    ):
        add_endpoint(own, supplier_id)
        deliver(own, supplier_id, at, count)
    own.catalog.put_supplier(supplier("idle"))
    cache = WebhookCacheManager(catalog=own.catalog, heat=own.heat)
    assert cache.busiest(now) == ["tonight", "tomorrow", "yesterday"]
    warmed = asyncio.run(cache.preload_frequently_used_data())
    assert (warmed.loaded, warmed.left, warmed.unknown) == (3, 0, 0)
    assert [cache.peek(key)[0] for key in ("tonight", "yesterday", "idle")] == [True, True, False]
    assert warmed.after_bytes > warmed.before_bytes == 0
    cache.close()
    own.close()


def test_the_plans_moment_warms_once(own: Storage) -> None:
    plan = Season(SeasonScalingConfig(warm_at=("05:00",)))
    moment = plan.next_warming(clock.to_datetime(clock.now()))
    assert moment is not None
    at = clock.from_datetime(moment)
    add_endpoint(own, "lumen")
    deliver(own, "lumen", at - 7 * DAY + HOUR, 2)
    cache = WebhookCacheManager(catalog=own.catalog, heat=own.heat)
    planned = PlannedWarming(cache=cache, season=lambda: plan, since=at - DAY)

    async def look() -> None:
        assert await planned.look(now=at - 1) is None
        warmed = await planned.look(now=at)
        assert warmed is not None
        assert (warmed.why, warmed.loaded) == ("a peak is coming", 1)
        assert cache.peek("lumen")[0]
        assert await planned.look(now=at + HOUR) is None
        following = plan.next_warming(moment + timedelta(hours=1))
        assert following is not None
        assert await planned.look(now=clock.from_datetime(following) + HOUR) is not None, (
            "a look that came late"
        )
        assert await PlannedWarming(cache=cache, season=Season, since=0).look(now=at) is None, (
            "there is no plan"
        )

    asyncio.run(look())
    cache.close()
    own.close()


def test_a_store_that_is_away_keeps_nobody_from_starting(own: Storage) -> None:
    class Away(Heat):
        def hottest(self, since: int, until: int, *, most: int) -> list[str]:
            raise StoreUnavailable("for the test")

    cache = WebhookCacheManager(catalog=own.catalog, heat=Away(own.database))
    warmed = asyncio.run(cache.preload_frequently_used_data())
    assert (warmed.wanted, warmed.loaded) == (0, 0)
    assert "for the test" in warmed.reason
    late = asyncio.run(cache.preload_frequently_used_data(within=0))
    assert late.reason == "it took too long"
    cache.close()
    own.close()
