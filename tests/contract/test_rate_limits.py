"""A rate limit in the store is exact, whoever asks and however many ask at once."""

import pytest

from contract.making import at_once, in_processes, opened, processes
from ringbearer import clock
from ringbearer.domain.endpoints import RateLimit
from ringbearer.limits.base import Limit, RateLimiter
from ringbearer.limits.database import DatabaseRateLimiter
from ringbearer.storage.base import Storage
from ringbearer.storage.vault import generate_key

LIMIT = RateLimit(requests=20, period=10.0)
PERIOD = 10 * clock.SECOND


@pytest.fixture(params=["database"])
def limiter(request: pytest.FixtureRequest, storage: Storage) -> RateLimiter:
    """Each kind of limiter in turn."""
    assert request.param == "database"
    return DatabaseRateLimiter(storage.database)


def take(limiter: RateLimiter, wanted: dict[str, tuple[RateLimit, int]], *, now: int) -> dict[str, list[int]]:
    """When each of so many sends may go out, by key."""
    asks = [(key, Limit(key, limit)) for key, (limit, count) in wanted.items() for _ in range(count)]
    found: dict[str, list[int]] = {key: [] for key in wanted}
    for (key, _), moment in zip(asks, limiter.take([[limit] for _, limit in asks], now=now), strict=True):
        found[key].append(moment)
    return found


def taken(times: dict[str, list[int]], now: int) -> int:
    return sum(moment <= now for each in times.values() for moment in each)


def test_as_many_as_the_limit_allows_go_at_once_and_the_others_know_when(limiter: RateLimiter) -> None:
    limit = RateLimit(requests=2, period=1.0)
    assert take(limiter, {"a": (limit, 5)}, now=0) == {
        "a": [0, 0, clock.SECOND, clock.SECOND, 2 * clock.SECOND]
    }
    # Estimates are not taken: asked again then, they may go.
    assert take(limiter, {"a": (limit, 1)}, now=clock.SECOND) == {"a": [clock.SECOND]}


def test_each_key_has_a_limit_of_its_own(limiter: RateLimiter) -> None:
    one, two = RateLimit(requests=1, period=1.0), RateLimit(requests=2, period=1.0)
    assert take(limiter, {"b": (one, 2), "a": (two, 2)}, now=5) == {"a": [5, 5], "b": [5, 5 + clock.SECOND]}
    assert take(limiter, {"c": (one, 1), "b": (one, 1)}, now=6) == {"b": [5 + clock.SECOND], "c": [6]}


def test_nothing_wanted_is_nothing_taken(limiter: RateLimiter) -> None:
    assert take(limiter, {}, now=5) == {}
    assert take(limiter, {"a": (LIMIT, 0)}, now=5) == {"a": []}


def test_threads_together_take_exactly_the_limit(limiter: RateLimiter) -> None:
    now = clock.now()

    def ask(number: int) -> int:
        keys = {f"k{n}": (LIMIT, 1 + number % 2) for n in (range(4) if number % 2 else reversed(range(4)))}
        return sum(taken(take(limiter, keys, now=now + n), now + n) for n in range(12))

    assert sum(at_once(4, ask)) == 4 * LIMIT.requests
    assert taken(take(limiter, {f"k{n}": (LIMIT, 99) for n in range(4)}, now=now + PERIOD + 50), now) == 0


def _take(url: str, key: str, now: int) -> int:
    with opened(url, key) as storage:
        limiter = DatabaseRateLimiter(storage.database)
        return sum(taken(take(limiter, {"k": (LIMIT, 2)}, now=now + n), now + n) for n in range(30))


def test_processes_together_take_exactly_the_limit(storage: Storage, store_url: str) -> None:
    now = clock.now()
    assert sum(in_processes(_take, [(store_url, generate_key(), now)] * 2)) == LIMIT.requests


def _take_now(url: str, key: str, now: int) -> int:
    with opened(url, key) as storage:
        limit = RateLimit(requests=5, period=60.0)
        return taken(take(DatabaseRateLimiter(storage.database), {"k": (limit, 3)}, now=now), now)


def test_three_processes_keep_five_a_minute_for_minutes(storage: Storage, store_url: str) -> None:
    """Every twenty seconds all of them ask for more than there is: together they get five a minute, and no less."""
    began, key = clock.now(), generate_key()
    with processes(3) as pool:
        got = []
        for round_ in range(7):
            now = began + round_ * 20 * clock.SECOND
            asked = [pool.submit(_take_now, store_url, key, now) for _ in range(3)]
            got.append(sum(each.result() for each in asked))
    assert got == [5, 0, 0, 5, 0, 0, 5]
