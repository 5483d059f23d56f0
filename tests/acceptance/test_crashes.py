"""Crashes: processes end at every named point, together, in turn and at random, and every promise is kept.

The faults and invariants carry the numbers under which they are listed in `chaos/invariants.py`.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.invariants import Verdict
from chaos.run import PATIENT, Plan, Rig, run
from chaos.service import Role, signal_pid, wait_for
from ringbearer.failpoints import POINTS

_SEED = int(os.environ.get("CHAOS_SEED", "20270619"))
_SECONDS = 30.0


def _kept(verdict: Verdict) -> None:
    assert verdict.violations == []
    assert verdict.lost == 0
    assert verdict.accepted > 0
    assert verdict.pending == 0


@pytest.fixture
def rig(database_url: str | None, tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path / "rig", database_url=database_url, workers=1, timeout=PATIENT) as opened:
        yield opened


def _runs() -> Iterator[object]:
    """Points that different processes get to are tried together: a start takes longer than a crash."""
    for points in (
        ("publish.taken", "worker.claimed"),
        ("publish.committed",),
        ("publish.pushed", "worker.sent"),
        ("worker.settling",),
        ("worker.settled",),
    ):
        yield pytest.param("sqlite", points, id="+".join(points) + "-sqlite")
    for point in ("publish.committed", "worker.answered"):
        yield pytest.param("postgresql", (point,), id=f"{point}-postgresql")


@pytest.mark.parametrize(("database_url", "points"), _runs(), indirect=["database_url"])
def test_a_process_that_dies_at_a_named_point_breaks_no_promise(rig: Rig, points: tuple[str, ...]) -> None:
    """F1, F3, F18: the third time a process gets to the point, it is gone."""
    rig.service.start(RINGBEARER_FAILPOINT=",".join(f"{point}:3" for point in points))
    rig.set_up()
    with rig.traffic(seed=1, pause=0.02):
        wait_for(
            lambda: rig.failures()[-signal.SIGKILL] == len(points), _SECONDS, f"deaths at {', '.join(points)}"
        )
        rig.grows(20)
    rig.drain()
    workers = [point for point in points if point.startswith("worker.")]
    # An API process that dies makes no duplicate: what it had not answered is known by its key.
    _kept(rig.judge(workers_lost=len(workers)))
    assert rig.failures() == {-signal.SIGKILL: len(points)}
    if workers and "worker.settled" not in workers:
        assert rig.recovered() > 0


def test_every_point_is_tried() -> None:
    tried = {point for run in _runs() for point in run.values[1]}  # type: ignore[attr-defined]
    elsewhere = {
        "relay.accepted",
        "relay.committed",
    }  # by the suite of the outbox, which PostgreSQL alone has
    assert tried | elsewhere == set(POINTS)


def test_everything_killed_at_once_and_started_again_breaks_no_promise(rig: Rig) -> None:
    rig.service.start()
    rig.set_up()
    with rig.traffic(seed=2, pause=0.02):
        rig.grows(30)
        rig.service.kill()
        rig.service.start()
        rig.grows(30)
    rig.drain()
    _kept(rig.judge(workers_lost=1))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_rolling_restart_neither_loses_nor_repeats(rig: Rig) -> None:
    """F4: SIGTERM to each process in turn, while traffic flows."""
    rig.service.start()
    rig.set_up()
    roles: tuple[Role, ...] = ("work", "serve")
    with rig.traffic(seed=3, pause=0.02):
        for role in roles:
            (old,) = rig.service.pids(role)
            assert signal_pid(old, signal.SIGTERM)
            wait_for(lambda old=old, role=role: _replaced(rig, role, old), _SECONDS, f"another {role}")  # type: ignore[misc]
            rig.grows(20)
    rig.drain()
    verdict = rig.judge()
    _kept(verdict)
    assert verdict.duplicates == 0
    assert rig.failures() == {0: len(roles)}
    assert rig.recovered() == 0  # each worker finished or gave back what it held


def _replaced(rig: Rig, role: Role, old: int) -> bool:
    pids = rig.service.pids(role)
    return len(pids) == 1 and pids != [old]


def test_random_chaos_breaks_no_promise(database_url: str | None, tmp_path: Path) -> None:
    """F1–F4, F11, F13, F14, F18, and F7 on PostgreSQL; CHAOS_SEED chooses another run."""
    plan = Plan(seed=_SEED, seconds=6.0, database_url=database_url, deed_pause=0.8)
    report = run(plan, tmp_path / "run")
    assert report.verdict.violations == [], f"seed {_SEED}, deeds {report.log}"
    assert report.verdict.delivered > 0
    assert sum(report.deeds.values()) > 0
