"""The wire: how processes tell each other that the configuration changed.

A word on it carries nothing: whoever hears it asks the store for the version. So a word that is lost, doubled or
forged costs a look, and never correctness.
"""

import contextlib
import select
import socket
import threading
from abc import ABC, abstractmethod

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

    def wait(self, descriptor: int | None, timeout: float) -> bool:
        """Sleep for at most `timeout` seconds, until the descriptor is readable or `wake` is called."""
        poll = select.poll()  # select() knows no descriptors from 1,024 on
        poll.register(self._woken, select.POLLIN)
        if descriptor is not None:
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
    """Over a bell of its own: a datagram on one machine, NOTIFY on PostgreSQL."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._waker = Waker()

    def announce(self) -> None:
        self._bell.ring()

    def wait(self, timeout: float) -> bool:
        heard = self._waker.wait(self._bell.fileno(), timeout)
        self._bell.hush()  # also connects anew what was lost
        return heard

    def wake(self) -> None:
        self._waker.wake()

    def close(self) -> None:
        self._bell.close()
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
