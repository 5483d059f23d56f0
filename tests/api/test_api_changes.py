"""The change limit: an exact sliding window, with bounded memory."""

import pytest

from ringbearer.api import changes
from ringbearer.api.changes import ChangeLimit
from ringbearer.errors import TooManyRequests


class Time:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_the_window_slides() -> None:
    time = Time()
    limit = ChangeLimit(2, monotonic=time)
    limit.take("a")
    time.now += 20
    limit.take("a")
    with pytest.raises(TooManyRequests) as refused:
        limit.take("a")
    assert refused.value.retry_after == 40
    time.now += 39.9
    with pytest.raises(TooManyRequests):
        limit.take("a")
    time.now += 0.1
    limit.take("a")
    with pytest.raises(TooManyRequests) as refused:
        limit.take("a")
    assert refused.value.retry_after == 20
    limit.take("b")


def test_zero_takes_any_number() -> None:
    limit = ChangeLimit(0)
    for _ in range(1_000):
        limit.take("a")
    assert repr(limit) == "<ChangeLimit 0 per minute, 0 endpoints>"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MAX_ENDPOINTS", 10)
    time = Time()
    limit = ChangeLimit(5, monotonic=time)
    for number in range(100):
        limit.take(f"ep_{number}")
    assert repr(limit) == "<ChangeLimit 5 per minute, 10 endpoints>"
    time.now += 61
    limit.take("a")
    assert repr(limit) == "<ChangeLimit 5 per minute, 1 endpoints>"
