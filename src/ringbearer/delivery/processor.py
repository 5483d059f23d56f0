"""The processor: the engine that a worker drives, and what its operator, or an application, can ask of it meanwhile."""

import asyncio
import contextlib
import ctypes
import gc
import logging
import resource
import sys
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Self, TypeVar

import msgspec
import psutil

from ringbearer import clock
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.delivery import tuning
from ringbearer.delivery.engine import Engine
from ringbearer.delivery.gate import NO_ROOM
from ringbearer.delivery.profiling import profile
from ringbearer.delivery.throttle import Throttle
from ringbearer.delivery.tuning import (
    BatchPoint,
    BatchProcessingResult,
    ConnectionOptimization,
    CpuProfile,
    HostConnections,
    HostUse,
    MemoryOptimization,
    OptimalBatchSize,
    Parallelism,
    ParallelismConfig,
    ParallelismResult,
    RetryOptimization,
)
from ringbearer.domain.deliveries import Lease, Outcome, State
from ringbearer.domain.scaling import MOST_WORKERS
from ringbearer.errors import ConfigurationError, InvalidInput
from ringbearer.limits.base import RateLimiter
from ringbearer.limits.breakers import Breakers
from ringbearer.storage.parking import Parking
from ringbearer.telemetry import ProcessorTuned, Telemetry

T = TypeVar("T")
Processes = Callable[[int | None], Awaitable[tuple[int | None, int | None]]]
"""Lets so many worker processes run (0: as the load asks, None: as it is); tells how many it were, and are to be."""
_log = logging.getLogger(__name__)
_DRIVE_SECONDS = 0.2
_MOST_SLOTS = 20_000
_MOST_COURIERS = 16
_LEAST_SHARE = 0.05
_BATCHES = (32, 64, 128, 256, 512, 1_024, 2_048)
_MEASURE_SECONDS = 2.0
_SETTLE_SECONDS = 0.5  # before a measurement, for what was begun with the size before
_MOST_SHOWN = 20
_SPARE_HANDLES = 64
_MOST_AHEAD = 200


class _Batch:
    """A batch that somebody waits for."""

    def __init__(self, leases: Sequence[Lease], heard: Callable[[Outcome], None] | None) -> None:
        self.todo = deque(leases)
        self.left = len(leases)
        self.outcomes: list[Outcome] = []
        self.most_in_flight = 0
        self.heard = heard
        self.done: Future[None] = Future()

    def take(self, outcome: Outcome) -> None:
        """One of its deliveries came to an end."""
        self.outcomes.append(outcome)
        self.left -= 1
        if self.heard is not None:
            self.heard(outcome)
        if not self.left and not self.done.done():
            self.done.set_result(None)


class HighPerformanceWebhookProcessor(Engine):
    """Sends deliveries by libcurl, and tunes itself while it does.

    A worker drives it from its own thread (`begin`, `poll`, `report`); in an `async with` block it has a thread of
    its own for that. The async methods may be called from any event loop: each acts on the driving thread, between
    two of its turns, and returns what it found, decided and changed. `memory_limit` is in bytes, 0 for none;
    `processes` starts and ends further worker processes, where something can.
    `cpu_share` is the part of one core that the driving thread, and each further courier, may use.
    """

    def __init__(
        self,
        *,
        cache: WebhookCacheManager,
        limiter: RateLimiter,
        breakers: Breakers,
        telemetry: Telemetry,
        refuse: Callable[[str], str | None],
        slots: int,
        ca_file: str | None = None,
        proxy: str | None = None,
        public_url: str = "",
        sends_per_second: int = 0,
        parking: Parking | None = None,
        memory_limit: int = 0,
        cpu_share: float = 1.0,
        processes: Processes | None = None,
    ) -> None:
        super().__init__(
            cache=cache,
            limiter=limiter,
            breakers=breakers,
            telemetry=telemetry,
            refuse=refuse,
            slots=slots,
            ca_file=ca_file,
            proxy=proxy,
            public_url=public_url,
            sends_per_second=sends_per_second,
            parking=parking,
        )
        self._memory_limit = memory_limit
        self._processes = processes
        self._process = psutil.Process()
        self._batches: dict[str, _Batch] = {}
        self._wishes: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None
        self._driver: int | None = None
        self._stopping = threading.Event()
        self._pause = threading.Event()
        self._throttle = Throttle(cpu_share)
        self._looked_at = clock.monotonic()
        self._ended = 0
        self._kept = tuning.most_connections(slots, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._courier.keep_connections(self._kept)  # until the traffic tells how many are needed
        self.batch = _BATCHES[-1]
        """How many deliveries are to be claimed at a time, at most."""
        self.appetite = 1.0
        """How much of the usual is to be claimed: less than 1 near the memory cap, 0 at it."""

    async def __aenter__(self) -> Self:
        self._thread = threading.Thread(target=self._drive, name="courier")
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        self.close()

    @property
    def slots(self) -> int:
        """How many deliveries may be in flight."""
        return self._slots

    @property
    def parallelism(self) -> Parallelism:
        """How much is done at a time."""
        return Parallelism(
            couriers=self._courier.count,
            slots=self._slots,
            batch=self.batch,
            cpu_share=self._throttle.share,
        )

    # ── driving ─────────────────────────────────────────────────────────────────────────────────────────

    def poll(self, timeout: float) -> tuple[list[Outcome], bool]:
        """Drive what is in flight for at most `timeout` seconds: what became of it, and whether a bell rang.

        Outcomes of batches that somebody waits for go there.
        """
        if self._driver is None:
            self._driver = threading.get_ident()
        while self._wishes:
            self._wishes.popleft()()
        pause = self._throttle.rest(clock.monotonic(), clock.cpu()) if self._throttle.share < 1.0 else 0.0
        if pause > 0.0:
            self._pause.wait(pause)
        outcomes, rang = super().poll(min(timeout, _DRIVE_SECONDS))
        self._ended += len(outcomes)
        return (self._sort(outcomes) if self._batches else outcomes), rang

    def _drive(self) -> None:
        while not self._stopping.is_set() or self._batches:
            self.poll(_DRIVE_SECONDS)
            self.report()

    def _sort(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Hand outcomes to the batches that they belong to, and begin more of those; returns all others."""
        others = []
        for outcome in outcomes:
            batch = self._batches.get(outcome.lease.delivery_id)
            if batch is None:
                others.append(outcome)
            else:
                self._take(batch, outcome)
        for batch in set(self._batches.values()):
            self._feed(batch)
        return others

    def _take(self, batch: _Batch, outcome: Outcome) -> None:
        """What found no room only is begun again by and by; all else has come to its end."""
        if outcome.reason in NO_ROOM:
            batch.todo.append(outcome.lease)
            return
        self._batches.pop(outcome.lease.delivery_id, None)
        batch.take(outcome)

    def _feed(self, batch: _Batch) -> None:
        room = self._slots - self._gate.held
        if batch.todo and room > 0:
            leases = [batch.todo.popleft() for _ in range(min(room, len(batch.todo)))]
            for outcome in self.begin(leases):
                self._take(batch, outcome)
        batch.most_in_flight = max(batch.most_in_flight, self.in_flight)

    async def _there(self, work: Callable[[], T]) -> T:
        """Do it on the driving thread, between two of its turns; here, when nobody drives."""
        if self._driver is None and self._thread is None:
            return work()
        future: Future[T] = Future()

        def wish() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        self._wishes.append(wish)
        return await asyncio.wrap_future(future)

    # ── what can be asked of it ─────────────────────────────────────────────────────────────────────────

    async def process_batch_deliveries(
        self, deliveries: Sequence[Lease], *, heard: Callable[[Outcome], None] | None = None
    ) -> BatchProcessingResult:
        """Sign and send a batch, at most `slots` at a time; `heard` is told of each outcome as it comes.

        Deliveries that may not go out now (an open circuit, a rate limit, a pause) come back with the time at which
        they may. Raises StoreUnavailable when endpoints have to be loaded and cannot be.
        """
        if self._driver is None and self._thread is None:
            raise ConfigurationError("nobody drives this processor: use it in `async with`, or by a worker")
        began = clock.monotonic()
        batch = _Batch(deliveries, heard)

        def begin() -> None:
            self._batches |= {lease.delivery_id: batch for lease in deliveries}
            try:
                self._feed(batch)
            except BaseException:
                for lease in deliveries:
                    self._batches.pop(lease.delivery_id, None)
                raise

        if deliveries:
            await self._there(begin)
            await asyncio.wrap_future(batch.done)
        states = [outcome.state for outcome in batch.outcomes]
        tried = [outcome for outcome in batch.outcomes if outcome.record is not None]
        return BatchProcessingResult(
            outcomes=batch.outcomes,
            delivered=states.count(State.DELIVERED),
            retried=sum(outcome.state is State.SCHEDULED for outcome in tried),
            dead=states.count(State.DEAD),
            put_back=len(states) - len(tried),
            duration=clock.monotonic() - began,
            most_in_flight=batch.most_in_flight,
        )

    async def optimize_batch_size(
        self, throughput_target: float, *, sizes: Sequence[int] = _BATCHES, seconds: float = _MEASURE_SECONDS
    ) -> OptimalBatchSize:
        """Find the smallest batch that reaches so many deliveries a second, by trying sizes on live traffic.

        Each size is in force for `seconds`, from the smallest on, until one reaches the target.
        """
        before = self.batch
        curve: list[BatchPoint] = []
        for size in sorted(sizes):
            self.batch = size
            await asyncio.sleep(min(_SETTLE_SECONDS, seconds / 2))
            since, ended = clock.monotonic(), self._ended
            await asyncio.sleep(seconds)
            count = self._ended - ended
            rate = count / (clock.monotonic() - since)
            curve.append(BatchPoint(size=size, throughput=rate, deliveries=count))
            if rate >= throughput_target:
                break
        after, reached = tuning.smallest_batch(curve, throughput_target)
        if not any(point.deliveries for point in curve):
            after, reason = before, "there was no traffic to measure by"
        elif reached:
            reason = f"the smallest size that reached {throughput_target:g} deliveries a second"
        else:
            reason = "no size reached the target; this is the smallest within 5 % of the best"
        self.batch = after
        self._tell("batch", before, after, reason)
        return OptimalBatchSize(
            before=before, after=after, target=throughput_target, reached=reached, curve=curve, reason=reason
        )

    async def implement_parallel_processing(self, config: ParallelismConfig) -> ParallelismResult:
        """Change processes, couriers, slots, batch size and CPU share while running.

        Slots are bounded by the limit of open files. Fewer of anything take effect as exchanges end; nothing is broken
        off. Raises InvalidInput, also for `processes` where nothing starts any.
        """
        _check(config, startable=self._processes is not None)
        processes: tuple[int | None, int | None] = None, None
        if self._processes is not None:
            processes = await self._processes(config.processes)
        before = self.parallelism
        reason = "as asked for"
        slots = config.slots or before.slots
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if (affordable := tuning.affordable_slots(slots, files)) < slots:
            reason = f"{files} open files allow {affordable} slots; raise the limit with `ulimit -n`"
            slots = affordable

        def change() -> None:
            self._slots = slots
            self._gate.resize(slots)
            self.batch = config.batch or before.batch
            share = config.cpu_share or before.cpu_share
            self._throttle = Throttle(share)
            self._courier.resize(config.couriers or before.couriers, cpu_share=share)

        await self._there(change)
        if self._courier.count > 1 and getattr(sys, "_is_gil_enabled", lambda: True)():
            reason += "; these threads share the interpreter's lock: another process usually does more"
        for what, old, new in (
            ("couriers", before.couriers, self._courier.count),
            ("parallelism", before.slots, slots),
        ):
            self._tell(what, old, new, reason)
        return ParallelismResult(
            before=before,
            after=self.parallelism,
            processes_before=processes[0],
            processes_after=processes[1],
            reason=reason,
        )

    async def optimize_http_connections(self, *, ahead: bool = False) -> ConnectionOptimization:
        """Give each host as many connections as its traffic since the last time needs, and close what is idle beyond.

        Names are looked up, and HTTP/2 connections made, ahead of the next exchange: for hosts with traffic, and with
        `ahead`, as before a peak, for those of the 200 endpoints that were sent to last.
        """

        def take() -> tuple[dict[str, HostUse], int]:
            uses = self._courier.take_uses()
            return uses, self._courier.warm(uses)

        uses, warmed = await self._there(take)
        now = clock.monotonic()
        seconds, self._looked_at = now - self._looked_at, now
        hosts = self._by_host(uses)
        needed = {host: tuning.connections_needed(use, seconds) for host, use in hosts.items()}
        before, reason = self._kept, "no traffic to judge by"
        if hosts:
            files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            self._kept = tuning.connections_to_keep(needed, self._slots, files)
            reason = f"rate × time of {len(hosts)} hosts, with half as much again"

        def fit() -> tuple[Counter[str], int, int, Counter[str]]:
            opened = self._courier.open()
            self._courier.keep_connections(self._kept)
            closed = self._courier.fit(needed)
            connected = self.connect_ahead(_MOST_AHEAD, None if ahead else uses.keys())
            return opened, closed, connected, self._courier.open()

        opened, closed, connected, left = await self._there(fit)
        self._tell("connections", before, self._kept, reason)
        exchanges = sum(use.exchanges for use in hosts.values())
        new = sum(use.connections for use in hosts.values())
        busiest = sorted(hosts.items(), key=lambda item: -item[1].exchanges)[:_MOST_SHOWN]
        return ConnectionOptimization(
            seconds=seconds,
            exchanges=exchanges,
            reuse_ratio=1.0 - new / exchanges if exchanges else 0.0,
            http2_share=sum(use.http2 for use in hosts.values()) / exchanges if exchanges else 0.0,
            handshakes_saved=exchanges - new,
            kept_before=before,
            kept_after=self._kept,
            closed=closed,
            warmed=warmed,
            connected_ahead=connected,
            busiest=[
                HostConnections(
                    host=host,
                    exchanges=use.exchanges,
                    new_connections=use.connections,
                    needed=needed[host],
                    open_before=opened[host],
                    open_after=left[host],
                )
                for host, use in busiest
            ],
            reason=reason,
        )

    async def optimize_retry_backoff_strategies(self) -> RetryOptimization:
        """Let a circuit's first pause follow how long endpoints really stay away."""
        recoveries = list(self._breakers.recoveries)
        policy = self._breakers.policy
        pause, reason = tuning.first_pause(recoveries, policy.pause)
        if pause != policy.pause:
            self._breakers.policy = msgspec.structs.replace(policy, pause=pause)
        self._tell("breaker_pause", policy.pause, pause, reason)
        return RetryOptimization(
            recoveries=len(recoveries),
            median_recovery=sorted(recoveries)[len(recoveries) // 2] if recoveries else None,
            pause_before=policy.pause,
            pause_after=pause,
            reason=reason,
        )

    async def optimize_memory_usage(self) -> MemoryOptimization:
        """Let go of what is not in use, give memory back to the system, and decide how much may be claimed."""
        before = self._process.memory_info().rss
        closed, dropped = await self._there(self._let_go)
        await asyncio.to_thread(_trim)
        after = self.watch_memory()
        if not self._memory_limit:
            reason = "no memory cap is set"
        elif self.appetite == 1.0:
            reason = f"{after / self._memory_limit:.0%} of the cap is in use"
        else:
            reason = f"{after / self._memory_limit:.0%} of the cap is in use: less is claimed"
        self._tell("memory", before, after, reason)
        return MemoryOptimization(
            before=before,
            after=after,
            limit=self._memory_limit,
            handles_closed=closed,
            entries_dropped=dropped,
            appetite=self.appetite,
            reason=reason,
        )

    async def profile_cpu_usage(self, seconds: float = 2.0) -> CpuProfile:
        """Watch what the driving thread does for so long; costs about 1 % of it meanwhile."""
        driver = self._driver
        return await asyncio.to_thread(profile, driver, seconds, lambda: self._ended)

    def watch_memory(self) -> int:
        """Look how much memory is in use, and set the appetite by it; returns the bytes."""
        used = int(self._process.memory_info().rss)
        self.appetite = tuning.appetite(used, self._memory_limit)
        return used

    def close(self) -> None:
        """Break off everything and close all connections; whoever waits for a batch is told."""
        for batch in set(self._batches.values()):
            batch.done.cancel()
        super().close()

    def _let_go(self) -> tuple[int, int]:
        return self._courier.close_unused(self.in_flight + _SPARE_HANDLES), self._gate.forget_idle()

    def _by_host(self, uses: dict[str, HostUse]) -> dict[str, HostUse]:
        hosts: dict[str, HostUse] = {}
        for url, use in uses.items():
            whole = hosts.setdefault(self._courier.place(url).authority, HostUse())
            whole.exchanges += use.exchanges
            whole.connections += use.connections
            whole.http2 += use.http2
            whole.busy += use.busy
        return hosts

    def _tell(self, what: str, before: float, after: float, reason: str) -> None:
        if before != after:
            _log.info("%s changed from %g to %g: %s", what, before, after, reason)
            self._telemetry.emit(ProcessorTuned(what, before, after, reason))


def _check(config: ParallelismConfig, *, startable: bool) -> None:
    problems = []
    if config.processes is not None and not startable:
        problems.append(("/processes", "expected none: nothing starts processes for this processor"))
    elif config.processes is not None and not 0 <= config.processes <= MOST_WORKERS:
        problems.append(("/processes", f"expected a number from 0 to {MOST_WORKERS}"))
    if config.couriers is not None and not 1 <= config.couriers <= _MOST_COURIERS:
        problems.append(("/couriers", f"expected a number from 1 to {_MOST_COURIERS}"))
    if config.slots is not None and not 1 <= config.slots <= _MOST_SLOTS:
        problems.append(("/slots", f"expected a number from 1 to {_MOST_SLOTS}"))
    if config.batch is not None and not 1 <= config.batch <= _MOST_SLOTS:
        problems.append(("/batch", f"expected a number from 1 to {_MOST_SLOTS}"))
    if config.cpu_share is not None and not _LEAST_SHARE <= config.cpu_share <= 1:
        problems.append(("/cpu_share", f"expected a part from {_LEAST_SHARE} to 1"))
    if problems:
        raise InvalidInput("a worker cannot work like that", problems)


def _trim() -> None:
    """Collect cycles, and give free pages back to the system, where the C library can (glibc)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
