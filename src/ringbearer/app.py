"""The composition: opens the store, queue, cache and limits that the settings name, and wires them."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import make_url

from ringbearer import clock, ids
from ringbearer.cache.base import Tier
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.cache.null import NullTier
from ringbearer.cache.planned import PlannedWarming
from ringbearer.cache.wire import BellWire
from ringbearer.delivery.guard import Guard
from ringbearer.errors import RedisUnavailable
from ringbearer.limits.breakers import Breakers
from ringbearer.limits.calls import SharedCalls
from ringbearer.limits.calls_database import DatabaseCalls
from ringbearer.limits.calls_redis import RedisCalls
from ringbearer.looper import Looper
from ringbearer.maintenance.presence import Duty, Leadership, Presence
from ringbearer.monitor.monitor import WebhookPerformanceMonitor
from ringbearer.monitor.prometheus import PrometheusMetrics
from ringbearer.process import NODE_ID
from ringbearer.queue.base import Queue
from ringbearer.queue.bell import Bell, PostgresBell, SocketBell
from ringbearer.queue.database import DatabaseQueue
from ringbearer.queue.index import RedisIndex
from ringbearer.queue.loop import WorkLoop
from ringbearer.queue.optimizer import WebhookQueueOptimizer
from ringbearer.queue.redis import RedisQueue
from ringbearer.queue.steering import Steering
from ringbearer.redis_link import RedisLink, open_redis, parse
from ringbearer.scaling.signals import ProcessSignals
from ringbearer.settings import Settings
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.vault import Vault
from ringbearer.telemetry import Telemetry

if TYPE_CHECKING:
    from ringbearer.monitor.tracing import Tracing

_log = logging.getLogger(__name__)
_EXCHANGE_SECONDS = (
    0.9  # between two exchanges of the order, every second look: with thousands of flows each costs 10 ms
)
_FOLLOW_SECONDS = 0.5  # between two looks at what others did: twice this until all know what one found out
_PLAN_SECONDS = 20.0  # between two looks whether the season's plan wants the cache warmed
_SHARED_CACHE_SECONDS = 0.25  # what a Redis that hangs may cost a look-up: the store answers in less
_OWN_PARTS = {"dns": "their name server", "proxy": "the proxy"}
HOUSEKEEPING = "housekeeping"
"""The lease of what one worker process does for all: staging, rescuing, tidying, replays, retention."""
STEERING = "steering"
"""The lease of what one API process does for all."""


class Services:
    """Everything that an API or worker process is made of, opened by settings; close it in the end.

    `listen` says whether this process wants to hear the bell, as workers do.
    """

    def __init__(self, settings: Settings, *, listen: bool) -> None:
        self.settings = settings
        self.node_id = os.environ.get(NODE_ID) or ids.node()
        self.telemetry = Telemetry()
        self.metrics = PrometheusMetrics(self.telemetry)
        self.vault = Vault(settings.vault_keys())
        self.storage = open_storage(settings.store_url, self.vault, prepare=settings.database_prepare)
        self.redis = None if settings.redis_url is None else open_redis(settings.redis_url, self.vault)
        self.bell = _bell(settings, self.redis, listen=listen)
        self.index = None if self.redis is None else RedisIndex(self.redis, self.telemetry)
        self.queue = self._queue()
        self.cache = _cache(settings, self.storage, self.vault, self.telemetry)
        self.breakers = Breakers(
            table=self.storage.breakers,
            telemetry=self.telemetry,
            parking=self.storage.ledger.parking,
            policy=settings.breaker_policy,
            shared=self._shared_calls(),
        )
        self.monitor = WebhookPerformanceMonitor(
            storage=self.storage, telemetry=self.telemetry, process=self.node_id, peak=self._is_peak
        )
        self.guard = Guard(allow_networks=settings.allow_networks, own_hosts=own_hosts(settings))
        self.steering = Steering(
            plans=self.storage.plans,
            ledger=self.storage.ledger,
            telemetry=self.telemetry,
            node_id=self.node_id,
        )
        self._exchange_at = 0.0
        self.also_followed: list[Callable[[], object]] = []
        self._follower = Looper("follower", self._follow, interval=_FOLLOW_SECONDS)
        planned = PlannedWarming(cache=self.cache, season=lambda: self.steering.season, since=clock.now())
        self.planned = Looper("planned warming", lambda: _warm_if_due(planned), interval=_PLAN_SECONDS)
        self.tracing = _tracing(settings, self.telemetry, self.node_id, "work" if listen else "serve")
        self.ca_file = str(settings.ca_file) if settings.ca_file is not None else None

    def __repr__(self) -> str:
        return f"<Services on {self.storage!r}>"

    def start(self) -> None:
        """Begin to follow changes of configuration and order, to warm by plan, and to measure."""
        self.cache.start()
        self._follower.start()
        self.planned.start()
        self.monitor.start()
        if self.tracing is not None:
            self.tracing.start()

    async def stop(self) -> None:
        """End that, after whoever is measured."""
        await self.planned.stop()
        await self._follower.stop()
        await self.monitor.stop()
        if self.tracing is not None:
            await self.tracing.stop()

    def close(self) -> None:
        """Close the cache, the store, Redis and the bell."""
        self.cache.close()
        self.queue.close()
        self.bell.close()
        if self.redis is not None:
            self.redis.close()
        self.storage.close()

    def optimizer(self, loop: WorkLoop | None = None) -> WebhookQueueOptimizer:
        """Who steers the queue; a worker's has a loop."""
        return WebhookQueueOptimizer(
            queue=self.queue,
            ledger=self.storage.ledger,
            nodes=self.storage.nodes,
            steering=self.steering,
            telemetry=self.telemetry,
            loop=loop,
        )

    def _is_peak(self, moment: datetime) -> bool:
        """Whether the season's plan calls it a peak; without a plan, whether the usual calendar does, in UTC."""
        season = self.steering.season
        if season.plan is None:
            return season.calendar.is_peak(moment, "UTC")
        return season.state(moment).phase == "peak"

    async def _follow(self) -> None:
        await asyncio.to_thread(self._follow_all)

    def _follow_all(self) -> None:
        """Learn what other processes did, one thing after the other on one thread; one that fails stops no other."""
        failure: Exception | None = None
        for follow in (self._follow_order, *self.also_followed):
            try:
                follow()
            except Exception as error:
                failure = error
        if failure is not None:
            raise failure

    def _follow_order(self) -> None:
        ledger, now = self.storage.ledger, clock.now()
        if clock.monotonic() >= self._exchange_at:
            self._exchange_at = clock.monotonic() + _EXCHANGE_SECONDS
            ledger.flows.exchange(now=now)
        ledger.parking.follow(now=now)
        self.steering.follow(now=now)
        if self.steering.connections is not None:
            self.storage.database.limit_connections(self.steering.connections.most)

    async def warm(self, *, within: float) -> None:
        """Bring into memory whom this process will be asked for; takes at most `within` seconds."""
        try:
            result = await self.cache.preload_frequently_used_data(within=within)
        except Exception:
            _log.exception("the cache could not be warmed; it starts cold")
            return
        shown = msgspec.structs.asdict(result)
        _log.info("warmed", extra={name: shown[name] for name in ("loaded", "left", "duration", "reason")})

    def presence(self, kind: str, signals: ProcessSignals) -> Presence:
        """This process's heartbeat, which carries its signals."""
        return Presence(nodes=self.storage.nodes, node_id=self.node_id, kind=kind, signals=signals.read)

    def leadership(self, name: str, duties: list[Duty]) -> Leadership:
        """This process's campaign for a lease, with what it does while it holds it."""
        return Leadership(nodes=self.storage.nodes, name=name, holder=self.node_id, duties=duties)

    def degraded(self) -> dict[str, str]:
        """Parts that do not work as they should, and that deliveries can do without; blocks."""
        found: dict[str, str] = {}
        if self.index is not None:
            try:
                torn = self.index.torn()
            except RedisUnavailable as error:
                found["redis"] = f"workers claim from the store: {error}"
            else:
                if torn:
                    found["redis"] = "workers claim from the store while the index in Redis is made anew"
        return found | self._own_troubles()

    def _own_troubles(self) -> dict[str, str]:
        """What of our own stops deliveries, as workers tell it with their heartbeats."""
        nodes = self.storage.nodes.alive()
        counts = {part: sum(bool(node.signals.get(f"{part}_fails")) for node in nodes) for part in _OWN_PARTS}
        return {
            part: f"{count} workers cannot use {_OWN_PARTS[part]}: deliveries wait, and spend no attempt"
            for part, count in counts.items()
            if count
        }

    def _shared_calls(self) -> SharedCalls:
        stored = DatabaseCalls(self.storage.calls)
        return stored if self.redis is None else RedisCalls(self.redis, otherwise=stored)

    def _queue(self) -> Queue:
        if self.index is None:
            return DatabaseQueue(self.storage.ledger, self.bell)
        return RedisQueue(self.storage.ledger, self.bell, self.index, self.telemetry)


async def _warm_if_due(planned: PlannedWarming) -> None:
    await planned.look(now=clock.now())


def own_hosts(settings: Settings) -> frozenset[str]:
    """The names of this service's own machines, which no delivery may be sent to."""
    names = {settings.host, socket.gethostname(), make_url(settings.store_url).host}
    if settings.public_url is not None:
        names.add(urlsplit(settings.public_url).hostname)
    if settings.redis_url is not None:
        names.update(host for host, _ in parse(settings.redis_url).hosts)
    return frozenset(name for name in names if name and name not in {"0.0.0.0", "::"})  # noqa: S104


def _bell(settings: Settings, redis: RedisLink | None, *, listen: bool) -> Bell:
    if settings.embedded:
        return SocketBell(settings.data_dir / "run", listen=listen)
    if redis is not None and not settings.database_prepare:  # a pooler that forbids LISTEN stands between
        from ringbearer.cache.pubsub import RedisBell

        return RedisBell(redis, name="work")
    return PostgresBell(settings.store_url, listen=listen, pooled=not settings.database_prepare)


def _tracing(settings: Settings, telemetry: Telemetry, process: str, kind: str) -> "Tracing | None":
    if settings.otlp_url is None:
        return None
    from ringbearer.monitor.tracing import Tracing

    return Tracing(telemetry, url=settings.otlp_url, process=process, kind=kind, ratio=settings.trace_ratio)


def _cache(settings: Settings, storage: Storage, vault: Vault, telemetry: Telemetry) -> WebhookCacheManager:
    """The cache, with Redis as its second tier where there is one, and the bells that tell of changes."""
    if settings.embedded:
        bells: list[Bell] = [SocketBell(settings.data_dir / "run", listen=True, name="config")]
    else:
        pooled = not settings.database_prepare
        bells = [PostgresBell(settings.store_url, listen=True, pooled=pooled, name="config")]
    shared: Tier = NullTier()
    if settings.redis_url is not None:
        from ringbearer.cache.pubsub import RedisBell
        from ringbearer.cache.redis import RedisTier

        link = open_redis(settings.redis_url, vault, timeout=_SHARED_CACHE_SECONDS)
        shared = RedisTier(link)
        bells.append(RedisBell(link, name="config"))
    return WebhookCacheManager(
        catalog=storage.catalog,
        telemetry=telemetry,
        heat=storage.heat,
        shared=shared,
        wire=BellWire(*bells),
        max_bytes=settings.cache_bytes,
        stale_seconds=settings.cache_stale_seconds,
    )
