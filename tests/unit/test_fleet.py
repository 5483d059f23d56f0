"""A fleet keeps its places filled, whatever goes wrong with starting a child or with noting its end."""

import asyncio
import sys
from asyncio.subprocess import Process

import pytest

from ringbearer.scaling import fleet as fleet_module
from ringbearer.scaling.fleet import Fleet, Life


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "_RESTART_FIRST", 0.001)


async def _child(code: str) -> Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", code)


def test_a_start_that_fails_is_tried_again() -> None:
    tries = 0

    async def run() -> None:
        started = asyncio.Event()

        async def launch(life: Life) -> Process:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise BlockingIOError("no more processes for the moment")
            started.set()
            return await _child("import time; time.sleep(60)")

        async def gone(life: Life, child: Process) -> None:
            assert child.returncode is not None

        kept = Fleet("work", launch=launch, gone=gone, grace=5)
        kept.resize(1)
        async with asyncio.timeout(30):
            await started.wait()
            await kept.stop()

    asyncio.run(run())
    assert tries == 3


def test_an_end_that_cannot_be_noted_keeps_nobody_from_starting_another() -> None:
    lives: list[Life] = []

    async def run() -> None:
        third = asyncio.Event()

        async def launch(life: Life) -> Process:
            lives.append(life)
            if len(lives) == 3:
                third.set()
            return await _child("pass")

        async def gone(life: Life, child: Process) -> None:
            raise RuntimeError("the file is not there")

        kept = Fleet("work", launch=launch, gone=gone, grace=5)
        kept.resize(1)
        async with asyncio.timeout(30):
            await third.wait()
            await kept.stop()

    asyncio.run(run())
    assert [life.first for life in lives[:3]] == [True, False, False]
