"""What several suites need: programs that no wheel brings, stores that are migrated, turns of an event loop."""

import asyncio
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest

from ringbearer.storage.base import open_storage
from ringbearer.storage.vault import Vault, generate_key


def require_tool(name: str) -> str:
    """The path of a program; skips the test where it is absent, and fails it where everything should be there."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is not None:
        return found
    if os.environ.get("CI"):
        pytest.fail(f"{name} is not installed; .ci/run installs it with apt-get")
    pytest.skip(f"{name} is not installed; on Debian: apt-get install {name}")


def require_library(name: str, *, package: str) -> Path:
    """The path of a shared library from a Debian package; skips or fails as `require_tool` does."""
    found = next(Path("/usr/lib").glob(f"*/{package}/{name}"), None)
    if found is not None:
        return found
    if os.environ.get("CI"):
        pytest.fail(f"{name} is not installed; .ci/run installs it with apt-get")
    pytest.skip(f"{name} is not installed; on Debian: apt-get install {package}")


async def turn() -> None:
    """One turn of the event loop: every task that was made comes to where it waits."""
    await asyncio.sleep(0)


def migrated_sqlite(path: Path) -> str:
    """The URL of an empty store that is made there as migrations leave it; they take longer than most tests."""
    path.write_bytes(_migrated())
    return f"sqlite:///{path}"


@cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "store.db"
        with open_storage(f"sqlite:///{path}", Vault([generate_key()])) as storage:
            storage.migrate()
        return path.read_bytes()
