"""Through a proxy: guarded all the same, and a proxy that fails is told apart from a receiver that does."""

import socket
import ssl
from pathlib import Path

import pytest

from hostile.certificates import Authority
from hostile.driving import Ended, Sender
from hostile.proxies import tunnels
from ringbearer import misbehaving
from ringbearer.domain.deliveries import State
from ringbearer.misbehaving import Rogue, Rogues


def _send(proxy: str, *urls: str, closed: str = "", ca_file: str | None = None) -> list[Ended]:
    def refuse(address: str) -> str | None:
        return f"{address} is closed" if address == closed else None

    with Sender(refuse=refuse, proxy=proxy, ca_file=ca_file) as sender:
        return [sender.send(url) for url in urls]


def test_every_exchange_goes_through_the_tunnel(rogues: Rogues) -> None:
    proxy, rogue = rogues.serve(tunnels()), rogues.serve(misbehaving.answers)
    first, second = _send(proxy.url, rogue.url, rogue.url)
    assert (first.code, second.code, second.reused) == (None, None, True)
    assert rogue.connections == proxy.connections == 1
    assert proxy.requests[0].startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n" % rogue.port)
    # Nothing that is meant for the receiver is shown to the proxy.
    assert b"webhook" not in proxy.requests[0].lower()
    assert b"proxy" not in b"".join(rogue.requests).lower()


def test_credentials_are_for_the_proxy_alone(rogues: Rogues) -> None:
    proxy, rogue = rogues.serve(tunnels()), rogues.serve(misbehaving.answers)
    (ended,) = _send(proxy.url.replace("//", "//courier:secret@"), rogue.url)
    assert ended.code is None
    assert b"proxy-authorization: Basic Y291cmllcjpzZWNyZXQ=" in proxy.requests[0].replace(b"P", b"p", 1) or (
        b"Proxy-Authorization: Basic Y291cmllcjpzZWNyZXQ=" in proxy.requests[0]
    )
    assert b"authorization" not in b"".join(rogue.requests).lower()


def test_certificates_are_checked_through_the_tunnel(
    rogues: Rogues, authority: Authority, certificates: Path, ca_file: str
) -> None:
    proxy = rogues.serve(tunnels())
    context = authority.issue("127.0.0.1").context(certificates)
    good = rogues.serve(misbehaving.answers, tls=context)
    other: ssl.SSLContext = authority.issue("10.9.9.9").context(certificates)
    wrong = rogues.serve(misbehaving.answers, tls=other)
    ended, refused = _send(proxy.url, good.url, wrong.url, ca_file=ca_file)
    assert (ended.code, refused.code) == (None, "tls_wrong_host")
    assert refused.verdict.spent


def test_a_forbidden_address_is_not_even_asked_for(rogues: Rogues) -> None:
    proxy, rogue = rogues.serve(tunnels()), rogues.serve(misbehaving.answers)
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
        misbehaving.hangs_up if kind == "breaks-off" else tunnels(b"407 Who are you")
    )
    return served.url.replace("//", "//courier:secret@")


def test_a_receiver_that_the_proxy_cannot_reach_spends_one(rogues: Rogues) -> None:
    proxy, rogue = rogues.serve(tunnels(b"502 Bad Gateway")), rogues.serve(misbehaving.answers)
    (ended,) = _send(proxy.url, rogue.url)
    assert (ended.code, ended.verdict.spent) == ("connect_failed", True)
    assert "the proxy answered 502" in str(ended.record.error)
