"""A circuit opens for what it should open for, stays open longer each time, and closes on a success."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringbearer import clock
from ringbearer.domain.breakers import Circuit
from ringbearer.limits.breaker import BreakerPolicy, Calls, closed, note, opened

POLICY = BreakerPolicy()
NOW = 1_700_000_000 * clock.SECOND
FRESH = Circuit(endpoint_id="ep_1", supplier_id="studio")


def play(failures: str, policy: BreakerPolicy = POLICY) -> list[str | None]:
    """Note one call for each letter: `.` a success, `x` a failure, `c` a connect error."""
    calls = Calls()
    return [note(calls, policy, failed=each != ".", connect_error=each == "c") for each in failures]


@pytest.mark.parametrize(
    ("failures", "opens_at"),
    [
        pytest.param("x" * 10, 10, id="not-before-ten-calls"),
        pytest.param("x" * 9, None, id="nine-say-nothing"),
        pytest.param("ccccc", 5, id="five-connect-errors-in-a-row"),
        pytest.param("cccc.cccc", None, id="connect-errors-interrupted"),
        pytest.param(".x.x.x.x.x", 10, id="half-of-ten"),
        pytest.param("x.." * 20, None, id="a-third"),
        pytest.param("." * 100 + "x" * 9, None, id="nine-of-the-last-twenty"),
        pytest.param("." * 100 + "x" * 10, 110, id="ten-of-the-last-twenty"),
        pytest.param("." * 5 + "x" * 5 + ".", 10, id="a-success-does-not-open-it"),
    ],
)
def test_when_it_opens(failures: str, opens_at: int | None) -> None:
    reasons = play(failures)
    first = next((n for n, reason in enumerate(reasons, 1) if reason is not None), None)
    assert first == opens_at


@given(st.text(alphabet=".xc", max_size=200))
def test_the_count_window_is_what_counting_says(failures: str) -> None:
    for n, reason in enumerate(play(failures), 1):
        last = failures[max(0, n - POLICY.window) : n]
        half = last[-1] != "." and len(last) >= POLICY.calls and last.count(".") <= len(last) / 2
        row = failures[:n].endswith("c" * POLICY.connect_errors)
        assert (reason is not None) == (half or row)


def test_it_stays_open_twice_as_long_each_time() -> None:
    circuit = FRESH
    pauses = []
    for _ in range(8):
        circuit = opened(circuit, POLICY, reason="so", now=NOW, random=0.5)
        pauses.append((circuit.probe_at - NOW) / clock.SECOND)
    assert pauses == [30, 60, 120, 240, 480, 900, 900, 900]


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 12))
def test_jitter_keeps_its_bounds(random: float, times: int) -> None:
    circuit = FRESH
    for _ in range(times):
        circuit = opened(circuit, POLICY, reason="so", now=NOW, random=random)
    plain = min(900, 30 * 2 ** (times - 1))
    assert 0.8 * plain - 1 <= (circuit.probe_at - NOW) / clock.SECOND <= 1.2 * plain


def test_since_is_when_the_trouble_began() -> None:
    first = opened(FRESH, POLICY, reason="so", now=NOW, random=0.5)
    second = opened(first, POLICY, reason="so", now=NOW + 5, random=0.5)
    assert (second.since, second.opened) == (NOW, 2)
    healthy = closed(second, now=NOW + 9)
    assert (healthy.state, healthy.since, healthy.opened, healthy.reason) == ("closed", NOW + 9, 0, None)
    assert opened(healthy, POLICY, reason="so", now=NOW + 20, random=0.5).since == NOW + 20
