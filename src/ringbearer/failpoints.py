"""Failpoints: named moments at which a process can be told to end at once, so that recovery can be proven.

`RINGBEARER_FAILPOINT=worker.claimed` ends the process, as by `kill -9`, when it gets there; `worker.claimed:3`
at the third time; several stand comma-separated. Without the variable `reach` does nothing. The supervisor
gives the variable to a child's first life only: what comes after the fall is the thing to look at.
"""

import os
import signal
from collections.abc import Callable, Mapping

from ringbearer.errors import ConfigurationError

VARIABLE = "RINGBEARER_FAILPOINT"

POINTS: Mapping[str, str] = {
    "publish.taken": "a group is about to be committed; nothing was promised yet",
    "publish.committed": "the group is on the disk; no worker has heard of it, no publisher has an answer",
    "publish.pushed": "workers were told; no publisher has an answer",
    "relay.accepted": "emitted events are about to be committed as events, and out of the outbox",
    "relay.committed": "they are; no worker has heard of it",
    "worker.claimed": "leases are held; nothing was sent",
    "worker.sent": "requests are under way",
    "worker.answered": "some of a batch were answered, the others are under way, nothing is written down",
    "worker.settling": "outcomes are about to be written down",
    "worker.settled": "outcomes are written down; the worker does not know it yet",
}
"""Every name, with what is true when the process gets there. Points lie on paths that batches take."""


def parse(text: str) -> dict[str, int]:
    """How often each named point may be passed before it strikes; raises ConfigurationError."""
    counts: dict[str, int] = {}
    for part in text.split(","):
        name, _, nth = part.strip().partition(":")
        if name not in POINTS:
            raise ConfigurationError(
                f"{VARIABLE}: there is no point {name!r}; there are: {', '.join(POINTS)}"
            )
        if nth and not (nth.isascii() and nth.isdecimal() and int(nth) > 0):
            raise ConfigurationError(f"{VARIABLE}: expected a number from 1 after {name!r}, got {nth!r}")
        counts[name] = int(nth or 1)
    return counts


def _pass(name: str) -> None:
    """Nothing: no failpoint is set."""


def _striker(counts: dict[str, int]) -> Callable[[str], None]:
    def strike(name: str) -> None:
        if name in counts:
            counts[name] -= 1
            if counts[name] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return strike


reach: Callable[[str], None] = _striker(parse(os.environ[VARIABLE])) if os.environ.get(VARIABLE) else _pass
"""Tell that the process got to a named point: once per batch, never per delivery."""
