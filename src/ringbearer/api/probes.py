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

    def __init__(self, *, storage: Storage, metrics: PrometheusMetrics) -> None:
        self._storage = storage
        self._metrics = metrics
        self._checking: asyncio.Task[str | None] | None = None

    async def answered(self, path: str, send: Callable[[dict[str, object]], Any]) -> bool:
        """Answer if the path is one of the three; returns whether it is."""
        if path == "/health/live":
            await _answer(send, 200, b"application/json", b'{"status":"live"}')
        elif path == "/health/ready":
            failing = await self._failing()
            body: dict[str, object] = {"status": "ready" if failing is None else "unavailable"}
            if failing is not None:
                body["failing"] = {"store": failing}
            await _answer(
                send, 200 if failing is None else 503, b"application/json", msgspec.json.encode(body)
            )
        elif path == "/metrics":
            page = await asyncio.to_thread(self._metrics.render, self._storage)
            await _answer(send, 200, CONTENT_TYPE_LATEST.encode(), page)
        else:
            return False
        return True

    async def _failing(self) -> str | None:
        """What is wrong with the store; however many ask, it is asked once at a time."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.get_running_loop().create_task(asyncio.to_thread(self._ask_store))
        try:
            async with asyncio.timeout(_READY_TIMEOUT):
                return await asyncio.shield(self._checking)
        except TimeoutError:
            return f"the store did not answer within {_READY_TIMEOUT:g} s"

    def _ask_store(self) -> str | None:
        try:
            with self._storage.database.read() as connection:
                connection.execute(text("SELECT version FROM config_version")).one()
        except StoreUnavailable:
            return "the store does not answer"
        return None


async def _answer(send: Callable[[dict[str, object]], Any], status: int, kind: bytes, body: bytes) -> None:
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
