"""The doctor: looks at the settings and at what they name, and says what is wrong and what to do."""

import os
import resource
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from sqlalchemy import make_url, text

from ringbearer.errors import ConfigurationError, RedisUnavailable, StoreUnavailable
from ringbearer.process import open_store
from ringbearer.redis_link import Script, open_redis, parse
from ringbearer.settings import Settings, unknown_variables
from ringbearer.storage import outbox, tenancy
from ringbearer.storage.base import Storage
from ringbearer.storage.migration import ahead, pending
from ringbearer.storage.vault import Vault

_SPARE_FILES = 200  # database, logs, sockets of the service itself
_MIN_FREE = 1024**3
_MEMORY = Script("return redis.call('INFO', 'memory')")


class Finding(NamedTuple):
    """One thing that was looked at."""

    level: Literal["ok", "warning", "error"]
    subject: str
    detail: str


def examine(settings: Settings, environ: Mapping[str, str] | None = None) -> list[Finding]:
    """Look at everything; changes nothing but may create the data directory and its keys."""
    return [
        *_variables(os.environ if environ is None else environ),
        *_data_dir(settings.data_dir),
        *_open_files(settings),
        *_port(settings),
        *_networks(settings),
        *_ca_file(settings),
        *_store(settings),
        *_redis(settings),
    ]


def _variables(environ: Mapping[str, str]) -> Iterator[Finding]:
    unknown = unknown_variables(environ)
    for name in unknown:
        yield Finding("warning", "environment", f"{name} is not a setting of Ringbearer and is ignored")
    if not unknown:
        yield Finding("ok", "environment", "every RINGBEARER_ variable is a known setting")


def _data_dir(path: Path) -> Iterator[Finding]:
    if not path.exists():
        yield Finding(
            "ok", "data directory", f"{path.absolute()} does not exist yet; the first start makes it"
        )
        return
    if not path.is_dir():
        yield Finding("error", "data directory", f"{path.absolute()} is no directory; choose another")
        return
    if not os.access(path, os.W_OK | os.X_OK):
        yield Finding("error", "data directory", f"{path.absolute()} cannot be written to by this user")
        return
    free = os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
    level: Literal["ok", "warning"] = "ok" if free >= _MIN_FREE else "warning"
    yield Finding(level, "data directory", f"{path.absolute()} has {free / 1024**3:.1f} GiB free")
    for name in ("admin.key", "secret.key"):
        file = path / name
        if file.exists() and stat.S_IMODE(file.stat().st_mode) & 0o077:
            yield Finding("error", name, f"other users can read it: chmod 600 {file.absolute()}")


def _open_files(settings: Settings) -> Iterator[Finding]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # the service raises its soft limit to the hard one
    need = settings.slots + _SPARE_FILES
    if most < need:
        yield Finding(
            "warning",
            "open files",
            f"{most} files may be open, and {settings.slots} slots want {need}: raise the limit with "
            f"`ulimit -Hn {need}`, or set fewer slots",
        )
    else:
        yield Finding(
            "ok", "open files", f"{most} files may be open, which is enough for {settings.slots} slots"
        )


def _port(settings: Settings) -> Iterator[Finding]:
    where = f"{settings.host} port {settings.port}"
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            detail = f"{where} cannot be listened on: {error.strerror} (fine if it is this service that runs)"
            yield Finding("warning", "address", detail)
        else:
            yield Finding("ok", "address", f"{where} is free")


def _networks(settings: Settings) -> Iterator[Finding]:
    if settings.allow_networks:
        shown = ", ".join(settings.allow_networks)
        yield Finding("warning", "networks", f"deliveries may reach these private networks: {shown}")
    else:
        yield Finding("ok", "networks", "deliveries reach public addresses only")


def _ca_file(settings: Settings) -> Iterator[Finding]:
    if settings.ca_file is None:
        return
    if not settings.ca_file.is_file():
        yield Finding("error", "ca_file", f"{settings.ca_file} does not exist")
    else:
        yield Finding("ok", "ca_file", f"certificates are checked against {settings.ca_file}")


def _store(settings: Settings) -> Iterator[Finding]:
    try:
        with open_store(settings) as storage:
            with storage.database.read() as connection:
                connection.execute(text("SELECT 1"))
                behind, newer = pending(connection), ahead(connection)
            where = make_url(settings.store_url).render_as_string(hide_password=True)
            yield Finding("ok", "store", f"{where} answers")
            if behind:
                yield Finding(
                    "warning", "schema", "not up to date; run `ringbearer migrate`, or `ringbearer up`"
                )
            else:
                yield Finding(
                    "ok", "schema", "of a newer version; update this one" if newer else "up to date"
                )
                yield from _durability(settings, storage)
                yield from _sealed(storage)
                if not settings.embedded:
                    yield from _tenants(storage)
                    yield from _outbox(storage)
    except (StoreUnavailable, ConfigurationError) as error:
        yield Finding("error", "store", str(error))


def _redis(settings: Settings) -> Iterator[Finding]:
    if settings.redis_url is None:
        return
    where = parse(settings.redis_url)
    link = open_redis(settings.redis_url, Vault(settings.vault_keys()))
    try:
        memory = link.run(_MEMORY, [link.prefix], [])
    except RedisUnavailable as error:
        yield Finding("warning", "redis", f"{where!r}: {error}; everything goes on without it, more slowly")
        return
    finally:
        link.close()
    if isinstance(memory, bytes) and b"maxmemory_policy:noeviction" not in memory:
        detail = f"{where!r} may evict what the queue needs: set maxmemory-policy to noeviction"
        yield Finding("warning", "redis", detail)
    else:
        yield Finding("ok", "redis", f"{where!r} answers")


def _tenants(storage: Storage) -> Iterator[Finding]:
    with storage.database.read() as connection:
        hidden = connection.execute(text("SELECT row_security_active('jobs')")).scalar_one()
        may = tenancy.available(connection)
    if hidden:
        detail = (
            "this role does not own the tables, so that policies hide them: connect as the one that migrated"
        )
        yield Finding("error", "row level security", detail)
    elif not may:
        detail = (
            f"the role {tenancy.ROLE} is missing, so that reads for suppliers' keys are bounded by their conditions "
            f"alone: as a superuser, CREATE ROLE {tenancy.ROLE}; then see docs/supabase.md"
        )
        yield Finding("warning", "row level security", detail)
    else:
        yield Finding("ok", "row level security", "reads for suppliers' keys see their own rows alone")


def _outbox(storage: Storage) -> Iterator[Finding]:
    with storage.database.read() as connection:
        refused = outbox.count_refused(connection)
    if refused:
        detail = (
            f"{refused} emitted events are refused; {outbox.TABLE} tells why, and docs/supabase.md what to do"
        )
        yield Finding("warning", "outbox", detail)


def _durability(settings: Settings, storage: Storage) -> Iterator[Finding]:
    if settings.embedded:
        yield Finding("ok", "durability", "SQLite writes every commit through to the disk (synchronous=FULL)")
        return
    with storage.database.read() as connection:
        values = {
            name: connection.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("fsync", "synchronous_commit")
        }
        number = int(connection.execute(text("SHOW server_version_num")).scalar_one())
    for name, value in values.items():
        if value == "off":
            detail = f"{name} is off: an accepted event can be lost when the server loses power; set it to on"
            yield Finding("error", "durability", detail)
    if "off" not in values.values():
        yield Finding("ok", "durability", "PostgreSQL writes every commit through to the disk")
    if number < 140_000:
        yield Finding("error", "store", f"PostgreSQL {number // 10_000} is too old: 14 or newer is needed")


def _sealed(storage: Storage) -> Iterator[Finding]:
    try:
        storage.catalog.check_seals()
    except ConfigurationError as error:
        yield Finding("error", "secret key", str(error))
    else:
        yield Finding("ok", "secret key", "opens every stored secret")
