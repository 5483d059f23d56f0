"""Every lane gets its share of the slots, and none waits for longer than its share calls for."""

import heapq
from collections import Counter
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringbearer.domain.events import LANES
from ringbearer.domain.suppliers import Tier
from ringbearer.priority import (
    FIRST_COST,
    MOST_TOLD,
    TIER_WEIGHTS,
    TYPICAL,
    WEIGHTS,
    Costs,
    FairOrder,
    Shares,
)

weights = st.lists(st.integers(1, 20), min_size=1, max_size=6)
demands = st.lists(st.integers(0, 40), min_size=1, max_size=60)


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


# ── the fair order within a lane ────────────────────────────────────────────────────────────────────────────

tiers = st.sampled_from(tuple(TIER_WEIGHTS))
crowds = st.lists(st.tuples(tiers, st.integers(1, 60)), min_size=2, max_size=8)


class Lane:
    """A lane as the queue serves it: by rank, and of equal ranks in the order in which they came."""

    def __init__(self) -> None:
        self.order = FairOrder()
        self._ready: list[tuple[int, int, str]] = []
        self._came = 0

    def queue(self, supplier: str, tier: Tier, *endpoints: str) -> None:
        for tag, endpoint in zip(self.order.tags(2, supplier, tier, endpoints), endpoints, strict=True):
            heapq.heappush(self._ready, (tag, self._came, endpoint))
            self._came += 1

    def serve(self) -> str:
        tag, _, endpoint = heapq.heappop(self._ready)
        self.order.advance([(2, tag)])
        return endpoint


@settings(max_examples=20)
@given(st.lists(tiers, min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_suppliers_with_work_get_their_shares_within_five_percent(
    given_tiers: list[Tier], random: Random
) -> None:
    lane = Lane()
    everybody = [(str(n), tier) for n, tier in enumerate(given_tiers)]
    rounds = 40
    total = int(rounds * sum(TIER_WEIGHTS[tier] for tier in given_tiers))
    coming = [(s, tier) for s, tier in everybody for _ in range(int(rounds * 1.2 * TIER_WEIGHTS[tier]))]
    random.shuffle(coming)
    for supplier, tier in coming:
        lane.queue(supplier, tier, supplier)
    got = Counter(lane.serve() for _ in range(total))
    for supplier, tier in everybody:
        expected = rounds * TIER_WEIGHTS[tier]
        assert abs(got[supplier] - expected) <= 0.05 * expected


@settings(max_examples=30)
@given(crowds, st.integers(0, 2_000))
def test_a_wait_is_bounded_by_how_many_suppliers_there_are_not_by_what_they_queue(
    given_crowds: list[tuple[Tier, int]], served: int
) -> None:
    """Whoever was idle waits for at most one delivery of each other, by weight, and one more."""
    lane = Lane()
    for number, (tier, count) in enumerate(given_crowds):
        for _ in range(20 * count):
            lane.queue(str(number), tier, str(number))
    for _ in range(min(served, 19 * sum(count for _, count in given_crowds))):
        lane.serve()
    lane.queue("late", "standard", "late")
    waited = 0
    while lane.serve() != "late":
        waited += 1
    assert waited <= sum(TIER_WEIGHTS[tier] + 1 for tier, _ in given_crowds)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=60))
def test_ranks_of_a_flow_only_grow(steps: list[tuple[int, int, bool]]) -> None:
    order = FairOrder()
    last: dict[tuple[int, int], int] = {}
    for lane, number, served in steps:
        (tag,) = order.tags(lane, str(number), "standard", (str(number),))
        assert tag > last.get((lane, number), -1)
        last[lane, number] = tag
        if served:
            order.advance([(lane, tag)])


@given(st.integers(1, 12))
def test_a_suppliers_endpoints_share_what_is_the_suppliers(count: int) -> None:
    lane = Lane()
    endpoints = [f"wide{n}" for n in range(count)]
    for _ in range(200):
        lane.queue("wide", "standard", *endpoints)
        for _ in range(count):
            lane.queue("narrow", "standard", "narrow")
    got = Counter(lane.serve() for _ in range(100 * count))
    assert abs(got["narrow"] - 50 * count) <= count + 1
    assert max(got[e] for e in endpoints) - min(got[e] for e in endpoints) <= 1


def test_a_busy_endpoint_does_not_hold_up_its_suppliers_others() -> None:
    lane = Lane()
    for _ in range(1_000):
        lane.queue("studio", "standard", "busy")
    lane.queue("studio", "standard", "quiet")
    assert "quiet" in [lane.serve() for _ in range(2)]


def test_what_another_process_gave_out_is_taken_over_once() -> None:
    one, other = FairOrder(), FairOrder()
    tags = [one.tags(2, "a", "standard", ("e",))[0] for _ in range(5)]
    told = one.busy()
    assert told == [(2, "a", "e", tags[-1] + FIRST_COST)]
    assert one.busy() == []
    other.merge(told)
    assert other.tags(2, "a", "standard", ("e",)) == [tags[-1] + FIRST_COST]
    other.advance([(2, 10**12)])
    other.merge(told)
    assert other.tags(2, "a", "standard", ("e",)) == [10**12]


def test_the_order_forgets_whom_nobody_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringbearer.priority._MAX_SUPPLIERS", 10)
    order = FairOrder()
    for n in range(9):
        order.tags(2, f"past{n}", "standard", ("e",))
    order.advance([(2, FIRST_COST)])
    for _ in range(3):
        order.tags(2, "ahead", "standard", ("e",))
    order.tags(2, "new", "standard", ("e",))
    assert order.tags(2, "ahead", "standard", ("e",)) == [4 * FIRST_COST]
    for n in range(
        100
    ):  # all of them ahead: the nearest are forgotten rather than that it grows without bound
        order.tags(2, f"more{n}", "standard", ("e",))
    assert sum(len(flows) for flows in order._flows) <= 10


def test_costs_follow_what_is_measured_and_are_told_when_they_differ() -> None:
    costs = Costs()
    assert costs.news() == []
    costs.add("e", FIRST_COST)
    assert costs.news() == []
    for _ in range(50):
        costs.add("e", 10 * FIRST_COST)
        costs.add("quick", 1)
    assert costs.news() == [("e", 10 * FIRST_COST - 6), ("quick", 1_001)]
    costs.add("e", 10 * FIRST_COST)
    assert costs.news() == []


def test_a_new_endpoint_is_charged_what_is_typical_and_not_a_guess() -> None:
    costs, order = Costs(), FairOrder()
    for _ in range(30):
        for n in range(20):
            costs.add(f"quick{n}", 2_000)
        costs.add("hangs", 30_000_000)
        order.learn(costs.news())
    first, second = (order.tags(2, "new", "standard", ("unknown",))[0] for _ in range(2))
    assert second - first == pytest.approx(2_000, rel=0.5)
    first, second = (order.tags(2, "slow", "standard", ("hangs",))[0] for _ in range(2))
    assert second - first == pytest.approx(30_000_000, rel=0.2)


def test_of_a_few_endpoints_nothing_is_called_typical() -> None:
    costs = Costs()
    for n in range(5):
        costs.add(f"e{n}", 2_000_000)
    assert TYPICAL not in dict(costs.news())


def test_an_endpoint_that_is_not_typical_is_told_once_that_is_known() -> None:
    """At first it cost what was guessed, and so nothing was told; then others showed what is typical."""
    costs = Costs()
    costs.add("guessed", FIRST_COST)
    assert costs.news() == []
    told: dict[str, int] = {}
    for _ in range(30):
        for n in range(20):
            costs.add(f"quick{n}", 2_000)
        costs.add("guessed", FIRST_COST)
        told |= costs.news()
    assert told["guessed"] == pytest.approx(FIRST_COST, rel=0.01)
    assert told[TYPICAL] < FIRST_COST / 5


def test_of_very_many_flows_those_furthest_ahead_are_told() -> None:
    order = FairOrder()
    for number in range(2 * MOST_TOLD):
        for _ in range(1 + number % 2):
            order.tags(2, f"s{number:04}", "standard", [f"e{number:04}"])
    told = order.busy()
    assert len(told) == MOST_TOLD
    assert {int(endpoint_id[1:]) % 2 for _, _, endpoint_id, _ in told} == {1}
    assert told == sorted(told)


def test_of_very_many_costs_those_that_changed_most_are_told_first_and_the_others_next() -> None:
    costs = Costs()
    told: set[str] = set()
    for _ in range(3):
        for number in range(2 * MOST_TOLD):
            costs.add(f"e{number:04}", (number + 1) * 10_000_000)
        news = [endpoint_id for endpoint_id, _ in costs.news() if endpoint_id != TYPICAL]
        assert len(news) == MOST_TOLD
        told.update(news)
    assert f"e{2 * MOST_TOLD - 1:04}" in told
    assert len(told) > MOST_TOLD
