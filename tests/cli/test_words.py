"""Durations, moments and pairs are read, and spans and times written, as people do."""

import pytest

from ringbearer import clock
from ringbearer.cli import output
from ringbearer.cli.options import duration, moment, pairs
from ringbearer.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "seconds"), [("2s", 2.0), ("250ms", 0.25), ("1.5m", 90.0), ("24h", 86_400.0), ("7", 7.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "nan", "inf", "2 parsecs", "2d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidInput):
        duration(text)


def test_moments_are_times_or_ages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: 1_800_000_000 * clock.SECOND)
    assert moment("2h") == "2027-01-15T06:00:00Z"
    assert moment("7d") == "2027-01-08T08:00:00Z"
    assert moment("2026-06-20T14:00:00+02:00") == "2026-06-20T14:00:00+02:00"
    for text in ("", "h", "2x", "2026-06-20", "2026-06-20T14:00:00", "²h", "99999999999999d"):
        with pytest.raises(InvalidInput):
            moment(text)


def test_pairs_are_split_at_the_first_separator() -> None:
    assert pairs(None, ":", "header") is None
    assert pairs(["A: b:c"], ":", "header") == {"A": "b:c"}
    for text in ("A", ": b"):
        with pytest.raises(InvalidInput, match="header"):
            pairs([text], ":", "header")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0421, "42 ms"),
        (2.0, "2 s"),
        (2.25, "2.2 s"),
        (90, "1 min 30 s"),
        (7_200, "2 h"),
        (7_260, "2 h 1 min"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert output.span(seconds) == text


def test_times_near_and_far() -> None:
    now = 1_800_000_000 * clock.SECOND
    assert output.when(None) == ""
    assert output.when(clock.to_datetime(now), now) == "now"
    assert output.when(clock.to_datetime(now - 90 * clock.SECOND), now) == "1 min 30 s ago"
    assert output.when(clock.to_datetime(now + 5 * clock.SECOND), now) == "in 5 s"
    earlier = clock.to_datetime(now - 48 * 3600 * clock.SECOND)
    assert output.when(earlier, now) == f"{earlier.astimezone():%Y-%m-%d %H:%M}"
