"""How long and how many connections may be open: slow clients are given up, idle ones and quick ones are not."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import uvicorn

from ringbearer import clock
from ringbearer.api.connections import LEAST_RATE, PATIENCE, BoundedProtocol, sweep
from ringbearer.api.ingest import Ingest, Receive, Scope, Send
from ringbearer.api.protocol import EventProtocol

_HEAD = b"POST /elsewhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"
_EVENT = _HEAD.replace(b"/elsewhere", b"/v1/events")


async def _size_of_body(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with how many bytes the body has."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        more = message["more_body"]
    body = str(size).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
    )
    await send({"type": "http.response.body", "body": body})


class _Server(uvicorn.Server):
    """One whose connections the test looks at."""

    def connections(self) -> list[BoundedProtocol]:
        return [cast(BoundedProtocol, connection) for connection in self.server_state.connections]


@asynccontextmanager
async def serving(most: int = 100) -> AsyncIterator[tuple[_Server, int]]:
    """A server with the protocol of the service; events never come as far as to its ingest here."""
    protocol = type("Protocol", (EventProtocol,), {"ingest": cast(Ingest, None), "most": most})
    config = uvicorn.Config(
        _size_of_body, port=0, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False
    )
    config.load()
    server = _Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.config.timeout_graceful_shutdown = 1
        await server.shutdown()


async def until(condition: Callable[[], bool]) -> None:
    """Let everybody else on this event loop go on until it holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  what the server has read is no event
            await asyncio.sleep(0)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connected(server: _Server, port: int, sent: bytes) -> tuple[Streams, BoundedProtocol]:
    """A connection, and what the server has of it when all that was sent has come in."""
    before = set(server.connections())
    streams = await asyncio.open_connection("127.0.0.1", port)
    streams[1].write(sent)
    await until(lambda: len(server.connections()) > len(before))
    (connection,) = set(server.connections()) - before
    await until(lambda: connection.arrived >= len(sent))
    return streams, connection


async def all_of(streams: Streams) -> bytes:
    """What the server says until it closes."""
    received = await streams[0].read()
    streams[1].close()
    return received


def test_a_request_that_does_not_end_is_given_up_wherever_it_stopped() -> None:
    async def scenario() -> None:
        async with serving() as (server, port):
            for sent in (
                b"G",
                _HEAD,
                _HEAD + b"\r\n",
                _HEAD + b"\r\nabc",
                _EVENT,
                _EVENT + b"\r\n",
                _EVENT + b"\r\nabc",
            ):
                streams, connection = await connected(server, port, sent)
                assert connection.since is not None
                sweep(server.connections(), connection.since + PATIENCE)
                assert not connection.transport.is_closing()
                sweep(server.connections(), connection.since + PATIENCE + 1)
                received = await all_of(streams)
                assert received.startswith(b"HTTP/1.1 408 ")
                assert b"application/problem+json" in received

    asyncio.run(scenario())


def test_a_large_request_has_time_for_its_size() -> None:
    async def scenario() -> None:
        async with serving() as (server, port):
            part = b"x" * 50_000
            streams, connection = await connected(server, port, _HEAD + b"\r\n" + part)
            assert connection.since is not None
            sweep(server.connections(), connection.since + PATIENCE + len(part) / LEAST_RATE - 1)
            streams[1].write(part)
            streams[1].write(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            received = await all_of(streams)
            assert received.count(b"HTTP/1.1 200") == 2
            assert b"100000" in received

    asyncio.run(scenario())


def test_idle_connections_stay_as_long_as_they_may_be_kept_alive() -> None:
    async def scenario() -> None:
        async with serving() as (server, port):
            fresh, _ = await connected(server, port, b"")
            used, connection = await connected(server, port, b"")
            used[1].write(b"GET / HTTP/1.1\r\n\r\n")
            assert await used[0].readuntil(b"\r\n\r\n")
            assert connection.since is None
            sweep(server.connections(), clock.monotonic() + 1_000)
            for streams in (fresh, used):
                streams[1].write(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
                assert b"HTTP/1.1 200" in await all_of(streams)

    asyncio.run(scenario())


def test_line_ends_between_requests_do_not_keep_a_connection_open() -> None:
    async def scenario() -> None:
        async with serving() as (server, port):
            streams, connection = await connected(server, port, b"\r\n\r\n")
            timer = connection.timeout_keep_alive_task
            assert timer is not None
            assert not timer.cancelled()
            connection.timeout_keep_alive_handler()
            assert await all_of(streams) == b""

    asyncio.run(scenario())


def test_one_connection_more_than_may_be_is_told_so_and_closed() -> None:
    async def scenario() -> None:
        async with serving(most=2) as (server, port):
            taken = [await connected(server, port, b"") for _ in range(2)]
            more = await asyncio.open_connection("127.0.0.1", port)
            received = await all_of(more)
            assert received.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1" in received
            taken[0][0][1].close()
            await until(lambda: len(server.connections()) == 1)
            again, _ = await connected(server, port, b"")
            again[1].write(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert b"HTTP/1.1 200" in await all_of(again)
            taken[1][0][1].close()

    asyncio.run(scenario())


def test_who_does_not_read_the_last_answer_is_cut_off() -> None:
    async def scenario() -> None:
        async with serving() as (server, port):
            streams, connection = await connected(server, port, b"")
            streams[0]._transport.pause_reading()  # type: ignore[attr-defined]  # no public way to stop reading
            connection.transport.write(b"x" * 64 * 1024 * 1024)
            connection.transport.close()
            now = clock.monotonic()
            sweep([connection], now)
            assert connection in server.connections()
            sweep([connection], now + PATIENCE + 1)
            await until(lambda: not server.connections())
            streams[1].transport.abort()

    asyncio.run(scenario())
