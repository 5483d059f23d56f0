"""Waits stay inside their bounds, whatever comes in."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ringbearer.backoff import exponential, jittered

SECONDS = st.floats(min_value=0, max_value=1e6)
UNIT = st.floats(min_value=0, max_value=1, exclude_max=True)


@settings(deadline=None)
@given(seconds=SECONDS, spread=st.floats(min_value=0, max_value=1), random=UNIT)
def test_a_jittered_wait_differs_by_no_more_than_its_spread(
    seconds: float, spread: float, random: float
) -> None:
    assert seconds * (1 - spread) - 1e-6 <= jittered(seconds, spread, random) <= seconds * (1 + spread) + 1e-6


def test_the_middle_of_the_random_range_is_the_wait_itself() -> None:
    assert jittered(300.0, 0.2, 0.5) == 300.0
    assert jittered(300.0, 0.2, 0.0) == 240.0


@settings(deadline=None)
@given(seconds=SECONDS, spread=st.floats(min_value=0, max_value=100), random=UNIT)
def test_a_jittered_wait_is_never_negative(seconds: float, spread: float, random: float) -> None:
    assert jittered(seconds, spread, random) >= 0


def test_exponential_doubles_until_it_is_capped() -> None:
    assert [exponential(n, first=0.25, most=3.0) for n in range(1, 7)] == [0.25, 0.5, 1.0, 2.0, 3.0, 3.0]


@settings(deadline=None)
@given(failures=st.integers(min_value=-5, max_value=10**9))
def test_exponential_stays_between_first_and_most(failures: int) -> None:
    assert 0.25 <= exponential(failures, first=0.25, most=30.0) <= 30.0


@settings(deadline=None)
@given(failures=st.integers(min_value=0, max_value=2_000))
def test_exponential_never_shrinks(failures: int) -> None:
    assert exponential(failures, first=0.1, most=60) <= exponential(failures + 1, first=0.1, most=60)
