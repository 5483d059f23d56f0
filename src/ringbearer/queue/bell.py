"""The bell: how a worker that sleeps learns at once that there is work. A lost ring costs at most its timeout."""

import contextlib
import logging
import os
import socket
from abc import ABC, abstractmethod
from pathlib import Path

import psycopg
from sqlalchemy import make_url

_log = logging.getLogger(__name__)
_MAX_PATH = 100  # of a Unix socket's name, which Linux limits to 107 bytes


class Bell(ABC):
    """Rung by whoever makes deliveries ready, heard by every worker that watches its file descriptor."""

    @abstractmethod
    def ring(self) -> None:
        """Wake every worker; never blocks long, never raises."""

    @abstractmethod
    def fileno(self) -> int | None:
        """A file descriptor that becomes readable when the bell rings; None while there is nothing to watch."""

    @abstractmethod
    def hush(self) -> None:
        """Take note of the rings so far, so that the descriptor is quiet until the next one."""

    @abstractmethod
    def close(self) -> None:
        """Stop listening."""


class SocketBell(Bell):
    """For the processes of one machine: a datagram to each worker's socket in a common directory.

    Only a bell that was told to `listen` has a socket of its own. Bells of different names do not hear each other.
    """

    def __init__(self, directory: Path, *, listen: bool, name: str = "bell") -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._everybody = f"*.{name}"
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)
        self._path: Path | None = None
        self._ear: socket.socket | None = None
        if listen:
            self._listen(directory / f"{os.getpid()}.{name}")

    def _listen(self, path: Path) -> None:
        if len(os.fsencode(path)) > _MAX_PATH:
            _log.warning(
                "%s is too long a name for a socket: new work is found within a second instead", path
            )
            return
        path.unlink(missing_ok=True)
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.setblocking(False)
        self._ear.bind(os.fspath(path))
        self._path = path

    def ring(self) -> None:
        for name in self._directory.glob(self._everybody):
            try:
                self._sender.sendto(b"!", os.fspath(name))
            except BlockingIOError:
                pass  # its owner has rings waiting already
            except ConnectionRefusedError:
                name.unlink(missing_ok=True)  # its owner died
            except OSError as error:
                _log.debug("could not ring %s: %s", name, error)

    def fileno(self) -> int | None:
        return self._ear.fileno() if self._ear is not None else None

    def hush(self) -> None:
        if self._ear is not None:
            with contextlib.suppress(BlockingIOError):
                while self._ear.recv(16):
                    pass

    def close(self) -> None:
        self._sender.close()
        if self._ear is not None:
            self._ear.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


class PostgresBell(Bell):
    """NOTIFY and LISTEN; where a transaction pooler forbids LISTEN, workers look for themselves each second."""

    def __init__(self, url: str, *, listen: bool, pooled: bool = False, name: str = "work") -> None:
        self._channel = f"ringbearer_{name}"
        self._url = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._wants_to_listen = listen and not pooled
        self._sender: psycopg.Connection | None = None
        self._ear: psycopg.Connection | None = None
        self.hush()

    def ring(self) -> None:
        try:
            if self._sender is None or self._sender.closed:
                self._sender = self._connect()
            self._sender.execute(f"NOTIFY {self._channel}", prepare=False)
        except psycopg.Error as error:
            _log.debug("could not ring: %s", error)
            self._drop_sender()

    def fileno(self) -> int | None:
        return self._ear.fileno() if self._ear is not None and not self._ear.closed else None

    def hush(self) -> None:
        if not self._wants_to_listen:
            return
        try:
            if self._ear is not None:
                for _ in self._ear.notifies(timeout=0):
                    pass
        except psycopg.Error as error:
            _log.debug("the connection that listened is lost: %s", error)
            self._drop_ear()
        try:
            if self._ear is None:
                self._ear = self._connect()
                self._ear.execute(f"LISTEN {self._channel}", prepare=False)
        except psycopg.Error as error:
            _log.debug("could not listen: %s", error)
            self._drop_ear()

    def close(self) -> None:
        self._drop_sender()
        self._drop_ear()

    def _drop_sender(self) -> None:
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    def _drop_ear(self) -> None:
        if self._ear is not None:
            self._ear.close()
            self._ear = None

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            self._url, autocommit=True, connect_timeout=5, application_name="ringbearer-bell"
        )
