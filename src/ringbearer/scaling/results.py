"""What the scaling manager's methods answer: what it found, decided and changed."""

import msgspec

from ringbearer.domain.scaling import LoadMetrics, ScalingPolicy


class ScalingResult(msgspec.Struct, frozen=True, kw_only=True):
    """One decision and what followed from it."""

    before: int
    after: int
    needed: int
    """What the load alone asks for."""
    rule: str
    reason: str
    target: str
    shares: dict[str, int]
    """How many workers each machine that Ringbearer runs itself on was told to run, by node."""
    applied: bool
    """False when another leader has decided meanwhile: then nothing was changed."""
    load: LoadMetrics


class ProcessResources(msgspec.Struct, frozen=True, kw_only=True):
    """One process: its own figures, see `scaling/signals.py`."""

    id: str
    kind: str
    host: str
    pid: int
    version: str
    seconds_since_beat: float
    signals: dict[str, float]


class ResourceMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """All processes, and what they take together. Memory in bytes, `cpu` in processors."""

    processes: list[ProcessResources]
    cpu: float
    memory: int
    files: int
    slots: int
    held: int
    utilisation: float
    """Of the workers' slots."""
    worst_lag: float
    host_cpu: float
    """Of all processors of this machine, whoever uses them, as a share."""
    host_memory: float
    """Of this machine's memory, as a share."""
    store_connections: int | None
    """How many more the store takes; None where that is no limit."""
    load: LoadMetrics


class PolicyChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the policy."""

    before: ScalingPolicy
    after: ScalingPolicy
    changed: dict[str, tuple[object, object]]
    reason: str
