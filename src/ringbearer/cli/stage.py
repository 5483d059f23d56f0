"""What the demonstration plays on: a service of its own, endpoints, and a ledger of all that arrived."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import httpx
import msgspec

from ringbearer.cli.client import Client, decode, path
from ringbearer.domain import keys
from ringbearer.domain.endpoints import matches
from ringbearer.errors import ConfigurationError
from ringbearer.testing import Received, Receiver

Check = Callable[[bytes, dict[str, str]], bool]
"""Whether a body with these headers is signed rightly."""
Pair = tuple[str, str]
"""An event id and the id of an endpoint that wants it."""

SHORT_SCHEDULE = (1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 8.0)
"""Seconds between the tries at the endpoint that fails: the default schedule would take hours."""

_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 25.0
"""Seconds; longer than the grace that the service gives its own processes."""
_LOG_LINES = 15


class OwnService:
    """`ringbearer up` as a process of its own, in an empty directory, for the time of an `async with` block.

    It knows no setting of the environment or the current directory, so it cannot touch a real database.
    Raises ConfigurationError with the end of its log when it does not come up.
    """

    def __init__(self, directory: Path) -> None:
        self.key = keys.generate()
        self._directory = directory
        self._port = _free_port()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """The address of its API."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The process id; known inside the block."""
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Self:
        with (self._directory / "service.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "ringbearer", "up"),
                cwd=self._directory,
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C at the terminal is for the demonstration, which then ends the service in order.
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                await self._ready()
        except TimeoutError:
            await self._stop()
            raise self._failed(f"is not ready after {_START_TIMEOUT:.0f} s") from None
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stop()

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RINGBEARER_")}
        return inherited | {
            "RINGBEARER_DATA_DIR": str(self._directory / "data"),
            "RINGBEARER_HOST": "127.0.0.1",
            "RINGBEARER_PORT": str(self._port),
            "RINGBEARER_ADMIN_KEY": self.key,
            "RINGBEARER_ALLOW_NETWORKS": "127.0.0.0/8",
        }

    async def _ready(self) -> None:
        assert self._process is not None
        async with httpx.AsyncClient(trust_env=False) as http:
            while self._process.returncode is None:
                try:
                    if (await http.get(f"{self.url}/health/ready")).is_success:
                        return
                except httpx.TransportError:
                    pass  # it does not listen yet
                await asyncio.sleep(0.1)
        raise self._failed(f"ended with status {self._process.returncode}")

    def _failed(self, how: str) -> ConfigurationError:
        log = (self._directory / "service.log").read_text(errors="replace").splitlines()
        return ConfigurationError("\n  ".join([f"the service {how}; its log ends:", *log[-_LOG_LINES:]]))

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT):
                await process.wait()
        finally:
            if process.returncode is None:
                # Its own session, so the group is the service with its workers and nobody else.
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()


class Hook(msgspec.Struct, frozen=True):
    """An endpoint of the demonstration, as registered."""

    supplier_id: str
    endpoint_id: str
    event_types: tuple[str, ...]


class Arrival(msgspec.Struct):
    """What the receivers saw of one event at one endpoint. Times are stored times."""

    first_at: int
    taken_at: int | None = None
    """When it was first answered with 200."""
    taken: int = 0
    """How many times it was answered with 200."""


class Ledger:
    """Every request that the receivers got, checked one by one."""

    def __init__(self) -> None:
        self.arrivals: dict[Pair, Arrival] = {}
        self.taken = 0
        """Pairs that were taken at least once."""
        self.verified = 0
        self.unverified = 0
        self.refused = 0
        self._checks: dict[str, tuple[str, Check]] = {}
        self._changed = asyncio.Event()

    def expect(self, path: str, endpoint_id: str, check: Check) -> None:
        """Says whose requests come to that path and how their signatures are checked."""
        self._checks[path] = (endpoint_id, check)

    def note(self, received: Received) -> None:
        """Writes one request down."""
        endpoint_id, check = self._checks.get(received.path, ("", _never))
        right = check(received.body, received.headers)
        self.verified += right
        self.unverified += not right
        arrival = self.arrivals.setdefault((received.id, endpoint_id), Arrival(received.at))
        if received.status == 200:
            arrival.taken += 1
            if arrival.taken_at is None:
                arrival.taken_at = received.at
                self.taken += 1
        else:
            self.refused += 1
        self._changed.set()

    async def changed(self) -> None:
        """Returns when something was written down since the last call."""
        await self._changed.wait()
        self._changed.clear()

    @property
    def duplicates(self) -> int:
        """Requests that were taken although they had been taken before."""
        return sum(arrival.taken - 1 for arrival in self.arrivals.values() if arrival.taken > 1)


class Outage:
    """Lets a receiver refuse with 503 until it refused `requests`, or `seconds` after the first of them."""

    def __init__(self, receiver: Receiver, *, requests: int, seconds: float) -> None:
        self._receiver = receiver
        self._left = requests
        self._seconds = seconds
        self._began = False
        receiver.fail = 503

    def note(self, received: Received) -> None:
        """Counts one request that was refused."""
        if received.status != 503:
            return
        if not self._began:
            # A service that holds back from a failing endpoint may take long over that many requests.
            asyncio.get_running_loop().call_later(self._seconds, self._end)
            self._began = True
        self._left -= 1
        if self._left == 0:
            self._end()

    def _end(self) -> None:
        self._receiver.fail = None


def register(
    client: Client,
    suppliers: Mapping[str, dict[str, object]],
    receivers: Sequence[Receiver],
    failing: Receiver,
    ledger: Ledger,
    checker: Callable[[str], Check],
) -> list[Hook]:
    """Creates the suppliers and spreads their endpoints over the receivers.

    Each supplier has one for everything or for a part, every third a second one elsewhere. Raises
    ServiceError when the service refuses.
    """
    hooks: list[Hook] = []
    for index, (supplier_id, supplier) in enumerate(suppliers.items()):
        client.send("PUT", path("suppliers", supplier_id), supplier)
        wishes = [_WISHES[index % len(_WISHES)]] + ([_SECOND_WISH] if index % 3 == 2 else [])
        for offset, event_types in enumerate(wishes):
            receiver = receivers[(index + offset) % len(receivers)]
            hook_path = f"/hooks/{len(hooks)}"
            body: dict[str, object] = {"url": receiver.url + hook_path, "event_types": event_types}
            if receiver is failing:
                body["retry_schedule"] = SHORT_SCHEDULE
            made = decode(client.send("POST", path("suppliers", supplier_id, "endpoints"), body), _Made)
            ledger.expect(hook_path, made.id, checker(made.secret))
            hooks.append(Hook(supplier_id, made.id, event_types))
    return hooks


def expected_pairs(events: Sequence[tuple[str, str, str]], hooks: Sequence[Hook]) -> set[Pair]:
    """Which endpoints must hear of which events; an event is its id, supplier id and type."""
    return {
        (event_id, hook.endpoint_id)
        for event_id, supplier_id, event_type in events
        for hook in hooks
        if hook.supplier_id == supplier_id and matches(hook.event_types, event_type)
    }


_WISHES: tuple[tuple[str, ...], ...] = (
    ("*",),
    ("booking.*", "payment.received", "wedding.*", "client.created"),
    ("*",),
    ("wedding.date_changed", "photo.*", "venue.*", "booking.confirmed", "form.submitted"),
)
_SECOND_WISH = ("wedding.date_changed", "payment.*")


class _Made(msgspec.Struct):
    id: str
    secret: str


def _never(_body: bytes, _headers: dict[str, str]) -> bool:
    return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
