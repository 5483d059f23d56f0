"""Steering: every process follows the stored plans and the season, and tells of each change."""

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

import msgspec

from ringbearer import clock
from ringbearer.domain.relief import RELIEF, Relief
from ringbearer.queue.plan import QueuePlan, differences, in_season
from ringbearer.rules import PriorityConfiguration, Rules
from ringbearer.season import Season, SeasonScalingConfig, SeasonState
from ringbearer.storage.database import CONNECTIONS, ConnectionLimit
from ringbearer.storage.ledger import Ledger
from ringbearer.storage.plans import Plans
from ringbearer.telemetry import PlanChanged, Telemetry

_log = logging.getLogger(__name__)
R = TypeVar("R")

PRIORITIES, QUEUE, SEASON, BALANCE = "priorities", "queue", "season", "balance"
"""The names of the stored plans."""
RANKED = "ranked"
"""Where the version of the rules stands by which what is queued was ranked last."""


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of their slots that workers fill, by their nodes' ids."""

    shares: dict[str, float]


P = TypeVar("P", PriorityConfiguration, QueuePlan, SeasonScalingConfig, Balance, Relief, ConnectionLimit)


class Steering:
    """What is in force now: rules, plan and season. `follow` is called about twice a second, and after each change.

    Reading the attributes never blocks; whoever needs several that belong together takes them from one thread.
    """

    def __init__(self, *, plans: Plans, ledger: Ledger, telemetry: Telemetry, node_id: str = "") -> None:
        self._plans = plans
        self._node_id = node_id
        self._ledger = ledger
        self._telemetry = telemetry
        self._versions: dict[str, int] = {}
        self._lock = threading.Lock()
        self.rules = Rules()
        self.season = Season()
        self.season_state = SeasonState()
        self.connections: ConnectionLimit | None = None
        """How many connections to the store this process may open, once somebody said so."""
        self.relief = Relief()
        """What is done for a service level that burns too fast."""
        self.shares: dict[str, float] = {}
        """The parts of their slots that workers, by their nodes' ids, fill ahead; others fill what the plan says."""
        self.base = QueuePlan()
        """The plan without what the season asks for."""
        self.plan = self.base
        """The plan in force."""

    def __repr__(self) -> str:
        return f"<Steering {self._versions}, {self.season_state.phase}>"

    def follow(self, *, now: int) -> None:
        """Take over what was changed, and what the calendar changes. Blocks; raises StoreUnavailable."""
        with self._lock:
            versions = self._plans.versions()
            if versions != self._versions:
                self._load(versions)
                self._versions = versions
            self._apply(now)

    def store(self, name: str, plan: P, *, now: int, reason: str) -> int:
        """Write a plan down and follow it at once; returns its version. Blocks; raises StoreUnavailable."""
        version = self._plans.put(name, msgspec.json.encode(plan).decode(), now=now, reason=reason)
        self.follow(now=now)
        return version

    def version(self, name: str) -> int:
        """The version of a plan that is followed; 0 when there is none."""
        return self._versions.get(name, 0)

    def ranked_version(self) -> int:
        """The version of the rules by which what is queued was ranked last. Blocks."""
        stored = self._plans.get(RANKED)
        return msgspec.json.decode(stored.body, type=int) if stored is not None else 0

    def note_ranked(self, version: int, *, now: int) -> None:
        """Write down that what is queued was ranked by this version of the rules. Blocks."""
        self._plans.put(RANKED, str(version), now=now, reason="what is queued was ranked")

    def _load(self, versions: dict[str, int]) -> None:
        changed = {name for name, version in versions.items() if version != self._versions.get(name)}
        if PRIORITIES in changed:
            self.rules = self._read(PRIORITIES, PriorityConfiguration, Rules, self.rules)
        if SEASON in changed:
            self.season = self._read(SEASON, SeasonScalingConfig, Season, self.season)
        if BALANCE in changed:
            self.shares = self._read(BALANCE, Balance, lambda balance: balance.shares, self.shares)
        if CONNECTIONS in changed:
            self.connections = self._read(CONNECTIONS, ConnectionLimit, lambda limit: limit, self.connections)
        if RELIEF in changed:
            self.relief = self._read(RELIEF, Relief, lambda relief: relief, self.relief)
        if QUEUE in changed:
            self.base = self._read(QUEUE, QueuePlan, lambda plan: plan, self.base)

    def _read(self, name: str, kind: type[P], make: Callable[[P], R], before: R) -> R:
        """What is made of a stored plan; one that a newer version wrote, and that means nothing here, is left."""
        stored = self._plans.get(name)
        if stored is None:
            return before
        try:
            made = make(msgspec.json.decode(stored.body, type=kind))
        except msgspec.ValidationError as error:
            _log.error("the stored plan of %s cannot be followed: %s", name, error)
            return before
        _log.info("plan followed", extra={"plan": name, "version": stored.version, "reason": stored.reason})
        return made

    def _apply(self, now: int) -> None:
        state = self.season.state(clock.to_datetime(now))
        plan = in_season(self.base, state)
        plan = msgspec.structs.replace(plan, weights=self.relief.weights(plan.weights))
        share = self.shares.get(self._node_id)
        if share is not None:
            plan = msgspec.structs.replace(plan, prefetch=max(0.1, plan.prefetch * share))
        changed = differences(self.plan, plan) | differences(self.season_state, state)
        weights = self.rules.configuration.weights()
        self._ledger.flows.weigh({t: w * state.tier_reserves.get(t, 1.0) for t, w in weights.items()})
        if changed:
            self.plan, self.season_state = plan, state
            told = {name: f"{old} → {new}" for name, (old, new) in changed.items()}
            _log.info("what the queue follows has changed", extra={"changes": told, "reason": state.reason})
            self._telemetry.emit(PlanChanged(told, state.reason))
