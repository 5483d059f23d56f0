"""Every lane gets its share of the slots, and none waits for longer than its share calls for."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringbearer.domain.events import LANES, Priority
from ringbearer.priority import WEIGHTS, Shares, lane_of

weights = st.lists(st.integers(1, 20), min_size=1, max_size=6)
demands = st.lists(st.integers(0, 40), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("said", "lane"), [("urgent", 0), ("high", 1), ("normal", 2), ("bulk", 3), (None, 2)]
)
def test_the_lane_of_what_a_publisher_asked_for(said: Priority | None, lane: int) -> None:
    assert lane_of(said) == lane


def test_every_lane_has_a_weight_and_the_more_important_has_more() -> None:
    assert len(WEIGHTS) == len(LANES)
    assert list(WEIGHTS) == sorted(WEIGHTS, reverse=True)
    assert min(WEIGHTS) > 0


@given(weights, demands)
def test_quotas_add_up_to_the_slots_and_none_is_negative(given_weights: list[int], slots: list[int]) -> None:
    shares = Shares(given_weights)
    for demand in slots:
        quotas = shares.quotas(demand)
        assert sum(quotas) == demand
        assert min(quotas) >= 0
        assert len(quotas) == len(given_weights)


@given(weights, st.integers(1, 50))
def test_shares_come_within_five_percent_of_the_weights(given_weights: list[int], demand: int) -> None:
    shares = Shares(given_weights)
    got: Counter[int] = Counter()
    total = 0
    while total < 100 * sum(given_weights):
        got.update(dict(enumerate(shares.quotas(demand))))
        total += demand
    for lane, weight in enumerate(given_weights):
        expected = total * weight / sum(given_weights)
        assert abs(got[lane] - expected) <= 0.05 * expected


@given(weights, demands)
def test_at_no_time_is_a_lane_further_from_its_share_than_the_number_of_lanes(
    given_weights: list[int], slots: list[int]
) -> None:
    shares = Shares(given_weights)
    got = [0] * len(given_weights)
    for n, demand in enumerate(slots, 1):
        got = [a + b for a, b in zip(got, shares.quotas(demand), strict=True)]
        for lane, weight in enumerate(given_weights):
            due = sum(slots[:n]) * weight / sum(given_weights)
            assert abs(got[lane] - due) < len(given_weights)


@given(weights)
def test_with_single_slots_no_lane_waits_for_more_than_two_of_its_rounds(given_weights: list[int]) -> None:
    shares = Shares(given_weights)
    last = dict.fromkeys(range(len(given_weights)), 0)
    for turn in range(1, 4 * sum(given_weights) + 1):
        lane = shares.quotas(1).index(1)
        assert turn - last[lane] <= 2 * -(-sum(given_weights) // given_weights[lane])
        last[lane] = turn


def test_with_the_usual_weights_the_least_lane_is_served_once_in_every_fifteen_slots() -> None:
    shares = Shares()
    order = [shares.quotas(1).index(1) for _ in range(150)]
    assert order.index(0) == 0
    served = [turn for turn, lane in enumerate(order) if lane == 3]
    assert {b - a for a, b in pairwise(served)} == {15}
    assert Counter(order) == {0: 80, 1: 40, 2: 20, 3: 10}
