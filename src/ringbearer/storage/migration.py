"""Migrations: Alembic's revisions, run over a connection that the caller holds.

Revisions are numbered. A database that has a later one than this version knows was migrated by a newer version, beside
which this one goes on working: a revision adds, and what an older version still needs is removed no earlier than one
version after the last that used it.
"""

import logging
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

_log = logging.getLogger(__name__)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def upgrade(connection: Connection) -> None:
    """Apply every revision that the database does not have yet, in the caller's transaction."""
    current, head = _current(connection), _head()
    if current == head:
        return
    if current is not None and current > head:
        _log.info("the store's schema is newer than this version, which goes on beside the newer one")
        return
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def pending(connection: Connection) -> bool:
    """Whether the database lacks a revision that this version of Ringbearer needs."""
    return _current(connection) != _head() and not ahead(connection)


def ahead(connection: Connection) -> bool:
    """Whether a newer version of Ringbearer has migrated the database."""
    current = _current(connection)
    return current is not None and current > _head()


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@cache
def _head() -> str:
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head
