"""What the API needs from the rest of the house, handed to it by whoever puts the house together."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, Protocol, TypeVar

from ringbearer.api.auth import Authenticator
from ringbearer.api.changes import ChangeLimit
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.domain.deliveries import Attempt
from ringbearer.domain.endpoints import Target
from ringbearer.domain.keys import Key
from ringbearer.errors import Overloaded, StoreUnavailable
from ringbearer.monitor.monitor import WebhookPerformanceMonitor
from ringbearer.queue.optimizer import WebhookQueueOptimizer
from ringbearer.scaling.manager import WebhookScalingManager
from ringbearer.storage.base import Storage
from ringbearer.storage.catalog import Catalog
from ringbearer.storage.history import History

MAX_BODY_BYTES = 1024 * 1024
"""The largest body of a management request."""
STORE_CALLS = 4
"""Calls to the store at a time; SQLite has as many readers, and publishing must find threads too."""
STORE_CALLS_WAITING = 500
FIGURES = 2
"""Questions for figures at a time: they may go through a year, and must leave threads and readers to others."""
FIGURES_WAITING = 50
TRIALS = 2
"""Messages that are sent over channels to try them, at a time; each is a process for as long as it takes."""
TRIALS_WAITING = 20

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class UrlGuard(Protocol):
    """Who knows which URLs deliveries may be sent to."""

    def check_url(self, url: str) -> str:
        """The URL in the form in which it will be sent to; raises UrlRefused."""

    async def check_resolved(self, url: str) -> None:
        """Look at the addresses behind the name; raises UrlRefused."""


class Turns:
    """Lets a few be at work at a time; raises Overloaded when too many wait for their turn."""

    def __init__(self, what: str, *, most: int, waiting: int) -> None:
        self._what = what
        self._turns = asyncio.Semaphore(most)
        self._room = most + waiting
        self._inside = 0

    async def __call__(self, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._inside >= self._room:
            raise Overloaded(f"{self._inside} {self._what} wait for their turn already")
        self._inside += 1
        try:
            async with self._turns:
                return await work(*args, **kwargs)
        finally:
            self._inside -= 1


class StoreCalls:
    """Calls that block, made from the event loop on threads, a few at a time.

    Raises Overloaded when too many wait for their turn.
    """

    def __init__(self, most: int = STORE_CALLS, waiting: int = STORE_CALLS_WAITING) -> None:
        self._turns = Turns("management requests", most=most, waiting=waiting)

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._turns(partial(asyncio.to_thread, function, *args, **kwargs))


@dataclass(frozen=True, kw_only=True)
class ApiServices:
    """Everything that the handlers touch."""

    storage: Storage
    monitor: WebhookPerformanceMonitor
    guard: UrlGuard
    authenticator: Authenticator
    tester: Callable[[Target], Awaitable[Attempt]]
    """Sends one signed sample event now and returns what came of it."""
    reconcile: Callable[[], Awaitable[None]]
    """Called after endpoints were enabled, disabled or deleted: their deliveries are to follow."""
    scaler: WebhookScalingManager
    optimizer: WebhookQueueOptimizer
    """Whoever changes how many workers there shall be asks it."""
    cache: WebhookCacheManager
    wake: Callable[[], None] = lambda: None
    """Called after deliveries were made ready, so that workers look for them at once."""
    public_url: str = ""
    """Where receivers find this service, for links; empty when that is not known."""
    changes_per_minute: int = 5
    """Changes of one endpoint in a minute; 0 for any number."""
    store: StoreCalls = field(default_factory=StoreCalls)
    figures: Turns = field(
        default_factory=lambda: Turns("questions for figures", most=FIGURES, waiting=FIGURES_WAITING)
    )
    trials: Turns = field(
        default_factory=lambda: Turns("trial messages", most=TRIALS, waiting=TRIALS_WAITING)
    )
    changes: ChangeLimit = field(init=False)

    def __post_init__(self) -> None:
        # A frozen dataclass offers no other way to derive one field from another.
        object.__setattr__(self, "changes", ChangeLimit(self.changes_per_minute))

    def history(self, key: Key) -> History:
        """The history as the key may read it: for a supplier's key, the database itself hides what is not its own."""
        return self.storage.history_for(key.supplier_id)

    def catalog(self, key: Key) -> Catalog:
        """The catalog as the key may read it, likewise; never for writing."""
        return self.storage.catalog_for(key.supplier_id)

    async def configured(self, *supplier_ids: str) -> None:
        """Let every cache follow a change of suppliers, their endpoints or what those share, now or a moment later."""
        try:
            await self.cache.invalidate_endpoint_cache(*supplier_ids)
        except StoreUnavailable as error:
            _log.warning("caches follow a change of endpoints later: %s", error)

    async def settle(self) -> None:
        """Let deliveries follow a change of endpoints, now or, when the store is away, later."""
        try:
            await self.reconcile()
        except StoreUnavailable as error:
            _log.warning("deliveries follow a change of endpoints later: %s", error)
