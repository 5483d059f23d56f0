"""The wire: how processes tell each other that the configuration changed.

A word on it carries nothing: whoever hears it asks the store for the version. So a word that is lost, doubled or
forged costs a look, and never correctness.
"""

import contextlib
import select
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable

from ringbearer.queue.bell import Bell


class Wire(ABC):
    """Announced on by whoever changed something, heard by every process. `wake` may be called from any thread;
    everything else belongs to the thread that waits."""

    @abstractmethod
    def announce(self) -> None:
        """Tell everybody; never blocks long, never raises."""

    @abstractmethod
    def wait(self, timeout: float) -> bool:
        """Sleep for at most `timeout` seconds, until a word comes or `wake` is called; returns whether one did."""

    @abstractmethod
    def wake(self) -> None:
        """End the wait that is under way, or the next one."""

    @abstractmethod
    def close(self) -> None:
        """Stop listening."""


class Waker:
    """Lets a thread wait for a descriptor, and others end that wait."""

    def __init__(self) -> None:
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)

    def wake(self) -> None:
        """End the wait that is under way, or the next one."""
        with contextlib.suppress(OSError):  # it was woken often enough, or is closed
            self._waker.send(b"!")

    def wait(self, descriptors: Iterable[int], timeout: float) -> bool:
        """Sleep for at most `timeout` seconds, until a descriptor is readable or `wake` is called."""
        poll = select.poll()  # select() knows no descriptors from 1,024 on
        for descriptor in (self._woken.fileno(), *descriptors):
            poll.register(descriptor, select.POLLIN)
        heard = bool(poll.poll(timeout * 1000))
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(64):
                pass
        return heard

    def close(self) -> None:
        """Let go of its sockets."""
        self._waker.close()
        self._woken.close()


class BellWire(Wire):
    """Over bells of its own, one at least: a datagram on one machine, NOTIFY on PostgreSQL, a channel of Redis."""

    def __init__(self, *bells: Bell) -> None:
        self._bells = bells
        self._waker = Waker()

    def announce(self) -> None:
        for bell in self._bells:
            bell.ring()

    def wait(self, timeout: float) -> bool:
        heard = self._waker.wait([ear for bell in self._bells if (ear := bell.fileno()) is not None], timeout)
        for bell in self._bells:
            bell.hush()  # also connects anew what was lost
        return heard

    def wake(self) -> None:
        self._waker.wake()

    def close(self) -> None:
        for bell in self._bells:
            bell.close()
        self._waker.close()


class SilentWire(Wire):
    """Reaches nobody: for a single process, or one that only looks for itself."""

    def __init__(self) -> None:
        self._woken = threading.Event()

    def announce(self) -> None:
        """There is nobody to tell."""

    def wait(self, timeout: float) -> bool:
        heard = self._woken.wait(timeout)
        self._woken.clear()
        return heard

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        """Nothing is open."""
