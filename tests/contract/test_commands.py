"""Commands: each asked worker sees one until it has answered, nobody else does, and all of it stays on record."""

import asyncio

import msgspec
import pytest
from sqlalchemy import text

from ringbearer import clock
from ringbearer.domain.commands import ChangeParallelism, Command, OptimizeMemory, ProfileCpu
from ringbearer.errors import InvalidInput, NotFound
from ringbearer.maintenance.commands import CommandFollower
from ringbearer.storage.base import Storage
from ringbearer.storage.commands import WAIT_SECONDS


class Done(msgspec.Struct):
    """What a worker of these tests answers."""

    how: str


def test_whoever_was_asked_sees_it_until_it_has_answered(storage: Storage) -> None:
    commands = storage.commands
    asked = ChangeParallelism(slots=7, cpu_share=0.5)
    command_id = commands.ask(asked, workers=["node_a", "node_b"], by="key_1")
    assert commands.waiting("node_a") == [(command_id, asked)]
    assert commands.waiting("node_c") == []
    commands.answer(command_id, "node_a", result=b'{"slots":7}', error=None)
    commands.answer(command_id, "node_a", result=None, error="once more")
    assert commands.waiting("node_a") == []
    assert commands.waiting("node_b") == [(command_id, asked)]
    found = commands.get(command_id)
    assert (found.command, found.workers, found.asked_by) == (asked, ("node_a", "node_b"), "key_1")
    assert [(a.worker, a.result, a.error) for a in found.answers] == [("node_a", {"slots": 7}, None)]


def test_what_nobody_took_in_time_is_not_done_any_more(storage: Storage) -> None:
    command_id = storage.commands.ask(OptimizeMemory(), workers=["node_a"], by="key_1")
    with storage.database.write() as connection:
        connection.execute(
            text("UPDATE commands SET asked_at = asked_at - :by"),
            {"by": int((WAIT_SECONDS + 1) * clock.SECOND)},
        )
    assert storage.commands.waiting("node_a") == []
    assert storage.commands.get(command_id).answers == ()


def test_they_are_listed_latest_first_and_forgotten_with_time(storage: Storage) -> None:
    commands = storage.commands
    first, second, third = (
        commands.ask(OptimizeMemory(), workers=["node_a"], by=f"key_{n}") for n in range(3)
    )
    commands.answer(second, "node_a", result=None, error="no")
    assert [state.id for state in commands.latest(limit=2)] == [third, second]
    (rest,) = commands.latest(limit=2, cursor=second)
    assert (rest.id, rest.answers) == (first, ())
    assert commands.prune(before=clock.now() - 60 * clock.SECOND) == 0
    assert commands.prune(before=clock.now() + 60 * clock.SECOND) == 3
    with pytest.raises(NotFound):
        commands.get(second)


def test_a_worker_answers_each_with_what_came_of_it(storage: Storage) -> None:
    async def do(command: Command) -> Done:
        match command:
            case ProfileCpu():
                raise RuntimeError("no such thread")
            case ChangeParallelism():
                raise InvalidInput("too many slots", [])
        return Done("well")

    asked = [
        storage.commands.ask(command, workers=["node_a"], by="key_1")
        for command in (OptimizeMemory(), ProfileCpu(), ChangeParallelism(slots=9))
    ]
    follower = CommandFollower(commands=storage.commands, worker="node_a", do=do)
    asyncio.run(follower.look())
    answers = [storage.commands.get(command_id).answers[0] for command_id in asked]
    assert [answer.result for answer in answers] == [{"how": "well"}, None, None]
    assert answers[0].error is None
    assert "RuntimeError" in str(answers[1].error)
    assert "no such thread" not in str(answers[1].error)
    assert answers[2].error == "too many slots"
    assert storage.commands.waiting("node_a") == []
