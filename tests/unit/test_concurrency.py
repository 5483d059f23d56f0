"""An endpoint's window grows where it is used, shrinks once for each round of distress, and begins slowly."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ringbearer import clock
from ringbearer.limits import concurrency
from ringbearer.limits.concurrency import FIRST_LIMIT, LEAST, Window

NOW = 1_700_000_000 * clock.SECOND
MOST = 1_000.0


def round_of(window: Window, now: int, *, well: bool = True) -> None:
    """Fill the window, and let all of it end."""
    count = window.room(None)
    for _ in range(count):
        concurrency.begun(window, now)
    for _ in range(count):
        if well:
            concurrency.succeeded(window, MOST)
        else:
            concurrency.distressed(window, began=now, now=now + 1)
        concurrency.ended(window)


def test_slow_start_grows_by_a_quarter_or_more_each_round() -> None:
    window = Window()
    limits = []
    for n in range(6):
        round_of(window, NOW + n)
        limits.append(window.limit)
    assert all(after >= 1.25 * before for before, after in pairwise(limits))
    for n in range(20):
        round_of(window, NOW + 10 + n)
    assert window.limit == MOST


def test_distress_halves_once_for_all_that_was_under_way() -> None:
    window = Window(limit=64.0, used_at=NOW)
    round_of(window, NOW, well=False)
    assert window.limit == 32.0
    round_of(window, NOW + 2, well=False)
    assert window.limit == 16.0


def test_after_distress_it_grows_by_about_one_each_round() -> None:
    window = Window(limit=64.0, used_at=NOW)
    round_of(window, NOW, well=False)
    for n in range(5):
        before = window.limit
        round_of(window, NOW + 2 + n)
        assert before < window.limit <= before + 1.0


@given(st.lists(st.booleans(), max_size=60))
def test_it_never_leaves_its_bounds(rounds: list[bool]) -> None:
    window = Window()
    for n, well in enumerate(rounds):
        round_of(window, NOW + 2 * n, well=well)
        assert LEAST <= window.limit <= MOST
        assert window.busy == 0


def test_what_is_not_used_does_not_grow() -> None:
    window = Window(limit=64.0, used_at=NOW)
    for n in range(100):
        concurrency.begun(window, NOW + n)
        concurrency.succeeded(window, MOST)
        concurrency.ended(window)
    assert window.limit == 64.0


def test_after_a_pause_it_begins_slowly() -> None:
    window = Window()
    for n in range(20):
        round_of(window, NOW + n)
    concurrency.begun(window, NOW + 3_600 * clock.SECOND)
    assert window.limit == FIRST_LIMIT


def test_the_owners_limit_is_above_it() -> None:
    assert Window(limit=64.0).room(3) == 3
    assert Window(limit=2.0).room(3) == 2
