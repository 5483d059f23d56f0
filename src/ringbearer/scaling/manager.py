"""The scaling manager: the control loop that decides how many workers there shall be, and has it done."""

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec
import psutil

from ringbearer import clock, ids
from ringbearer.domain.deliveries import State
from ringbearer.domain.relief import SLAConfiguration
from ringbearer.domain.scaling import Decision, Floors, LoadMetrics, ScalingPolicy
from ringbearer.looper import Looper
from ringbearer.redis_link import RedisLink
from ringbearer.scaling import connections, reports
from ringbearer.scaling.connections import ConnectionHealth, PoolOptimization
from ringbearer.scaling.enforcement import Enforcer, SLAEnforcement
from ringbearer.scaling.forecast import TrafficPattern
from ringbearer.scaling.foresight import MOST_DAYS, Foresight
from ringbearer.scaling.headroom import Headroom, redis_workers, store_workers
from ringbearer.scaling.policy import Memory, Recommendation, decide
from ringbearer.scaling.results import (
    PerformanceReport,
    PolicyChange,
    ProcessResources,
    ResourceMetrics,
    ScalingPrediction,
    ScalingResult,
)
from ringbearer.scaling.signals import by_lane, combined
from ringbearer.scaling.targets import target_for, within
from ringbearer.season import Season
from ringbearer.storage.base import Storage
from ringbearer.storage.nodes import ALIVE_SECONDS, Node
from ringbearer.telemetry import ScalingDecided, Telemetry

_log = logging.getLogger(__name__)

_DECIDE_SECONDS = 1.0
_TEND_SECONDS = 30.0
_LOST_SECONDS = 30.0  # who fell silent without a word for less than this may come back: a doubt
_REPEAT_SECONDS = 5.0  # the same decision is written again after this, so that readers see that it stands
_ACTOR = "scaler"
_DAY = 86_400 * clock.SECOND
_RECORDS = 10_000  # as far back as a report looks at most


class WebhookScalingManager:
    """Keeps the number of workers right: measures, decides by the policy, and tells whoever starts workers.

    In the running system it decides each second, on the API process that leads. Alone, every method may be called
    at any time; `async with` runs the loop. Raises StoreUnavailable when the store cannot be asked.
    """

    def __init__(
        self,
        *,
        storage: Storage,
        telemetry: Telemetry | None = None,
        season: Callable[[], Season] = Season,
        term: Callable[[], int | None] = lambda: None,
        redis: RedisLink | None = None,
    ) -> None:
        self._storage = storage
        self._telemetry = telemetry or Telemetry()
        self._season = season
        self._term = term
        self._foresight = Foresight(storage, season)
        self._enforcer = Enforcer(storage, self._telemetry)
        self._memory = Memory()
        self._load: LoadMetrics | None = None
        self._written: tuple[float, Recommendation] | None = None
        self._headroom = Headroom(storage, redis)
        self._turn = asyncio.Lock()
        self._looper = Looper("scaler", self._tick, interval=_DECIDE_SECONDS)
        self._tender = Looper("tender of forecast and connections", self._tend, interval=_TEND_SECONDS)

    def __repr__(self) -> str:
        if self._written is None:
            return "<WebhookScalingManager, nothing decided yet>"
        found = self._written[1]
        return f"<WebhookScalingManager wants {found.desired} workers by the rule {found.rule}>"

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def start(self) -> None:
        """Begin to decide each second. What was known before is forgotten: a new leader first looks for a while."""
        self._memory, self._written = Memory(), None
        self._looper.start()
        self._tender.start()

    async def stop(self) -> None:
        """End the loops; the number stays as it is."""
        await self._looper.stop()
        await self._tender.stop()

    async def scale_webhook_infrastructure(self, load_metrics: LoadMetrics | None = None) -> ScalingResult:
        """Decide once, from what is measured now or from the metrics that are given, and have it done."""
        async with self._turn:
            return await asyncio.to_thread(self._decide, load_metrics)

    async def monitor_resource_utilization(self) -> ResourceMetrics:
        """What every process takes now, one by one and together, and how much room there is."""
        return await asyncio.to_thread(self._resources)

    async def predict_scaling_needs(
        self, pattern: TrafficPattern | None = None, *, days: int = 14
    ) -> ScalingPrediction:
        """What is to come hour by hour, the workers it asks for, and how wrong such forecasts were of late.

        By the installation's own history, or after the given pattern; at most 60 days.
        """

        def predict() -> ScalingPrediction:
            nodes, _, load = self._measure()
            return self._foresight.prediction(
                load,
                within(self._storage.scaling.policy(), target_for(nodes), nodes),
                days=min(days, MOST_DAYS),
                now=clock.to_datetime(clock.now()),
                pattern=pattern,
            )

        return await asyncio.to_thread(predict)

    async def enforce_performance_slas(self, config: SLAConfiguration | None = None) -> SLAEnforcement:
        """Look at the service levels, after setting them if they are given, and take or undo one step if need be.

        In this order, each reversible and announced: more workers, a bigger share for the lane, bulk deferred, replays
        slowed, the worst endpoints paused. Nothing is ever dropped.
        """

        def enforce() -> SLAEnforcement:
            if config is not None:
                self._enforcer.configure(config)
            load = self._measure()[2] if config is not None or self._load is None else self._load
            desired = self._written[1].desired if self._written is not None else load.workers
            return self._enforcer.enforce(load, desired=desired)

        async with self._turn:
            return await asyncio.to_thread(enforce)

    async def implement_auto_scaling_policies(
        self, policy: ScalingPolicy, *, actor: str = _ACTOR
    ) -> PolicyChange:
        """Replace the policy of the running system; the next decision follows it. It is on record with its author."""
        return await asyncio.to_thread(self._change_policy, policy, actor)

    async def monitor_connection_health(self) -> ConnectionHealth:
        """Whether the store answers, how soon, and how many connections are left."""
        return await asyncio.to_thread(connections.health, self._storage)

    async def optimize_connection_pools(self) -> PoolOptimization:
        """Share the server's connections evenly among the processes that live; all of them follow within a second."""

        def optimize() -> PoolOptimization:
            return connections.optimize(self._storage, processes=len(self._storage.nodes.alive()))

        return await asyncio.to_thread(optimize)

    async def generate_performance_reports(self, *, days: int = 30) -> PerformanceReport:
        """How the number of workers moved in the last days and why, beside how things stand now."""

        health = await self.monitor_connection_health()

        def generate() -> PerformanceReport:
            since = clock.now() - days * _DAY
            found = reports.changes(self._storage.scaling.decisions(limit=_RECORDS), since=since)
            error = self._foresight.forecast()[1].error
            relief, resources = self._enforcer.relief(), self._resources()
            return reports.report(
                found,
                since=since,
                resources=resources,
                health=health,
                steps=relief.steps,
                forecast_error=error,
            )

        return await asyncio.to_thread(generate)

    # ── measuring ───────────────────────────────────────────────────────────────────────────────────────

    def _measure(self) -> tuple[list[Node], list[Node], LoadMetrics]:
        """The processes that live, those that fell silent without a word, and what all of them amount to."""
        known = self._storage.nodes.alive(within=_LOST_SECONDS)
        now = max((node.beat_at for node in known), default=0)
        nodes = [node for node in known if now - node.beat_at <= ALIVE_SECONDS * clock.SECOND]
        silent = [node for node in known if node not in nodes]
        ready: dict[int, float] = {}
        for entry in self._storage.ledger.depth():
            if entry.state is State.READY:
                ready[entry.lane] = ready.get(entry.lane, 0) + entry.count
        moment = clock.now()
        ages = {
            lane: max(0, moment - since) / clock.SECOND
            for lane, since in self._storage.ledger.oldest().items()
        }
        workers = sum(node.kind == "work" for node in nodes)
        room = self._headroom.room()
        load = combined(
            nodes,
            backlog=[int(max(0, count)) for count in by_lane(ready)],
            oldest=by_lane(ages),
            store_workers=store_workers(room, workers),
            redis_workers=redis_workers(room, workers),
            lost=[f"{node.kind} {node.host}:{node.pid}" for node in silent],
            last=self._load,
        )
        self._load = load
        return nodes, silent, load

    def _resources(self) -> ResourceMetrics:
        nodes, _, load = self._measure()
        now = max((node.beat_at for node in nodes), default=0)
        processes = [
            ProcessResources(
                id=node.id,
                kind=node.kind,
                host=node.host,
                pid=node.pid,
                version=node.version,
                seconds_since_beat=(now - node.beat_at) / clock.SECOND,
                signals=node.signals,
            )
            for node in nodes
        ]

        def total(name: str) -> float:
            return sum(process.signals.get(name, 0.0) for process in processes)

        slots, held = int(total("slots")), int(total("held"))
        room = self._headroom.room()
        return ResourceMetrics(
            processes=processes,
            cpu=total("cpu"),
            memory=int(total("memory")),
            files=int(total("files")),
            slots=slots,
            held=held,
            utilisation=held / slots if slots else 0.0,
            worst_lag=max((process.signals.get("lag", 0.0) for process in processes), default=0.0),
            host_cpu=psutil.cpu_percent(interval=0.2) / 100,
            host_memory=psutil.virtual_memory().percent / 100,
            store_connections=room.store_connections,
            redis_connections=room.redis_connections,
            redis_memory=room.redis_memory,
            load=load,
        )

    # ── deciding ────────────────────────────────────────────────────────────────────────────────────────

    async def _tick(self) -> float | None:
        result = await self.scale_webhook_infrastructure()
        if not result.applied:
            # A leader of a later term has decided: relief is its business too, until this process hears of it.
            _log.info("another process decides how many workers there shall be")
            return None
        await self.enforce_performance_slas()
        return None

    async def _tend(self) -> float | None:
        """What may take longer than a decision may wait for."""
        pools = await self.optimize_connection_pools()
        if pools.changed:
            _log.info(
                "the connections of each process change",
                extra={"before": pools.before, "after": pools.after, "why": pools.reason},
            )
        await asyncio.to_thread(self._foresight.refresh, now=clock.to_datetime(clock.now()))
        return None

    def _decide(self, given: LoadMetrics | None) -> ScalingResult:
        nodes, silent, measured = self._measure()
        load = given or measured
        # A machine that fell silent may come back: what it can run is not taken off the bounds before it counts as gone.
        known = [*nodes, *silent]
        target = target_for(known)
        policy = within(self._storage.scaling.policy(), target, known)
        moment = clock.to_datetime(clock.now())
        season = self._season().state(moment)
        floors = Floors(
            forecast=self._foresight.floor(load, policy, now=moment),
            season=season.worker_floor,
            relief=self._enforcer.relief().worker_floor,
        )
        before = self._before(load)
        found, memory = decide(
            load, policy, before, now=clock.monotonic(), peak=season.phase == "peak", floors=floors
        )
        shares = target.shares(found.desired, nodes)
        applied = self._publish(found, load, shares)
        if applied:
            self._memory = memory
            self._telemetry.emit(
                ScalingDecided(
                    current=load.workers, before=found.current, desired=found.desired, rule=found.rule
                )
            )
        return ScalingResult(
            before=found.current,
            after=found.desired if applied else found.current,
            needed=found.needed,
            rule=found.rule,
            reason=found.reason,
            target=target.name,
            shares=shares,
            applied=applied,
            load=load,
        )

    def _before(self, load: LoadMetrics) -> Memory:
        """What is remembered; a new leader goes on from the number that stands, not from what happens to run."""
        if self._memory.decided:
            return self._memory
        latest = self._storage.scaling.latest()
        if latest is None:
            return Memory()
        return Memory(decided=((clock.monotonic(), latest.desired),))

    def _publish(self, found: Recommendation, load: LoadMetrics, shares: dict[str, int]) -> bool:
        now = clock.monotonic()
        last = self._written[1] if self._written is not None else None
        remarkable = (
            last is None or last.desired != found.desired or (last.rule == "doubt") != (found.rule == "doubt")
        )
        if self._written is not None and not remarkable and now - self._written[0] < _REPEAT_SECONDS:
            return True
        decision = Decision(
            id=ids.scaling(),
            at=clock.to_datetime(clock.now()),
            actor=_ACTOR,
            current=load.workers,
            desired=found.desired,
            rule=found.rule,
            reason=found.reason,
            inputs={
                **msgspec.to_builtins(load),
                "needed": found.needed,
                "demand": found.demand,
                "peak": found.peak,
                "floors": msgspec.to_builtins(found.floors),
            },
        )
        if not self._storage.scaling.decided(decision, shares, term=self._term(), remarkable=remarkable):
            return False
        if last is not None and last.desired != found.desired:
            _log.info(
                "the number of workers changes",
                extra={
                    "before": last.desired,
                    "after": found.desired,
                    "rule": found.rule,
                    "why": found.reason,
                },
            )
        self._written = now, found
        return True

    def _change_policy(self, policy: ScalingPolicy, actor: str) -> PolicyChange:
        before = self._storage.scaling.policy()
        changed = _difference(before, policy)
        reason = (
            "; ".join(f"{name}: {old!r} becomes {new!r}" for name, (old, new) in changed.items())
            or "nothing differs"
        )
        if changed:
            latest = self._storage.scaling.latest()
            desired = latest.desired if latest is not None else 0
            record = Decision(
                id=ids.scaling(),
                at=clock.to_datetime(clock.now()),
                actor=actor,
                current=desired,
                desired=desired,
                rule="policy",
                reason=reason,
                inputs={"before": msgspec.to_builtins(before), "after": msgspec.to_builtins(policy)},
            )
            self._storage.scaling.change_policy(policy, record)
            self._looper.wake()
        return PolicyChange(before=before, after=policy, changed=changed, reason=reason)


def _difference(before: ScalingPolicy, after: ScalingPolicy) -> dict[str, tuple[object, object]]:
    return {
        field: (getattr(before, field), getattr(after, field))
        for field in ScalingPolicy.__struct_fields__
        if getattr(before, field) != getattr(after, field)
    }
