"""The loop survives errors, wakes when told, and stops at once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from ringbearer.looper import Looper
from tools import turn

HOURS = 3_600.0


class Work:
    """Counts its calls, and does as it is told."""

    def __init__(self, *answers: float | Exception | None) -> None:
        self.calls = 0
        self.answers = list(answers)
        self._called = asyncio.Semaphore(0)

    async def __call__(self) -> float | None:
        self.calls += 1
        self._called.release()
        answer = self.answers.pop(0) if self.answers else HOURS
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def called(self) -> None:
        """Wait for the next call."""
        async with asyncio.timeout(10):
            await self._called.acquire()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]  # a coroutine function, in all the tests below


def test_the_first_call_comes_at_once_and_the_next_after_the_pause_it_asks_for() -> None:
    async def scenario() -> None:
        work = Work(0.0, 0.001, HOURS)
        looper = Looper("counting", work, interval=HOURS)
        assert repr(looper) == "<Looper counting every 3600.0 s, stopped>"
        looper.start()
        for _ in range(3):
            await work.called()
        assert repr(looper) == "<Looper counting every 3600.0 s, running>"
        await looper.stop()
        assert repr(looper) == "<Looper counting every 3600.0 s, stopped>"

    run(scenario)


def test_without_a_pause_of_its_own_it_keeps_its_interval() -> None:
    async def scenario() -> None:
        work = Work(None, None, HOURS)
        looper = Looper("counting", work, interval=0.001)
        looper.start()
        for _ in range(3):
            await work.called()
        await looper.stop()

    run(scenario)


def test_an_error_is_logged_and_the_next_call_comes(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        work = Work(ValueError("no luck"), ValueError("again"), HOURS)
        looper = Looper("counting", work, interval=0.001)
        looper.start()
        for _ in range(3):
            await work.called()
        await looper.stop()

    with caplog.at_level(logging.WARNING):
        run(scenario)
    assert [r.getMessage() for r in caplog.records] == [
        "counting failed, will try again: no luck",
        "counting failed, will try again: again",
    ]


def test_waking_makes_the_next_call_come_now() -> None:
    async def scenario() -> None:
        work = Work(HOURS, HOURS)
        looper = Looper("counting", work, interval=HOURS)
        looper.start()
        await work.called()
        await turn()  # it has begun to wait
        looper.wake()
        await work.called()
        await looper.stop()

    run(scenario)


def test_a_wake_during_the_work_is_not_lost() -> None:
    async def scenario() -> None:
        second = asyncio.Event()
        calls = 0

        async def work() -> float:
            nonlocal calls
            calls += 1
            if calls == 1:
                looper.wake()
                looper.wake()
            else:
                second.set()
            return HOURS

        looper = Looper("counting", work, interval=HOURS)
        looper.start()
        async with asyncio.timeout(10):
            await second.wait()
        await looper.stop()
        assert calls == 2

    run(scenario)


def test_it_stops_in_the_middle_of_its_work() -> None:
    async def scenario() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            begun.set()
            try:
                await asyncio.sleep(HOURS)
            finally:
                ended.set()

        looper = Looper("sleeping", work, interval=HOURS)
        looper.start()
        await begun.wait()
        await looper.stop()
        assert ended.is_set()
        await looper.stop()

    run(scenario)


def test_one_that_was_never_started_may_be_stopped() -> None:
    async def scenario() -> None:
        await Looper("idle", Work(), interval=HOURS).stop()

    run(scenario)
