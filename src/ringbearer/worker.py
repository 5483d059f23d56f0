"""The worker process: one thread delivers, an event loop beside it keeps what is slow and rare."""

import asyncio
import logging
import resource
import threading
import time
from collections.abc import Callable
from functools import partial

import msgspec
import uvloop
from prometheus_client import start_http_server

from ringbearer import clock
from ringbearer.app import HOUSEKEEPING, Services
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.delivery.commands import follow, parallelism
from ringbearer.delivery.processor import HighPerformanceWebhookProcessor
from ringbearer.delivery.tuning import affordable_slots
from ringbearer.domain.commands import PARALLELISM, ChangeParallelism
from ringbearer.errors import InvalidInput, StoreUnavailable
from ringbearer.limits.breakers import CIRCUIT_SECONDS
from ringbearer.limits.database import DatabaseRateLimiter
from ringbearer.looper import Looper
from ringbearer.maintenance.commands import CommandFollower
from ringbearer.maintenance.housekeeper import Housekeeper
from ringbearer.maintenance.presence import Duty
from ringbearer.maintenance.tuner import Tuner
from ringbearer.process import on_stop, prepare_process
from ringbearer.queue.bell import PostgresBell
from ringbearer.queue.loop import WorkLoop
from ringbearer.queue.optimizer import WebhookQueueOptimizer
from ringbearer.queue.reconciler import Reconciler
from ringbearer.relay import Relay
from ringbearer.scaling.manager import WebhookScalingManager
from ringbearer.scaling.signals import ProcessSignals
from ringbearer.settings import Settings
from ringbearer.storage import outbox
from ringbearer.storage.base import Storage

_log = logging.getLogger(__name__)
_MEMORY_SECONDS = 1.0
_TRIM_SECONDS = 15.0  # between two times that memory is given back: each holds everything up for a moment
_TUNE_SECONDS = 60.0
_PARK_SECONDS = 0.5
_STORE_SECONDS = 30.0  # that a worker waits for the store at its start
_STORE_PAUSE = 0.5


def work(settings: Settings) -> None:
    """Run one worker until SIGTERM or SIGINT."""
    prepare_process(settings)
    services = Services(settings, listen=True)
    try:
        _check_seals(services.storage)
        uvloop.run(_work(services))
    finally:
        services.close()


def _check_seals(storage: Storage) -> None:
    """See that stored secrets can be opened; waits a while for a store that is just starting itself."""
    deadline, told = clock.monotonic() + _STORE_SECONDS, False
    while True:
        try:
            storage.catalog.check_seals()
        except StoreUnavailable as error:
            if clock.monotonic() > deadline:
                raise
            if not told:
                _log.warning(
                    "waiting for the store, whose tables are made by `up`, `serve` or `migrate`: %s", error
                )
            told = True
            time.sleep(_STORE_PAUSE)
        else:
            return


async def _work(services: Services) -> None:
    """The event loop keeps what is slow and rare; the courier's thread does the work."""
    settings = services.settings
    stopped = asyncio.Event()
    processor = _processor(services)
    await _resume_parallelism(services, processor)
    loop = _loop(services, processor)
    optimizer = services.optimizer(loop)
    warming = asyncio.gather(services.warm(within=settings.warm_seconds), _pre_warm(optimizer))

    def stop() -> None:
        warming.cancel()
        loop.stop()

    on_stop(stop)
    if settings.metrics_port is not None:
        start_http_server(settings.metrics_port, settings.host, registry=services.metrics.registry)
    state = _worker_state(loop, processor, services.cache, warmed=warming.done)
    signals = ProcessSignals(services.telemetry, state)
    presence = services.presence("work", signals)
    leadership = services.leadership(HOUSEKEEPING, _duties(services, optimizer))
    services.start()
    signals.start()
    presence.start()
    leadership.start()
    tending = _tending(services, processor, optimizer, loop)
    for looper in tending:
        looper.start()
    commands = CommandFollower(
        commands=services.storage.commands,
        worker=services.node_id,
        do=lambda command: follow(command, processor=processor, cache=services.cache, optimizer=optimizer),
    )
    await asyncio.wait([warming])
    services.metrics.worker_started()
    thread = _Thread(optimizer.run, asyncio.get_running_loop(), stopped)
    thread.start()
    commands.start()
    await stopped.wait()
    await commands.stop()
    await leadership.stop()
    await presence.stop()
    await signals.stop()
    thread.join()
    await asyncio.gather(*(looper.stop() for looper in tending))
    await services.stop()
    if thread.error is not None:
        raise thread.error


async def _pre_warm(optimizer: WebhookQueueOptimizer) -> None:
    """Open and prepare what the first claim needs; it has to do it itself while the store is away."""
    try:
        warmed = await optimizer.pre_warm_queue_infrastructure()
    except Exception:
        _log.exception("the queue could not be made ready ahead; the first claim takes longer")
    else:
        _log.info("the queue is ready", extra={"seconds": warmed.steps})


def _duties(services: Services, optimizer: WebhookQueueOptimizer) -> list[Duty]:
    """What the worker that leads does for all."""
    storage, telemetry = services.storage, services.telemetry
    housekeeper = Housekeeper(
        storage=storage,
        queue=services.queue,
        telemetry=telemetry,
        retention_days=services.settings.retention_days,
        lease_seconds=services.settings.lease_seconds,
    )
    duties: list[Duty] = [housekeeper, Tuner(optimizer), *_relays(services)]
    if services.index is not None:
        duties.append(Reconciler(ready=storage.ready, index=services.index, telemetry=telemetry))
    return duties


async def _resume_parallelism(services: Services, processor: HighPerformanceWebhookProcessor) -> None:
    """Begin as workers were told to work by whoever changed that last."""
    try:
        stored = await asyncio.to_thread(services.storage.plans.get, PARALLELISM)
        if stored is not None:
            asked = msgspec.json.decode(stored.body, type=ChangeParallelism)
            await processor.implement_parallel_processing(parallelism(asked))
    except (StoreUnavailable, InvalidInput, msgspec.ValidationError) as error:
        _log.error("the stored parallelism cannot be followed: %s", error)


def _tending(
    services: Services,
    processor: HighPerformanceWebhookProcessor,
    optimizer: WebhookQueueOptimizer,
    loop: WorkLoop,
) -> list[Looper]:
    """What keeps a worker's processor in step with the others, and with what it meets."""

    trim_at = 0.0

    async def watch_memory() -> None:
        nonlocal trim_at
        processor.watch_memory()
        if processor.appetite < 1.0 and clock.monotonic() >= trim_at:
            trim_at = clock.monotonic() + _TRIM_SECONDS
            await processor.optimize_memory_usage()

    async def park() -> None:
        if loop.crowded:
            await asyncio.to_thread(optimizer.park_crowded, now=clock.now())

    async def tune() -> None:
        await processor.optimize_http_connections(ahead=services.steering.season_state.phase == "peak")
        await processor.optimize_retry_backoff_strategies()
        services.breakers.forget_closed(before=clock.now() - CIRCUIT_SECONDS * clock.SECOND)

    services.also_followed += [services.breakers.follow, processor.park]
    return [
        Looper("parker", park, interval=_PARK_SECONDS),
        Looper("memory", watch_memory, interval=_MEMORY_SECONDS),
        Looper("tuner", tune, interval=_TUNE_SECONDS),
    ]


def _relays(services: Services) -> list[Relay]:
    """What moves emitted events out of the outbox; a database of one machine has none."""
    settings, storage = services.settings, services.storage
    if settings.embedded:
        return []
    return [
        Relay(
            database=storage.database,
            ledger=storage.ledger,
            cache=services.cache,
            queue=services.queue,
            telemetry=services.telemetry,
            rules=lambda: services.steering.rules,
            bell=lambda: PostgresBell(
                settings.store_url, listen=True, pooled=not settings.database_prepare, name=outbox.BELL
            ),
            tracer=services.tracing.context if services.tracing is not None else None,
            trace_context=settings.trace_context,
        )
    ]


def _worker_state(
    loop: WorkLoop,
    processor: HighPerformanceWebhookProcessor,
    cache: WebhookCacheManager,
    *,
    warmed: Callable[[], bool],
) -> Callable[[], dict[str, float]]:
    """What only a worker can tell of itself."""

    def tell() -> dict[str, float]:
        return {
            "couriers": processor.parallelism.couriers,
            "slots": processor.slots,
            "held": loop.held,
            "warm": float(warmed()),
            "batch": processor.batch,
            "cpu_share": processor.parallelism.cpu_share,
            "appetite": processor.appetite,
            **{f"{what}_fails": 1.0 for what in processor.troubles},
            "draining": float(loop.stopping),
            **cache.signals(),
        }

    return tell


def _processor(services: Services) -> HighPerformanceWebhookProcessor:
    settings = services.settings
    return HighPerformanceWebhookProcessor(
        cache=services.cache,
        limiter=DatabaseRateLimiter(services.storage.database),
        breakers=services.breakers,
        telemetry=services.telemetry,
        refuse=services.guard.check_address,
        slots=affordable_slots(settings.slots, resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        sends_per_second=settings.sends_per_second,
        parking=services.storage.ledger.parking,
        memory_limit=settings.memory_limit * 1024 * 1024,
        cpu_share=settings.cpu_share,
        processes=partial(_run_processes, services),
        ca_file=services.ca_file,
        proxy=services.settings.proxy_url,
        public_url=settings.public_url or "",
    )


async def _run_processes(services: Services, count: int | None) -> tuple[int | None, int | None]:
    """Fix the number of workers, or free it (0); None leaves it. Returns what was fixed before, and what is.

    Raises InvalidInput where the settings fix it: nobody would follow.
    """
    if count is not None and services.settings.workers != "auto":
        said = f"expected none: the setting `workers` is {services.settings.workers}, and not auto"
        raise InvalidInput("how many workers run is fixed by the settings", [("/processes", said)])
    policy = await asyncio.to_thread(services.storage.scaling.policy)
    wanted = policy.fixed if count is None else count or None
    if wanted != policy.fixed:
        scaler = WebhookScalingManager(storage=services.storage, telemetry=services.telemetry)
        changed = msgspec.structs.replace(policy, fixed=wanted)
        await scaler.implement_auto_scaling_policies(changed, actor=services.node_id)
    return policy.fixed, wanted


def _loop(services: Services, processor: HighPerformanceWebhookProcessor) -> WorkLoop:
    settings = services.settings
    return WorkLoop(
        queue=services.queue,
        processor=processor,
        cache=services.cache,
        catalog=services.storage.catalog,
        bell=services.bell,
        telemetry=services.telemetry,
        lease_seconds=settings.lease_seconds,
        grace=settings.stop_grace,
        plan=lambda: services.steering.plan,
        measured=services.storage.ledger.flows.held,
    )


class _Thread(threading.Thread):
    """The courier's thread: tells the event loop when it ends, and why."""

    def __init__(
        self, target: Callable[[], None], loop: asyncio.AbstractEventLoop, stopped: asyncio.Event
    ) -> None:
        super().__init__(name="courier")
        self._work = target
        self._loop = loop
        self._stopped = stopped
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.error = error
        self._loop.call_soon_threadsafe(self._stopped.set)
