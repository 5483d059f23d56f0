"""Forward proxies to send through: one that works, and ones that answer otherwise."""

import asyncio

from ringbearer.misbehaving import Behaviour, Peer


def tunnels(answer: bytes = b"200 OK") -> Behaviour:
    """A proxy: answers CONNECT so, and passes on what comes when that was 200."""

    async def behave(peer: Peer) -> None:
        head = await peer.reader.readuntil(b"\r\n\r\n")
        peer.rogue.requests.append(head)
        extra = b"proxy-authenticate: Basic\r\n" if answer.startswith(b"407") else b""
        # Length and coding both: of a tunnel's beginning neither means anything (RFC 9110, section 9.3.6).
        length = b"" if answer.startswith(b"200") else b"content-length: 0\r\n"
        await peer.send(b"HTTP/1.1 %b\r\n%b%b\r\n" % (answer, extra, length))
        if not answer.startswith(b"200"):
            return
        host, _, port = head.split(b" ", 2)[1].partition(b":")
        reader, writer = await asyncio.open_connection(host.decode(), int(port))
        there = asyncio.create_task(_pump(peer.reader, writer))
        try:
            await _pump(reader, peer.writer)
        finally:
            there.cancel()
            writer.close()
            await asyncio.gather(there, writer.wait_closed(), return_exceptions=True)

    return behave


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
