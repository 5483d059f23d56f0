"""When alerts begin and end, and the ladder: recorded series, played with a clock of their own."""

import itertools
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringbearer.domain.alerts import Alert, Channel, Notice, QuietHours, Rule, Silence
from ringbearer.monitor.alerting import LOOK_SECONDS
from ringbearer.monitor.alerts import RECLAIM, due, step
from ringbearer.monitor.monitor import FLUSH_SECONDS
from ringbearer.monitor.rules import DEFAULT_RULES

BEGAN = datetime(2027, 6, 19, 12, 0, tzinfo=UTC)
"""A Saturday in the season."""
RULE = Rule(
    id="r",
    summary="{group} is at {value}",
    metric="m",
    threshold=10,
    clear=5,
    for_seconds=6,
    clear_seconds=10,
)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


class Replay:
    """Plays a series, a value every two seconds, and keeps what became of it."""

    def __init__(self, rule: Rule = RULE) -> None:
        self.rule = rule
        self.live: dict[str, Alert] = {}
        self.history: list[tuple[float, str]] = []
        self._numbers = itertools.count()

    def play(self, values: Iterable[float | None], *, group: str = "g", start: float = 0) -> None:
        for n, value in enumerate(values):
            signals = {} if value is None else {("m", group): value}
            self.look(signals, start + 2 * n)

    def look(self, signals: Mapping[tuple[str, str], float], seconds: float) -> None:
        changed, dropped = step(
            [self.rule],
            list(self.live.values()),
            signals,
            now=at(seconds),
            new_id=lambda: f"a{next(self._numbers)}",
        )
        for alert in dropped:
            del self.live[alert.id]
        for alert in changed:
            before = self.live.pop(alert.id, None)
            if alert.state != "resolved":
                self.live[alert.id] = alert
            if before is None or before.state != alert.state:
                self.history.append((seconds, alert.state))

    @property
    def told(self) -> list[tuple[float, str]]:
        return [(seconds, state) for seconds, state in self.history if state != "pending"]


def test_a_step_fires_after_its_time_and_ends_after_its_own() -> None:
    replay = Replay()
    replay.play([1, 1, 50, 50, 50, 50, 50, 2, 2, 2, 2, 2, 2, 2])
    assert replay.told == [(10, "firing"), (24, "resolved")]


@pytest.mark.parametrize("rule", DEFAULT_RULES, ids=lambda rule: rule.id)
@pytest.mark.parametrize("phase", [0.001, 0.5, 1, 1.5, 2])
def test_whatever_begins_is_found_within_ten_seconds(rule: Rule, phase: float) -> None:
    """It is written at the end of a flush, and seen from the next look on, which comes `phase` later."""
    assert max(FLUSH_SECONDS, LOOK_SECONDS) <= 5
    replay = Replay(rule)
    good, bad = rule.threshold, rule.threshold + (1 if rule.above else -1)
    replay.look({(rule.metric, "g"): good}, phase - LOOK_SECONDS)
    assert not replay.live
    for n in range(10):
        replay.look({(rule.metric, "g"): bad}, phase + n * LOOK_SECONDS)
    ((fired, _),) = replay.told
    assert FLUSH_SECONDS + fired <= 10


def test_what_is_worse_only_for_a_moment_wakes_nobody() -> None:
    replay = Replay()
    replay.play([1, 50, 50, 1, 50, 50, 1, 1])
    assert replay.told == []
    assert replay.live == {}


def test_a_flap_is_one_alert() -> None:
    """Every few seconds good and bad again: it ends once, when it stays good."""
    replay = Replay()
    replay.play([50] * 4 + [2, 50] * 20 + [2] * 6)
    assert replay.told == [(6, "firing"), (98, "resolved")]


def test_between_the_threshold_and_its_clearing_nothing_changes() -> None:
    replay = Replay()
    replay.play([50] * 4 + [7] * 50)
    assert replay.told == [(6, "firing")]
    replay.play([7] * 20, group="another", start=200)
    assert [state for _, state in replay.told].count("firing") == 1


def test_a_slow_burn_fires_when_it_has_crept_over_the_threshold() -> None:
    replay = Replay()
    replay.play([n * 0.1 for n in range(200)])
    ((fired, state),) = replay.told
    assert state == "firing"
    assert fired == pytest.approx(2 * 101 + 6, abs=2)


def test_a_saturday_of_swells_below_the_threshold_is_quiet() -> None:
    replay = Replay()
    replay.play([4 + 5 * (n % 30) / 30 for n in range(3_000)])
    assert replay.history == []


def test_what_is_measured_no_more_ends() -> None:
    replay = Replay()
    replay.play([50] * 4 + [None] * 10)
    assert [state for _, state in replay.told] == ["firing", "resolved"]


def test_a_rule_may_mind_too_little() -> None:
    rule = Rule(id="r", summary="{value}", metric="m", above=False, threshold=1, clear=1, clear_seconds=0)
    replay = Replay(rule)
    replay.play([2, 0, 0, 1])
    assert replay.told == [(2, "firing"), (6, "resolved")]


def test_alerts_of_a_rule_that_is_gone_end_at_once() -> None:
    replay = Replay()
    replay.play([50] * 4)
    (alert,) = replay.live.values()
    changed, dropped = step([], [alert], {("m", "g"): 50.0}, now=at(9), new_id=str)
    assert [(a.state, a.resolved_at) for a in changed] == [("resolved", at(9))]
    assert dropped == []


@given(st.lists(st.one_of(st.none(), st.floats(min_value=0, max_value=20)), max_size=60))
def test_whatever_the_series_alerts_alternate_and_only_one_is_live(values: list[float | None]) -> None:
    replay = Replay()
    replay.play(values)
    assert len(replay.live) <= 1
    states = [state for _, state in replay.told]
    assert states == ["firing", "resolved"] * (len(states) // 2) + ["firing"] * (len(states) % 2)


# ── the ladder ──────────────────────────────────────────────────────────────────────────────────────────────


def alert(**given: Any) -> Alert:
    values: dict[str, Any] = {"id": "a", "rule": "r", "group": "g", "severity": "critical", "state": "firing"}
    values |= {"summary": "s", "value": 1.0, "since": BEGAN, "fired_at": BEGAN}
    return Alert(**(values | given))


def channel(name: str, **given: Any) -> Channel:
    return Channel(id=name, name=name, kind="slack", created_at=BEGAN, **given)


CHAT, SMS, PHONE = (
    channel("chat"),
    channel("sms", after=30),
    channel("phone", after=120, severities=("critical",)),
)
WAYS = [CHAT, SMS, PHONE]


class Ladder:
    """Looks every two seconds, and takes every notice as sent."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.told: list[tuple[float, str, str]] = []

    def climb(self, one: Alert, *, start: float, end: float, silences: list[Silence] | None = None) -> None:
        seconds = start
        while seconds < end:
            for each in due([one], WAYS, silences or [], self.notices, now=at(seconds)):
                self.told.append((seconds, each.channel.id, each.kind))
                self.notices.append(
                    Notice(
                        alert_id=one.id,
                        channel_id=each.channel.id,
                        kind=each.kind,
                        state="sent",
                        tries=1,
                        at=at(seconds),
                    )
                )
            seconds += 2


def test_chat_hears_at_once_the_text_message_and_the_phone_when_nobody_acknowledges() -> None:
    ladder = Ladder()
    ladder.climb(alert(), start=0, end=1_000)
    assert ladder.told == [(0, "chat", "fired"), (30, "sms", "fired"), (120, "phone", "fired")]


def test_an_acknowledgement_stops_the_ladder_and_the_end_is_told_to_those_who_knew() -> None:
    ladder = Ladder()
    ladder.climb(alert(), start=0, end=40)
    ladder.climb(alert(acknowledged_at=at(41), acknowledged_by="me"), start=42, end=300)
    ladder.climb(alert(state="resolved", resolved_at=at(300)), start=300, end=400)
    assert ladder.told == [
        (0, "chat", "fired"),
        (30, "sms", "fired"),
        (300, "chat", "resolved"),
        (300, "sms", "resolved"),
    ]


def test_a_silence_holds_the_ladder_as_long_as_it_lasts() -> None:
    ladder = Ladder()
    hush = Silence(id="s", rule="r", group=None, until=at(50), created_by="me", created_at=BEGAN)
    ladder.climb(alert(), start=0, end=200, silences=[hush])
    assert ladder.told == [(50, "chat", "fired"), (50, "sms", "fired"), (120, "phone", "fired")]
    other = Silence(id="s", rule="another", group=None, until=at(50), created_by="me", created_at=BEGAN)
    assert due([alert()], [CHAT], [other], [], now=BEGAN)


def test_a_channel_hears_of_its_severities_only() -> None:
    ladder = Ladder()
    ladder.climb(alert(severity="warning"), start=0, end=500)
    assert [name for _, name, _ in ladder.told] == ["chat", "sms"]


def test_quiet_hours_are_local_and_not_for_what_is_critical() -> None:
    way = channel("chat", quiet=QuietHours(start="22:00", end="07:00", timezone="Europe/Berlin"))
    night = BEGAN.replace(hour=21)  # 23:00 in Berlin
    low, high = alert(severity="warning", fired_at=night), alert(fired_at=night)
    assert due([low], [way], [], [], now=night) == []
    assert len(due([high], [way], [], [], now=night)) == 1
    assert len(due([low], [way], [], [], now=night + timedelta(hours=8))) == 1


def _notice(state: Any, tries: int, seconds: float) -> Notice:
    return Notice(alert_id="a", channel_id="chat", kind="fired", state=state, tries=tries, at=at(seconds))


def test_what_a_channel_did_not_take_is_tried_again_ever_more_slowly() -> None:
    gaps = [5, 15, 60, 300, 900, 900]
    for tries, gap in enumerate(gaps, start=1):
        notice = _notice("failed", tries, 0)
        assert due([alert()], [CHAT], [], [notice], now=at(gap - 1)) == []
        (again,) = due([alert()], [CHAT], [], [notice], now=at(gap))
        assert (again.tries, again.again) == (tries, False)


def test_a_claim_that_nobody_confirmed_is_taken_over_and_says_so() -> None:
    notice = _notice("claimed", 1, 0)
    assert due([alert()], [CHAT], [], [notice], now=at(29)) == []
    (again,) = due([alert()], [CHAT], [], [notice], now=BEGAN + RECLAIM)
    assert again.again


def test_nobody_hears_of_the_end_of_what_he_did_not_hear_of() -> None:
    over = alert(state="resolved", resolved_at=at(3))
    assert due([over], WAYS, [], [], now=at(4)) == []


def test_whoever_could_not_be_told_that_it_began_hears_of_it_when_it_is_over() -> None:
    over, failed = alert(state="resolved", resolved_at=at(3)), _notice("failed", 1, 0)
    (told,) = due([over], WAYS, [], [failed], now=at(4))
    assert (told.channel.id, told.kind, told.tries) == ("chat", "resolved", 0)
    silence = Silence(id="s", rule="r", group=None, until=at(60), created_by="me", created_at=BEGAN)
    assert due([over], WAYS, [silence], [failed], now=at(4)) == []
    assert len(due([over], WAYS, [silence], [failed], now=at(61))) == 1
