"""Stores for these suites: most share one PostgreSQL database, which is emptied before each test."""

from collections.abc import Iterator

import psycopg
import pytest

from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.schema import metadata
from ringbearer.storage.vault import Vault, generate_key

_EMPTY = "; ".join(
    [
        *(f"DELETE FROM {table}" for table in metadata.tables if table not in {"config_version", "scaling"}),
        "UPDATE config_version SET version = 0",
        "UPDATE scaling SET policy = '{}', decision = NULL, assignments = '{}', term = 0",
    ]
)


@pytest.fixture(scope="session")
def shared_postgres_url(postgres_server: str) -> str:
    """One database for all tests that only fill and empty its tables."""
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE shared TEMPLATE migrated")
    return postgres_server.replace("/postgres?", "/shared?", 1)


@pytest.fixture
def postgres_url(shared_postgres_url: str) -> str:
    """That database, emptied: a fresh one takes a quarter of a second."""
    with psycopg.connect(shared_postgres_url) as connection:
        connection.execute(_EMPTY.encode())
    return shared_postgres_url


@pytest.fixture
def own_storage(own_store_url: str) -> Iterator[Storage]:
    """A store that may be bent, on each database in turn."""
    with open_storage(own_store_url, Vault([generate_key()])) as opened:
        opened.migrate()
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def own_store_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An empty database of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('own') / 'store.db'}"
    url: str = request.getfixturevalue("empty_postgres_url")
    return url
