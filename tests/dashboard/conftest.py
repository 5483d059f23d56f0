"""Served pages for each test, on a store of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.harness import Serving
from dashboard.harness import Pages


@pytest.fixture(scope="session")
def serving() -> Iterator[Serving]:
    """One server for all of these tests."""
    with Serving() as running:
        yield running


@pytest.fixture
def pages(serving: Serving, tmp_path: Path) -> Iterator[Pages]:
    """The pages and the API behind them, as one process serves them."""
    with Pages(serving, tmp_path) as served:
        yield served
