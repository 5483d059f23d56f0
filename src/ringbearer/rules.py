"""Rules that say into which lane a delivery goes: the first that fits decides, and is remembered as the reason."""

from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ringbearer import clock
from ringbearer.calendar import local_date
from ringbearer.domain.endpoints import EVENT_TYPE, matches
from ringbearer.domain.events import LANES, Priority
from ringbearer.domain.suppliers import Tier
from ringbearer.errors import InvalidInput
from ringbearer.priority import TIER_WEIGHTS

MAX_RULES = 100
_MOST_NARROWED = (
    1_000  # pairs of an event type and a tier, for each of which at most MAX_RULES are kept, twice
)
_Name = Annotated[str, Meta(min_length=1, max_length=100)]


class LaneRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fits an event that meets all the conditions it has; one without conditions fits every event."""

    name: _Name
    """Kept with each event that it decides for, as the reason."""
    lane: Priority | Literal["asked"]
    """`asked`: the lane that the publisher asked for. Such a rule fits only who asked for one."""
    event_types: tuple[str, ...] = ()
    """Patterns: a type, `prefix.*`, or `*`. One of them must match."""
    tiers: tuple[Tier, ...] = ()
    tags: tuple[str, ...] = ()
    """One of them must be among the event's."""
    priorities: tuple[Priority, ...] = ()
    """The publisher must have asked for one of them."""
    occasion_within_days: Annotated[int, Meta(ge=0, le=366)] | None = None
    """`occasion_date` must be today, or at most so many days ahead, in the supplier's time zone."""


DEFAULT_RULES = (
    LaneRule(name="asked for by the publisher", lane="asked"),
    LaneRule(name="the occasion is today or tomorrow", lane="urgent", occasion_within_days=1),
)


class PriorityConfiguration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which deliveries go first: lanes by rules, and within a lane the weights of suppliers' tiers."""

    rules: tuple[LaneRule, ...] = DEFAULT_RULES
    default: Priority = "normal"
    """The lane of an event that no rule fits."""
    tier_weights: dict[Tier, Annotated[float, Meta(ge=0.01, le=1_000)]] = {}
    """Shares of suppliers in a lane while all have work; a tier that is not named keeps its usual one."""

    def weights(self) -> dict[Tier, float]:
        """The weight of every tier."""
        return TIER_WEIGHTS | self.tier_weights


def check(configuration: PriorityConfiguration) -> None:
    """Raises InvalidInput with every problem that the types do not exclude."""
    problems = []
    if len(configuration.rules) > MAX_RULES:
        problems.append(("/rules", f"expected at most {MAX_RULES} rules"))
    for index, rule in enumerate(configuration.rules[:MAX_RULES]):
        for place, pattern in enumerate(rule.event_types):
            if pattern != "*" and not EVENT_TYPE.fullmatch(pattern.removesuffix(".*")):
                where = f"/rules/{index}/event_types/{place}"
                problems.append((where, "expected an event type, prefix.*, or *"))
    if problems:
        raise InvalidInput(problems[0][1], problems)


class _Candidates(msgspec.Struct, frozen=True, gc=False):
    """The rules that events of one type and tier can meet: those who ask for a lane, and those who do not."""

    asking: tuple[LaneRule, ...]
    plain: tuple[LaneRule, ...]


class Rules:
    """A configuration, ready to be asked."""

    def __init__(self, configuration: PriorityConfiguration | None = None) -> None:
        self.configuration = configuration or PriorityConfiguration()
        self._default = LANES.index(self.configuration.default)
        self._narrowed: dict[tuple[str, Tier], _Candidates] = {}

    def __repr__(self) -> str:
        return f"<Rules: {len(self.configuration.rules)}, else {self.configuration.default}>"

    def lane(
        self,
        event_type: str,
        tier: Tier,
        timezone: str,
        now: int,
        *,
        asked: Priority | None = None,
        tags: Sequence[str] = (),
        occasion: date | None = None,
    ) -> tuple[int, str | None]:
        """The lane's number, and the name of the rule that decided, None when none did; `now` is a stored time."""
        candidates = self._narrowed.get((event_type, tier)) or self._narrow(event_type, tier)
        for rule in candidates.asking if asked is not None else candidates.plain:
            if rule.occasion_within_days is not None and (
                occasion is None or not _is_near(occasion, rule.occasion_within_days, timezone, now)
            ):
                continue
            if rule.priorities and asked not in rule.priorities:
                continue
            if rule.tags and not any(tag in tags for tag in rule.tags):
                continue
            lane = asked if rule.lane == "asked" else rule.lane
            assert lane is not None
            return LANES.index(lane), rule.name
        return self._default, None

    def _narrow(self, event_type: str, tier: Tier) -> "_Candidates":
        """What can fit events of that type and tier at all, kept for the next of them."""
        asking = tuple(
            rule
            for rule in self.configuration.rules
            if (not rule.tiers or tier in rule.tiers)
            and (not rule.event_types or matches(rule.event_types, event_type))
        )
        plain = tuple(rule for rule in asking if rule.lane != "asked" and not rule.priorities)
        if len(self._narrowed) >= _MOST_NARROWED:
            self._narrowed.clear()
        found = self._narrowed[event_type, tier] = _Candidates(asking, plain)
        return found


def _is_near(occasion: date, days: int, timezone: str, now: int) -> bool:
    return 0 <= (occasion - _today(now // clock.SECOND, timezone)).days <= days


@lru_cache(1_024)  # many events come within a second, and a day begins with one
def _today(seconds: int, timezone: str) -> date:
    return local_date(clock.to_datetime(seconds * clock.SECOND), timezone)
