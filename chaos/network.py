"""A network to break (F10): connections pass through it, delayed, held up as by lost packets, cut, or not at all.

TCP hides a lost packet: what follows waits until it was sent again, a fifth of a second later at the least (RFC 6298 and
Linux' TCP_RTO_MIN). So that is what is done here to a chunk that is lost. In a partition nothing arrives, in either
direction, and no end learns that the other is away; connections that are made meanwhile stay silent, too.
"""

import asyncio
import contextlib
import random
import threading
from collections.abc import Awaitable
from typing import Self, TypeVar

import msgspec

T = TypeVar("T")
_CHUNK = 64 * 1024
_SENT_AGAIN = 0.2
_SECONDS = 10.0

Target = int | str
"""A port of 127.0.0.1, or the path of a Unix socket."""


class Weather(msgspec.Struct, frozen=True):
    """How the network is: seconds each way, the share of chunks that are lost and sent again, whether it is parted."""

    delay: float = 0.0
    loss: float = 0.0
    parted: bool = False


FAIR = Weather()


class Network:
    """Stands between whoever connects to `port` and the target, on a thread of its own; a context manager."""

    def __init__(self, target: Target, *, seed: int) -> None:
        self._target = target
        self._random = random.Random(seed)
        self._weather = FAIR
        self._whole = asyncio.Event()
        self._whole.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="network")
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0
        self.held_up = 0
        """Chunks that were lost or met a partition."""

    def __enter__(self) -> Self:
        self._thread.start()
        self._there(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._there(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def be(self, weather: Weather) -> None:
        """Be like this from now on."""
        self._there(self._change(weather))

    def cut(self) -> int:
        """Break every connection off with a reset; returns how many."""
        return self._there(self._cut())

    # ── on its own thread ───────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _there(self, work: Awaitable[T]) -> T:
        async def do() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(do(), self._loop).result(_SECONDS)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _change(self, weather: Weather) -> None:
        self._weather = weather
        (self._whole.clear if weather.parted else self._whole.set)()

    async def _cut(self) -> int:
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        return len(connections)

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        ends = [writer]
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._whole.wait()
                other_reader, other_writer = await self._open()
                ends.append(other_writer)
                async with asyncio.TaskGroup() as group:
                    for source, sink in ((reader, other_writer), (other_reader, writer)):
                        group.create_task(self._carry(source, sink))
        finally:
            for end in ends:
                end.transport.abort()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, str):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection("127.0.0.1", self._target)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(_CHUNK):
                await self._travel()
                sink.write(chunk)
                await sink.drain()
            await self._travel()
        if sink.can_write_eof():
            with contextlib.suppress(OSError):
                sink.write_eof()

    async def _travel(self) -> None:
        """Take the time that a chunk takes, and the end of a partition if there is one."""
        weather = self._weather
        lost = self._random.random() < weather.loss
        self.held_up += lost or weather.parted
        if weather.delay or lost:
            await asyncio.sleep(weather.delay + lost * _SENT_AGAIN)
        await self._whole.wait()
