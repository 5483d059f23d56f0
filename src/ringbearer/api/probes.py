"""Health and metrics: what load balancers, orchestrators and Prometheus ask."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import text

from ringbearer.errors import StoreUnavailable
from ringbearer.monitor.prometheus import PrometheusMetrics
from ringbearer.storage.base import Storage

_READY_TIMEOUT = 5.0


class Probes:
    """Answers GET /health/live, /health/ready and /metrics."""

    def __init__(
        self,
        *,
        storage: Storage,
        metrics: PrometheusMetrics,
        degraded: Callable[[], dict[str, str]] = dict,
        unwritten: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._storage = storage
        self._metrics = metrics
        self._degraded = degraded
        self._unwritten = unwritten
        self._checking: asyncio.Task[Health] | None = None

    async def answered(self, path: str, send: Callable[[dict[str, object]], Any]) -> bool:
        """Answer if the path is one of the three; returns whether it is."""
        if path == "/health/live":
            await _answer(send, 200, b"application/json", b'{"status":"live"}')
        elif path == "/health/ready":
            health = await self._health()
            status = 200 if health.failing is None else 503
            await _answer(send, status, b"application/json", msgspec.json.encode(health.shown()))
        elif path == "/metrics":
            page = await asyncio.to_thread(self._metrics.render, self._storage)
            await _answer(send, 200, CONTENT_TYPE_LATEST.encode(), page)
        else:
            return False
        return True

    async def _health(self) -> "Health":
        """How it stands; however many ask, the parts are asked once at a time."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.get_running_loop().create_task(asyncio.to_thread(self._ask))
        try:
            async with asyncio.timeout(_READY_TIMEOUT):
                return await asyncio.shield(self._checking)
        except TimeoutError:
            return Health(failing=f"the store did not answer within {_READY_TIMEOUT:g} s")

    def _ask(self) -> "Health":
        try:
            with self._storage.database.read() as connection:
                connection.execute(text("SELECT version FROM config_version")).one()
            # A store whose disk is full still answers: the process's heartbeat tells whether it can be written to.
            if self._unwritten() is not None:
                return Health(failing="the store takes no writes; the log tells why")
            return Health(degraded=self._degraded())
        except StoreUnavailable:
            return Health(failing="the store does not answer")


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong: with the store, without which nothing goes, and with parts that can be done without."""

    failing: str | None = None
    degraded: dict[str, str] = {}

    def shown(self) -> dict[str, object]:
        """The answer to whoever asks."""
        if self.failing is not None:
            return {"status": "unavailable", "failing": {"store": self.failing}}
        if self.degraded:
            return {"status": "degraded", "degraded": self.degraded}
        return {"status": "ready"}


async def _answer(send: Callable[[dict[str, object]], Any], status: int, kind: bytes, body: bytes) -> None:
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
