"""Commands of operators to workers that run: asked here, taken by each worker, answered here; kept as a record."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, text

from ringbearer import clock, ids
from ringbearer.domain.commands import Command, CommandAnswer, CommandState
from ringbearer.errors import NotFound
from ringbearer.storage.database import Database

WAIT_SECONDS = 120.0
"""How long a command is there to be taken; a worker that does not come until then never does it."""
_MOST_AT_ONCE = 20
_read_command = msgspec.json.Decoder(Command).decode
_read_workers = msgspec.json.Decoder(tuple[str, ...]).decode
_read_result = msgspec.json.Decoder(dict[str, object] | None).decode


class Commands:
    """The tables `commands` and `command_answers`. Everything here blocks and raises StoreUnavailable.

    Moments are read from the database's clock, so that hosts whose clocks differ agree on what is too old.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        now = database.now
        self._ask = text(
            "INSERT INTO commands (id, body, workers, asked_by, asked_at) "
            f"VALUES (:id, :body, :workers, :by, {now})"
        )
        self._waiting = text(
            "SELECT id, body, workers FROM commands AS c "
            f"WHERE asked_at > {now} - :within AND NOT EXISTS "
            "(SELECT 1 FROM command_answers AS a WHERE a.command_id = c.id AND a.worker = :worker) "
            "ORDER BY id LIMIT :limit"
        )
        self._answer = text(
            "INSERT INTO command_answers (command_id, worker, answered_at, result, error) "
            f"VALUES (:id, :worker, {now}, :result, :error) ON CONFLICT (command_id, worker) DO NOTHING"
        )

    def __repr__(self) -> str:
        return f"<Commands on {self._database!r}>"

    def ask(self, command: Command, *, workers: Sequence[str], by: str) -> str:
        """Put a command where those workers look; returns its id."""
        command_id = ids.command()
        row = {
            "id": command_id,
            "body": msgspec.json.encode(command).decode(),
            "workers": msgspec.json.encode(list(workers)).decode(),
            "by": by,
        }
        with self._database.write() as connection:
            connection.execute(self._ask, row)
        return command_id

    def waiting(self, worker: str) -> list[tuple[str, Command]]:
        """What a worker was asked for and has not answered, the oldest first."""
        values = {"within": int(WAIT_SECONDS * clock.SECOND), "worker": worker, "limit": _MOST_AT_ONCE}
        with self._database.read() as connection:
            rows = connection.execute(self._waiting, values).all()
        found = ((row.id, _known(row.body)) for row in rows if worker in _read_workers(row.workers))
        return [(command_id, command) for command_id, command in found if command is not None]

    def answer(self, command_id: str, worker: str, *, result: bytes | None, error: str | None) -> None:
        """Write down what a worker did; `result` is a JSON object. The first answer counts."""
        row = {
            "id": command_id,
            "worker": worker,
            "result": (result or b"null").decode(),
            "error": error,
        }
        with self._database.write(durable=False) as connection:
            connection.execute(self._answer, row)

    def get(self, command_id: str) -> CommandState:
        """A command with its answers; raises NotFound."""
        found = self._read("WHERE id = :id", {"id": command_id})
        if not found:
            raise NotFound(f"there is no command {command_id!r}")
        return found[0]

    def latest(self, *, limit: int, cursor: str | None = None) -> list[CommandState]:
        """Commands, the latest first; `cursor` is the id to go on after."""
        where = "" if cursor is None else "WHERE id < :cursor"
        given: dict[str, object] = {"limit": limit} | ({} if cursor is None else {"cursor": cursor})
        return self._read(f"{where} ORDER BY id DESC LIMIT :limit", given)

    def prune(self, *, before: int) -> int:
        """Remove commands from before that stored time, with their answers; returns how many."""
        bound = {"bound": ids.floor("cmd", before)}
        with self._database.write(durable=False) as connection:
            connection.execute(text("DELETE FROM command_answers WHERE command_id < :bound"), bound)
            return connection.execute(text("DELETE FROM commands WHERE id < :bound"), bound).rowcount

    def _read(self, rest: str, given: dict[str, object]) -> list[CommandState]:
        chosen = f"SELECT id, body, workers, asked_by, asked_at FROM commands {rest}"
        answered = (
            "SELECT command_id, worker, answered_at, result, error FROM command_answers "
            f"WHERE command_id IN (SELECT id FROM ({chosen}) AS chosen) ORDER BY answered_at, worker"
        )
        with self._database.read() as connection:
            commands = connection.execute(text(chosen), given).all()
            answers = connection.execute(text(answered), given).all()
        by_command: dict[str, list[CommandAnswer]] = {}
        for row in answers:
            by_command.setdefault(row.command_id, []).append(_answer(row))
        return [_state(row, by_command.get(row.id, [])) for row in commands]


def _known(body: str) -> Command | None:
    """The command; None for one that only a newer version knows, which is left to workers of that."""
    try:
        known: Command = _read_command(body)
    except msgspec.ValidationError:
        return None
    return known


def _state(row: Row[*tuple[Any, ...]], answers: Sequence[CommandAnswer]) -> CommandState:
    return CommandState(
        id=row.id,
        command=_read_command(row.body),
        workers=_read_workers(row.workers),
        asked_by=row.asked_by,
        asked_at=clock.to_datetime(row.asked_at),
        answers=tuple(answers),
    )


def _answer(row: Row[*tuple[Any, ...]]) -> CommandAnswer:
    return CommandAnswer(
        worker=row.worker,
        answered_at=clock.to_datetime(row.answered_at),
        result=_read_result(row.result),
        error=row.error,
    )
