"""The API process: ingest, health and metrics in front, the management API behind, one uvicorn around all."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import uvicorn
import uvloop
from litestar.types import HTTPScope

from ringbearer import clock
from ringbearer.api.app import create_app
from ringbearer.api.auth import Authenticator
from ringbearer.api.connections import SWEEP_SECONDS, sweep
from ringbearer.api.ingest import Ingest, Receive, Scope, Send
from ringbearer.api.probes import Probes
from ringbearer.api.protocol import protocol_for
from ringbearer.api.services import ApiServices
from ringbearer.api.trials import Trials
from ringbearer.app import STEERING, Services
from ringbearer.dashboard import rendering
from ringbearer.dashboard.app import create_dashboard, is_page
from ringbearer.dashboard.inside import Inside
from ringbearer.dashboard.live import Pulse
from ringbearer.dashboard.now import paint
from ringbearer.dashboard.services import PageServices
from ringbearer.dashboard.vitals import Looker
from ringbearer.delivery.sample import send_sample
from ringbearer.domain.deliveries import Attempt
from ringbearer.domain.endpoints import Target
from ringbearer.maintenance.presence import Presence
from ringbearer.maintenance.tidy import tidy
from ringbearer.monitor.alerting import AlertWatch, StoreWatch
from ringbearer.monitor.bookkeeping import Bookkeeper
from ringbearer.process import ensure_admin_key, on_stop, prepare_process
from ringbearer.publish import Publisher
from ringbearer.scaling.manager import WebhookScalingManager
from ringbearer.scaling.signals import ProcessSignals
from ringbearer.settings import Settings
from ringbearer.supervisor import SOCKET_DESCRIPTOR, listen

_BACKLOG = 2_048
_KEEP_ALIVE = (
    75  # seconds: longer than proxies keep an idle connection, so that none is closed under a request
)


def serve(settings: Settings) -> None:
    """Answer HTTP until SIGTERM or SIGINT; any number of these may run on one store."""
    prepare_process(settings)
    listener = _inherited() or listen(settings)
    services = Services(settings, listen=False)
    try:
        if SOCKET_DESCRIPTOR not in os.environ:
            settings.make_data_dir()
            services.storage.migrate()
            services.storage.catalog.check_seals()
            ensure_admin_key(settings, services.storage)
        uvloop.run(_serve(services, listener))
    finally:
        services.close()
        listener.close()


async def _serve(services: Services, listener: socket.socket) -> None:
    settings = services.settings
    publisher = Publisher(
        cache=services.cache,
        ledger=services.storage.ledger,
        queue=services.queue,
        telemetry=services.telemetry,
        rules=lambda: services.steering.rules,
        tracer=services.tracing.context if services.tracing is not None else None,
    )
    scaler = WebhookScalingManager(
        storage=services.storage,
        telemetry=services.telemetry,
        season=lambda: services.steering.season,
        term=lambda: leadership.term,
        redis=services.redis,
    )
    signals = ProcessSignals(services.telemetry, services.cache.signals)
    presence = services.presence("serve", signals)
    front = Front(services, publisher, scaler, presence)
    config = uvicorn.Config(
        front,
        host=settings.host,
        port=settings.port,
        http=protocol_for(front.ingest),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, int(settings.stop_grace)),
    )
    server = _Server(config)

    def stop() -> None:
        server.should_exit = True
        front.pulse.stop()  # whose viewers' connections would otherwise stay until they are cut

    on_stop(stop)
    leadership = services.leadership(
        STEERING,
        [
            scaler,
            Bookkeeper(storage=services.storage, book=services.monitor.book),
            AlertWatch(
                storage=services.storage,
                look=services.monitor.alert_on_performance_degradation,
                heartbeat_url=settings.alert_heartbeat_url,
            ),
        ],
    )
    store_watch = StoreWatch(storage=services.storage)
    publisher.start()
    services.start()
    signals.start()
    store_watch.start()
    warming = asyncio.create_task(services.warm(within=settings.warm_seconds))
    await asyncio.to_thread(rendering.warm)
    presence.start()
    leadership.start()
    try:
        await server.serve(sockets=[listener])
    finally:
        warming.cancel()
        await store_watch.stop()
        await leadership.stop()
        await presence.stop()
        await signals.stop()
        await publisher.stop()
        await services.stop()


class Front:
    """The outermost application: hands each request to who answers it."""

    def __init__(
        self, services: Services, publisher: Publisher, scaler: WebhookScalingManager, presence: Presence
    ) -> None:
        settings = services.settings
        authenticator = Authenticator(services.storage.catalog)

        trials = Trials()

        async def send_test(target: Target) -> Attempt:
            return await trials(
                send_sample,
                target,
                refuse=services.guard.check_address,
                ca_file=services.ca_file,
                public_url=settings.public_url or "",
                proxy=settings.proxy_url,
            )

        async def reconcile() -> None:
            await tidy(services.storage.ledger, services.queue, services.telemetry)

        self.ingest = Ingest(
            publisher=publisher, authenticator=authenticator, trace_context=settings.trace_context
        )
        self.pulse = Pulse(
            Looker(
                services.storage,
                figures=services.monitor.window,
                totals=services.metrics.totals,
                ping=services.redis.ping if services.redis is not None else None,
            ),
            paint=paint,
        )
        self._probes = Probes(
            storage=services.storage,
            metrics=services.metrics,
            degraded=services.degraded,
            unwritten=presence.unwritten,
        )
        answering = ApiServices(
            storage=services.storage,
            monitor=services.monitor,
            guard=services.guard,
            authenticator=authenticator,
            tester=send_test,
            reconcile=reconcile,
            scaler=scaler,
            optimizer=services.optimizer(),
            cache=services.cache,
            wake=lambda: services.queue.push(1),
            public_url=settings.public_url or "",
            changes_per_minute=settings.changes_per_minute,
        )
        self._management = create_app(lambda: answering)
        self._dashboard = create_dashboard(
            PageServices(
                api=Inside(self._management),
                storage=services.storage,
                authenticator=authenticator,
                pulse=self.pulse,
                monitor=services.monitor,
                season=lambda: services.steering.season,
                public_url=settings.public_url or "",
            )
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            path, method = scope["path"], scope["method"]
            if method == "POST" and path == "/v1/events":
                return await self.ingest.one(scope, receive, send)
            if method == "POST" and path == "/v1/events/batch":
                return await self.ingest.batch(scope, receive, send)
            if method in ("GET", "HEAD") and await self._probes.answered(path, send):
                return None
            if is_page(path):
                return await self._dashboard(cast(HTTPScope, scope), receive, send)
        return await self._management(cast(HTTPScope, scope), receive, send)


class _Server(uvicorn.Server):
    """Leaves signals to `on_stop`: the process has more to end than the server. Sweeps its connections."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; returns whether to end."""
        if counter % (10 * SWEEP_SECONDS) == 0:
            sweep(self.server_state.connections, clock.monotonic())
        return await super().on_tick(counter)


def _inherited() -> socket.socket | None:
    """The listening socket of the supervising process, if there is one."""
    descriptor = os.environ.get(SOCKET_DESCRIPTOR)
    return None if descriptor is None else socket.socket(fileno=int(descriptor))
