"""A rate limit lets through as much as it says in any window of time, and delays nothing needlessly."""

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringbearer import clock
from ringbearer.domain.endpoints import RateLimit
from ringbearer.limits.base import MAX_REMEMBERED, Limit, admit

limits = st.builds(RateLimit, requests=st.integers(1, 12), period=st.sampled_from([0.001, 0.07, 0.29, 1.0]))
asks = st.lists(st.tuples(st.integers(0, 600_000), st.integers(0, 15)), max_size=40)
START = 1_700_000_000 * clock.SECOND


def slots(history: list[int], limit: RateLimit, count: int, now: int) -> tuple[list[int], list[int]]:
    """When so many sends of one endpoint may go out, and what is remembered then."""
    times, kept = admit([[Limit("ep", limit)]] * count, {"ep": history}, now)
    return times, kept.get("ep", history)


def window(limit: RateLimit) -> int:
    return round(limit.period * clock.SECOND)


def play(limit: RateLimit, given_asks: list[tuple[int, int]]) -> list[int]:
    """Ask again and again, each time so much later, for so many; returns when sends went out."""
    now, history, sent = START, list[int](), list[int]()
    for later, count in given_asks:
        now += later
        times, history = slots(history, limit, count, now)
        assert len(times) == count
        assert times == sorted(times)
        assert all(moment >= now for moment in times)
        sent += [moment for moment in times if moment == now]
    return sent


def most_in_any_window(sent: list[int], period: int) -> int:
    return max((bisect_left(sent, moment + period) - n for n, moment in enumerate(sent)), default=0)


@given(limits, asks)
def test_no_window_holds_more_than_the_limit(limit: RateLimit, given_asks: list[tuple[int, int]]) -> None:
    assert most_in_any_window(play(limit, given_asks), window(limit)) <= limit.requests


@given(limits, asks)
def test_nothing_is_delayed_that_could_go(limit: RateLimit, given_asks: list[tuple[int, int]]) -> None:
    now, history, sent = START, list[int](), list[int]()
    for later, count in given_asks:
        now += later
        times, history = slots(history, limit, count, now)
        free = limit.requests - sum(moment > now - window(limit) for moment in sent)
        assert times.count(now) == min(count, free)
        sent += [now] * times.count(now)


@given(limits, st.integers(1, 40))
def test_an_estimate_is_when_it_may_really_go(limit: RateLimit, count: int) -> None:
    times, history = slots([], limit, count, START)
    for moment in times[limit.requests :]:
        again, history = slots(history, limit, 1, moment)
        assert again == [moment]


@given(limits, asks)
def test_no_more_is_remembered_than_the_limit_needs(
    limit: RateLimit, given_asks: list[tuple[int, int]]
) -> None:
    now, history = START, list[int]()
    for later, count in given_asks:
        now += later
        _, history = slots(history, limit, count, now)
        assert len(history) <= limit.requests


@pytest.mark.parametrize("requests", [MAX_REMEMBERED, 1_001, 1_500, 2_000, 12_345, 1_000_000])
def test_a_fast_limit_is_kept_with_little_memory(requests: int) -> None:
    limit = RateLimit(requests=requests, period=1.0)
    history: list[int] = []
    sent: list[int] = []
    for tick in range(0, 5 * clock.SECOND // 2, 10_000):
        times, history = slots(history, limit, min(requests, 1_001), START + tick)
        sent += [moment for moment in times if moment == START + tick]
    assert len(history) <= MAX_REMEMBERED
    assert most_in_any_window(sent, clock.SECOND) <= requests
    if requests < 100_000:  # one tick is longer than the parts of a faster one
        assert len(sent) >= 2.4 * requests * 0.9


def test_whoever_reads_the_clock_a_little_earlier_takes_no_more_than_is_left() -> None:
    """Another worker sent later than this one's `now`, while this one waited for its turn."""
    limit = RateLimit(requests=2, period=1.0)
    times, history = slots([START + 500], limit, 2, START)
    assert times == [START, START + 500 + clock.SECOND]
    assert history == [START + 500, START + 500]


def test_a_clock_that_was_set_back_delays_for_no_more_than_a_period() -> None:
    limit = RateLimit(requests=2, period=1.0)
    hour = 3_600 * clock.SECOND
    times, history = slots([START - 10, START], limit, 1, START - hour)
    assert times == [START - hour - 10 + clock.SECOND]
    times, _ = slots(history, limit, 2, START - hour + clock.SECOND)
    assert times == [START - hour + clock.SECOND] * 2


def test_a_clock_that_was_set_forward_frees_the_window() -> None:
    limit = RateLimit(requests=1, period=1.0)
    assert slots([START], limit, 1, START + 3_600 * clock.SECOND)[0] == [START + 3_600 * clock.SECOND]


# ── several at once ─────────────────────────────────────────────────────────────────────────────────────────

SMOOTH = RateLimit(requests=100, period=10.0)


def smooth(given_asks: list[tuple[int, int]]) -> list[int]:
    """Ask for a smooth limit again and again, each time so much later; returns when sends went out."""
    now, state, sent = START, list[int](), list[int]()
    for later, count in given_asks:
        now += later
        times, kept = admit([[Limit("all", SMOOTH, exact=False)]] * count, {"all": state}, now)
        state = kept.get("all", state)
        sent += [moment for moment in times if moment == now]
    return sent


@given(st.lists(st.tuples(st.integers(0, 2_000_000), st.integers(0, 30)), max_size=40))
def test_a_smooth_limit_keeps_its_rate_but_for_a_seconds_worth(given_asks: list[tuple[int, int]]) -> None:
    sent = smooth(given_asks)
    for seconds in (1, 3, 10):
        assert most_in_any_window(sent, seconds * clock.SECOND) <= 10 * seconds + 10


def test_a_smooth_limit_is_used_to_the_full() -> None:
    assert len(smooth([(100_000, 30)] * 100)) >= 100


def test_an_estimate_of_a_smooth_limit_is_when_it_may_really_go() -> None:
    limit = [Limit("all", SMOOTH, exact=False)]
    times, kept = admit([limit] * 30, {}, START)
    assert times[:10] == [START] * 10
    assert times[10:] == sorted(times[10:])
    assert times[-1] <= START + 2 * clock.SECOND
    for moment in times[10:]:
        again, kept = admit([limit], kept, moment)
        assert again == [moment]


def test_what_one_limit_refuses_uses_up_no_other() -> None:
    slow, fast = Limit("ep_slow", RateLimit(requests=1, period=60.0)), Limit("ep_fast", SMOOTH)
    overall = Limit("all", RateLimit(requests=5, period=1.0), exact=False)
    times, kept = admit([(slow, overall)] * 50 + [(fast, overall)] * 4, {}, START)
    assert times[0] == START
    assert times[1:3] == [START + 60 * clock.SECOND, START + 120 * clock.SECOND]
    assert times[50:] == [START] * 4  # forty-nine that have to wait are in nobody's way
    assert len(kept["ep_slow"]) == 1
    assert len(kept["ep_fast"]) == 4


def test_the_slowest_limit_decides() -> None:
    endpoint = Limit("ep", RateLimit(requests=2, period=10.0))
    supplier = Limit("supplier:x", RateLimit(requests=1, period=60.0), exact=False)
    times, _ = admit([(endpoint, supplier)] * 2, {}, START)
    assert times == [START, START + 60 * clock.SECOND]


def test_a_smooth_limit_outlives_a_clock_that_was_set_back() -> None:
    hour = 3_600 * clock.SECOND
    times, _ = admit([[Limit("all", SMOOTH, exact=False)]], {"all": [START + hour]}, START)
    assert times == [START]
