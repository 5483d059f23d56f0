"""Tuning: what the queue's plan should be for the waits that are wanted, by queueing's plain rules. Pure.

Sources. Little, A Proof for the Queuing Formula L = λW (Operations Research 9, 1961): so many slots are busy as
deliveries arrive in the time that one is held. Sakasegawa, An approximation formula Lq ≈ α·ρ^β/(1−ρ) (Annals of the
Institute of Statistical Mathematics 29, 1977): how long is waited for one of c slots that are busy to ρ.
"""

import math
from collections.abc import Mapping
from statistics import median
from typing import Annotated

import msgspec
from msgspec import Meta

from ringbearer.domain.events import LANES, Priority
from ringbearer.priority import WEIGHTS
from ringbearer.queue.plan import MOST_BATCH, QueuePlan

WANTED_P95: dict[Priority, float] = {"urgent": 0.1, "high": 0.5, "normal": 2.0, "bulk": 60.0}
"""Seconds that 95 of 100 deliveries of a lane wait at most, if it can be had."""

_SLACK = 0.2  # differences within a fifth are left alone
_PATIENCE = 6  # times in a row that the same direction must be wanted
_FAR = 0.5  # a difference that no noise makes
_FAR_PATIENCE = 3
_MOST_WEIGHT = 8  # times its usual weight is the most that a lane gets
_LONGEST_GAP = 0.2
_USUAL = QueuePlan()


class QueueConfiguration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the queue is to be tuned for."""

    wanted_p95: dict[Priority, Annotated[float, Meta(gt=0, le=86_400)]] = {}
    """Seconds per lane; a lane that is not named keeps its usual target."""
    utilisation: Annotated[float, Meta(ge=0.1, le=0.95)] = 0.7
    """How busy the slots that are filled ahead may be."""

    def target(self, lane: int) -> float:
        """The wanted P95 wait of a lane."""
        return self.wanted_p95.get(LANES[lane], WANTED_P95[LANES[lane]])


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the queue. Rates per second, durations in seconds, by lane where there are four."""

    slots: int
    """Of all workers together."""
    service: float
    """How long a delivery holds its slot."""
    arrivals: tuple[float, float, float, float]
    backlog: tuple[int, int, int, int]
    waits: tuple[float, float, float, float]
    """The P95 of each lane's waits."""
    claim_seconds: float
    """How long a claim takes."""

    @property
    def arrival_rate(self) -> float:
        """Of all lanes."""
        return sum(self.arrivals)


def busy_slots(arrival_rate: float, service: float) -> float:
    """How many slots are busy, by Little's law: L = λ · S."""
    return arrival_rate * service


def expected_wait(arrival_rate: float, service: float, slots: int) -> float:
    """Seconds until a slot is free, by Sakasegawa's approximation of M/M/c; infinite when more comes than goes."""
    if slots <= 0:
        return math.inf
    load = busy_slots(arrival_rate, service) / slots
    if load >= 1:
        return math.inf
    return float(service * load ** (math.sqrt(2 * (slots + 1)) - 1) / (slots * (1 - load)))


def wanted_plan(
    plan: QueuePlan, situation: Situation, configuration: QueueConfiguration
) -> tuple[QueuePlan, dict[str, str]]:
    """The plan that would fit the situation, and for each field why; not yet damped.

    - max_wait: as long as a claim takes, so that workers spend at most half of their time with claiming, but no more
      than a quarter of the shortest wait that is wanted.
    - batch_size: what is to be served between two claims, twice, so that a claim takes all of it also after a hiccup.
      That is what arrives, and what must go of the backlog for its lane's wait to be the wanted one.
    - prefetch: the slots that Little's law keeps busy, at the utilisation that is wanted, and what arrives meanwhile.
      A backlog asks for no more: what a worker holds, others wait behind.
    - None of these gets smaller than what a service begins with. They are limits, which cost nothing while little
      comes; and a burst comes without notice.
    - weights: a lane that waits too long gets the share that it needs for its arrivals and for its backlog to be gone
      in the time wanted, at most eight times its usual weight; one that waits for less than half of what is wanted
      returns to its usual weight. None gets less than that: the guaranteed shares stay.
    """
    rate = situation.arrival_rate
    shortest = min(configuration.target(lane) for lane in range(len(LANES)))
    gap = min(max(situation.claim_seconds, _USUAL.max_wait), shortest / 4, _LONGEST_GAP)
    interval = gap + situation.claim_seconds
    served = rate + sum(
        waiting / configuration.target(lane) for lane, waiting in enumerate(situation.backlog)
    )
    batch = min(MOST_BATCH, max(_USUAL.batch_size, math.ceil(2 * served * interval)))
    busy = busy_slots(rate, situation.service)
    ahead = busy / configuration.utilisation + rate * interval
    prefetch = min(0.9, max(_USUAL.prefetch, ahead / situation.slots)) if situation.slots else plan.prefetch
    why = {
        "max_wait": f"a claim takes {situation.claim_seconds * 1e3:.0f} ms, the shortest wanted wait is {shortest:g} s",
        "batch_size": (
            f"{served:.0f} deliveries are to be served per second, {rate:.0f} of which arrive, and "
            f"{interval * 1e3:.0f} ms lie between two claims"
        ),
        "prefetch": (
            f"{busy:.0f} of {situation.slots} slots are busy at {rate:.0f}/s for {situation.service * 1e3:.0f} ms each"
        ),
    }
    weights = []
    for lane, usual in enumerate(WEIGHTS):
        weight, reason = _weight(lane, plan.weights[lane], usual, situation, configuration)
        weights.append(weight)
        if reason:
            why["weights"] = f"{why['weights']}; {reason}" if "weights" in why else reason
    wanted = msgspec.structs.replace(
        plan,
        max_wait=round(gap, 3),
        batch_size=batch,
        prefetch=round(prefetch, 2),
        weights=(weights[0], weights[1], weights[2], weights[3]),
    )
    return wanted, why


def _weight(
    lane: int, weight: int, usual: int, situation: Situation, configuration: QueueConfiguration
) -> tuple[int, str]:
    target, wait = configuration.target(lane), situation.waits[lane]
    name = LANES[lane]
    if wait > target and situation.backlog[lane]:
        capacity = situation.slots / situation.service if situation.service else math.inf
        needed = situation.arrivals[lane] + situation.backlog[lane] / target
        share = min(0.9, needed / capacity) if capacity else 0.9
        others = sum(WEIGHTS) - usual
        fitting = math.ceil(others * share / (1 - share))
        raised = max(weight, min(_MOST_WEIGHT * usual, fitting))
        return raised, f"{name} waits {wait:.2f} s, not {target:g} s" if raised != weight else ""
    if wait < target / 2 and weight > usual:
        return usual, f"{name} waits {wait:.2f} s, less than half of {target:g} s"
    return weight, ""


class Damper:
    """Keeps a plan still until the same change has been wanted several times in a row.

    A field changes when the last six wishes for it lie on the same side of what it is, each more than a fifth away;
    then it takes their median. Of a value that is right, six in a row would do that once in millions of looks at
    measurements that are 15 % off; and the median of six of them is so near to what is right that nothing takes it
    back. Where three lie more than half away that is no noise, and a burst does not wait: then it takes the nearest
    of them. A wish that jumps to and fro changes nothing.
    """

    def __init__(self) -> None:
        self._wishes: dict[str, list[float]] = {}

    def damp(self, plan: QueuePlan, wanted: QueuePlan) -> QueuePlan:
        """The plan that is to be followed now."""
        changes: dict[str, object] = {}
        for name in ("max_wait", "batch_size", "prefetch"):
            chosen = self._choose(name, getattr(plan, name), getattr(wanted, name))
            if chosen is not None:
                changes[name] = int(chosen) if name == "batch_size" else chosen
        weights = list(plan.weights)
        for lane, (old, new) in enumerate(zip(plan.weights, wanted.weights, strict=True)):
            chosen = self._choose(f"weight {lane}", old, new)
            if chosen is not None:
                weights[lane] = int(chosen)
        if tuple(weights) != plan.weights:
            changes["weights"] = tuple(weights)
        return msgspec.structs.replace(plan, **changes) if changes else plan

    def _choose(self, name: str, current: float, wish: float) -> float | None:
        wishes = self._wishes.setdefault(name, [])
        side = 1 if wish > current else -1
        far = abs(wish - current) > _SLACK * current
        if not far or any((w > current) != (side > 0) for w in wishes):
            wishes.clear()
        if not far:
            return None
        wishes.append(wish)
        lately = wishes[-_FAR_PATIENCE:]
        if len(wishes) >= _PATIENCE:
            chosen = median(wishes)
        elif len(lately) == _FAR_PATIENCE and all(abs(w - current) > _FAR * current for w in lately):
            chosen = min(lately) if side > 0 else max(lately)
        else:
            return None
        wishes.clear()
        return chosen


def shares_of_workers(cpu: Mapping[str, float]) -> dict[str, float]:
    """The part of its slots that each worker is to fill, so that none is much busier than the others.

    `cpu` is how much of a processor each uses. One that uses more than a quarter over the mean is to fill less in
    that proportion, at least a quarter; all others fill what they have.
    """
    if len(cpu) < 2:
        return {}
    mean = sum(cpu.values()) / len(cpu)
    return {
        worker: max(0.25, round(mean / used, 2))
        for worker, used in cpu.items()
        if used > 1.25 * mean and used > 0.5  # of a worker that has little to do nothing need be taken
    }
