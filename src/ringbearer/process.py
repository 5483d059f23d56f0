"""A process of the service: what each does first, the store alone, the first admin key, and when to end."""

import asyncio
import contextlib
import ctypes
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ringbearer import ids, logs
from ringbearer.domain.keys import Key, digest, generate
from ringbearer.errors import ConfigurationError
from ringbearer.settings import Settings
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.vault import Vault

_log = logging.getLogger(__name__)
_SWITCH_SECONDS = 0.001  # a thread that returns from the database gets the interpreter after at most this
_M_ARENA_MAX = -8  # of malloc.h
_ARENAS = 2  # heaps of the C library: with one for each of a dozen threads what one frees, no other uses
PARENT_PIPE = "RINGBEARER_PARENT_PIPE"
"""Names the descriptor of a pipe that ends when the supervising process does."""
NODE_ID = "RINGBEARER_NODE_ID"
"""The id under which the supervising process knows this one."""


def prepare_process(settings: Settings) -> None:
    """What every process of the service does first; raises ConfigurationError."""
    if settings.ca_file is not None and not settings.ca_file.is_file():
        raise ConfigurationError(
            f"ca_file: {settings.ca_file} does not exist; name a file of certificates (PEM), or leave it out for the "
            "bundled ones"
        )
    logs.configure(style=settings.log_format, level=settings.log_level)
    sys.setswitchinterval(_SWITCH_SECONDS)
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, _ARENAS)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each exchange in flight is an open file


def open_store(settings: Settings) -> Storage:
    """The store that the settings name; raises ConfigurationError."""
    return open_storage(settings.store_url, Vault(settings.vault_keys()), prepare=settings.database_prepare)


def migrate(settings: Settings) -> None:
    """Bring the store's schema to this version."""
    with open_store(settings) as storage:
        storage.migrate()


def rotate_encryption(settings: Settings) -> int:
    """Seal every stored secret anew with the first of the configured keys; returns how many that were."""
    with open_store(settings) as storage:
        return storage.catalog.reseal() + storage.alerts.reseal()


def ensure_admin_key(settings: Settings, storage: Storage) -> tuple[Path | None, str | None]:
    """Make sure that an admin key exists.

    Returns where the key's file is, if there is one, and the key itself if it was made just now.
    """
    if settings.admin_key is not None:
        if len(settings.admin_key) < 16:
            raise ConfigurationError("RINGBEARER_ADMIN_KEY must have at least 16 characters")
        if storage.catalog.find_key(digest(settings.admin_key)) is None:
            _take_given_key(storage, settings.admin_key)
        return None, None
    path = settings.data_dir / "admin.key"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        key = path.read_text().strip()
        if not key:
            raise ConfigurationError(
                f"{path.absolute()} is empty; delete it, and the next start makes a new key"
            ) from None
        if storage.catalog.find_key(digest(key)) is None:
            _store_admin_key(storage, key)  # the file outlived its database
        return path, None
    key = generate()
    with os.fdopen(descriptor, "w") as file:
        file.write(key + "\n")
    _store_admin_key(storage, key)
    return path, key


def _take_given_key(storage: Storage, key: str) -> None:
    """Let the key of the settings be the only one that ever was: whoever changes it means to be rid of the old one."""
    made = _admin_key(key, name="RINGBEARER_ADMIN_KEY")
    for old in storage.catalog.add_key(made, digest(key), alone=True):
        _log.warning(
            "RINGBEARER_ADMIN_KEY was changed: the key that ended in %s is valid no more", old.last_four
        )


def _store_admin_key(storage: Storage, key: str) -> None:
    storage.catalog.add_key(_admin_key(key, name="first admin key"), digest(key))


def _admin_key(key: str, *, name: str) -> Key:
    return Key(id=ids.key(), scope="admin", name=name, created_at=datetime.now(UTC), last_four=key[-4:])


def on_stop(stop: Callable[[], None]) -> None:
    """Call `stop` in the running event loop on SIGTERM, SIGINT, and when the supervising process is gone."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    pipe = os.environ.get(PARENT_PIPE)
    if pipe is not None:
        descriptor = int(pipe)

        def parent_gone() -> None:
            loop.remove_reader(descriptor)
            stop()

        loop.add_reader(descriptor, parent_gone)
