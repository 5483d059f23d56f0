"""Service levels: how fast their budgets burn, and which step follows, as pure functions."""

from collections.abc import Sequence

import msgspec

from ringbearer.domain.events import LANES
from ringbearer.domain.relief import STEPS, ServiceLevel, SLAConfiguration, Step


class Burning(msgspec.Struct, frozen=True, kw_only=True):
    """One level: how much of the window it was missed, and how many times faster than allowed that is."""

    level: ServiceLevel
    missed: float
    burn_rate: float
    now: float
    """How long the lane's oldest ready delivery waits now, in seconds."""


class Ladder(msgspec.Struct, frozen=True, kw_only=True):
    """Where on the ladder things stand. Moments are monotonic seconds."""

    steps: tuple[Step, ...] = ()
    moved_at: float = 0.0
    """When the last step was taken or undone."""
    well_since: float | None = None
    seen: tuple[tuple[float, tuple[float, ...]], ...] = ()
    """The waits of each lane, moment after moment, within the window."""


def observe(
    ladder: Ladder, config: SLAConfiguration, waits: Sequence[float], *, now: float
) -> tuple[Ladder, list[Burning]]:
    """Add what is seen now; how each level stands over the window."""
    seen = tuple((at, each) for at, each in (*ladder.seen, (now, tuple(waits))) if at > now - config.window)
    burning = []
    for level in config.levels:
        lane = LANES.index(level.lane)
        missed = sum(each[lane] >= level.seconds for _, each in seen) / len(seen)
        burning.append(
            Burning(
                level=level,
                missed=missed,
                burn_rate=missed / (1.0 - level.objective),
                now=waits[lane],
            )
        )
    return msgspec.structs.replace(ladder, seen=seen), burning


def move(
    ladder: Ladder, config: SLAConfiguration, burning: Sequence[Burning], *, now: float
) -> tuple[Ladder, Step | None, Step | None]:
    """The ladder after this moment, the step that was taken, and the step that was undone; at most one of both.

    A step is taken while a level burns too fast and is being missed; undone, the last first, when none has been
    missed for long enough.
    """
    missing = [each for each in burning if each.now >= each.level.seconds]
    if missing:
        too_fast = any(each.burn_rate >= config.burn_rate for each in missing)
        due = not ladder.steps or now - ladder.moved_at >= config.step_seconds
        ladder = msgspec.structs.replace(ladder, well_since=None)
        if too_fast and due and len(ladder.steps) < len(STEPS):
            step = STEPS[len(ladder.steps)]
            taken = msgspec.structs.replace(ladder, steps=(*ladder.steps, step), moved_at=now)
            return taken, step, None
        return ladder, None, None
    since = now if ladder.well_since is None else ladder.well_since
    ladder = msgspec.structs.replace(ladder, well_since=since)
    if ladder.steps and now - since >= config.recover_seconds:
        # The next is undone only after another such time.
        undone = msgspec.structs.replace(ladder, steps=ladder.steps[:-1], moved_at=now, well_since=now)
        return undone, None, ladder.steps[-1]
    return ladder, None, None


def worst(burning: Sequence[Burning]) -> Burning | None:
    """The level that burns fastest of those that are missed now."""
    missing = [each for each in burning if each.now >= each.level.seconds]
    return max(missing, key=lambda each: each.burn_rate, default=None)
