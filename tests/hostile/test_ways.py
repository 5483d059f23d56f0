"""Endpoints with their own authorities, certificates and versions: kept apart on one courier, and still pooled."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hostile.certificates import Authority, Issued
from hostile.driving import BODY, HEADERS, TIMEOUT, Ended, Sender, conclude
from ringbearer import misbehaving, misbehaving_h2
from ringbearer.delivery.handle import Order
from ringbearer.delivery.ways import Way
from ringbearer.misbehaving import Behaviour, Peer, Rogue, Rogues

_HERE = "127.0.0.1"
_CLIENTS = Authority("of our clients")
_PRIVATE = Authority("of one receiver alone")


class Seen(msgspec.Struct):
    """What a receiver says of the connection that a request came on."""

    connection: int
    certificate: str | None
    resumed: bool
    version: str


def _tells(connection_ends: bool = False) -> Behaviour:
    """Answers with what it sees of the connection; ends it after each answer, or keeps it."""

    async def behave(peer: Peer) -> None:
        tls: ssl.SSLObject = peer.writer.get_extra_info("ssl_object")
        shown = tls.getpeercert()
        subject = dict(pair[0] for pair in shown["subject"]) if shown else {}  # type: ignore[misc]
        answer = msgspec.json.encode(
            Seen(peer.number, subject.get("commonName"), bool(tls.session_reused), str(tls.version()))
        )
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(answer)}\r\n"
        head += "connection: close\r\n" if connection_ends else ""
        while True:
            await peer.request()
            await peer.send(head.encode() + b"\r\n" + answer)
            if connection_ends:
                return

    return behave


def _way(issued: Issued, **given: object) -> Way:
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in issued.chain)
    key = issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return msgspec.structs.replace(Way(certificate=chain, key=key), **given)


def _named(name: str) -> Issued:
    return _CLIENTS.issue(name, common_name=name)


def _send(sender: Sender, rogue: Rogue, way: Way | None) -> Ended:
    sender.courier.submit(
        Order(token="", url=rogue.url, headers=HEADERS, body=BODY, timeout=TIMEOUT, way=way)
    )
    while True:
        returns, _ = sender.courier.poll(TIMEOUT)
        if returns:
            return conclude(returns[0])


def _seen(ended: Ended) -> Seen:
    assert ended.code is None, ended.record.error
    return msgspec.json.decode(ended.exchange.body, type=Seen)


@pytest.fixture
def courier(ca_file: str) -> Iterator[Sender]:
    """A courier without connections."""
    with Sender(ca_file=ca_file) as made:
        yield made


@pytest.fixture
def asking(authority: Authority, certificates: Path) -> ssl.SSLContext:
    """A server's context that asks for a certificate and does without one."""
    context = authority.issue(_HERE).context(certificates)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=_CLIENTS.pem().decode())
    return context


@pytest.mark.parametrize(
    "version", [pytest.param("TLSv1.2", id="tls-1.2"), pytest.param("TLSv1.3", id="tls-1.3")]
)
@pytest.mark.parametrize("ends", [pytest.param(True, id="resumed"), pytest.param(False, id="kept")])
def test_no_certificate_is_shown_for_another_endpoint(
    version: str, ends: bool, rogues: Rogues, courier: Sender, asking: ssl.SSLContext
) -> None:
    asking.maximum_version = ssl.TLSVersion.TLSv1_2 if version == "TLSv1.2" else ssl.TLSVersion.TLSv1_3
    rogue = rogues.serve(_tells(connection_ends=ends), tls=asking)
    ways = {"ada": _way(_named("ada")), "grace": _way(_named("grace")), None: None}
    for _ in range(3):  # each time with what those before left behind: connections or TLS sessions
        for name, way in ways.items():
            seen = _seen(_send(courier, rogue, way))
            assert (seen.certificate, seen.version) == (name, version)


def test_connections_with_a_certificate_are_pooled_by_it(
    rogues: Rogues, courier: Sender, asking: ssl.SSLContext
) -> None:
    rogue = rogues.serve(_tells(), tls=asking)
    issued, other = _named("ada"), _named("grace")
    # The same certificate made anew for another version of the endpoint, say, is still the same.
    ways = [_way(issued), _way(other), _way(issued), None, _way(issued), _way(other), None]
    seen = [_seen(_send(courier, rogue, way)) for way in ways]
    assert [each.connection for each in seen] == [1, 2, 1, 3, 1, 2, 3]
    assert rogue.connections == 3


def test_tls_sessions_are_resumed(rogues: Rogues, courier: Sender, asking: ssl.SSLContext) -> None:
    rogue = rogues.serve(_tells(connection_ends=True), tls=asking)
    seen = [_seen(_send(courier, rogue, None)) for _ in range(4)]
    assert [each.connection for each in seen] == [1, 2, 3, 4]
    assert [each.resumed for each in seen] == [False, True, True, True]


def test_a_wrong_certificate_is_refused_by_the_receiver_and_told(
    rogues: Rogues, courier: Sender, asking: ssl.SSLContext
) -> None:
    asking.verify_mode = ssl.CERT_REQUIRED
    rogue = rogues.serve(misbehaving.handshakes(asking))
    rogue.url = rogue.url.replace("http:", "https:")
    stranger = _way(Authority("of nobody").issue("x"))
    for way in (None, stranger):
        ended = _send(courier, rogue, way)
        assert ended.code == "tls_client_certificate", ended.record.error
    assert _send(courier, rogue, _way(_named("ada"))).code is None


# ── authorities ─────────────────────────────────────────────────────────────────────────────────────────────


def test_an_endpoints_own_authority_replaces_the_usual_ones_for_it_alone(
    rogues: Rogues, courier: Sender, authority: Authority, certificates: Path
) -> None:
    usual = rogues.serve(_tells(), tls=authority.issue(_HERE).context(certificates))
    private = rogues.serve(_tells(), tls=_PRIVATE.issue(_HERE).context(certificates))
    own = Way(ca=_PRIVATE.pem())
    expected: list[tuple[Rogue, Way | None, str | None]] = [
        (private, None, "tls_untrusted"),
        (private, own, None),
        (private, None, "tls_untrusted"),  # also while a connection that the other trusts is kept
        (usual, None, None),
        (usual, own, "tls_untrusted"),
        (usual, None, None),
        (private, own, None),
    ]
    for rogue, way, code in expected:
        assert _send(courier, rogue, way).code == code
    assert len(private.requests) == 2
    assert len(usual.requests) == 2


def test_what_is_no_certificate_fails_the_exchange_alone(
    rogues: Rogues, courier: Sender, authority: Authority, certificates: Path
) -> None:
    rogue = rogues.serve(_tells(), tls=authority.issue(_HERE).context(certificates))
    for way in (Way(ca=b"nonsense"), Way(certificate=b"nonsense", key=b"nonsense")):
        ended = _send(courier, rogue, way)
        assert ended.code == "tls_own_material", ended.record.error
        assert _send(courier, rogue, None).code is None


# ── versions ────────────────────────────────────────────────────────────────────────────────────────────────


def test_tls_1_3_can_be_the_least(
    rogues: Rogues, courier: Sender, authority: Authority, certificates: Path
) -> None:
    old = authority.issue(_HERE).context(certificates)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    strict = Way(tls_min="1.3")
    kept, telling = rogues.serve(_tells(), tls=old), rogues.serve(misbehaving.handshakes(old))
    telling.url = telling.url.replace("http:", "https:")
    for rogue in (kept, telling):
        assert _send(courier, rogue, None).code is None
    assert _send(courier, kept, strict).code == "tls_handshake"  # although a connection is open
    assert _send(courier, telling, strict).code == "tls_version"
    new = rogues.serve(_tells(), tls=authority.issue(_HERE).context(certificates))
    assert _seen(_send(courier, new, strict)).version == "TLSv1.3"


def test_http_1_1_where_it_is_asked_for(
    rogues: Rogues, courier: Sender, authority: Authority, certificates: Path
) -> None:
    context = authority.issue(_HERE).context(certificates, alpn=["h2", "http/1.1"])
    both = rogues.serve(_speaks_either, tls=context)
    lines = [
        _send(courier, both, way).exchange.head.partition(b"\n")[0]
        for way in (None, Way(http_version="1.1"), None, Way(http_version="1.1"))
    ]
    assert lines == [b"HTTP/2 200 \r", b"HTTP/1.1 200 OK\r"] * 2
    assert both.connections == 2


async def _speaks_either(peer: Peer) -> None:
    tls: ssl.SSLObject = peer.writer.get_extra_info("ssl_object")
    await (misbehaving_h2.answers if tls.selected_alpn_protocol() == "h2" else misbehaving.answers)(peer)


def test_where_there_is_no_http_3_the_usual_is_spoken(
    rogues: Rogues, courier: Sender, authority: Authority, certificates: Path
) -> None:
    context = authority.issue(_HERE).context(certificates, alpn=["h2", "http/1.1"])
    rogue = rogues.serve(_speaks_either, tls=context)
    ended = [_send(courier, rogue, Way(http_version="3")) for _ in range(3)]
    assert {each.exchange.head.partition(b"\n")[0] for each in ended} == {b"HTTP/2 200 \r"}
    assert rogue.connections == 1
