"""Through a proxy: guarded all the same, and a proxy that fails is told apart from a receiver that does."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from hostile.certificates import Authority
from hostile.driving import Ended, Sender
from ringbearer import misbehaving
from ringbearer.domain.deliveries import State
from ringbearer.misbehaving import Behaviour, Peer, Rogue, Rogues


def _tunnels(answer: bytes = b"200 OK") -> Behaviour:
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


def _send(proxy: str, *urls: str, closed: str = "", ca_file: str | None = None) -> list[Ended]:
    def refuse(address: str) -> str | None:
        return f"{address} is closed" if address == closed else None

    with Sender(refuse=refuse, proxy=proxy, ca_file=ca_file) as sender:
        return [sender.send(url) for url in urls]


def test_every_exchange_goes_through_the_tunnel(rogues: Rogues) -> None:
    proxy, rogue = rogues.serve(_tunnels()), rogues.serve(misbehaving.answers)
    first, second = _send(proxy.url, rogue.url, rogue.url)
    assert (first.code, second.code, second.reused) == (None, None, True)
    assert rogue.connections == proxy.connections == 1
    assert proxy.requests[0].startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n" % rogue.port)
    # Nothing that is meant for the receiver is shown to the proxy.
    assert b"webhook" not in proxy.requests[0].lower()
    assert b"proxy" not in b"".join(rogue.requests).lower()


def test_credentials_are_for_the_proxy_alone(rogues: Rogues) -> None:
    proxy, rogue = rogues.serve(_tunnels()), rogues.serve(misbehaving.answers)
    (ended,) = _send(proxy.url.replace("//", "//courier:secret@"), rogue.url)
    assert ended.code is None
    assert b"proxy-authorization: Basic Y291cmllcjpzZWNyZXQ=" in proxy.requests[0].replace(b"P", b"p", 1) or (
        b"Proxy-Authorization: Basic Y291cmllcjpzZWNyZXQ=" in proxy.requests[0]
    )
    assert b"authorization" not in b"".join(rogue.requests).lower()


def test_certificates_are_checked_through_the_tunnel(
    rogues: Rogues, authority: Authority, certificates: Path, ca_file: str
) -> None:
    proxy = rogues.serve(_tunnels())
    context = authority.issue("127.0.0.1").context(certificates)
    good = rogues.serve(misbehaving.answers, tls=context)
    other: ssl.SSLContext = authority.issue("10.9.9.9").context(certificates)
    wrong = rogues.serve(misbehaving.answers, tls=other)
    ended, refused = _send(proxy.url, good.url, wrong.url, ca_file=ca_file)
    assert (ended.code, refused.code) == (None, "tls_wrong_host")
    assert refused.verdict.spent


def test_a_forbidden_address_is_not_even_asked_for(rogues: Rogues) -> None:
    proxy, rogue = rogues.serve(_tunnels()), rogues.serve(misbehaving.answers)
    (ended,) = _send(proxy.url, rogue.url, closed="127.0.0.1")
    assert (ended.code, ended.verdict.state) == ("blocked_address", State.DEAD)
    assert proxy.connections == rogue.connections == 0


@pytest.mark.parametrize("kind", ["nobody-there", "breaks-off", "other-credentials"])
def test_a_proxy_that_fails_spends_no_attempt(kind: str, rogues: Rogues) -> None:
    rogue = rogues.serve(misbehaving.answers)
    (ended,) = _send(_failing(kind, rogues), rogue.url)
    assert (ended.verdict.state, ended.verdict.spent) == (State.SCHEDULED, False)
    assert ended.exchange.ours.startswith("proxy: ")
    assert "secret" not in ended.exchange.ours
    assert rogue.connections == 0


def _failing(kind: str, rogues: Rogues) -> str:
    if kind == "nobody-there":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            return f"http://courier:secret@127.0.0.1:{listener.getsockname()[1]}"
    served: Rogue = rogues.serve(
        misbehaving.hangs_up if kind == "breaks-off" else _tunnels(b"407 Who are you")
    )
    return served.url.replace("//", "//courier:secret@")


def test_a_receiver_that_the_proxy_cannot_reach_spends_one(rogues: Rogues) -> None:
    proxy, rogue = rogues.serve(_tunnels(b"502 Bad Gateway")), rogues.serve(misbehaving.answers)
    (ended,) = _send(proxy.url, rogue.url)
    assert (ended.code, ended.verdict.spent) == ("connect_failed", True)
    assert "the proxy answered 502" in str(ended.record.error)
