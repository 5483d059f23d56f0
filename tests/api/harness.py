"""A served API with a key of each scope, and the means to put events and deliveries behind it."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, cast

import httpx
from litestar import Litestar

from chaos.service import NO_TLS
from ringbearer import clock, ids
from ringbearer.api.app import create_app
from ringbearer.api.auth import Authenticator
from ringbearer.api.services import ApiServices
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.delivery.guard import Guard
from ringbearer.domain import keys
from ringbearer.domain.alerts import Alert
from ringbearer.domain.deliveries import Attempt, Outcome, Record, State
from ringbearer.domain.endpoints import Target
from ringbearer.domain.keys import Key
from ringbearer.monitor.monitor import WebhookPerformanceMonitor
from ringbearer.queue.bell import SocketBell
from ringbearer.queue.database import DatabaseQueue
from ringbearer.queue.optimizer import WebhookQueueOptimizer
from ringbearer.queue.steering import Steering
from ringbearer.scaling.manager import WebhookScalingManager
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.ledger import Admission
from ringbearer.storage.vault import Vault, generate_key
from ringbearer.telemetry import Telemetry
from ringbearer.testing import Application, LocalServer
from tools import migrated_sqlite

Json = dict[str, object]
URL = "https://93.184.215.14/hook"
"""A public address that needs no resolver; nothing is ever sent to it."""


class Serving:
    """One server on a thread of its own, for whichever application is put into it: starting one takes time."""

    def __init__(self) -> None:
        self.application: Application | None = None
        self.url = ""
        self._services: ApiServices | None = None
        self._management = create_app(self._current)
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()

    def call(self, function: Callable[[], None]) -> None:
        """Call something on the server's event loop, and wait until that is done."""
        done = threading.Event()

        def call() -> None:
            function()
            done.set()

        self._loop.call_soon_threadsafe(call)
        assert done.wait(10)

    def management(self, services: ApiServices) -> Litestar:
        """The management API on these services from now on: its routes take longer to put together than most tests."""
        self._services = services
        return self._management

    def _current(self) -> ApiServices:
        assert self._services is not None
        return self._services

    async def _serve(self) -> None:
        async with LocalServer(self._hand_on) as server:
            self.url = server.url
            self._up.set()
            await self._end.wait()

    async def _hand_on(self, scope: Any, receive: Any, send: Any) -> None:
        assert self.application is not None
        await self.application(scope, receive, send)


class Api:
    """Serves the management API for the time of a `with` block."""

    def __init__(self, serving: Serving, directory: Path, *, changes_per_minute: int = 0) -> None:
        self.storage: Storage = open_storage(migrated_sqlite(directory / "store.db"), Vault([generate_key()]))
        self.tested: list[Target] = []
        self.reconciled = 0
        self.woken = 0
        self.telemetry = Telemetry()
        self.monitor = WebhookPerformanceMonitor(
            storage=self.storage, telemetry=self.telemetry, process="api"
        )
        self.bell = SocketBell(directory / "run", listen=False)
        self.cache = WebhookCacheManager(catalog=self.storage.catalog, heat=self.storage.heat)
        self.services = ApiServices(
            storage=self.storage,
            monitor=self.monitor,
            guard=Guard(),
            authenticator=Authenticator(self.storage.catalog),
            tester=self._test,
            reconcile=self._reconcile,
            scaler=WebhookScalingManager(storage=self.storage),
            optimizer=WebhookQueueOptimizer(
                queue=DatabaseQueue(self.storage.ledger, self.bell),
                ledger=self.storage.ledger,
                nodes=self.storage.nodes,
                steering=Steering(
                    plans=self.storage.plans, ledger=self.storage.ledger, telemetry=self.telemetry
                ),
                telemetry=self.telemetry,
            ),
            cache=self.cache,
            wake=self._wake,
            changes_per_minute=changes_per_minute,
        )
        self.url = serving.url
        self._serving = serving
        self._clients: list[httpx.Client] = []

    def __enter__(self) -> Self:
        self._serving.application = cast(Application, self._serving.management(self.services))
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        self._serving.application = None
        self.cache.close()
        self.bell.close()
        self.storage.close()

    async def _test(self, target: Target) -> Attempt:
        self.tested.append(target)
        return Attempt(number=1, started_at=clock.to_datetime(clock.now()), status_code=204, duration=0.01)

    async def _reconcile(self) -> None:
        self.reconciled += 1

    def _wake(self) -> None:
        self.woken += 1

    # ── who asks ────────────────────────────────────────────────────────────────────────────────────────

    def key(self, scope: str) -> str:
        """A new key with that scope."""
        text = keys.generate()
        now = clock.to_datetime(clock.now())
        key = Key(id=ids.key(), scope=scope, created_at=now, last_four=text[-4:])
        self.storage.catalog.add_key(key, keys.digest(text))
        return text

    def as_(self, scope: str | None) -> httpx.Client:
        """A client with a new key of that scope, or with none."""
        return self.client({} if scope is None else {"authorization": f"Bearer {self.key(scope)}"})

    def client(self, headers: Mapping[str, str]) -> httpx.Client:
        """A client with these headers."""
        client = httpx.Client(base_url=self.url, headers=headers, timeout=30, verify=NO_TLS)
        self._clients.append(client)
        return client

    def alert(self, rule: str = "no_worker", **given: Any) -> Alert:
        """An alert that fires."""
        now = clock.to_datetime(clock.now())
        values: dict[str, Any] = {"group": "", "severity": "critical", "state": "firing", "value": 0.0}
        values |= {"summary": "nobody works", "since": now, "fired_at": now} | given
        made = Alert(id=ids.alert(), rule=rule, **values)
        self.storage.alerts.write([made], [], now=clock.now())
        return made

    def write_figures(self) -> None:
        """Have written what this process measured, as it is when the process ends."""
        asyncio.run(self.monitor.stop())

    # ── what there is ───────────────────────────────────────────────────────────────────────────────────

    def supplier(self, supplier_id: str = "lumen") -> str:
        """A supplier, made over HTTP."""
        assert self.as_("admin").put(f"/v1/suppliers/{supplier_id}", json={}).status_code in (200, 201)
        return supplier_id

    def endpoint(self, supplier_id: str = "lumen", **fields: object) -> Json:
        """An endpoint, made over HTTP; the answer to its creation."""
        answer = self.as_("admin").post(f"/v1/suppliers/{supplier_id}/endpoints", json={"url": URL, **fields})
        assert answer.status_code == 201, answer.text
        return cast(Json, answer.json())

    def event(
        self, supplier_id: str, endpoint_ids: list[str], *, enabled: bool = True, kind: str = "booking.made"
    ) -> list[str]:
        """An accepted event; the ids of its deliveries."""
        admission = Admission(
            event_id=ids.event(),
            supplier_id=supplier_id,
            type=kind,
            timestamp="2027-06-19T14:00:00Z",
            data='{"n": 1.50}',
            lane=2,
            accepted_at=clock.now(),
            endpoints=tuple((endpoint_id, enabled) for endpoint_id in endpoint_ids),
        )
        self.storage.ledger.accept([admission])
        return [ids.delivery(admission.event_id, ordinal) for ordinal in range(len(endpoint_ids))]

    def settle(self, state: State, reason: str | None = None) -> None:
        """Claim all that is ready and let one attempt end each in that state."""
        leases = self.storage.ledger.claim([99, 99, 99, 99], worker="w", until=clock.now() + clock.SECOND)
        tried = Record(
            started_at=clock.now(),
            duration=12_000,
            status_code=200 if state is State.DELIVERED else 500,
            error=None if state is State.DELIVERED else "status: 500",
            response_body="thanks",
            response_headers='{"server":"x"}',
        )
        due = clock.now() + 3_600 * clock.SECOND if state is State.SCHEDULED else None
        outcomes = [
            Outcome(lease=lease, state=state, due_at=due, record=tried, reason=reason) for lease in leases
        ]
        self.storage.ledger.settle(outcomes, now=clock.now())


def problem(answer: httpx.Response, status: int) -> Json:
    """The body of a problem with that status, its form checked."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = cast(Json, answer.json())
    assert set(body) <= {"type", "title", "status", "detail", "errors"}
    assert body["status"] == status
    assert body["type"]
    assert body["title"]
    assert body["detail"]
    assert "Traceback" not in answer.text
    return body


def pointers(answer: httpx.Response) -> list[str]:
    """Where a 422 says that something is wrong."""
    errors = cast("list[dict[str, str]]", problem(answer, 422)["errors"])
    assert all(set(error) == {"pointer", "message"} and error["message"] for error in errors)
    return sorted(error["pointer"] for error in errors)
