"""Turns: writers of one file, in any number of threads and processes, one at a time, woken at once, with a deadline."""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ringbearer.errors import StoreUnavailable


class Turns:
    """A lock over processes: the kernel wakes the next in line, where SQLite's own waiting sleeps and polls.

    The kernel's wait has no deadline, and a process may be stopped while it has its turn. So who finds the file
    taken lets a thread of its own do the waiting, and goes when that takes too long; a turn that comes after
    that is given back.
    """

    def __init__(self, path: Path, *, patience: float) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._patience = patience
        self._here = threading.Lock()
        self._state = threading.Lock()
        self._waiting: threading.Event | None = None
        self._wanted = False

    @contextmanager
    def take(self) -> Iterator[None]:
        """Have the turn for the length of the block; raises StoreUnavailable after `patience` seconds."""
        if not self._here.acquire(timeout=self._patience):
            raise self._late()
        try:
            self._acquire()
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._here.release()

    def close(self) -> None:
        """Give up the file; a turn that is waited for is not taken any more."""
        with self._state:
            self._wanted = False
            if self._waiting is None:
                os.close(self._file)
            # else the thread that waits has the file, which ends with the process

    def _acquire(self) -> None:
        with self._state:
            if self._waiting is None:
                try:
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self._waiting = threading.Event()
                    threading.Thread(
                        target=self._wait, args=(self._waiting,), name="turn", daemon=True
                    ).start()
                else:
                    return
            came, self._wanted = self._waiting, True
        if came.wait(self._patience):
            return
        with self._state:
            if came.is_set():
                return
            self._wanted = False
        raise self._late()

    def _wait(self, came: threading.Event) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        with self._state:
            self._waiting = None
            if self._wanted:
                self._wanted = False
                came.set()
            else:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _late(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"the database does not take it: another process has been writing for {self._patience:g} s; "
            "is one of them stopped?"
        )
