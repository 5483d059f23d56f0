"""Matching, state moves, ids and times keep their promises."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringbearer import clock, ids
from ringbearer.domain.deliveries import FINISHED, MOVES, State
from ringbearer.domain.endpoints import EVENT_TYPE, matches

WORD = st.text("abzAZ019_-", min_size=1, max_size=6)
TYPES = st.lists(WORD, min_size=1, max_size=5).map(".".join)

# ── matching ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("pattern", "event_type", "wanted"),
    [
        ("*", "booking.created", True),
        ("booking.created", "booking.created", True),
        ("booking.created", "booking.created.late", False),
        ("booking.*", "booking.created", True),
        ("booking.*", "booking.date.changed", True),
        ("booking.*", "booking", False),
        ("booking.*", "bookings.created", False),
        ("booking*", "booking.created", False),
        ("Booking.*", "booking.created", False),
        ("*.created", "booking.created", False),
    ],
)
def test_matching_by_example(pattern: str, event_type: str, wanted: bool) -> None:
    assert matches([pattern], event_type) is wanted


@settings(deadline=None)
@given(TYPES)
def test_every_type_matches_itself_the_star_and_its_own_prefixes(event_type: str) -> None:
    assert EVENT_TYPE.fullmatch(event_type)
    assert matches([event_type], event_type)
    assert matches(["*"], event_type)
    words = event_type.split(".")
    for length in range(1, len(words)):
        assert matches([".".join(words[:length]) + ".*"], event_type)
    assert not matches([event_type + ".*"], event_type)


@settings(deadline=None)
@given(TYPES, TYPES)
def test_a_prefix_pattern_matches_only_types_below_it(prefix: str, event_type: str) -> None:
    below = event_type.split(".")[: prefix.count(".") + 1] == prefix.split(".") and event_type != prefix
    assert matches([prefix + ".*"], event_type) is below


@settings(deadline=None)
@given(st.lists(TYPES | TYPES.map(lambda text: text + ".*")), TYPES)
def test_a_list_matches_when_any_of_its_patterns_does(patterns: list[str], event_type: str) -> None:
    assert matches(patterns, event_type) is any(matches([pattern], event_type) for pattern in patterns)


# ── states ──────────────────────────────────────────────────────────────────────────────────────────────────


def _reachable(start: State) -> set[State]:
    seen = {start}
    front = [start]
    while front:
        for state in MOVES[front.pop()] - seen:
            seen.add(state)
            front.append(state)
    return seen


def test_every_state_has_its_moves_and_none_moves_to_itself() -> None:
    assert set(MOVES) == set(State)
    assert all(state not in targets for state, targets in MOVES.items())


def test_only_a_claimed_delivery_can_succeed() -> None:
    assert [state for state in State if State.DELIVERED in MOVES[state]] == [State.LEASED]


def test_only_a_ready_delivery_can_be_claimed() -> None:
    assert [state for state in State if State.LEASED in MOVES[state]] == [State.READY]


@pytest.mark.parametrize("state", [state for state in State if state is not State.CANCELLED])
def test_from_everywhere_but_cancelled_a_delivery_can_still_arrive(state: State) -> None:
    assert State.DELIVERED in _reachable(state)


def test_cancelled_is_the_end() -> None:
    assert _reachable(State.CANCELLED) == {State.CANCELLED}


def test_everything_unfinished_can_be_cancelled() -> None:
    assert all(State.CANCELLED in MOVES[state] for state in State if state not in FINISHED)


# ── ids ─────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=ids.MAX_FANOUT - 1))
def test_a_delivery_id_leads_back_to_its_event(ordinal: int) -> None:
    event_id = ids.event()
    assert ids.event_of(ids.delivery(event_id, ordinal)) == event_id


@settings(deadline=None)
@given(*[st.integers(min_value=0, max_value=ids.MAX_FANOUT - 1)] * 2)
def test_an_events_deliveries_sort_by_ordinal(first: int, second: int) -> None:
    event_id = ids.event()
    assert (ids.delivery(event_id, first) < ids.delivery(event_id, second)) is (first < second)


def test_ids_are_different_and_say_what_they_are() -> None:
    made = [ids.event(), ids.event(), ids.endpoint(), ids.key(), ids.replay(), ids.worker()]
    assert len(set(made)) == len(made)
    assert [text.split("_")[0] for text in made] == ["evt", "evt", "ep", "key", "rpl", "wrk"]


def test_an_id_lies_between_the_floors_of_the_moments_around_it() -> None:
    before = clock.now()
    event_id = ids.event()
    after = clock.now() + clock.SECOND
    assert ids.floor("evt", before) <= event_id < ids.floor("evt", after)


@settings(deadline=None)
@given(*[st.integers(min_value=0, max_value=2**48 * 1000 - 1)] * 2)
def test_floors_are_in_the_order_of_time(first: int, second: int) -> None:
    assert (ids.floor("evt", first) < ids.floor("evt", second)) is (first // 1000 < second // 1000)


def test_the_floor_of_a_time_before_1970_is_the_lowest() -> None:
    assert ids.floor("dlv", -1) == ids.floor("dlv", 0)


# ── times ───────────────────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None)
@given(st.integers(min_value=-(10**16), max_value=10**17))
def test_a_stored_time_survives_the_way_through_a_datetime(microseconds: int) -> None:
    assert clock.from_datetime(clock.to_datetime(microseconds)) == microseconds


@settings(deadline=None)
@given(st.datetimes(timezones=st.timezones()))
def test_a_stored_time_is_the_same_moment_in_every_zone(moment: datetime) -> None:
    assert clock.from_datetime(moment) == clock.from_datetime(moment.astimezone(UTC))


def test_a_datetime_without_a_zone_is_no_moment() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        clock.from_datetime(datetime(2026, 6, 6))  # noqa: DTZ001
