"""What follows from one try: done, again later, held, or given up.

a whole answer 200–299                     delivered
410                                        held, and the endpoint is to be disabled
our own name server or proxy fails         scheduled, and the attempt is not spent
every address refused by the guard         dead at once: a matter of configuration, which no retry mends
anything else, tries left                  scheduled
anything else, none left                   dead
"""

import re
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec

from ringbearer import clock
from ringbearer.backoff import jittered
from ringbearer.delivery import heads, outcome
from ringbearer.delivery.outcome import Exchange
from ringbearer.domain.deliveries import State

JITTER = 0.2
"""How far a wait may differ from the schedule, as a part of it."""
SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = 3_600.0
"""Seconds: bounds of the pause that a receiver can ask for by Retry-After."""
LONGEST_UNASKED_PAUSE = 60.0
"""Seconds: the longest pause of an endpoint that answered 429 or 503 without saying for how long."""

OWN_TROUBLE_PAUSE = 8.0
"""Seconds after which a delivery comes again that our own name server or proxy stopped."""
OWN_TROUBLE_JITTER = 0.5

_OWN_TROUBLE = "our own name server or proxy fails"
_GONE = 410
_BUSY = frozenset({429, 503})
_SECONDS = re.compile(r"[0-9]{1,15}")
_LONGEST_DATE = 64  # characters; an HTTP-date has 29, the obsolete forms at most 33


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What becomes of a delivery, and of its endpoint. Times are stored times.

    `due_at` is set when, and only when, `state` is SCHEDULED. `disable`: the endpoint said that it is gone.
    `slow_until`: nothing should be sent to the endpoint before that time. `spent`: the attempt counts.
    """

    state: State
    due_at: int | None = None
    disable: bool = False
    slow_until: int | None = None
    reason: str | None = None
    spent: bool = True


_DELIVERED = Verdict(State.DELIVERED)


def judge(exchange: Exchange, *, attempt: int, schedule: Sequence[float], now: int, random: float) -> Verdict:
    """What follows from try number `attempt`, counted from 1 since the last replay.

    After try n the delivery waits `schedule[n - 1]` seconds, ± 20 %; without such an entry it is dead.
    `now` is a stored time, `random` uniform in [0, 1).

    Retry-After on any failure (RFC 9110, section 10.2.3: seconds or a date) pauses the endpoint for that
    long, clamped into 1 s … 1 h; what is malformed is ignored. 429 and 503 without it pause the endpoint for
    as long as this delivery waits, but at most 1 min: the later waits of a schedule are hours, and they are
    one delivery's. The delivery waits for both, its schedule and the pause.
    """
    if outcome.succeeded(exchange):
        return _DELIVERED
    status = outcome.answered(exchange)
    if status == _GONE:
        return Verdict(State.HELD, disable=True, reason="the receiver answered 410: the endpoint is gone")
    if exchange.ours:
        due_at = now + int(jittered(OWN_TROUBLE_PAUSE, OWN_TROUBLE_JITTER, random) * clock.SECOND)
        return Verdict(State.SCHEDULED, due_at=due_at, reason=_OWN_TROUBLE, spent=False)
    if exchange.blocked is not None and not status:
        return Verdict(State.DEAD, reason=outcome.error(exchange))
    wait = jittered(schedule[max(attempt, 1) - 1], JITTER, random) if attempt <= len(schedule) else None
    pause = _pause(exchange, status, wait, now)
    slow_until = None if pause is None else now + int(pause * clock.SECOND)
    if wait is None:
        attempts = "1 attempt" if attempt == 1 else f"{attempt} attempts"
        return Verdict(State.DEAD, slow_until=slow_until, reason=f"given up after {attempts}")
    due_at = now + int(wait * clock.SECOND)
    return Verdict(State.SCHEDULED, due_at=max(due_at, slow_until or 0), slow_until=slow_until)


def _pause(exchange: Exchange, status: int, wait: float | None, now: int) -> float | None:
    """Seconds for which the endpoint is to be left alone, or None."""
    asked = _retry_after(exchange, now) if status else None
    if asked is not None:
        return min(max(asked, SHORTEST_PAUSE), LONGEST_PAUSE)
    if status in _BUSY:
        return (
            LONGEST_UNASKED_PAUSE if wait is None else min(max(wait, SHORTEST_PAUSE), LONGEST_UNASKED_PAUSE)
        )
    return None


def _retry_after(exchange: Exchange, now: int) -> float | None:
    """The seconds that Retry-After asks for, possibly negative; None without one that can be understood."""
    value = heads.value(exchange.head, "retry-after")
    if value is None:
        return None
    if _SECONDS.fullmatch(value):
        return float(value)
    if len(value) > _LONGEST_DATE:
        return None
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:  # the obsolete asctime form has no zone and means UTC
            moment = moment.replace(tzinfo=UTC)
        return (clock.from_datetime(moment) - now) / clock.SECOND
    except (ValueError, TypeError, IndexError, OverflowError):  # the parser lets all of them escape
        return None
