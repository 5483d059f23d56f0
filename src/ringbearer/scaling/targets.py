"""Targets: who makes a number of workers true.

Worker processes on machines that run `ringbearer up` are started and drained by it: its share of the number stands in
the store, and it follows. Anything else, KEDA or a horizontal pod autoscaler, reads the number from `/v1/scaling` or
from the metrics.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import msgspec

from ringbearer.domain.scaling import ScalingPolicy
from ringbearer.storage.nodes import Node


class Target(ABC):
    """Where workers run."""

    name: str

    @abstractmethod
    def bounds(self, nodes: Sequence[Node]) -> tuple[int, int] | None:
        """The fewest and the most workers that it can run on these nodes; None when it knows no bounds."""

    @abstractmethod
    def shares(self, desired: int, nodes: Sequence[Node]) -> dict[str, int]:
        """How many workers each node shall run, by its id."""


class LocalProcesses(Target):
    """The `up` processes that may choose how many workers they run."""

    name = "local processes"

    def bounds(self, nodes: Sequence[Node]) -> tuple[int, int]:
        hosts = automatic(nodes)
        fewest = sum(int(node.signals["minimum"]) for node in hosts)
        return fewest, sum(int(node.signals["maximum"]) for node in hosts)

    def shares(self, desired: int, nodes: Sequence[Node]) -> dict[str, int]:
        bounds = {
            node.id: (int(node.signals["minimum"]), int(node.signals["maximum"])) for node in automatic(nodes)
        }
        return spread(desired, bounds)


class External(Target):
    """An orchestrator that reads the number: nothing to do but to publish it."""

    name = "external"

    def bounds(self, nodes: Sequence[Node]) -> None:
        return None

    def shares(self, desired: int, nodes: Sequence[Node]) -> dict[str, int]:
        return {}


def target_for(nodes: Sequence[Node]) -> Target:
    """Local processes where there are any that may follow, else whoever reads the number."""
    return LocalProcesses() if automatic(nodes) else External()


def within(policy: ScalingPolicy, target: Target, nodes: Sequence[Node]) -> ScalingPolicy:
    """The policy within what the target can run."""
    bounds = target.bounds(nodes)
    if bounds is None:
        return policy
    fewest, most = bounds
    maximum = max(1, min(policy.maximum, most))
    fixed = None if policy.fixed is None else min(policy.fixed, most)
    return msgspec.structs.replace(
        policy, minimum=min(maximum, max(policy.minimum, fewest)), maximum=maximum, fixed=fixed
    )


def automatic(nodes: Sequence[Node]) -> list[Node]:
    """The nodes that follow the wanted number, the oldest first."""
    return [node for node in nodes if node.kind == "up" and node.signals.get("maximum", 0) > 0]


def spread(desired: int, bounds: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """Shares within each one's bounds that add up to `desired` as nearly as these allow, as even as they allow."""
    shares = {name: fewest for name, (fewest, _) in bounds.items()}
    while sum(shares.values()) < desired:
        open_ones = [name for name, (_, most) in bounds.items() if shares[name] < most]
        if not open_ones:
            break
        shares[min(open_ones, key=shares.__getitem__)] += 1
    return shares
