"""A rolling upgrade: the schema moves on under traffic, processes of this version go on and start again beside it."""

import os
import signal
from pathlib import Path

import psycopg

from chaos.run import PATIENT, Rig
from chaos.service import Role, wait_for

_SECONDS = 30.0
_NEXT_VERSION = (
    "SET lock_timeout = '5s'",
    "CREATE TABLE of_the_next_version (id INTEGER PRIMARY KEY)",
    "ALTER TABLE jobs ADD COLUMN next_one TEXT",
    "ALTER TABLE events ADD COLUMN next_one INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE deliveries ADD COLUMN next_one TEXT",
    "ALTER TABLE endpoints ADD COLUMN next_one TEXT",
    "UPDATE alembic_version SET version_num = '9999'",
)


def test_processes_of_this_version_work_beside_those_of_the_next(postgres_url: str, tmp_path: Path) -> None:
    """I1–I6, I9, I11 over a migration to come and a restart of every process after it."""
    with Rig(tmp_path / "rig", database_url=postgres_url, workers=2, timeout=PATIENT) as rig:
        rig.service.start()
        rig.set_up()

        def roll(role: Role) -> None:
            for pid in rig.service.pids(role):
                os.kill(pid, signal.SIGTERM)
                wait_for(lambda p=pid: p not in rig.service.pids(role), _SECONDS, f"{role} to end")  # type: ignore[misc]
                rig.service.wait_ready()

        with rig.traffic(seed=3, pause=0.02):
            rig.grows(20)
            with psycopg.connect(postgres_url, autocommit=True) as connection:
                for statement in _NEXT_VERSION:
                    connection.execute(statement.encode())
            rig.grows(20)
            roll("work")
            rig.grows(20)
            roll("serve")
            rig.grows(20)
        rig.drain()
        verdict = rig.judge()
        assert verdict.violations == []
        assert (verdict.lost, verdict.duplicates) == (0, 0)
        assert rig.service.stop() == 0
        with psycopg.connect(postgres_url) as connection:
            assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]
