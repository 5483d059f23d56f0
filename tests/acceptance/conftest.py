"""What the acceptance suite adds: databases for services, on either kind of server, and servers that may be broken."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.databases import Postgres, postgres_server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """Each database in turn; None is the file in the data directory."""
    if request.param == "sqlite":
        return None
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def breakable_postgres(tmp_path: Path) -> Iterator[Postgres]:
    """A PostgreSQL of the test's own, to stop, lock and cut off."""
    with (
        pytest.MonkeyPatch.context() as environment,
        # Not below pytest's own directory, which other runs close to the server's user.
        tempfile.TemporaryDirectory(prefix="ringbearer-pg-") as directory,
    ):
        environment.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        with postgres_server(Path(directory) / "data") as opened:
            yield opened
