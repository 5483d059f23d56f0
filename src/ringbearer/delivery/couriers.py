"""Couriers: one sends on the thread that drives it; more of them send on threads of their own beside it.

A host belongs to one courier, so that its connections and HTTP/2 streams stay together. The driving thread keeps
loading, admitting, signing and judging; libcurl, TLS and the receivers' answers are worked at in parallel, as far
as libcurl lets go of the interpreter's lock (on free-threaded builds altogether).
"""

import contextlib
import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import TypeVar
from zlib import crc32

from ringbearer import clock
from ringbearer.delivery.handle import Order
from ringbearer.delivery.names import Place
from ringbearer.delivery.outcome import Exchange
from ringbearer.delivery.returns import Return
from ringbearer.delivery.throttle import Throttle
from ringbearer.delivery.tokens import TokenCourier
from ringbearer.delivery.tuning import HostUse
from ringbearer.delivery.ways import Way

T = TypeVar("T")
_log = logging.getLogger(__name__)
_TURN_SECONDS = 0.5
_ORDERS_A_TURN = 256  # then what is under way is driven


class Couriers:
    """Behaves like one courier, however many there are. Belongs to one thread, the driving one.

    `make` makes a courier. Fewer couriers take effect as those that go finish what they have: nothing is broken off.
    """

    def __init__(self, make: Callable[[], TokenCourier]) -> None:
        self._make = make
        self._own = make()
        self._beside: list[_Beside] = []
        self._leaving: list[_Beside] = []
        self._share = 1.0
        self._news = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._own.watch(self._news, rings=False)
        self._elsewhere = 0

    def __repr__(self) -> str:
        return f"<Couriers {self.count}, with {self.in_flight} in flight>"

    @property
    def count(self) -> int:
        """How many couriers take orders."""
        return 1 + len(self._beside)

    @property
    def in_flight(self) -> int:
        """Exchanges under way, those that wait for a name or a token among them."""
        return self._own.in_flight + self._elsewhere

    def resize(self, count: int, *, cpu_share: float) -> None:
        """Let so many couriers take orders from now on, each beside the driving thread with that share of a core."""
        self._share = cpu_share
        while len(self._beside) > count - 1:
            going = self._beside.pop()
            going.leave()
            self._leaving.append(going)
        for staying in self._beside:
            staying.throttle.share = cpu_share
        while len(self._beside) < count - 1:
            self._beside.append(_Beside(self._make, self._tell, cpu_share))

    def watch(self, descriptor: int) -> None:
        """Let `poll` end early when this descriptor becomes readable."""
        self._own.watch(descriptor)

    def unwatch(self, descriptor: int) -> None:
        """The opposite of `watch`."""
        self._own.unwatch(descriptor)

    def submit(self, order: Order) -> None:
        """Begin an exchange; raises, and has begun nothing, when the order cannot be made and that is known at once.

        Another thread's courier tells by a Return whose exchange has a `failure`.
        """
        if self._beside:
            chosen = self._chosen(order.url)
            if chosen is not None:
                chosen.put(order)
                self._elsewhere += 1
                return
        self._own.submit(order)

    def poll(self, timeout: float) -> tuple[list[Return], bool]:
        """Drive everything for at most `timeout` seconds: what came to an end, and whether a watched one rang."""
        if not self._beside and not self._leaving:
            return self._own.poll(timeout)
        found = self._collect()
        returns, rang = self._own.poll(0.0 if found else timeout)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._news)
        found += self._collect()
        self._leaving = [going for going in self._leaving if not going.gone()]
        return found + returns, rang

    def take_uses(self) -> dict[str, HostUse]:
        """What connections were used for since the last time, by URL."""
        uses: dict[str, HostUse] = {}
        for taken in self._each(lambda courier: courier.take_uses()):
            uses |= taken  # a URL belongs to one of them, but for the moment of a change
        return uses

    def keep_connections(self, number: int) -> None:
        """Keep at most so many connections open that are not in use."""
        share = -(-number // self.count)
        self._each(lambda courier: courier.keep_connections(share))

    def fit(self, needed: Mapping[str, int]) -> int:
        """Close idle connections that nobody needs; returns how many. See `Courier.fit`."""
        return sum(self._each(lambda courier: courier.fit(needed)))

    def open(self) -> Counter[str]:
        """How many connections are open, by `Place.authority`."""
        return sum(self._each(lambda courier: courier.open()), Counter())

    def close_unused(self, keep: int) -> int:
        """Close handles that are not in use, but for so many; returns how many that were."""
        share = -(-keep // self.count)
        return sum(self._each(lambda courier: courier.close_unused(share)))

    def place(self, url: str) -> Place:
        """Where a URL leads."""
        return self._own.place(url)

    def warm(self, urls: Iterable[str]) -> int:
        """Look up the names of URLs ahead of the next exchange; returns how many are not known yet."""
        of: dict[_Beside | None, list[str]] = {}
        for url in urls:
            of.setdefault(self._chosen(url), []).append(url)
        missing = 0
        for beside, theirs in of.items():
            missing += self._own.warm(theirs) if beside is None else beside.warm(theirs)
        return missing

    def connect_ahead(self, url: str, way: Way | None) -> bool:
        """Begin a connection ahead of the next exchange; see `Courier.connect_ahead`."""
        beside = self._chosen(url)
        if beside is None:
            return self._own.connect_ahead(url, way)
        return beside.ask(lambda courier: courier.connect_ahead(url, way))

    def abandon(self) -> list[Order]:
        """Break off everything in flight; returns the orders, whose outcome is unknown."""
        orders = self._own.abandon()
        for beside in (*self._beside, *self._leaving):
            orders += beside.end()
        self._beside, self._leaving = [], []
        self._elsewhere = 0
        return orders

    def close(self) -> None:
        """Break off everything and close all connections."""
        self.abandon()
        self._own.close()
        os.close(self._news)

    def _chosen(self, url: str) -> "_Beside | None":
        """Whose a URL is; None: the driving thread's."""
        number = crc32(self._own.place(url).authority.encode()) % self.count
        return self._beside[number - 1] if number else None

    def _each(self, work: Callable[[TokenCourier], T]) -> list[T]:
        return [work(self._own), *(beside.ask(work) for beside in self._beside)]

    def _collect(self) -> list[Return]:
        found = [returned for beside in (*self._beside, *self._leaving) for returned in beside.taken()]
        self._elsewhere -= len(found)
        return found

    def _tell(self) -> None:
        os.eventfd_write(self._news, 1)


class _Beside:
    """A courier with its thread; all but `_run` and what that calls belongs to the driving thread."""

    def __init__(self, make: Callable[[], TokenCourier], tell: Callable[[], None], share: float) -> None:
        self.throttle = Throttle(share)
        self._courier = make()
        self._tell = tell
        self._todo: deque[Order | Callable[[], None]] = deque()
        self._done: deque[Return] = deque()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._courier.watch(self._bell)
        self._rung = False  # cleared before what there is to do is looked at, so that no ring is missed
        self._leaving = False
        self._ending = False
        self._rest = threading.Event()
        self._thread = threading.Thread(target=self._run, name="courier beside", daemon=True)
        self._thread.start()

    def put(self, order: Order) -> None:
        """Have an order sent."""
        self._todo.append(order)
        self._ring()

    def warm(self, urls: list[str]) -> int:
        """As `Courier.warm`."""
        return self.ask(lambda courier: courier.warm(urls))

    def ask(self, work: Callable[[TokenCourier], T]) -> T:
        """Do something with the courier on its own thread, and wait for it."""
        future: Future[T] = Future()

        def there() -> None:
            try:
                future.set_result(work(self._courier))
            except BaseException as error:
                future.set_exception(error)

        self._todo.append(there)
        self._ring()
        return future.result()

    def taken(self) -> list[Return]:
        """What came to an end since the last time."""
        return [self._done.popleft() for _ in range(len(self._done))]

    def leave(self) -> None:
        """Finish what there is, and end."""
        self._leaving = True
        self._ring()

    def gone(self) -> bool:
        """Whether it has left, and all of it was taken."""
        if self._thread.is_alive() or self._done:
            return False
        self._close()
        return True

    def end(self) -> list[Order]:
        """Break everything off, now; returns the orders, whose outcome is unknown."""
        self._ending = True
        self._rest.set()
        self._ring()
        self._thread.join()
        orders = [*self._courier.abandon(), *(returned.order for returned in self.taken())]
        orders += [todo for todo in self._todo if isinstance(todo, Order)]
        self._close()
        return orders

    def _close(self) -> None:
        self._courier.close()
        os.close(self._bell)

    def _ring(self) -> None:
        if not self._rung:
            self._rung = True
            os.eventfd_write(self._bell, 1)

    def _run(self) -> None:
        while not self._ending:
            try:
                self._turn()
            except Exception:  # nobody would send any more what belongs to this one
                _log.exception("a courier failed, and goes on")
            if self._leaving and not self._todo and not self._courier.in_flight:
                break

    def _turn(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        self._rung = False
        for _ in range(min(len(self._todo), _ORDERS_A_TURN)):
            todo = self._todo.popleft()
            if isinstance(todo, Order):
                self._submit(todo)
            else:
                todo()
        pause = self.throttle.rest(clock.monotonic(), clock.cpu())
        if pause > 0:
            self._rest.wait(pause)
        returns, _ = self._courier.poll(0.0 if self._todo else _TURN_SECONDS)
        if returns:
            self._done.extend(returns)
            self._tell()

    def _submit(self, order: Order) -> None:
        try:
            self._courier.submit(order)
        except Exception as error:  # something in it that libcurl does not take; the others go on
            _log.exception("an order could not be begun")
            said = f"internal_error: the request could not be made ({type(error).__name__})"
            exchange = Exchange(started_at=clock.now(), duration=0, failure=said)
            self._done.append(Return(order, exchange, None, False))
            self._tell()
