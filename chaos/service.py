"""Ringbearer as a service: `ringbearer up` with its children, started, watched, stopped and killed by pid."""

import contextlib
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self

import httpx
import psutil

from chaos.databases import postgres_server
from chaos.ports import free_port
from ringbearer.settings import Settings, load

ADMIN_KEY = "rb_only-for-tests-0123456789abcdef"
"""The admin key of every service that is started here."""
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients that speak plain HTTP: httpx otherwise reads all certificate authorities for each, and whoever waits
for something makes many."""
_READY_SECONDS = 30.0
_STOP_SECONDS = 40.0
_POLL = 0.05

Role = Literal["serve", "work"]


class Service:
    """One installation in a directory of its own; a context manager that ends it.

    `options` are settings (`workers=2`). The port stays the same over restarts. What the processes log is in
    `log`.
    """

    def __init__(self, directory: Path, *, database_url: str | None = None, **options: object) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / "service.log"
        self._process: subprocess.Popen[bytes] | None = None
        given: dict[str, object] = {
            "data_dir": directory / "data",
            "port": self.port,
            "admin_key": ADMIN_KEY,
            "allow_networks": "127.0.0.0/8",
            "changes_per_minute": 0,
            "workers": 1,
            "log_format": "json",
            "config": "",
            **options,
        }
        if database_url is not None:
            given["database_url"] = database_url
        self._environment = {f"RINGBEARER_{name.upper()}": str(value) for name, value in given.items()}

    @property
    def pid(self) -> int:
        """The parent's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def environment(self) -> dict[str, str]:
        """The variables that its processes, and others that share its store, are started with."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RINGBEARER_")}
        return clean | self._environment

    def settings(self) -> Settings:
        """What the service runs with."""
        return load(environ=self._environment)

    def start(self, **variables: str) -> None:
        """Start, and wait until it answers; `variables` join the environment of this start."""
        assert self._process is None
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ringbearer", "up"],
                env=self.environment | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until the API answers and every worker process runs."""
        wait_for(self._ready, _READY_SECONDS, "the service to be ready")

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"the service ended with {self._process.returncode}: {self._last_words()}")
        try:
            return plain_get(f"{self.url}/health/ready", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def pids(self, role: Role) -> list[int]:
        """The children that are in that role at this moment."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    if child.cmdline()[-3:] == ["-m", "ringbearer", role]:
                        found.append(child.pid)
        return sorted(found)

    def stop(self) -> int:
        """End in order, as by SIGTERM; returns the exit code when no process is left."""
        assert self._process is not None
        children = self._children()
        self._process.terminate()
        code = self._process.wait(_STOP_SECONDS)
        self._process = None
        self._wait_gone(children)
        return code

    def kill(self) -> None:
        """End the parent as by `kill -9`; returns when its children have noticed and gone."""
        assert self._process is not None
        children = self._children()
        self._process.kill()
        self._process.wait()
        self._process = None
        self._wait_gone(children)

    def _children(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children(recursive=True)

    def _wait_gone(self, children: list[psutil.Process]) -> None:
        _, alive = psutil.wait_procs(children, timeout=_STOP_SECONDS)
        if alive:
            raise RuntimeError(f"processes outlived their parent: {alive}")

    def client(self) -> httpx.Client:
        """A client with the admin key."""
        return httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {ADMIN_KEY}"},
            timeout=30,
            trust_env=False,
            verify=NO_TLS,
        )

    def _last_words(self) -> str:
        return self.log.read_text()[-2000:]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Whatever happened, leave no process."""
        if self._process is None:
            return
        children = self._children() if self._process.poll() is None else []
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def plain_get(url: str, *, timeout: float = 30.0) -> httpx.Response:
    """The answer to a GET without TLS, past every proxy; raises httpx.HTTPError."""
    return httpx.get(url, timeout=timeout, trust_env=False, verify=NO_TLS)


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Return as soon as the condition holds; raises TimeoutError after that many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(_POLL)


def signal_pid(pid: int, number: signal.Signals) -> bool:
    """Send a signal; returns whether there was such a process."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def postgres(directory: Path, **settings: str) -> Iterator[str]:
    """A PostgreSQL server of its own, as durable as it comes; yields the address of its database."""
    with postgres_server(directory, **settings) as server:
        yield server.url
