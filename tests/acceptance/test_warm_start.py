"""A worker claims nothing before it is warm: its first delivery must not wait for the store, nor its lease run out."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg

from chaos.service import wait_for
from contract.making import add_endpoint, admission, job_states
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.nodes import Node
from ringbearer.storage.vault import Vault, generate_key

_SOON = 60.0


def test_a_worker_claims_nothing_before_it_is_warm(postgres_url: str, tmp_path: Path) -> None:
    key = generate_key()
    environment = {
        "RINGBEARER_DATA_DIR": str(tmp_path),
        "RINGBEARER_DATABASE_URL": postgres_url,
        "RINGBEARER_SECRET_KEY": key,
        "RINGBEARER_WARM_SECONDS": "300",
        "RINGBEARER_CONFIG": "",
    }
    with open_storage(postgres_url, Vault([key])) as storage:
        made = add_endpoint(storage)
        storage.ledger.accept([admission(made.id)])
        with psycopg.connect(postgres_url) as blocking:
            blocking.execute(
                "LOCK TABLE suppliers IN ACCESS EXCLUSIVE MODE"
            )  # warming reads them, claiming does not
            with _worker(tmp_path, environment):
                wait_for(lambda: _worker_node(storage) is not None, _SOON, "the worker's heartbeat")
                first = _beat_at(storage)
                wait_for(lambda: _beat_at(storage) > first + 2_000_000, _SOON, "two seconds of heartbeats")
                node = _worker_node(storage)
                assert node is not None
                assert node.signals["warm"] == 0.0
                assert list(job_states(storage).values()) == ["ready"], "nothing was claimed meanwhile"
                blocking.rollback()
                wait_for(
                    lambda: "ready" not in job_states(storage).values(), _SOON, "a claim, once it is warm"
                )
    assert "the queue is ready" in (tmp_path / "worker.log").read_text()


def _worker_node(storage: Storage) -> Node | None:
    return next((node for node in storage.nodes.alive() if node.kind == "work"), None)


def _beat_at(storage: Storage) -> int:
    node = _worker_node(storage)
    return node.beat_at if node is not None else 0


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("RINGBEARER_")}


@contextlib.contextmanager
def _worker(directory: Path, environment: dict[str, str]) -> Iterator[None]:
    with (directory / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ringbearer", "work"],
            env={**_clean(), **environment},
            stdout=log,
            stderr=log,
            cwd=directory,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(_SOON)
