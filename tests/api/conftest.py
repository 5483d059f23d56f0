"""A fresh API for each test."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.harness import Api


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """A served API on a store of its own, without a limit of changes."""
    with Api(tmp_path) as served:
        yield served


@pytest.fixture
def admin(api: Api) -> httpx.Client:
    """A client with an admin key."""
    return api.as_("admin")
