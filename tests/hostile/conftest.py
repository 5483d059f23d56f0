"""Rogues, certificates, and senders that trust them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile.certificates import Authority
from hostile.driving import Sender


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for the servers' certificates."""
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority() -> Authority:
    """The only authority that senders of these tests trust."""
    return Authority("The authority that is trusted")


@pytest.fixture(scope="module")
def ca_file(authority: Authority, certificates: Path) -> str:
    """Its certificate."""
    path = certificates / "authority.pem"
    path.write_bytes(authority.pem())
    return str(path)


@pytest.fixture(scope="module")
def sender(ca_file: str) -> Iterator[Sender]:
    """One courier for all cases of a module, so that each case shows that those before did it no harm."""
    with Sender(ca_file=ca_file) as made:
        yield made
