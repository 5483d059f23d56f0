"""Commands: a worker does what operators ask of it, one after the other, and writes down what came of it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from ringbearer.domain.commands import Command
from ringbearer.errors import RingbearerError
from ringbearer.looper import Looper
from ringbearer.storage.commands import Commands

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5
_LONGEST_RESULT = 64 * 1024  # characters; a profile has a few thousand


class CommandFollower:
    """Looks twice a second for what its worker is asked; `do` does it and returns what it found and changed."""

    def __init__(
        self, *, commands: Commands, worker: str, do: Callable[[Command], Awaitable[msgspec.Struct]]
    ) -> None:
        self._commands = commands
        self._worker = worker
        self._do = do
        self._looper = Looper("commands", self.look, interval=_LOOK_SECONDS)

    def __repr__(self) -> str:
        return f"<CommandFollower of {self._worker}>"

    def start(self) -> None:
        """Begin."""
        self._looper.start()

    async def stop(self) -> None:
        """End; what is being done is broken off, and stays without an answer."""
        await self._looper.stop()

    async def look(self) -> None:
        """Do what there is to do now."""
        for command_id, command in await asyncio.to_thread(self._commands.waiting, self._worker):
            result, error = await self._done(command)
            _log.info("a command was followed", extra={"command": command_id, "error": error})
            await asyncio.to_thread(
                self._commands.answer, command_id, self._worker, result=result, error=error
            )

    async def _done(self, command: Command) -> tuple[bytes | None, str | None]:
        try:
            result = msgspec.json.encode(await self._do(command))
        except RingbearerError as error:
            return None, str(error)
        except Exception as error:  # whoever asked is told so, and the worker goes on
            _log.exception("a command failed")
            return None, f"it failed in the worker ({type(error).__name__}); its log tells more"
        if len(result) > _LONGEST_RESULT:
            return None, "what came of it is too long to be written down"
        return result, None
