"""The machine misbehaves: its disk is full, its clock jumps; every promise is kept, and nobody restarts anything.

The faults and invariants carry the numbers under which they are listed in `chaos/invariants.py`.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from chaos.run import PATIENT, Rig
from chaos.service import plain_get, wait_for
from ringbearer import clock
from ringbearer.process import open_store
from tools import require_library

_SECONDS = 60.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB where the service keeps its data."""
    path = tmp_path / "rig" / "data"
    path.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def _fill(path: Path) -> Path:
    """Leave no byte free."""
    filler = path / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return filler


def test_a_full_disk_refuses_publishers_and_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    """F8: 503 while the store cannot commit, 202 as soon as it can again."""
    with Rig(tmp_path / "rig", workers=1, timeout=PATIENT) as rig:
        rig.service.start()
        rig.set_up()
        with rig.traffic(seed=8, pause=0.01):
            rig.grows(30)
            filler = _fill(small_disk)
            wait_for(
                lambda: any(said.detail.startswith("503") for said in rig.said()),
                _SECONDS,
                "a publisher to be told that the store takes nothing",
            )
            answer = plain_get(f"{rig.service.url}/health/live", timeout=30)
            assert answer.status_code == 200
            filler.unlink()
            rig.grows(30)
        rig.drain()
        verdict = rig.judge(workers_lost=1)  # what it delivered and could not write down is sent once more
        assert rig.failures() == {}
        assert rig.service.stop() == 0
    assert verdict.violations == []
    assert verdict.lost == verdict.pending == 0
    refused = {said.detail[:3] for said in rig.said() if said.what == "refused"}
    assert refused == {"503"}


def test_metrics_without_a_place_end_a_process_with_a_reason(small_disk: Path) -> None:
    """They are mapped from files; a hole in a file would end it by SIGBUS, later and without a word."""
    program = "from ringbearer.monitor.prometheus import PrometheusMetrics as Metrics, Telemetry; Metrics(Telemetry())"
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(small_disk)}
    filler = _fill(small_disk)
    for expected in (1, 0):
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == expected, done.stderr
        assert ("make room" in done.stderr) == bool(expected)
        filler.unlink(missing_ok=True)


@pytest.mark.parametrize("step", ["+1h", "-1h"])
def test_a_clock_that_jumps_breaks_no_promise(step: str, tmp_path: Path) -> None:
    """F9: one hour forward, and one hour back, while traffic flows."""
    library = require_library("libfaketimeMT.so.1", package="faketime")
    told = tmp_path / "clock"
    told.write_text("+0")
    with Rig(tmp_path / "rig", workers=1, timeout=PATIENT, timeless=True) as rig:
        rig.service.start(
            LD_PRELOAD=str(library),
            FAKETIME_TIMESTAMP_FILE=str(told),
            FAKETIME_NO_CACHE="1",
            FAKETIME_DONT_FAKE_MONOTONIC="1",
        )
        rig.set_up()
        with rig.traffic(seed=9, pause=0.02):
            rig.grows(30)
            told.write_text(step)
            rig.grows(60)
            told.write_text("+0")
            rig.grows(60)
        rig.drain()
        # A lease may seem to have run out when it has not: then its delivery is sent once more.
        verdict = rig.judge(workers_lost=2)
        assert rig.failures() == {}
        with open_store(rig.service.settings()) as storage, storage.database.read() as connection:
            first, last = connection.execute(
                text("SELECT min(created_at), max(created_at) FROM events")
            ).one()
        assert last - first > 3_000 * clock.SECOND  # the service did believe it
        assert rig.service.stop() == 0
    assert verdict.violations == []
    assert verdict.lost == verdict.pending == 0
    assert verdict.delivered > 0
