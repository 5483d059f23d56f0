"""The supervisor: `ringbearer up`, one parent that keeps an API process and worker processes alive.

It holds the listening socket, so that no connection is refused while the API process starts anew, and a pipe
whose end tells the children that their parent is gone, however it went.
"""

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TextIO

import msgspec
import uvloop
from prometheus_client import multiprocess

from ringbearer import failpoints, ids
from ringbearer.errors import ConfigurationError, StoreUnavailable
from ringbearer.looper import Looper
from ringbearer.maintenance.presence import Presence
from ringbearer.process import NODE_ID, PARENT_PIPE, ensure_admin_key, open_store, prepare_process
from ringbearer.scaling.fleet import Fleet, Life
from ringbearer.scaling.signals import ProcessSignals
from ringbearer.settings import Settings
from ringbearer.storage.base import Storage
from ringbearer.telemetry import Telemetry

_log = logging.getLogger(__name__)
SOCKET_DESCRIPTOR = "RINGBEARER_SOCKET_DESCRIPTOR"
"""Names the descriptor of the listening socket that the API process inherits."""
_MEMORY = Path("/dev/shm")  # noqa: S108  what is made there is this user's alone
_ADVICE = {
    errno.EADDRINUSE: "another program has it: choose another with --port",
    errno.EACCES: "ports below 1024 need a right that this user lacks: choose another with --port",
}
_READY_POLL = 0.05
_READY_PATIENCE = 5.0  # seconds for one answer
_FOLLOW_SECONDS = 0.5  # between two looks at how many workers are wanted


def up(settings: Settings) -> None:
    """Run everything on this machine until SIGTERM or SIGINT; raises ConfigurationError when it cannot start."""
    prepare_process(settings)
    settings.make_data_dir()
    only_one = _lock(settings.data_dir / "up.lock")
    listener = listen(settings)
    with only_one, listener, open_store(settings) as storage:
        storage.migrate()
        storage.catalog.check_seals()
        key_file, new_key = ensure_admin_key(settings, storage)
        uvloop.run(_Supervisor(settings, storage, listener, key_file, new_key).run())


def _shared_directory(data_dir: Path) -> Path:
    """An empty directory by which processes share their figures: in memory where the system has such a place,
    since what is mapped from a disk suffers when that is full."""
    name = f"ringbearer-{hashlib.sha256(bytes(data_dir)).hexdigest()[:16]}"
    for directory in (_MEMORY / name, data_dir / "run" / "metrics"):
        shutil.rmtree(directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            directory.mkdir(parents=directory.is_relative_to(data_dir), mode=0o700)
            return directory
    raise ConfigurationError(
        f"no directory for metrics can be made in {_MEMORY} or {data_dir}: make one of them writable"
    )


def _lock(path: Path) -> TextIO:
    """Take the data directory for this process; the system gives it back when the process ends."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigurationError(
            f"`ringbearer up` runs already on {path.parent.absolute()}; stop it, or choose another --data-dir"
        ) from None
    return file


def listen(settings: Settings) -> socket.socket:
    """The socket on which HTTP is answered; raises ConfigurationError when its address cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        advice = _ADVICE.get(error.errno or 0, "--host takes an address of this machine, such as 127.0.0.1")
        raise ConfigurationError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; {advice}"
        ) from None
    listener.listen(2048)
    return listener


class _Supervisor:
    def __init__(
        self,
        settings: Settings,
        storage: Storage,
        listener: socket.socket,
        key_file: Path | None,
        new_key: str | None,
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._node_id = ids.node()
        self._listener = listener
        self._key_file = key_file
        self._new_key = new_key
        self._stopping = asyncio.Event()
        host, port = listener.getsockname()[:2]
        self._address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        ours, theirs = os.pipe()
        metrics = _shared_directory(self._settings.data_dir.absolute())
        environment = self._environment(ours, metrics)
        serve = self._fleet("serve", environment, (ours, self._listener.fileno()))
        work = self._fleet("work", environment, (ours,))
        fewest, most = self._settings.worker_bounds
        signals = ProcessSignals(
            Telemetry(), lambda: {"minimum": fewest, "maximum": most, "workers": work.size}
        )
        presence = Presence(
            nodes=self._storage.nodes,
            node_id=self._node_id,
            kind="up",
            signals=signals.read,
        )
        follower = Looper("follower of the number of workers", self._follow(work), interval=_FOLLOW_SECONDS)
        work.resize(fewest if self._settings.workers == "auto" else self._settings.workers)
        serve.resize(1)
        signals.start()
        presence.start()
        if most:
            follower.start()
        announcing = asyncio.create_task(self._announce())
        await self._stopping.wait()
        _log.info("stopping: what is in flight may finish")
        await follower.stop()
        await asyncio.gather(work.stop(), serve.stop(), announcing)
        await presence.stop()
        await signals.stop()
        os.close(ours)
        os.close(theirs)
        shutil.rmtree(metrics, ignore_errors=True)

    def _follow(self, work: Fleet) -> Callable[[], Awaitable[None]]:
        """Run as many workers as this machine's share of the wanted number is."""
        fewest, most = self._settings.worker_bounds

        async def follow() -> None:
            wanted = await asyncio.to_thread(self._storage.scaling.assigned, self._node_id)
            if wanted is not None:
                work.resize(min(most, max(fewest, wanted)))

        return follow

    def _environment(self, pipe: int, metrics: Path) -> dict[str, str]:
        return {
            **os.environ,
            **_as_environment(self._settings),
            PARENT_PIPE: str(pipe),
            SOCKET_DESCRIPTOR: str(self._listener.fileno()),
            "PROMETHEUS_MULTIPROC_DIR": str(metrics),
        }

    def _fleet(self, command: str, environment: Mapping[str, str], inherited: tuple[int, ...]) -> Fleet:
        """Children that run one command of this program."""
        later = {name: value for name, value in environment.items() if name != failpoints.VARIABLE}

        async def launch(life: Life) -> asyncio.subprocess.Process:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "ringbearer",
                command,
                env={**(environment if life.first else later), NODE_ID: life.node_id},
                pass_fds=inherited,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches the parent only, which then stops its children in order
            )

        async def gone(life: Life, child: asyncio.subprocess.Process) -> None:
            await self._sign_off(life.node_id)
            multiprocess.mark_process_dead(  # type: ignore[no-untyped-call]
                child.pid, environment["PROMETHEUS_MULTIPROC_DIR"]
            )

        return Fleet(command, launch=launch, gone=gone, grace=self._settings.stop_grace)

    async def _sign_off(self, node_id: str) -> None:
        """Say that a child is gone, so that nobody waits for the end of what it led."""
        try:
            await asyncio.to_thread(self._storage.nodes.forget, node_id)
        except StoreUnavailable as error:
            _log.warning("could not sign a process off; others notice by themselves: %s", error)

    async def _announce(self) -> None:
        """Print the address and the first steps as soon as the service answers."""
        while not self._stopping.is_set():
            if await self._is_ready():
                sys.stdout.write(self._welcome())
                sys.stdout.flush()
                return
            await asyncio.sleep(_READY_POLL)

    async def _is_ready(self) -> bool:
        """Ask the API, in the few words that need no HTTP library: importing one takes a tenth of a second."""
        host, port = self._listener.getsockname()[:2]
        with contextlib.suppress(OSError):  # TimeoutError is one
            async with asyncio.timeout(_READY_PATIENCE):
                reader, writer = await asyncio.open_connection(host, port)
                try:
                    writer.write(
                        b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
                    )
                    return (await reader.readline()).split()[1:2] == [b"200"]
                finally:
                    writer.close()
        return False

    def _welcome(self) -> str:
        settings = self._settings
        command = _command()
        if self._key_file is None:
            told = "The admin key is the one in RINGBEARER_ADMIN_KEY."
        else:
            told = f"The admin key is in {self._key_file} (readable by you only)."
        if self._new_key is not None:
            told += f"\n  Its value, shown this once: {self._new_key}"
        store = "SQLite in " + str(settings.data_dir) if settings.embedded else "PostgreSQL"
        fewest, most = settings.worker_bounds
        workers = (
            f"{fewest} to {most} workers, as the load needs" if most else f"{settings.workers} worker(s)"
        )
        exports = ""
        if self._address != "http://127.0.0.1:8200":
            exports += f"  export RINGBEARER_URL={self._address}\n"
        if self._key_file is None:
            exports += "  export RINGBEARER_KEY=$RINGBEARER_ADMIN_KEY\n"
        elif settings.data_dir != Path("data"):
            exports += f"  export RINGBEARER_KEY=$(cat {self._key_file})\n"
        allowed = ", ".join(settings.allow_networks)
        return f"""
Ringbearer is ready: open {self._address} and log in with the admin key (API documentation: {self._address}/docs)
  Events are kept by {store}; {workers}; private networks that deliveries may reach: {allowed or "none"}.
  {told}

Your first webhook, in another terminal in this directory:
{"" if allowed else _ALLOW_FIRST}
{exports}  {command} receive --port 9000 &
  {command} suppliers put demo
  {command} endpoints create demo http://127.0.0.1:9000/
  {command} publish --supplier demo --type booking.confirmed --data '{{"booking": 42}}'
  {command} deliveries list

Ctrl-C stops it; what is in flight may finish.
"""


_ALLOW_FIRST = """
  (A receiver on this machine has a private address, and those are refused unless allowed. To try it here, stop
  this with Ctrl-C and start again with: RINGBEARER_ALLOW_NETWORKS=127.0.0.0/8 make up)
"""


def _command() -> str:
    """How this program is called from here."""
    beside = Path(sys.executable).parent / "ringbearer"
    found = shutil.which("ringbearer")
    if found is not None and Path(found).exists():
        return "ringbearer"
    return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)


def _as_environment(settings: Settings) -> dict[str, str]:
    """The settings as variables, so that every child reads the same ones, wherever they came from."""
    given: dict[str, str] = {"RINGBEARER_CONFIG": ""}
    for field in msgspec.structs.fields(Settings):
        value = getattr(settings, field.name)
        if value is None or field.name == "metrics_port":  # one port cannot serve several workers
            continue
        if isinstance(value, tuple):
            value = ",".join(value)
        if isinstance(value, Path):
            value = value.absolute()
        given[f"RINGBEARER_{field.name.upper()}"] = str(value)
    return given
