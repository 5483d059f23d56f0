"""PostgreSQL stops at once, runs out of connections and locks its jobs, under load: no promise is broken."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.databases import Postgres, postgres_server
from chaos.run import LEASE_SECONDS, PATIENT, Rig
from chaos.service import wait_for

_SECONDS = 60.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Postgres]:
    with (
        pytest.MonkeyPatch.context() as environment,
        # Not below pytest's own directory, which other runs close to the server's user.
        tempfile.TemporaryDirectory(prefix="ringbearer-pg-") as directory,
    ):
        environment.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        with postgres_server(Path(directory) / "data") as opened:
            yield opened


def test_an_immediate_stop_too_few_connections_and_a_long_lock_lose_nothing(
    server: Postgres, tmp_path: Path
) -> None:
    """F7: what had been answered with 202 is there after the recovery, and nobody restarts anything."""
    with Rig(tmp_path / "rig", database_url=server.url, workers=1, timeout=PATIENT) as rig:
        rig.service.start()
        rig.set_up()

        def grows(by: int) -> None:
            goal = rig.accepted() + by
            wait_for(lambda: rig.accepted() >= goal, _SECONDS, f"{by} more events")

        with rig.traffic(seed=9, pause=0.02):
            grows(30)
            server.crash()
            server.start()
            grows(30)
            with server.exhausted() as taken:
                assert taken > 0
            grows(30)
            with server.locked():  # for so long that every lease runs out
                time.sleep(2 * LEASE_SECONDS)
            grows(30)
        rig.drain()
        verdict = rig.judge(workers_lost=3, crashes=1)  # while the store is away, leases may run out
        assert verdict.violations == []
        assert verdict.lost == 0
        assert rig.failures() == {}
