"""Operators steer workers that run, by the command line; a worker that takes another's place begins alike."""

import subprocess
import sys
from pathlib import Path

import msgspec
import psutil

from chaos.run import PATIENT, Rig
from chaos.service import wait_for

_SECONDS = 60.0


class _Worker(msgspec.Struct):
    id: str
    pid: int
    couriers: int
    slots: int


class _Page(msgspec.Struct):
    items: list[_Worker]


class _Answer(msgspec.Struct):
    worker: str
    result: dict[str, object] | None


class _Command(msgspec.Struct):
    workers: list[str]
    answers: list[_Answer]


def _cli(rig: Rig, *arguments: str) -> bytes:
    return subprocess.run(
        [sys.executable, "-m", "ringbearer", "workers", *arguments, "--json", "--server", rig.service.url],
        env=rig.service.environment,
        capture_output=True,
        check=True,
        timeout=_SECONDS,
    ).stdout


def _workers(rig: Rig) -> list[_Worker]:
    with rig.service.client() as client:
        return msgspec.json.decode(client.get("/v1/workers").raise_for_status().content, type=_Page).items


def test_a_worker_takes_another_shape_under_load_and_its_successor_begins_so(tmp_path: Path) -> None:
    with Rig(tmp_path / "rig", workers="auto", timeout=PATIENT) as rig:
        rig.service.start()
        rig.set_up()
        wait_for(lambda: len(_workers(rig)) == 1, _SECONDS, "the worker to beat")
        (first,) = _workers(rig)
        assert (first.couriers, first.slots) == (1, 64)
        with rig.traffic(seed=13, pause=0.05):
            tuned = msgspec.json.decode(_cli(rig, "tune", "--couriers", "3", "--slots", "32"), type=_Command)
            (answer,) = tuned.answers
            assert tuned.workers == [answer.worker] == [first.id]
            assert answer.result is not None
            assert answer.result["after"] == {"couriers": 3, "slots": 32, "batch": 2048, "cpu_share": 1.0}
            connections = msgspec.json.decode(_cli(rig, "connections"), type=_Command)
            assert "reuse_ratio" in (connections.answers[0].result or {})
            batch = msgspec.json.decode(_cli(rig, "batch", "5", "--seconds", "30"), type=_Command)
            assert (batch.answers[0].result or {})["filled"] is True
            _cli(rig, "tune", "--processes", "2")
            wait_for(lambda: len(_workers(rig)) == 2, _SECONDS, "another worker")
            psutil.Process(first.pid).terminate()
            wait_for(
                lambda: [(w.couriers, w.slots) for w in _workers(rig) if w.id != first.id] == [(3, 32)] * 2,
                _SECONDS,
                "two workers that began alike",
            )
        rig.drain()
        verdict = rig.judge()
        assert verdict.violations == []
        assert verdict.duplicates == 0
        assert verdict.delivered > 0
