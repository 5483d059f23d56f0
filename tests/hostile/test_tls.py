"""A receiver whose TLS is not in order is not sent anything, and the attempt says what is wrong with it."""

import ssl
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from hostile.certificates import Authority, Issued, self_signed, signed_with_sha1
from hostile.driving import Ended, Sender
from ringbearer import misbehaving
from ringbearer.domain.deliveries import State
from ringbearer.misbehaving import Behaviour, Rogue, Rogues, greets, handshakes, says

_HERE = "127.0.0.1"
_DAY = timedelta(days=1)
_RSA = rsa.generate_private_key(65_537, 2_048)
_RSA_AUTHORITY = Authority("An authority that is trusted, with an RSA key", key=_RSA)
_STRANGER = Authority("An authority that nobody knows")


@pytest.fixture(scope="module")
def ca_file(authority: Authority, certificates: Path) -> str:
    """The certificates of both trusted authorities."""
    path = certificates / "authorities.pem"
    path.write_bytes(authority.pem() + _RSA_AUTHORITY.pem())
    return str(path)


# ── certificates ────────────────────────────────────────────────────────────────────────────────────────────


class Shown(msgspec.Struct, frozen=True):
    """What a server shows, the host it is called by, and what must come of it: None for a success."""

    id: str
    make: Callable[[Authority], Issued]
    code: str | None
    host: str = _HERE


def test_how_long_the_handshake_took_is_told(
    rogues: Rogues, sender: Sender, authority: Authority, certificates: Path
) -> None:
    good = rogues.serve(misbehaving.answers, tls=authority.issue(_HERE).context(certificates))
    wrong = rogues.serve(misbehaving.answers, tls=_STRANGER.issue(_HERE).context(certificates))
    first, again, refused = (sender.send(url).exchange.timing for url in (good.url, good.url, wrong.url))
    assert first is not None
    assert (first.connect or 0) > 0
    assert (first.tls or 0) > 0
    assert again is None
    assert refused is not None
    assert ((refused.connect or 0) > 0, refused.tls) == (True, None)


def _without_intermediate(authority: Authority) -> Issued:
    issued = Authority("Between", below=authority).issue(_HERE)
    return Issued(issued.key, issued.chain[:1])


def _with_waste(authority: Authority) -> Issued:
    issued = authority.issue(_HERE)
    return Issued(issued.key, issued.chain + [_STRANGER.issue("x", waste=20_000).chain[0] for _ in range(6)])


_SHOWN = [
    Shown("case-64-good", lambda a: a.issue(_HERE), None),
    Shown("case-64-expired", lambda a: a.issue(_HERE, starts=-9 * _DAY, ends=-_DAY), "tls_expired"),
    Shown("case-64-not-yet-valid", lambda a: a.issue(_HERE, starts=_DAY, ends=9 * _DAY), "tls_not_yet_valid"),
    Shown("case-64-wrong-host", lambda a: a.issue("example.com"), "tls_wrong_host"),
    Shown("case-64-wrong-host-by-name", lambda a: a.issue("example.com"), "tls_wrong_host", "localhost"),
    Shown("case-64-self-signed", lambda a: self_signed(_HERE), "tls_self_signed"),
    Shown("case-64-unknown-authority", lambda a: _STRANGER.issue(_HERE), "tls_untrusted"),
    Shown("case-64-intermediate", lambda a: Authority("Between", below=a).issue(_HERE), None),
    Shown("case-64-missing-intermediate", _without_intermediate, "tls_untrusted"),
    Shown("case-64-rsa-2048", lambda a: _RSA_AUTHORITY.issue(_HERE), None),
    Shown(
        "case-64-sha-1", lambda a: signed_with_sha1(_RSA_AUTHORITY.issue(_HERE), _RSA_AUTHORITY), "tls_weak"
    ),
    Shown(
        "case-64-rsa-1024",
        lambda a: a.issue(_HERE, key=rsa.generate_private_key(65_537, 1_024)),
        "tls_weak",
    ),
    Shown("case-67-chain-of-120-kb", _with_waste, "tls_handshake"),
    Shown("case-69-other-address", lambda a: a.issue("127.0.0.2"), "tls_wrong_host"),
    Shown("case-69-name-for-an-address", lambda a: a.issue("localhost"), "tls_wrong_host"),
    Shown("case-69-address-for-a-name", lambda a: a.issue(_HERE), "tls_wrong_host", "localhost"),
    Shown("case-69-wildcard", lambda a: a.issue("*.hooks.localhost"), None, "a.hooks.localhost"),
    Shown(
        "case-69-wildcard-two-deep",
        lambda a: a.issue("*.hooks.localhost"),
        "tls_wrong_host",
        "a.b.hooks.localhost",
    ),
    Shown(
        "case-69-wildcard-alone", lambda a: a.issue("*.hooks.localhost"), "tls_wrong_host", "hooks.localhost"
    ),
    Shown("case-69-wildcard-at-the-top", lambda a: a.issue("*.localhost"), "tls_wrong_host", "a.localhost"),
    Shown("case-70-by-name", lambda a: a.issue("localhost"), None, "localhost"),
]


@pytest.mark.parametrize("shown", [pytest.param(shown, id=shown.id) for shown in _SHOWN])
def test_certificate(
    shown: Shown, rogues: Rogues, sender: Sender, authority: Authority, certificates: Path
) -> None:
    rogue = rogues.serve(misbehaving.answers, tls=shown.make(authority).context(certificates))
    ended = sender.send(rogue.url.replace(_HERE, shown.host), timeout=5)
    ended.check_bounds(5)
    assert ended.code == shown.code, ended.record.error
    if shown.code is None:
        assert ended.verdict.state is State.DELIVERED
    else:
        assert ended.verdict.state is State.SCHEDULED
        assert rogue.requests == []


def test_case_64_the_bundled_authorities_do_not_vouch_for_ours(
    rogues: Rogues, authority: Authority, certificates: Path
) -> None:
    rogue = rogues.serve(misbehaving.answers, tls=authority.issue(_HERE).context(certificates))
    with Sender() as sender:
        assert sender.send(rogue.url, timeout=5).code == "tls_untrusted"


def test_case_70_name_and_host_are_those_of_the_url(
    rogues: Rogues, sender: Sender, authority: Authority, certificates: Path
) -> None:
    rogue = rogues.serve(misbehaving.answers, tls=authority.issue("localhost").context(certificates))
    ended = sender.send(f"https://localhost:{rogue.port}/hook", timeout=5)
    assert ended.verdict.state is State.DELIVERED
    assert rogue.server_names == ["localhost"]
    assert f"\r\nHost: localhost:{rogue.port}\r\n".encode() in rogue.requests[0]


# ── protocols and handshakes ────────────────────────────────────────────────────────────────────────────────


def _only(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it is old is the point
        context.minimum_version = context.maximum_version = version
    return context


def _with_ciphers(context: ssl.SSLContext, ciphers: str) -> ssl.SSLContext:
    context = _only(context, ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    return context


def _asking(context: ssl.SSLContext, ca_file: str, mode: ssl.VerifyMode) -> ssl.SSLContext:
    context.verify_mode = mode
    context.load_verify_locations(ca_file)
    return context


@pytest.fixture(scope="module")
def met(
    rogues: Rogues, sender: Sender, authority: Authority, certificates: Path, ca_file: str
) -> dict[str, tuple[Rogue, Ended, Ended]]:
    """All handshakes at once on one courier, and a good delivery right after each."""

    def fresh() -> ssl.SSLContext:
        return authority.issue(_HERE).context(certificates)

    behaviours: dict[str, Behaviour] = {
        "good": handshakes(fresh()),
        "tls-1.0": handshakes(_only(fresh(), ssl.TLSVersion.TLSv1)),
        "tls-1.1": handshakes(_only(fresh(), ssl.TLSVersion.TLSv1_1)),
        "tls-1.2": handshakes(_only(fresh(), ssl.TLSVersion.TLSv1_2)),
        "tls-1.3": handshakes(_only(fresh(), ssl.TLSVersion.TLSv1_3)),
        "null-cipher": handshakes(_with_ciphers(fresh(), "eNULL")),
        "anonymous-cipher": handshakes(_with_ciphers(fresh(), "aNULL")),
        "hangs": misbehaving.never_answers,
        "trickles": misbehaving.trickles_handshake(pause=0.05),
        "resets": misbehaving.resets,
        "speaks-ssh": greets(b"SSH-2.0-OpenSSH_9.6\r\n"),
        "speaks-http": greets(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        "wants-certificate-1.2": handshakes(
            _only(_asking(fresh(), ca_file, ssl.CERT_REQUIRED), ssl.TLSVersion.TLSv1_2)
        ),
        "wants-certificate-1.3": handshakes(
            _only(_asking(fresh(), ca_file, ssl.CERT_REQUIRED), ssl.TLSVersion.TLSv1_3)
        ),
        "likes-certificate": handshakes(_asking(fresh(), ca_file, ssl.CERT_OPTIONAL)),
    }
    serving = {name: rogues.serve(behaviour) for name, behaviour in behaviours.items()}
    good = rogues.serve(says(misbehaving.OK))
    urls = {name: f"https://{_HERE}:{rogue.port}/" for name, rogue in serving.items()}
    ended = sender.send_all(urls, timeout=2, after_each=good.url)
    return {name: (serving[name], ended[name], ended[f"{name} and then"]) for name in serving}


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        pytest.param("good", {None}, id="case-65-good"),
        pytest.param("tls-1.0", {"tls_version"}, id="case-65-tls-1.0"),
        pytest.param("tls-1.1", {"tls_version"}, id="case-65-tls-1.1"),
        pytest.param("tls-1.2", {None}, id="case-65-tls-1.2"),
        pytest.param("tls-1.3", {None}, id="case-65-tls-1.3"),
        pytest.param("null-cipher", {"tls_handshake"}, id="case-65-null-cipher"),
        pytest.param("anonymous-cipher", {"tls_handshake"}, id="case-65-anonymous-cipher"),
        pytest.param("hangs", {"connect_timeout", "timeout"}, id="case-66-hangs"),
        pytest.param("trickles", {"connect_timeout", "timeout"}, id="case-66-trickles"),
        pytest.param("resets", {"tls_handshake", "connection_reset", "connect_failed"}, id="case-66-resets"),
        pytest.param("speaks-ssh", {"tls_not_spoken"}, id="case-66-speaks-ssh"),
        pytest.param("speaks-http", {"tls_not_spoken"}, id="case-66-speaks-http"),
        pytest.param(
            "wants-certificate-1.2", {"tls_handshake", "tls_client_certificate"}, id="case-68-demanded-1.2"
        ),
        pytest.param("wants-certificate-1.3", {"tls_client_certificate"}, id="case-68-demanded-1.3"),
        pytest.param("likes-certificate", {None}, id="case-68-asked-for"),
    ],
)
def test_handshake(name: str, codes: set[str | None], met: dict[str, tuple[Rogue, Ended, Ended]]) -> None:
    _, ended, afterwards = met[name]
    ended.check_bounds(2)
    assert ended.code in codes, ended.record.error
    assert ended.verdict.state is (State.DELIVERED if codes == {None} else State.SCHEDULED)
    assert afterwards.verdict.state is State.DELIVERED
