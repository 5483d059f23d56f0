"""Relief: what is done while a service level burns too fast, step by step, all of it reversible."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Step = Literal["workers", "share", "bulk", "replays", "endpoints"]
STEPS: tuple[Step, ...] = ("workers", "share", "bulk", "replays", "endpoints")
"""In this order: more workers, a bigger share for the lane, bulk deferred, replays slowed, the worst endpoints paused."""

SLAS, RELIEF = "slas", "relief"
"""The names of the stored plans: what to keep, and what is in force."""

_Lane = Literal["urgent", "high", "normal", "bulk"]


class ServiceLevel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For `objective` of the time, the oldest ready delivery of the lane has waited for less than `seconds`."""

    lane: _Lane
    seconds: Annotated[float, Meta(gt=0, le=86_400)]
    objective: Annotated[float, Meta(gt=0, lt=1)] = 0.99


class SLAConfiguration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The levels to keep, and when to act. Durations in seconds."""

    levels: Annotated[tuple[ServiceLevel, ...], Meta(max_length=10)] = ()
    window: Annotated[float, Meta(ge=10, le=86_400)] = 300.0
    """Over how long the error budget is looked at."""
    burn_rate: Annotated[float, Meta(ge=1)] = 4.0
    """How many times faster than allowed a budget may burn before something is done."""
    step_seconds: Annotated[float, Meta(ge=1, le=3_600)] = 20.0
    """How long one step is given before the next."""
    recover_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 60.0
    """How long all must be well before the last step is undone."""
    endpoints: Annotated[int, Meta(ge=0, le=100)] = 5
    """The most endpoints that are paused."""


class Relief(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force now."""

    steps: tuple[Step, ...] = ()
    lane: int | None = None
    """The lane whose level burns."""
    worker_floor: int = 0
    paused: tuple[tuple[str, str], ...] = ()
    """Endpoint and supplier of those that were paused; nobody else is let go again in the end."""
    reason: str = ""

    def weights(self, weights: tuple[int, ...]) -> tuple[int, ...]:
        """The shares of the lanes while this is in force."""
        found = list(weights)
        if "share" in self.steps and self.lane is not None:
            found[self.lane] = min(1_000, found[self.lane] * 4)
        if "bulk" in self.steps and self.lane != len(found) - 1:
            # The least share that there is: bulk waits as long as anything else is ready, and never for ever.
            found = [min(1_000, weight * 50) for weight in found[:-1]] + [1]
        return tuple(found)
