"""The optimizer: owns what the queue follows, and the loop of a worker that follows it."""

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

import msgspec

from ringbearer import clock
from ringbearer.calendar import MAX_COMING_DAYS, PeakDay
from ringbearer.domain.deliveries import State
from ringbearer.domain.events import LANES
from ringbearer.errors import Conflict
from ringbearer.queue import bottlenecks
from ringbearer.queue.base import Demand, Queue
from ringbearer.queue.loop import WorkLoop
from ringbearer.queue.plan import QueuePlan, differences
from ringbearer.queue.results import (
    BacklogAlert,
    BalanceResult,
    BatchProcessingResult,
    LaneState,
    OptimizationResult,
    PreWarmResult,
    PrioritizationResult,
    QueuePerformance,
    SeasonResult,
)
from ringbearer.queue.steering import BALANCE, PRIORITIES, QUEUE, SEASON, Balance, Steering
from ringbearer.queue.tuning import (
    Damper,
    QueueConfiguration,
    Situation,
    expected_wait,
    shares_of_workers,
    wanted_plan,
)
from ringbearer.rules import PriorityConfiguration, Rules
from ringbearer.rules import check as check_rules
from ringbearer.season import RehearsedHour, Season, SeasonScalingConfig
from ringbearer.season import check as check_season
from ringbearer.storage.ledger import Ledger
from ringbearer.storage.nodes import Node, Nodes
from ringbearer.storage.ranking import Moved, Queued
from ringbearer.telemetry import BacklogGrew, DeliveriesMoved, Telemetry

_log = logging.getLogger(__name__)
_PAGE = 1_000
_LEAST_RATE = 1.0  # deliveries per second: of fewer, nothing can be told
P = ParamSpec("P")
T = TypeVar("T")


class WebhookQueueOptimizer:
    """Decides which delivery is next, and how much at a time; each change is stored, and every process follows it.

    In a worker process it has the `loop`; others steer without one. `nodes` is where processes tell how they are.
    Methods raise StoreUnavailable.
    """

    def __init__(
        self,
        *,
        queue: Queue,
        ledger: Ledger,
        nodes: Nodes,
        steering: Steering,
        telemetry: Telemetry,
        loop: WorkLoop | None = None,
    ) -> None:
        self._queue = queue
        self._ledger = ledger
        self._nodes = nodes
        self._telemetry = telemetry
        self._damper = Damper()
        self._backlog: tuple[float, tuple[int, ...]] | None = None
        self._over: set[str] = set()
        self._running = False
        self._thread: ThreadPoolExecutor | None = None
        self.steering = steering
        self.loop = loop

    def __repr__(self) -> str:
        state = self.steering.season_state.phase
        return f"<WebhookQueueOptimizer {self.steering.plan.weights}, {state}, {self.loop!r}>"

    async def __aenter__(self) -> Self:
        await _call(self.steering.follow, now=clock.now())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.loop is not None and self._thread is not None:
            self.loop.stop()
            await asyncio.get_running_loop().run_in_executor(self._thread, self.loop.end)
            self._thread.shutdown()

    # ── the loop ────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Be a worker: claim, send and settle until stopped. Blocks; belongs on a thread of its own."""
        self._running = True
        try:
            self._own_loop().run()
        finally:
            self._running = False

    async def batch_process_webhooks(self, batch_size: int, max_wait_time: float) -> BatchProcessingResult:
        """Deliver up to so many, waiting at most so many seconds for them to come, and see all of them through.

        In a worker that runs this watches the running loop instead: it returns when so many have been settled, or
        when the time is over.
        """
        loop = self._own_loop()
        began, claimed, states = clock.monotonic(), loop.measures.claimed, loop.measures.states.copy()
        if self._running:
            wanted = states.total() + batch_size
            filled = await _call(loop.measures.wait_for, wanted, timeout=max_wait_time)
        else:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="courier")
            count = await asyncio.get_running_loop().run_in_executor(
                self._thread, loop.process, batch_size, max_wait_time
            )
            filled = count >= batch_size
        became = loop.measures.states - states
        return BatchProcessingResult(
            claimed=loop.measures.claimed - claimed,
            settled=became.total(),
            states={state.value: count for state, count in became.items()},
            duration=clock.monotonic() - began,
            filled=filled,
            measure=loop.measures.read(),
        )

    def _own_loop(self) -> WorkLoop:
        if self.loop is None:
            raise Conflict("this optimizer has no loop: it steers; workers have one")
        return self.loop

    def park_crowded(self, *, now: int) -> int:
        """Park what stands behind deliveries that this worker had to put back in number; returns how many moved.

        Blocks, for as long as it takes to walk over what is ready: not for the loop's own thread.
        """
        parking = self._ledger.parking
        crowded = [park for park in self._own_loop().crowded.take() if park.endpoint_id not in parking]
        moved = parking.park(crowded, now=now)
        if moved:
            self._telemetry.emit(DeliveriesMoved("parked", moved))
        return moved

    # ── sizes and shares ────────────────────────────────────────────────────────────────────────────────

    async def optimize_queue_processing(
        self, config: QueueConfiguration | None = None, *, damped: bool = False
    ) -> OptimizationResult:
        """Measure, compute the plan that fits (see `tuning.wanted_plan`), store it and follow it.

        With `damped` a change is made only when it has been wanted several times in a row, as the controller does.
        """
        config = config or QueueConfiguration()
        before = self.steering.base
        situation = await _call(self._situation)
        if situation is None:
            return OptimizationResult(
                before=before,
                after=before,
                changed=False,
                reasons={},
                situation=None,
                expected_wait=None,
                reason=f"fewer than {_LEAST_RATE:g} deliveries per second came lately: that tells nothing",
            )
        wanted, why = wanted_plan(before, situation, config)
        after = self._damper.damp(before, wanted) if damped else wanted
        changed = differences(before, after)
        reasons = {name: why.get(name, "") for name in changed}
        if changed:
            reason = "; ".join(f"{name}: {text}" for name, text in reasons.items())
            await _call(self.steering.store, QUEUE, after, now=clock.now(), reason=reason)
        wait = expected_wait(situation.arrival_rate, situation.service, situation.slots)
        return OptimizationResult(
            before=before,
            after=after,
            changed=bool(changed),
            reasons=reasons,
            situation=situation,
            expected_wait=None if wait == float("inf") else wait,
            reason="the plan was fitted to what was measured" if changed else "the plan fits already",
        )

    async def change_plan(self, plan: QueuePlan, *, reason: str) -> QueuePlan:
        """Store another plan and follow it; returns the one before."""
        before = self.steering.base
        await _call(self.steering.store, QUEUE, plan, now=clock.now(), reason=reason)
        return before

    def _situation(self) -> Situation | None:
        """What is known of the queue, from this worker's loop, the other workers' heartbeats and the store."""
        loop = self._own_loop()
        measure, now = loop.measures.read(), clock.monotonic()
        ready = self._ready()
        before, self._backlog = self._backlog, (now, ready)
        if measure.service is None or measure.claimed_rate < _LEAST_RATE:
            return None
        workers = [node for node in self._nodes.alive() if node.kind == "work"]
        count = max(1, len(workers))
        grown = [0.0] * len(LANES)
        if before is not None and now - before[0] > 0.1:
            grown = [(a - b) / (now - before[0]) for a, b in zip(ready, before[1], strict=True)]
        arrivals = [
            max(0.0, lane.claimed_rate * count + g) for lane, g in zip(measure.lanes, grown, strict=True)
        ]
        waits = [lane.wait_p95 for lane in measure.lanes]
        return Situation(
            slots=loop.slots * count,
            service=measure.service,
            arrivals=(arrivals[0], arrivals[1], arrivals[2], arrivals[3]),
            backlog=ready,
            waits=(waits[0], waits[1], waits[2], waits[3]),
            claim_seconds=measure.claim_seconds or 0.0,
        )

    def _ready(self) -> tuple[int, int, int, int]:
        found = {d.lane: d.count for d in self._queue.depth() if d.state is State.READY}
        return found.get(0, 0), found.get(1, 0), found.get(2, 0), found.get(3, 0)

    async def balance_queue_load(self) -> BalanceResult:
        """Let workers that are busier than the others fill less of their slots ahead, so that the others get more."""
        nodes = await _call(self._nodes.alive)
        cpu = {n.id: n.signals["cpu"] for n in nodes if n.kind == "work" and "cpu" in n.signals}
        before, after = self.steering.shares, shares_of_workers(cpu)
        if before != after:
            reason = "workers differ in how busy they are" if after else "workers are about equally busy"
            await _call(self.steering.store, BALANCE, Balance(shares=after), now=clock.now(), reason=reason)
        else:
            reason = "nothing to change"
        return BalanceResult(before=before, after=after, cpu=cpu, reason=reason)

    # ── rules ───────────────────────────────────────────────────────────────────────────────────────────

    async def prioritize_webhook_deliveries(
        self, config: PriorityConfiguration, *, reason: str = "set by an operator", at_once: bool = True
    ) -> PrioritizationResult:
        """Store other rules, follow them, and put what is queued into the lanes that they say, in batches.

        Deliveries that are with a worker stay where they are. Without `at_once` what is queued is left to the leading
        worker, who comes to it within seconds, and nothing is examined here. Raises InvalidInput for rules that cannot
        be followed.
        """
        check_rules(config)
        before = self.steering.rules.configuration
        version = await _call(self.steering.store, PRIORITIES, config, now=clock.now(), reason=reason)
        examined, moved = await self._apply_rules(version) if at_once else (0, 0)
        return PrioritizationResult(
            before=before,
            after=config,
            version=version,
            examined=examined,
            moved=moved,
            reason=reason,
        )

    async def catch_up_with_rules(self) -> int:
        """Rank anew what is queued if the rules have changed since that was last done; returns how many moved.

        Whoever dies over it leaves it to the next: it begins again, and what was moved already stays.
        """
        version = self.steering.version(PRIORITIES)
        if version == await _call(self.steering.ranked_version):
            return 0
        return (await self._apply_rules(version))[1]

    async def _apply_rules(self, version: int) -> tuple[int, int]:
        examined, moved = await _call(self._rank_anew, self.steering.rules)
        await _call(self.steering.note_ranked, version, now=clock.now())
        _log.info("what is queued was ranked anew", extra={"examined": examined, "moved": moved})
        return examined, moved

    def _rank_anew(self, rules: Rules) -> tuple[int, int]:
        after, examined, moved = "", 0, 0
        while page := self._ledger.ranking.page(after=after, limit=_PAGE):
            now = clock.now()
            changed = [m for queued in page if (m := _judged(queued, rules, now)).lane != queued.lane]
            count = self._ledger.ranking.move(changed)
            self._telemetry.emit(DeliveriesMoved("ranked", count))
            self._queue.push(count)
            after, examined, moved = page[-1].delivery_id, examined + len(page), moved + count
        return examined, moved

    # ── the season ──────────────────────────────────────────────────────────────────────────────────────

    async def scale_for_wedding_season(
        self, config: SeasonScalingConfig, *, reason: str = "set by an operator"
    ) -> SeasonResult:
        """Store the season's plan; every process follows it from now on. Raises InvalidInput."""
        check_season(config)
        before = self.steering.season.plan
        version = await _call(self.steering.store, SEASON, config, now=clock.now(), reason=reason)
        return SeasonResult(
            before=before,
            after=config,
            version=version,
            state=self.steering.season_state,
            plan=self.steering.plan,
            next_warming=self.steering.season.next_warming(clock.to_datetime(clock.now())),
            reason=reason,
        )

    async def rehearse_season(
        self, day: date, config: SeasonScalingConfig | None = None
    ) -> list[RehearsedHour]:
        """Hour by hour what the stored plan, or another one, would ask for on a day; nothing is done."""
        if config is None:
            return self.steering.season.rehearse(day)
        check_season(config)
        return Season(config).rehearse(day)

    async def coming_peaks(self, days: int, timezone: str) -> list[PeakDay]:
        """The peak days of a time zone among the next so many days."""
        now = clock.to_datetime(clock.now())
        return self.steering.season.calendar.coming(now, min(days, MAX_COMING_DAYS), timezone)

    # ── watching ────────────────────────────────────────────────────────────────────────────────────────

    async def monitor_queue_performance(self) -> QueuePerformance:
        """How each lane stands, what the queue follows, and what limits it."""
        now = clock.now()
        lanes, parked = await _call(self._lanes, now), len(self._ledger.parking)
        return QueuePerformance(
            lanes=lanes,
            parked_endpoints=parked,
            plan=self.steering.plan,
            season=self.steering.season_state,
            measure=self.loop.measures.read() if self.loop is not None else None,
            bottlenecks=tuple(await self.detect_queue_bottlenecks()),
            at=clock.to_datetime(now),
        )

    async def detect_queue_bottlenecks(self) -> list[bottlenecks.Bottleneck]:
        """The stages that limit the whole service now, the worst first, each with its evidence."""
        nodes = await _call(self._nodes.alive)
        lanes = await _call(self._lanes, clock.now())
        flow = _seen(nodes, lanes)
        if self.loop is not None:
            m = self.loop.measures.read()
            flow = msgspec.structs.replace(
                flow,
                claim_seconds=m.claim_seconds or 0.0,
                settle_seconds=m.settle_seconds or 0.0,
                claims=m.claimed_rate / m.claim_batch if m.claim_batch else 0.0,
                settlements=m.settled_rate / self.steering.plan.batch_size,
            )
        return bottlenecks.find(flow)

    async def alert_on_queue_backlog(self) -> list[BacklogAlert]:
        """The lanes whose backlog is over the plan's thresholds; telemetry is told when one goes over or comes back.

        It counts as back when it is under half of both thresholds, so that it is not told again and again.
        """
        plan, alerts = self.steering.plan, []
        for lane in await _call(self._lanes, clock.now()):
            excess = max(lane.oldest_age / plan.backlog_age, lane.ready / plan.backlog_depth)
            was_over = lane.lane in self._over
            if excess > 1:
                why = f"{lane.ready} are ready, the oldest for {lane.oldest_age:.1f} s; expected at most "
                why += f"{plan.backlog_depth} and {plan.backlog_age:g} s"
                alerts.append(
                    BacklogAlert(lane=lane.lane, ready=lane.ready, oldest_age=lane.oldest_age, reason=why)
                )
            over = excess > 1 or (was_over and excess > 0.5)
            if over != was_over:
                self._over ^= {lane.lane}
                self._telemetry.emit(BacklogGrew(lane.lane, lane.ready, lane.oldest_age, over))
        return alerts

    async def pre_warm_queue_infrastructure(self) -> PreWarmResult:
        """Open connections, prepare the statements of a claim, take over the order and the plans, wake the workers."""
        steps: dict[str, float] = {}

        def step(name: str, work: Callable[[], object]) -> None:
            began = clock.monotonic()
            work()
            steps[name] = clock.monotonic() - began

        def warm() -> None:
            nothing = Demand(quotas=(0, 0, 0, 0), worker="wrk_warm", until=clock.now())
            step("claim", lambda: self._queue.claim(nothing))
            step("depth", self._queue.depth)
            step("order", lambda: self._ledger.flows.exchange(now=clock.now()))
            step("parking", lambda: self._ledger.parking.follow(now=clock.now()))
            step("plans", lambda: self.steering.follow(now=clock.now()))
            step("bell", lambda: self._queue.push(1))

        await _call(warm)
        return PreWarmResult(steps=steps, reason="connections are open and what the queue follows is known")

    def _lanes(self, now: int) -> tuple[LaneState, ...]:
        counts = {(d.lane, d.state): d.count for d in self._queue.depth()}
        oldest = self._ledger.oldest()
        return tuple(
            LaneState(
                lane=name,
                ready=counts.get((lane, State.READY), 0),
                leased=counts.get((lane, State.LEASED), 0),
                scheduled=counts.get((lane, State.SCHEDULED), 0),
                oldest_age=max(0, now - oldest[lane]) / clock.SECOND if lane in oldest else 0.0,
                weight=self.steering.plan.weights[lane],
            )
            for lane, name in enumerate(LANES)
        )


def _judged(queued: Queued, rules: Rules, now: int) -> Moved:
    lane, reason = rules.lane(
        queued.event_type,
        queued.tier,
        queued.timezone,
        now,
        asked=queued.asked,
        tags=msgspec.json.decode(queued.tags, type=tuple[str, ...]) if queued.tags else (),
        occasion=date.fromisoformat(queued.occasion_date) if queued.occasion_date else None,
    )
    return Moved(queued, lane, reason)


def _seen(nodes: list[Node], lanes: tuple[LaneState, ...]) -> bottlenecks.Flow:
    """What the processes' heartbeats and the store tell together."""
    serve = [node.signals for node in nodes if node.kind == "serve"]
    work = [node.signals for node in nodes if node.kind == "work"]

    def most(signals: list[dict[str, float]], name: str) -> float:
        return max((s.get(name, 0.0) for s in signals), default=0.0)

    def total(signals: list[Mapping[str, float]] | list[dict[str, float]], name: str) -> float:
        return sum(s.get(name, 0.0) for s in signals)

    return bottlenecks.Flow(
        ready=sum(lane.ready for lane in lanes),
        oldest=max(lane.oldest_age for lane in lanes),
        accept_cpu=most(serve, "cpu"),
        accept_lag=most(serve, "lag"),
        accept_seconds=most(serve, "accept_seconds"),
        worker_cpu=total(work, "cpu") / len(work) if work else 0.0,
        slots=total(work, "slots"),
        held=total(work, "held"),
        store_seconds=most(work, "store_seconds"),
    )


async def _call(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call what blocks, on a thread."""
    return await asyncio.to_thread(functools.partial(function, *args, **kwargs))
