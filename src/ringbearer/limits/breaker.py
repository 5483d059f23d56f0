"""The circuit breaker's rules: when an endpoint is left alone, and when it is tried again.

closed ──half of 10 … 20 calls failed, or 5 connect errors in a row──▸ open
open ──its pause has passed: one probe──▸ half-open ──success──▸ closed
  ▲                                           │
  └────────────failure: twice the pause───────┘

What counts is whether the receiver is there and able to answer: no connection, no whole answer in time and 5xx are
failures; 4xx is an answer. Pure functions of their arguments; who keeps the state is in `breakers.py`.
"""

import msgspec

from ringbearer import clock
from ringbearer.backoff import exponential, jittered
from ringbearer.domain.breakers import Circuit


class BreakerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When to open and for how long; times in seconds.

    The count window is that of resilience4j: `window` calls, judged from `calls` of them on.
    """

    window: int = 20
    calls: int = 10
    failure_ratio: float = 0.5
    connect_errors: int = 5
    pause: float = 30.0
    longest_pause: float = 900.0
    jitter: float = 0.2


class Calls(msgspec.Struct, gc=False):
    """The last calls of one endpoint as one worker saw them: a bit for each, 1 for a failure, the newest lowest."""

    bits: int = 0
    count: int = 0
    connect_errors: int = 0
    """In a row."""


ANSWERED, FAILED, UNREACHED = "012"
"""How calls are written down in a line, the newest last."""


def length(policy: BreakerPolicy) -> int:
    """How many calls a line has to hold."""
    return max(policy.window, policy.connect_errors)


def judged(line: str, policy: BreakerPolicy) -> str | None:
    """The reason to open the circuit after the last call of a line, or None: the same rule as `note`."""
    in_a_row = len(line) - len(line.rstrip(UNREACHED))
    if in_a_row >= policy.connect_errors:
        return f"{in_a_row} connections in a row could not be made"
    latest = line[-policy.window :]
    failures = len(latest) - latest.count(ANSWERED)
    if (
        line[-1:] != ANSWERED
        and len(latest) >= policy.calls
        and failures >= policy.failure_ratio * len(latest)
    ):
        return f"{failures} of the last {len(latest)} attempts failed"
    return None


def appended(line: str, calls: str, policy: BreakerPolicy) -> tuple[str, str | None]:
    """The line after more calls, and the reason to open the circuit; empty with a reason, and without a failure."""
    for call in calls:
        line = (line + call)[-length(policy) :]
        reason = judged(line, policy)
        if reason is not None:
            return "", reason
    return (line if line.strip(ANSWERED) else ""), None


def note(calls: Calls, policy: BreakerPolicy, *, failed: bool, connect_error: bool) -> str | None:
    """Add one call; returns the reason to open the circuit, or None."""
    calls.bits = (calls.bits << 1 | failed) & ((1 << policy.window) - 1)
    calls.count = min(calls.count + 1, policy.window)
    calls.connect_errors = calls.connect_errors + 1 if connect_error else 0
    if calls.connect_errors >= policy.connect_errors:
        return f"{calls.connect_errors} connections in a row could not be made"
    failures = calls.bits.bit_count()
    if failed and calls.count >= policy.calls and failures >= policy.failure_ratio * calls.count:
        return f"{failures} of the last {calls.count} attempts failed"
    return None


def opened(circuit: Circuit, policy: BreakerPolicy, *, reason: str, now: int, random: float) -> Circuit:
    """The circuit after it opened, or after its probe failed; `random` is uniform in [0, 1)."""
    times = circuit.opened + 1
    pause = jittered(exponential(times, first=policy.pause, most=policy.longest_pause), policy.jitter, random)
    return msgspec.structs.replace(
        circuit,
        state="open",
        since=now if circuit.state == "closed" else circuit.since,
        opened=times,
        probe_at=now + int(pause * clock.SECOND),
        reason=reason,
    )


def closed(circuit: Circuit, *, now: int) -> Circuit:
    """The circuit after a success."""
    return msgspec.structs.replace(circuit, state="closed", since=now, opened=0, probe_at=0, reason=None)
