"""Bottlenecks: which stage limits the deliveries now, with the evidence. Pure."""

from typing import Literal

import msgspec

Stage = Literal["ingest", "store", "claim", "send", "receivers", "settle"]

_BUSY = 0.85  # of a processor, or of the slots
_LATE = 0.25  # seconds that an event loop comes late
_SLOW = 0.1  # seconds of a transaction
_SHARE = 0.5  # of a worker's time


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen of the whole service. Rates per second, durations in seconds."""

    ready: int = 0
    """Deliveries that could be sent."""
    oldest: float = 0.0
    """Since when the oldest of them could."""
    accept_cpu: float = 0.0
    """Of a processor, the busiest API process."""
    accept_lag: float = 0.0
    accept_seconds: float = 0.0
    worker_cpu: float = 0.0
    """Of a processor, the mean of the workers."""
    slots: float = 0.0
    held: float = 0.0
    store_seconds: float = 0.0
    """The longest mean of a worker's transactions."""
    claim_seconds: float = 0.0
    settle_seconds: float = 0.0
    claims: float = 0.0
    """A worker's claims per second."""
    settlements: float = 0.0


class Bottleneck(msgspec.Struct, frozen=True, kw_only=True):
    """A stage that limits. `severity` is how far it is over its bound, 1 being just there."""

    stage: Stage
    severity: float
    evidence: str


def find(flow: Flow) -> list[Bottleneck]:
    """The stages that limit, the worst first; none when everything keeps up.

    Ingest and the store can limit while nothing is queued; the others only while deliveries wait for them.
    """
    found: list[Bottleneck] = []

    def note(stage: Stage, severity: float, evidence: str) -> None:
        found.append(Bottleneck(stage=stage, severity=round(severity, 2), evidence=evidence))

    if flow.accept_cpu > _BUSY or flow.accept_lag > _LATE:
        severity = max(flow.accept_cpu / _BUSY, flow.accept_lag / _LATE)
        note(
            "ingest",
            severity,
            f"the busiest API process uses {flow.accept_cpu:.0%} of a processor and is {flow.accept_lag:.2f} s late",
        )
    slowest = max(flow.accept_seconds, flow.store_seconds)
    if slowest > _SLOW:
        note("store", slowest / _SLOW, f"transactions take {slowest * 1e3:.0f} ms on average")
    if not flow.ready:
        return sorted(found, key=lambda b: -b.severity)
    waiting = f"{flow.ready} deliveries wait, the oldest for {flow.oldest:.1f} s"
    full = flow.held / flow.slots if flow.slots else 0.0
    claiming, settling = flow.claims * flow.claim_seconds, flow.settlements * flow.settle_seconds
    if flow.worker_cpu > _BUSY:
        note(
            "send",
            flow.worker_cpu / _BUSY,
            f"{waiting}; workers use {flow.worker_cpu:.0%} of a processor each",
        )
    elif full > _BUSY:
        note(
            "receivers",
            full / _BUSY,
            f"{waiting}; {flow.held:.0f} of {flow.slots:.0f} slots wait for answers",
        )
    if claiming > _SHARE:
        note(
            "claim", claiming / _SHARE, f"{waiting}; a worker spends {claiming:.0%} of its time with claiming"
        )
    if settling > _SHARE:
        note(
            "settle",
            settling / _SHARE,
            f"{waiting}; a worker spends {settling:.0%} of its time with settling",
        )
    return sorted(found, key=lambda b: -b.severity)
