"""PostgreSQL stops at once, runs out of connections and locks its jobs, under load: no promise is broken."""

import time
from pathlib import Path

from chaos.databases import Postgres
from chaos.run import LEASE_SECONDS, PATIENT, Rig


def test_an_immediate_stop_too_few_connections_and_a_long_lock_lose_nothing(
    breakable_postgres: Postgres, tmp_path: Path
) -> None:
    """F7: what had been answered with 202 is there after the recovery, and nobody restarts anything."""
    with Rig(tmp_path / "rig", database_url=breakable_postgres.url, workers=1, timeout=PATIENT) as rig:
        rig.service.start()
        rig.set_up()
        with rig.traffic(seed=9, pause=0.02):
            rig.grows(30)
            breakable_postgres.crash()
            breakable_postgres.start()
            rig.grows(30)
            with breakable_postgres.exhausted() as taken:
                assert taken > 0
            rig.grows(30)
            with breakable_postgres.locked():  # for so long that every lease runs out
                time.sleep(2 * LEASE_SECONDS)
            rig.grows(30)
        rig.drain()
        verdict = rig.judge(workers_lost=3, crashes=1)  # while the store is away, leases may run out
        assert verdict.violations == []
        assert verdict.lost == 0
        assert rig.failures() == {}
