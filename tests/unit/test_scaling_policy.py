"""The policy: enough workers at once, fewer only when that is sure, and nothing that can be told it makes it swing.

The simulations drive it with a small model of a service: workers that start late, a backlog that they drain.
"""

import math
from collections.abc import Callable, Iterable
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringbearer.domain.scaling import Floors, LoadMetrics, ScalingPolicy
from ringbearer.scaling.policy import Memory, Recommendation, decide

POLICY = ScalingPolicy(maximum=40)
NEW, NONE = Memory(), Floors()
QUIET = LoadMetrics(workers=2, slots=100, hold_seconds=1.0)


def once(
    load: LoadMetrics,
    policy: ScalingPolicy = POLICY,
    *,
    memory: Memory = NEW,
    peak: bool = False,
    floors: Floors = NONE,
    now: float = 1_000.0,
) -> Recommendation:
    return decide(load, policy, memory, now=now, peak=peak, floors=floors)[0]


def changed(load: LoadMetrics, **fields: object) -> LoadMetrics:
    return msgspec.structs.replace(load, **fields)


class Service:
    """A model: each worker delivers `slots / hold_seconds` a second; a new one begins after `start` seconds."""

    def __init__(self, policy: ScalingPolicy = POLICY, *, workers: int = 1, start: float = 3.0) -> None:
        self.policy = policy
        self.backlog = 0.0
        self.now = 0.0
        self.memory = Memory()
        self._births = [-start] * workers
        self._start = start
        self.history: list[Recommendation] = []

    @property
    def ready(self) -> int:
        return sum(self.now - birth >= self._start for birth in self._births)

    @property
    def wanted(self) -> list[int]:
        return [found.desired for found in self.history]

    def run(
        self,
        seconds: int,
        arrivals: Callable[[float], float],
        *,
        peak: bool = False,
        missing: Iterable[str] = (),
    ) -> None:
        """Let so many seconds go by."""
        for _ in range(seconds):
            rate = arrivals(self.now)
            capacity = self.ready * QUIET.slots / QUIET.hold_seconds
            done = min(capacity, self.backlog + rate)
            self.backlog += rate - done
            load = changed(
                QUIET,
                workers=self.ready,
                arrivals=rate,
                backlog=(0, 0, int(self.backlog), 0),
                oldest=(0.0, 0.0, self.backlog / capacity if capacity else 0.0, 0.0),
                missing=tuple(missing),
            )
            found, self.memory = decide(
                load, self.policy, self.memory, now=self.now, peak=peak, floors=Floors()
            )
            self.history.append(found)
            while len(self._births) < found.desired:
                self._births.append(self.now)
            del self._births[found.desired :]
            self.now += 1.0


def turns(numbers: list[int]) -> int:
    """How often a sequence changes its direction."""
    moves = [b - a for a, b in pairwise(numbers) if a != b]
    return sum((a > 0) != (b > 0) for a, b in pairwise(moves))


# ── the formula ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "needed"),
    [
        ({"arrivals": 70.0}, 1),
        ({"arrivals": 70.1}, 2),
        ({"arrivals": 70.0, "retry_ratio": 1.0}, 2),
        ({"arrivals": 70.0, "hold_seconds": 3.0}, 3),
        ({"arrivals": 70.0, "slots": 50}, 2),
        ({"backlog": (0, 0, 4_200, 0)}, 1),  # in a minute, the normal lane's time
        ({"backlog": (4_200, 0, 0, 0)}, 12),  # in five seconds
        ({"backlog": (0, 0, 4_200, 0), "oldest": (0.0, 0.0, 30.0, 0.0)}, 2),  # half of the minute is gone
        ({"backlog": (0, 0, 4_200, 0), "oldest": (0.0, 0.0, 9e9, 0.0)}, 4),  # at most four times as fast
        ({"arrivals": 70.0, "cpu_seconds": 0.03}, 3),  # by processor time: 2.1 of it, at 70 %
    ],
)
def test_the_load_asks_for_as_many_as_the_formula_says(fields: dict[str, object], needed: int) -> None:
    assert once(changed(QUIET, **fields)).needed == needed


def test_every_recommendation_tells_its_rule() -> None:
    busy = changed(QUIET, arrivals=280.0)
    cases = {
        "load": once(busy),
        "minimum": once(QUIET, msgspec.structs.replace(POLICY, minimum=3)),
        "maximum": once(busy, msgspec.structs.replace(POLICY, maximum=3)),
        "forecast": once(QUIET, floors=Floors(forecast=5)),
        "season": once(QUIET, floors=Floors(forecast=2, season=5)),
        "pace": once(changed(QUIET, arrivals=700.0)),
        "calm": once(changed(QUIET, workers=9)),
        "doubt": once(changed(busy, missing=("a heartbeat",))),
        "fixed": once(busy, msgspec.structs.replace(POLICY, fixed=7)),
    }
    assert {name: found.rule for name, found in cases.items()} == {name: name for name in cases}
    assert cases["season"].desired == 5  # plans stand at once
    assert cases["fixed"].desired == 7
    assert once(changed(busy, store_workers=3)).rule == "store"
    assert once(changed(busy, store_workers=3)).desired == 3
    assert once(changed(busy, store_seconds=5.0)).desired == 2
    for found in cases.values():
        assert found.reason


# ── properties ──────────────────────────────────────────────────────────────────────────────────────────

_any_float = st.floats(allow_nan=True, allow_infinity=True)
_loads = st.builds(
    LoadMetrics,
    workers=st.integers(0, 50),
    slots=st.integers(-1, 2_000),
    arrivals=_any_float,
    retry_ratio=_any_float,
    hold_seconds=_any_float,
    cpu_seconds=st.floats(0, 1),
    backlog=st.tuples(*[st.integers(-10, 10**9)] * 4),
    oldest=st.tuples(*[_any_float] * 4),
    store_seconds=st.floats(0, 5),
    store_workers=st.none() | st.integers(0, 50),
    missing=st.just(()) | st.just(("a heartbeat",)),
)


@given(loads=st.lists(_loads, min_size=1, max_size=30), peak=st.booleans())
def test_whatever_it_is_told_it_stays_within_its_bounds_and_its_pace(
    loads: list[LoadMetrics], peak: bool
) -> None:
    """Lying metrics among them: not a number, negative, beyond all measure."""
    policy = ScalingPolicy(minimum=2, maximum=40)
    memory, now = Memory(decided=((0.0, 5),)), 0.0
    decided = [5]
    for load in loads:
        found, memory = decide(load, policy, memory, now=now, peak=peak, floors=Floors())
        before = decided[-1]
        assert 0 <= found.desired <= 40
        growth = policy.peak_growth if peak else policy.growth
        assert found.desired <= max(before, math.floor(before * growth), before + 1, policy.minimum)
        # Nothing here lasts for the calm time, so nothing shrinks.
        assert found.desired >= before
        decided.append(found.desired)
        now += 1.0


@given(st.lists(st.integers(0, 30), min_size=2, max_size=60))
def test_shrinking_keeps_its_pace(needs: list[int]) -> None:
    memory, now = Memory(decided=((0.0, 40),)), 0.0
    decided: list[tuple[float, int]] = [(0.0, 40)]
    for need in [0] * 310 + needs:
        load = changed(QUIET, arrivals=need * 70.0)
        found, memory = decide(load, POLICY, memory, now=now, peak=False, floors=Floors())
        minute_ago = max(n for at, n in decided if at >= now - 60 or at == decided[0][0])
        assert found.desired >= minute_ago - max(1, minute_ago // 4)
        decided.append((now, found.desired))
        now += 1.0


@given(_loads, st.integers(0, 40))
def test_missing_signals_never_shrink(load: LoadMetrics, before: int) -> None:
    memory = Memory(recommended=((-1e6, 0),), decided=((-1e6, before),))
    found = once(changed(load, missing=("a heartbeat of work church:7",)), memory=memory)
    assert found.desired >= before


# ── simulations ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_tenfold_step_is_answered_at_once_and_without_swinging() -> None:
    service = Service()
    service.run(30, lambda _: 60.0)
    assert service.wanted[-1] == 1
    service.run(120, lambda _: 600.0)
    assert service.wanted[30] > 1  # the first look after the step
    assert service.ready * 100 >= 600
    assert max(service.wanted) <= 2 * math.ceil(
        600 / 70
    )  # the backlog of the start is paid for, within bounds
    service.run(900, lambda _: 600.0)
    assert service.wanted[-1] == math.ceil(600 / 70)
    assert turns(service.wanted) <= 1
    assert service.backlog == 0


def test_on_a_peak_day_the_same_step_is_answered_at_least_two_fifths_quicker() -> None:
    def until_covered(peak: bool) -> float:
        service = Service(msgspec.structs.replace(POLICY, maximum=64), start=0.0)
        service.run(30, lambda _: 30.0, peak=peak)
        began = service.now
        while service.ready * 100 < 3_000:
            service.run(1, lambda _: 3_000.0, peak=peak)
        return service.now - began

    ordinary, peak = until_covered(False), until_covered(True)
    assert peak <= 0.6 * ordinary, (ordinary, peak)


def test_a_ramp_is_followed_before_workers_are_full() -> None:
    service = Service()
    service.run(600, lambda now: 1.5 * now)
    assert service.backlog < 100
    assert turns(service.wanted) <= 1


def test_a_spike_goes_up_at_once_and_down_late_and_slowly() -> None:
    service = Service()
    service.run(60, lambda _: 60.0)
    service.run(20, lambda _: 900.0)
    service.run(900, lambda _: 60.0)
    top = max(service.wanted)
    peak_at = service.wanted.index(top)
    assert all(n == top for n in service.wanted[peak_at : peak_at + 290])
    assert service.wanted[-1] == 1
    assert turns(service.wanted) == 1


def test_a_sawtooth_does_not_make_it_swing() -> None:
    service = Service()
    service.run(3_600, lambda now: 500.0 if now % 120 < 60 else 50.0)
    assert turns(service.wanted[300:]) == 0
    assert service.backlog < 500


def test_signals_that_go_and_come_back_hold_the_number() -> None:
    service = Service()
    service.run(60, lambda _: 600.0)
    before = service.wanted[-1]
    service.run(900, lambda _: 0.0, missing=["a heartbeat"])
    assert set(service.wanted[60:]) == {before}
    service.run(295, lambda _: 0.0)
    assert service.wanted[-1] == before  # calm is counted from when it can be seen
    service.run(1_200, lambda _: 0.0)
    assert service.wanted[-1] == 1


def test_a_new_leader_looks_for_the_calm_time_before_it_shrinks() -> None:
    service = Service(workers=12)
    service.run(295, lambda _: 60.0)
    assert set(service.wanted) == {12}
    service.run(1_200, lambda _: 60.0)
    assert service.wanted[-1] == 1


def test_a_long_calm_is_remembered_in_little_and_still_asks_for_all_of_it() -> None:
    """A day of calm, decided upon each second, must not be a tuple of a day's seconds."""
    policy = ScalingPolicy(maximum=40, calm_seconds=3_600)
    busy, idle = changed(QUIET, workers=4, arrivals=250.0), changed(QUIET, workers=4, arrivals=10.0)
    memory, desired = Memory(), []
    for second in range(3_700):
        load = busy if second < 60 else idle
        found, memory = decide(load, policy, memory, now=float(second), peak=False, floors=NONE)
        desired.append(found.desired)
        assert len(memory.recommended) + len(memory.decided) < 10
    assert desired[3_600] == 4
    assert desired.index(3) == pytest.approx(60 + 3_600, abs=40)
