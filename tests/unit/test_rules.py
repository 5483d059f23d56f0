"""The first rule that fits decides on the lane, and its name is the reason."""

from datetime import UTC, date, datetime

import pytest

from ringbearer import clock
from ringbearer.domain.events import LANES, Priority
from ringbearer.errors import InvalidInput
from ringbearer.rules import LaneRule, PriorityConfiguration, Rules, check

FRIDAY_EVENING = clock.from_datetime(datetime(2027, 6, 18, 22, 30, tzinfo=UTC))
URGENT, HIGH, NORMAL, BULK = range(4)


@pytest.mark.parametrize("asked", LANES)
def test_by_default_a_publisher_gets_what_it_asks_for(asked: Priority) -> None:
    occasion = date(2027, 6, 18)
    lane, reason = Rules().lane("a", "standard", "UTC", FRIDAY_EVENING, asked=asked, occasion=occasion)
    assert (LANES[lane], reason) == (asked, "asked for by the publisher")


def test_by_default_who_asks_for_nothing_is_normal_without_a_reason() -> None:
    assert Rules().lane("a", "standard", "UTC", FRIDAY_EVENING) == (NORMAL, None)


@pytest.mark.parametrize(
    ("timezone", "day", "lane"),
    [
        ("UTC", date(2027, 6, 17), NORMAL),  # past
        ("UTC", date(2027, 6, 18), URGENT),
        ("UTC", date(2027, 6, 19), URGENT),
        ("UTC", date(2027, 6, 20), NORMAL),
        ("Europe/Paris", date(2027, 6, 18), NORMAL),  # it is Saturday there
        ("Europe/Paris", date(2027, 6, 20), URGENT),
        ("America/Los_Angeles", date(2027, 6, 19), URGENT),
    ],
)
def test_an_occasion_of_today_or_tomorrow_is_urgent_where_the_supplier_is(
    timezone: str, day: date, lane: int
) -> None:
    assert Rules().lane("a", "standard", timezone, FRIDAY_EVENING, occasion=day)[0] == lane


def test_all_conditions_of_a_rule_must_be_met_and_the_first_rule_counts() -> None:
    rules = Rules(
        PriorityConfiguration(
            rules=(
                LaneRule(
                    name="both",
                    lane="urgent",
                    event_types=("wedding.*",),
                    tiers=("premium",),
                    tags=("x", "y"),
                ),
                LaneRule(name="type", lane="high", event_types=("wedding.*", "booking.made")),
                LaneRule(name="rush", lane="asked", priorities=("urgent",)),
            ),
            default="bulk",
        )
    )
    now = FRIDAY_EVENING
    assert rules.lane("wedding.moved", "premium", "UTC", now, tags=("z", "y")) == (URGENT, "both")
    assert rules.lane("wedding.moved", "premium", "UTC", now, tags=("z",)) == (HIGH, "type")
    assert rules.lane("wedding.moved", "standard", "UTC", now, tags=("y",)) == (HIGH, "type")
    assert rules.lane("booking.made", "standard", "UTC", now, asked="bulk") == (HIGH, "type")
    assert rules.lane("booking.moved", "standard", "UTC", now, asked="urgent") == (URGENT, "rush")
    assert rules.lane("booking.moved", "standard", "UTC", now, asked="high") == (BULK, None)
    assert rules.lane("booking.moved", "standard", "UTC", now) == (BULK, None)


def test_a_pattern_that_can_match_nothing_is_refused() -> None:
    rule = LaneRule(name="r", lane="high", event_types=("ok.*", "*", "no space"))
    with pytest.raises(InvalidInput) as caught:
        check(PriorityConfiguration(rules=(rule,)))
    assert [pointer for pointer, _ in caught.value.problems] == ["/rules/0/event_types/2"]
    with pytest.raises(InvalidInput, match="at most 100"):
        check(PriorityConfiguration(rules=(LaneRule(name="r", lane="high"),) * 101))


def test_tiers_that_are_not_named_keep_their_weights() -> None:
    weights = PriorityConfiguration(tier_weights={"premium": 8}).weights()
    assert weights == {"standard": 1.0, "premium": 8, "enterprise": 4.0}


def test_what_is_kept_of_a_type_and_tier_never_answers_for_another() -> None:
    rules = Rules(
        PriorityConfiguration(
            rules=(
                LaneRule(name="paid", lane="high", event_types=("payment.*",), tiers=("premium",)),
                LaneRule(name="asked", lane="asked", event_types=("payment.*",)),
                LaneRule(name="tagged", lane="bulk", event_types=("report",), tags=("nightly",)),
            )
        )
    )

    def lanes() -> list[str | None]:
        return [
            rules.lane("payment.made", "premium", "UTC", 0)[1],
            rules.lane("payment.made", "standard", "UTC", 0)[1],
            rules.lane("payment.made", "standard", "UTC", 0, asked="urgent")[1],
            rules.lane("report", "premium", "UTC", 0)[1],
            rules.lane("report", "premium", "UTC", 0, tags=("nightly",))[1],
        ]

    first = lanes()
    for number in range(2_500):  # more types than are kept
        assert rules.lane(f"type.{number}", "premium", "UTC", 0) == (LANES.index("normal"), None)
    assert first == lanes() == ["paid", None, "asked", None, "tagged"]
