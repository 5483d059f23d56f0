"""Service levels: budgets and burn rates, by properties and by series of a day, an incident and a slow leak."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringbearer import clock
from ringbearer.monitor.figures import Figures
from ringbearer.monitor.slo import OBJECTIVES, Objective, burns, compliance, rate, tally, worst

MINUTE = 60 * clock.SECOND
NOW = 1_800_000_000 * clock.SECOND // MINUTE * MINUTE
DAY = 24 * 60
SUCCESS = Objective(id="s", kind="success", target=0.999)


def series(
    minutes: int, bad: float, *, since: int = 0, per_minute: int = 1_000
) -> dict[int, dict[str, tuple[int, int]]]:
    """Minutes that end now, the last `since` of them with that share of bad ones."""
    return {
        NOW - n * MINUTE: {"s": (per_minute - round(per_minute * (bad if n <= since else 0)), per_minute)}
        for n in range(1, minutes + 1)
    }


def fires(tallies: dict[int, dict[str, tuple[int, int]]], *, peak: bool = False) -> tuple[bool, bool]:
    """Whether somebody is woken, and whether a ticket is written."""
    found = burns([SUCCESS], tallies, now=NOW, peak=peak)
    return worst(found, fast=True)["s"] >= 1, worst(found, fast=False)["s"] >= 1


def test_a_quiet_day_burns_nothing() -> None:
    assert fires(series(3 * DAY, 0)) == (False, False)


def test_an_outage_wakes_somebody_within_minutes() -> None:
    assert fires(series(3 * DAY, 1.0, since=1)) == (True, False)


def test_a_leak_of_ten_times_the_budget_wakes_somebody_after_hours_only() -> None:
    assert fires(series(3 * DAY, 0.01, since=60)) == (False, False)
    assert fires(series(3 * DAY, 0.01, since=230)) == (True, False)


def test_a_slow_leak_writes_a_ticket_and_wakes_nobody() -> None:
    assert fires(series(3 * DAY, 0.0015, since=3 * DAY)) == (False, True)


def test_what_is_over_stops_firing_though_its_budget_is_gone() -> None:
    outage = series(3 * DAY, 0)
    for n in range(10, 30):
        outage[NOW - n * MINUTE] = {"s": (0, 1_000)}
    assert fires(outage)[0] is True  # by the rule of six hours, whose short window is thirty minutes
    later = {at - 60 * MINUTE: value for at, value in outage.items()}
    assert fires(later) == (False, True)


def test_peak_days_are_stricter() -> None:
    leak = series(3 * DAY, 0.008, since=60)
    assert fires(leak) == (False, False)
    assert fires(leak, peak=True) == (True, False)


def test_a_handful_proves_nothing() -> None:
    assert fires(series(3 * DAY, 1.0, since=5, per_minute=1)) == (False, True)


@given(st.integers(0, 10_000), st.integers(1, 10_000), st.floats(0.5, 0.9999))
def test_a_burn_rate_of_one_is_exactly_the_budget(good: int, more: int, target: float) -> None:
    objective = Objective(id="x", kind="success", target=target)
    total = good + more
    found = compliance(objective, (good, total))
    assert rate(objective, (good, total)) * (1 - target) == pytest.approx((total - good) / total)
    assert found.budget_left == pytest.approx(1 - rate(objective, (good, total)))
    assert found.kept == (good / total >= target)


def test_what_receivers_cause_counts_for_neither_side() -> None:
    figures = Figures(attempts=100, delivered=60, receiver=38, ours=2)
    assert tally(SUCCESS, {"high/premium/x": figures}) == (60, 62)


def test_latency_objectives_count_the_deliveries_of_their_lane_and_tier() -> None:
    fast, slow = Figures(), Figures()
    fast.stage("reach").add(0.2, times=9)
    slow.stage("reach").add(0.8, times=1)
    paths = {
        "urgent/premium/delivered": fast,
        "urgent/standard/receiver": slow,
        "bulk/premium/delivered": slow,
    }
    urgent = next(o for o in OBJECTIVES if o.id == "latency/urgent")
    premium = next(o for o in OBJECTIVES if o.id == "latency/premium")
    assert tally(urgent, paths) == (10, 10)
    assert tally(urgent, paths, peak=True) == (9, 10)
    assert tally(premium, paths) == (10, 10)
    assert compliance(urgent, (0, 0)).kept is None
