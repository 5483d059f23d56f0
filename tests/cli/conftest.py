"""Commands that know nothing of who runs the tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A developer's own environment and files have no part in these tests."""
    for name in [name for name in os.environ if name.startswith("RINGBEARER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
