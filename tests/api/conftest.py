"""A fresh API for each test."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.harness import Api, Serving


@pytest.fixture(scope="session")
def serving() -> Iterator[Serving]:
    """One server for all of these tests."""
    with Serving() as running:
        yield running


@pytest.fixture
def api(serving: Serving, tmp_path: Path) -> Iterator[Api]:
    """A served API on a store of its own, without a limit of changes."""
    with Api(serving, tmp_path) as served:
        yield served


@pytest.fixture
def admin(api: Api) -> httpx.Client:
    """A client with an admin key."""
    return api.as_("admin")
