"""How large the first tier should be, and how long entries should live: decided from what was measured."""

import math

import msgspec

from ringbearer.cache.shards import Curve

TARGET_MISS_RATIO = 0.01
"""At least 99 of 100 references are to be answered from memory."""
LEAST_REFERENCES = 200
"""Sampled references below which a curve says nothing."""

_HEADROOM = 1.25  # between what is needed and what is set, for the suppliers that come next
_KNEE = 0.001  # a miss ratio so close to the best one within the limit counts as the best
_LEAST_ENTRIES = 64
_LEAST_BYTES = 8 * 1024 * 1024  # a supplier with 500 endpoints takes some 2 MiB
_WORTH_IT = 0.1  # a change by less is left alone: shrinking throws away, and traffic is not the same twice
_SHARE_CHANGED = 0.01  # of the entries that reach the end of their lives, how many may have changed meanwhile
_SHORTEST, _LONGEST = 60.0, 24 * 3_600.0


class Sizing(msgspec.Struct, frozen=True):
    """How large the first tier is, or is to be."""

    entries: int
    bytes: int
    miss_ratio: float | None
    """Of the references in the curve, how many it misses; None when that is not known."""


class Decision(msgspec.Struct, frozen=True):
    """What to set, and why."""

    before: Sizing
    after: Sizing
    reason: str


def size(
    curve: Curve,
    before: Sizing,
    *,
    bytes_per_entry: float,
    max_bytes: int,
    max_entries: int,
    least: int = 0,
) -> Decision:
    """The smallest size that reaches the target within the limits, with some headroom.

    Where the target is out of reach, since suppliers are asked for the first time or the limit is too low, it is the
    smallest size that does as well as any within the limits. `least` entries are kept room for in any case.
    """
    now = Sizing(before.entries, before.bytes, _ratio(curve, before.entries))
    if curve.references < LEAST_REFERENCES or bytes_per_entry <= 0:
        return Decision(now, now, f"{curve.references:.0f} sampled references say too little yet")
    limit = max(1, min(max_entries, int(max_bytes / bytes_per_entry)))
    within = [
        (entries, miss)
        for entries, miss in zip(curve.sizes, curve.miss_ratios, strict=True)
        if entries <= limit
    ]
    within.append((limit, curve.miss_ratio(limit)))
    best = min(miss for _, miss in within)
    wanted = max(TARGET_MISS_RATIO, best + _KNEE)
    needed = next(entries for entries, miss in within if miss <= wanted)
    entries = min(limit, max(_LEAST_ENTRIES, least, math.ceil(needed * _HEADROOM)))
    room = max(_LEAST_BYTES, math.ceil(entries * bytes_per_entry * _HEADROOM))
    after = Sizing(entries, min(max_bytes, room), _ratio(curve, entries))
    enough = (
        after.bytes <= (1 + _WORTH_IT) * now.bytes
    )  # entries may have grown, though there are no more of them
    if enough and abs(after.entries - now.entries) < _WORTH_IT * now.entries:
        return Decision(now, now, f"{needed} entries are needed, which is close to what is set")
    reached = (
        "reaches the target" if best <= TARGET_MISS_RATIO else "does as well as any size within the limit"
    )
    warmed = f"; room for {least} that were warmed" if entries == least > needed else ""
    return Decision(
        now,
        after,
        f"{needed} entries of {bytes_per_entry:.0f} bytes is the smallest size that {reached}{warmed}",
    )


def lifetime(changes: float, supplier_seconds: float) -> float:
    """Seconds that an entry may live without being read anew, when so many changes were seen in so many
    supplier-seconds.

    Changes are followed by version, so a lifetime guards only against what bypasses it, such as rows changed by hand.
    With changes as a Poisson process of rate r per supplier, of the entries that live for t a share of 1 - exp(-r t)
    has changed: t is chosen so that this is 1 %.
    """
    if changes <= 0 or supplier_seconds <= 0:
        return _LONGEST
    rate = changes / supplier_seconds
    return min(_LONGEST, max(_SHORTEST, -math.log1p(-_SHARE_CHANGED) / rate))


def _ratio(curve: Curve, entries: int) -> float | None:
    return curve.miss_ratio(entries) if curve.sizes else None
