"""Trials: what a receiver holds up holds up nothing else, and is bounded."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ringbearer.api.trials import Trials
from ringbearer.errors import TooManyRequests
from tools import turn


def test_receivers_that_answer_nothing_hold_up_nobody_else() -> None:
    answered = threading.Event()

    async def scenario() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        trials = Trials(2)
        hanging = [asyncio.create_task(trials(answered.wait)) for _ in range(2)]
        await turn()  # both begin
        assert await asyncio.to_thread(lambda: "a key was found") == "a key was found"
        with pytest.raises(TooManyRequests):
            await trials(answered.wait)
        hanging.pop().cancel()  # whoever gives up waiting makes no room: the thread is still taken
        await turn()
        with pytest.raises(TooManyRequests):
            await trials(answered.wait)
        answered.set()
        assert await asyncio.gather(*hanging) == [True]

    asyncio.run(scenario())


def test_a_trial_that_fails_makes_room_for_the_next() -> None:
    async def scenario() -> None:
        trials = Trials(1)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await trials(lambda: 1 // 0)

    asyncio.run(scenario())
