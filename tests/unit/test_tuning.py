"""The queue's plan follows the load by plain queueing rules, and never swings to and fro."""

import math
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringbearer.priority import WEIGHTS
from ringbearer.queue import bottlenecks
from ringbearer.queue.bottlenecks import Flow
from ringbearer.queue.plan import MOST_BATCH, QueuePlan, differences, in_season
from ringbearer.queue.tuning import (
    Damper,
    QueueConfiguration,
    Situation,
    busy_slots,
    expected_wait,
    shares_of_workers,
    wanted_plan,
)
from ringbearer.season import SeasonState

CALM = Situation(
    slots=1_024,
    service=0.05,
    arrivals=(10.0, 10.0, 400.0, 10.0),
    backlog=(0, 0, 0, 0),
    waits=(0.01, 0.02, 0.05, 0.1),
    claim_seconds=0.01,
)
CONFIG = QueueConfiguration()
rates = st.floats(0, 20_000)


def test_littles_law_tells_how_many_slots_are_busy() -> None:
    assert busy_slots(200, 0.5) == 100


def test_with_one_slot_the_expected_wait_is_that_of_an_m_m_1_queue() -> None:
    for load in (0.1, 0.5, 0.9):
        assert expected_wait(load, 1.0, 1) == pytest.approx(load / (1 - load))
    assert expected_wait(2.0, 1.0, 1) == math.inf
    assert expected_wait(1.0, 1.0, 0) == math.inf


@given(st.floats(0.1, 0.9), st.integers(1, 500))
def test_with_more_slots_of_the_same_load_one_waits_less(load: float, slots: int) -> None:
    assert expected_wait(load * 2 * slots, 1.0, 2 * slots) <= expected_wait(load * slots, 1.0, slots)


def test_more_arrivals_make_larger_batches_and_fill_more_slots() -> None:
    busy = msgspec.structs.replace(CALM, arrivals=(100.0, 100.0, 9_000.0, 100.0))
    calm, why = wanted_plan(QueuePlan(), CALM, CONFIG)
    more, _ = wanted_plan(QueuePlan(), busy, CONFIG)
    assert more.batch_size > calm.batch_size
    assert more.prefetch > calm.prefetch
    assert set(why) >= {"max_wait", "batch_size", "prefetch"}


def test_a_lane_that_waits_too_long_gets_more_and_returns_to_its_usual_weight() -> None:
    late = msgspec.structs.replace(CALM, waits=(0.01, 0.02, 0.05, 300.0), backlog=(0, 0, 0, 900_000))
    raised, why = wanted_plan(QueuePlan(), late, CONFIG)
    assert raised.weights[:3] == WEIGHTS[:3]
    assert 1 < raised.weights[3] <= 8
    assert "bulk waits 300.00 s, not 60 s" in why["weights"]
    back, _ = wanted_plan(raised, CALM, CONFIG)
    assert back.weights == WEIGHTS


@given(
    st.tuples(rates, rates, rates, rates),
    st.tuples(*[st.integers(0, 10**7)] * 4),
    st.tuples(*[st.floats(0, 10**5)] * 4),
    st.floats(0, 60),
    st.floats(0, 10),
    st.integers(0, 20_000),
)
def test_whatever_is_measured_the_plan_stays_within_its_bounds(
    arrivals: tuple[float, float, float, float],
    backlog: tuple[int, int, int, int],
    waits: tuple[float, float, float, float],
    service: float,
    claim: float,
    slots: int,
) -> None:
    situation = Situation(
        slots=slots, service=service, arrivals=arrivals, backlog=backlog, waits=waits, claim_seconds=claim
    )
    plan, _ = wanted_plan(QueuePlan(), situation, CONFIG)
    msgspec.convert(msgspec.to_builtins(plan), QueuePlan)  # checks every bound
    assert all(weight >= usual for weight, usual in zip(plan.weights, WEIGHTS, strict=True))


@settings(max_examples=50)
@given(
    st.floats(10, 15_000),
    st.floats(0.001, 0.5),
    st.floats(0, 0.15),
    st.randoms(use_true_random=False),
)
def test_on_a_steady_load_with_noise_the_plan_comes_to_rest(
    rate: float, service: float, noise: float, random: object
) -> None:
    """A simulated queue: claims of the size that the plan says, waits and claim times that follow from it."""
    plan, damper, seen = QueuePlan(), Damper(), []
    draw = random.uniform  # type: ignore[attr-defined]
    for _ in range(60):
        shaken = rate * draw(1 - noise, 1 + noise)
        situation = msgspec.structs.replace(
            CALM,
            service=service * draw(1 - noise, 1 + noise),
            arrivals=(shaken / 4, shaken / 4, shaken / 4, shaken / 4),
            claim_seconds=0.002 + 1e-5 * min(plan.batch_size, shaken * (plan.max_wait + 0.002)),
        )
        plan = damper.damp(plan, wanted_plan(plan, situation, CONFIG)[0])
        seen.append(plan)
    for name in ("batch_size", "max_wait", "prefetch"):
        values = [getattr(p, name) for p in seen]
        moves = [b > a for a, b in pairwise(values) if a != b]
        turns = sum(a != b for a, b in pairwise(moves))
        assert turns <= 1, (name, values)
        assert len(set(values[30:])) <= 2, (name, values)


def test_a_wish_that_jumps_to_and_fro_changes_nothing() -> None:
    plan, damper = QueuePlan(), Damper()
    for n in range(30):
        wanted = msgspec.structs.replace(plan, batch_size=100 if n % 2 else 2_000)
        assert damper.damp(plan, wanted) == plan


def test_a_small_change_must_be_wanted_six_times_and_takes_their_median() -> None:
    plan, damper = QueuePlan(), Damper()
    wishes = [msgspec.structs.replace(plan, batch_size=size) for size in (620, 2_000, 640, 700, 660, 660)]
    assert [damper.damp(plan, wish).batch_size for wish in wishes] == [500, 500, 500, 500, 500, 660]


def test_a_large_change_must_be_wanted_three_times_and_takes_the_nearest_wish() -> None:
    plan, damper = QueuePlan(), Damper()
    wishes = [msgspec.structs.replace(plan, batch_size=size) for size in (900, 2_000, 800)]
    assert [damper.damp(plan, wish).batch_size for wish in wishes] == [500, 500, 800]


def test_a_season_is_laid_over_the_plan_and_taken_off_again() -> None:
    plan = QueuePlan()
    peak = SeasonState(phase="peak", weights=(9, 4, 2, 1), prefetch=0.8, threshold_factor=0.5)
    laid = in_season(plan, peak)
    assert (laid.weights, laid.prefetch, laid.backlog_age, laid.backlog_depth) == (
        (9, 4, 2, 1),
        0.8,
        30.0,
        50_000,
    )
    assert in_season(plan, SeasonState()) == plan
    assert differences(plan, laid).keys() == {"weights", "prefetch", "backlog_age", "backlog_depth"}


@given(st.dictionaries(st.text(min_size=1), st.floats(0, 1.5), max_size=12))
def test_only_workers_that_are_busier_than_the_others_fill_less(cpu: dict[str, float]) -> None:
    shares = shares_of_workers(cpu)
    assert all(0.25 <= share < 1 for share in shares.values())
    if shares:
        assert min(cpu[worker] for worker in shares) > sum(cpu.values()) / len(cpu)


def test_two_workers_are_balanced_by_what_they_use() -> None:
    assert shares_of_workers({"a": 0.9, "b": 0.3}) == {"a": 0.67}
    assert shares_of_workers({"a": 0.2, "b": 0.02}) == {}
    assert shares_of_workers({"a": 1.0}) == {}


# ── bottlenecks ─────────────────────────────────────────────────────────────────────────────────────────────

WAITING = Flow(ready=5_000, oldest=12.0, slots=1_024, held=300, worker_cpu=0.4)


@pytest.mark.parametrize(
    ("seen", "stage"),
    [
        ({"worker_cpu": 0.97}, "send"),
        ({"held": 1_000}, "receivers"),
        ({"store_seconds": 0.4}, "store"),
        ({"accept_cpu": 0.99}, "ingest"),
        ({"accept_lag": 0.6}, "ingest"),
        ({"claims": 40, "claim_seconds": 0.02}, "claim"),
        ({"settlements": 40, "settle_seconds": 0.02}, "settle"),
    ],
)
def test_the_stage_that_limits_is_named_with_its_evidence(seen: dict[str, float], stage: str) -> None:
    found = bottlenecks.find(msgspec.structs.replace(WAITING, **seen))
    assert [b.stage for b in found] == [stage]
    assert found[0].severity >= 1
    assert found[0].evidence


def test_the_worst_stage_comes_first() -> None:
    found = bottlenecks.find(msgspec.structs.replace(WAITING, worker_cpu=0.9, store_seconds=1.0))
    assert [b.stage for b in found] == ["store", "send"]


def test_where_nothing_waits_nothing_but_intake_and_store_can_limit() -> None:
    assert bottlenecks.find(Flow(worker_cpu=1.0, slots=10, held=10)) == []
    assert bottlenecks.find(WAITING) == []
    assert [b.stage for b in bottlenecks.find(Flow(accept_seconds=0.2))] == ["store"]


@pytest.mark.parametrize("arriving", [0.0, 3.0, 20_000.0])
@pytest.mark.parametrize("waiting", [0, 50, 300_000])
def test_no_worker_is_held_back_whatever_comes_or_waits(arriving: float, waiting: int) -> None:
    """Nothing arrives, and a million wait: small batches would make that the longest backlog of all."""
    situation = Situation(
        slots=1_024,
        service=0.01,
        arrivals=(0.0, 0.0, arriving, 0.0),
        backlog=(0, 0, waiting, 0),
        waits=(0.0, 0.0, waiting / 1_000, 0.0),
        claim_seconds=0.004,
    )
    plan, _ = wanted_plan(QueuePlan(), situation, QueueConfiguration())
    usual = QueuePlan()
    assert plan.batch_size >= usual.batch_size
    assert plan.prefetch >= usual.prefetch
    assert plan.max_wait >= usual.max_wait
    if waiting > 100_000:
        assert plan.batch_size == MOST_BATCH
