"""What follows from a try is one rule of its arguments, and stays inside its bounds."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringbearer import clock
from ringbearer.clock import SECOND
from ringbearer.delivery.outcome import Exchange
from ringbearer.delivery.retry import (
    JITTER,
    LONGEST_PAUSE,
    LONGEST_UNASKED_PAUSE,
    SHORTEST_PAUSE,
    Verdict,
    judge,
)
from ringbearer.domain.deliveries import MOVES, State
from ringbearer.domain.endpoints import DEFAULT_RETRY_SCHEDULE

NOW = clock.from_datetime(datetime(2026, 6, 6, 12, 0, tzinfo=UTC))
SCHEDULE = (5.0, 300.0, 7_200.0)


def _answer(status: int, retry_after: bytes | None = None) -> Exchange:
    lines = [b"HTTP/1.1 %d X\r\n" % status]
    if retry_after is not None:
        lines.append(b"Retry-After: " + retry_after + b"\r\n")
    return Exchange(started_at=NOW, duration=1, status=status, head=b"".join([*lines, b"\r\n"]))


def _failed(curl_code: int = 28, status: int = 0) -> Exchange:
    return Exchange(started_at=NOW, duration=1, status=status, curl_code=curl_code, curl_message="no luck")


def _judge(exchange: Exchange, attempt: int = 1, random: float = 0.5) -> Verdict:
    return judge(exchange, attempt=attempt, schedule=SCHEDULE, now=NOW, random=random)


def _pause(exchange: Exchange, attempt: int = 1) -> float | None:
    until = _judge(exchange, attempt).slow_until
    return None if until is None else (until - NOW) / SECOND


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_2xx_is_delivered(status: int) -> None:
    assert _judge(_answer(status), attempt=99) == Verdict(State.DELIVERED)


def test_a_2xx_that_was_larger_than_we_read_is_delivered_case_51() -> None:
    for curl_code in (23, 63):
        exchange = _answer(200)
        exchange.curl_code = curl_code
        assert _judge(exchange).state is State.DELIVERED


@pytest.mark.parametrize(
    "exchange",
    [
        pytest.param(_answer(302), id="case-46-redirect"),
        pytest.param(_answer(404), id="404"),
        pytest.param(_answer(500), id="500"),
        pytest.param(_answer(999), id="case-57-999"),
        pytest.param(_answer(101), id="case-60-upgrade"),
        pytest.param(_failed(6), id="case-42-dns"),
        pytest.param(_failed(28), id="case-49-timeout"),
        pytest.param(_failed(60), id="case-64-certificate"),
        pytest.param(_failed(56, status=200), id="case-45-reset-inside-a-200"),
        pytest.param(_failed(28, status=410), id="a-410-that-broke-off"),
    ],
)
def test_any_other_failure_is_tried_again(exchange: Exchange) -> None:
    assert _judge(exchange) == Verdict(State.SCHEDULED, due_at=NOW + 5 * SECOND)


@pytest.mark.parametrize(("attempt", "wait"), enumerate(SCHEDULE, start=1))
def test_try_n_waits_for_entry_n_of_the_schedule(attempt: int, wait: float) -> None:
    assert _judge(_failed(), attempt).due_at == NOW + int(wait * SECOND)
    assert _judge(_failed(), attempt, random=0).due_at == NOW + int(wait * (1 - JITTER) * SECOND)


def test_after_the_schedule_it_is_dead() -> None:
    assert _judge(_failed(), attempt=4) == Verdict(State.DEAD, reason="given up after 4 attempts")
    assert judge(_failed(), attempt=1, schedule=(), now=NOW, random=0.5).state is State.DEAD


def test_a_blocked_address_is_dead_at_once() -> None:
    exchange = _failed(7)
    exchange.blocked = "127.0.0.1 is a loopback address"
    reason = "blocked_address: 127.0.0.1 is a loopback address"
    assert _judge(exchange) == Verdict(State.DEAD, reason=reason)


def test_410_holds_the_delivery_and_disables_the_endpoint_case_62() -> None:
    for attempt in (1, 4):
        verdict = _judge(_answer(410, b"60"), attempt)
        assert (verdict.state, verdict.disable, verdict.due_at) == (State.HELD, True, None)
        assert verdict.reason is not None


# ── pauses ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [429, 503, 500, 302, 404])
def test_any_failure_may_ask_for_a_pause(status: int) -> None:
    verdict = _judge(_answer(status, b"120"))
    assert verdict.slow_until == verdict.due_at == NOW + 120 * SECOND


@pytest.mark.parametrize("status", [429, 503])
def test_busy_answers_slow_the_endpoint_without_asking_case_62(status: int) -> None:
    assert _pause(_answer(status), attempt=1) == 5
    assert _pause(_answer(status), attempt=2) == LONGEST_UNASKED_PAUSE
    assert _pause(_answer(status), attempt=4) == LONGEST_UNASKED_PAUSE


@pytest.mark.parametrize("exchange", [_answer(500), _answer(302), _failed(), _failed(56, status=503)])
def test_other_failures_do_not(exchange: Exchange) -> None:
    assert _pause(exchange) is None


def test_a_short_pause_does_not_shorten_the_schedule() -> None:
    verdict = _judge(_answer(503, b"2"), attempt=2)
    assert verdict.due_at == NOW + 300 * SECOND
    assert verdict.slow_until == NOW + 2 * SECOND


def test_a_dead_letter_still_pauses_its_endpoint() -> None:
    verdict = _judge(_answer(503, b"30"), attempt=4)
    assert verdict.state is State.DEAD
    assert verdict.slow_until == NOW + 30 * SECOND


@pytest.mark.parametrize(
    ("value", "pause"),
    [
        (b"0", SHORTEST_PAUSE),
        (b"90", 90),
        (b"1000000000", LONGEST_PAUSE),
        (b"Sat, 06 Jun 2026 12:10:00 GMT", 600),
        (b"Saturday, 06-Jun-26 12:10:00 GMT", 600),
        (b"Sat Jun  6 12:10:00 2026", 600),
        (b"Sat, 06 Jun 2020 12:10:00 GMT", SHORTEST_PAUSE),
        (b"Thu, 31 Dec 2099 23:59:59 GMT", LONGEST_PAUSE),
    ],
)
def test_retry_after_is_clamped_case_61(value: bytes, pause: float) -> None:
    assert _pause(_answer(500, value)) == pause


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"-1",
        b"+5",
        b"NaN",
        b"inf",
        b"1e3",
        b"1.5",
        b"0x10",
        b"5 s",
        b"9" * 16,
        b"9" * 100_000,
        b"\xb2",
        b"tomorrow",
        b"Sat, 99 Jun 2026 12:10:00 GMT",
        b"Sat, 06 Jun 99999 12:10:00 GMT",
        b"Sat, 06 Jun 2026 12:10:00 +999999999999",
        b"Sat, 06 Jun 2026 12:10:00 GMT" + b" " * 100 + b"x",
    ],
)
def test_a_malformed_retry_after_is_ignored_case_61(value: bytes) -> None:
    assert _pause(_answer(500, value)) is None


RETRY_AFTER = (
    st.none()
    | st.integers(-10, 10**10).map(lambda number: str(number).encode())
    | st.binary(max_size=70).filter(lambda value: b"\n" not in value)
    | st.text("SatJun,:0123456789GMT+- ", max_size=70).map(str.encode)
)


@settings(deadline=None)
@given(
    status=st.integers(100, 999),
    retry_after=RETRY_AFTER,
    curl_code=st.sampled_from([0, 0, 0, 7, 23, 28, 56, 60, 63]),
    blocked=st.none() | st.just("10.0.0.1 is a private address"),
    attempt=st.integers(1, 12),
    schedule=st.lists(st.floats(0, 10**6), max_size=10) | st.just(DEFAULT_RETRY_SCHEDULE),
    random=st.floats(0, 1, exclude_max=True),
)
def test_every_verdict_is_a_legal_move_within_its_bounds(
    status: int,
    retry_after: bytes | None,
    curl_code: int,
    blocked: str | None,
    attempt: int,
    schedule: list[float],
    random: float,
) -> None:
    exchange = _answer(status, retry_after)
    exchange.curl_code = curl_code
    exchange.blocked = blocked
    verdict = judge(exchange, attempt=attempt, schedule=schedule, now=NOW, random=random)
    assert verdict.state in MOVES[State.LEASED]
    assert (verdict.due_at is not None) is (verdict.state is State.SCHEDULED)
    assert not verdict.disable or verdict.state is State.HELD
    if verdict.slow_until is not None:
        assert NOW + SHORTEST_PAUSE * SECOND <= verdict.slow_until <= NOW + LONGEST_PAUSE * SECOND
    if verdict.due_at is not None:
        own = schedule[attempt - 1]
        assert NOW + own * (1 - JITTER) * SECOND - 1 <= verdict.due_at
        assert verdict.due_at <= NOW + max(own * (1 + JITTER), LONGEST_PAUSE) * SECOND + 1
