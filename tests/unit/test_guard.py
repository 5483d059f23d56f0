"""No spelling of a URL leads where deliveries must not go. Test ids carry the number of the hostile case."""

import asyncio
import socket
import threading
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringbearer.app import own_hosts
from ringbearer.delivery.guard import BLOCKED_PORTS, Guard
from ringbearer.errors import ConfigurationError, InvalidInput, UrlRefused
from ringbearer.settings import Settings

STRICT = Guard()
LOOPBACK = Guard(allow_networks=["127.0.0.0/8", "::1/128"])


def _case(number: int, form: str, url: str) -> object:
    return pytest.param(url, id=f"case-{number:02}-{form}")


REFUSED = [
    _case(1, "loopback", "http://127.0.0.1/"),
    _case(1, "loopback-elsewhere", "https://127.255.255.254:8443/"),
    _case(2, "localhost", "http://localhost/"),
    _case(2, "upper-case", "http://LOCALHOST/"),
    _case(2, "trailing-dot", "http://localhost./"),
    _case(2, "below-localhost", "http://x.localhost/"),
    _case(3, "two-parts", "http://127.1/"),
    _case(3, "three-parts", "http://127.0.1/"),
    _case(4, "decimal", "http://2130706433/"),
    _case(5, "hex", "http://0x7f000001/"),
    _case(5, "hex-upper-case", "http://0X7F.0.0.0x1/"),
    _case(6, "octal", "http://0177.0.0.1/"),
    _case(7, "octal-of-a-public-address", "http://00127.0.0.1/"),
    _case(8, "zero", "http://0/"),
    _case(8, "hex-zero", "http://0x/"),
    _case(8, "unspecified", "http://0.0.0.0/"),
    _case(9, "circled-digits", "http://①②⑦.⓪.⓪.①/"),
    _case(9, "fullwidth-digits", "http://１２７.0.0.1/"),
    _case(10, "ideographic-dots", "http://127。0。0。1/"),
    _case(10, "halfwidth-dots", "http://127｡0｡0｡1/"),
    _case(11, "circled-letters", "http://ⓛⓞcalhost/"),
    _case(12, "v6-loopback", "http://[::1]/"),
    _case(12, "v6-loopback-in-full", "http://[0:0:0:0:0:0:0:1]:8080/"),
    _case(12, "v6-unspecified", "http://[::]/"),
    _case(13, "mapped", "http://[::ffff:127.0.0.1]/"),
    _case(13, "mapped-hex", "http://[::ffff:a9fe:a9fe]/"),
    _case(14, "v4-compatible", "http://[::127.0.0.1]/"),
    _case(14, "v4-translated", "http://[::ffff:0:127.0.0.1]/"),
    _case(15, "nat64", "http://[64:ff9b::a9fe:a9fe]/"),
    _case(15, "local-nat64", "http://[64:ff9b:1::a9fe:a9fe]/"),
    _case(16, "6to4", "http://[2002:7f00:1::]/"),
    _case(17, "teredo", "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/"),
    _case(18, "zone", "http://[fe80::1%25eth0]/"),
    _case(18, "zone-on-loopback", "http://[::1%25lo]/"),
    _case(18, "link-local", "http://[fe80::1]/"),
    _case(19, "aws-metadata", "http://[fd00:ec2::254]/"),
    _case(19, "gcp-metadata", "http://[fd20:ce::254]/"),
    _case(19, "unique-local", "http://[fc00::1]/"),
    _case(19, "site-local", "http://[fec0::1]/"),
    _case(20, "metadata", "http://169.254.169.254/latest/meta-data/"),
    _case(20, "ecs-metadata", "http://169.254.170.2/"),
    _case(21, "azure", "http://168.63.129.16/"),
    _case(21, "alibaba", "http://100.100.100.200/"),
    _case(21, "oracle", "http://192.0.0.192/"),
    _case(22, "private-10", "http://10.0.0.1/"),
    _case(22, "private-172", "http://172.16.0.1/"),
    _case(22, "private-172-end", "http://172.31.255.255/"),
    _case(22, "private-192", "http://192.168.1.1/"),
    _case(22, "carrier", "http://100.64.0.1/"),
    _case(22, "benchmark", "http://198.18.0.1/"),
    _case(22, "reserved", "http://240.0.0.1/"),
    _case(22, "multicast", "http://224.0.0.1/"),
    _case(22, "broadcast", "http://255.255.255.255/"),
    _case(22, "v6-multicast", "http://[ff0e::1]/"),
    _case(22, "v6-documentation", "http://[2001:db8::1]/"),
    _case(22, "v6-outside-the-internet", "http://[4000::1]/"),
    _case(23, "credentials", "http://user:pw@example.com/"),
    _case(23, "empty-credentials", "http://@example.com/"),
    _case(24, "host-as-user", "http://example.com:80@127.0.0.1/"),
    _case(24, "fullwidth-at", "http://example.com＠127.0.0.1/"),
    _case(25, "backslash", "http://example.com\\@127.0.0.1/"),
    _case(25, "backslash-reversed", "http://127.0.0.1\\@example.com/"),
    _case(25, "backslashes-for-slashes", "http:\\\\example.com/"),
    _case(26, "fragment-does-not-hide-the-host", "http://127.0.0.1#@example.com/"),
    *(
        _case(27, scheme.strip(":/"), scheme + "example.com/")
        for scheme in ("gopher://", "file://", "ftp://", "dict://", "http+unix://", "javascript:", "ws://")
    ),
    _case(27, "file-without-host", "file:///etc/passwd"),
    _case(27, "unix-socket", "http+unix://%2Fvar%2Frun%2Fdocker.sock/"),
    _case(28, "tab", "http://exam\tple.com/"),
    _case(28, "cr", "http://exam\rple.com/"),
    _case(28, "lf", "http://exam\nple.com/"),
    _case(28, "nul", "http://exam\0ple.com/"),
    _case(28, "space", "http://exam ple.com/"),
    _case(28, "encoded-nul", "http://example.com%00.evil.com/"),
    _case(28, "encoded-host", "http://%31%32%37.0.0.1/"),
    _case(28, "leading-space", " http://example.com/"),
    _case(28, "trailing-line-break", "http://example.com/\n"),
    _case(28, "no-break-space", "http://example.com/\u00a0"),
    _case(28, "zero-width-space", "http://local\u200bhost/"),
    _case(28, "soft-hyphen", "http://local\u00adhost/"),
    _case(28, "surrogate", "http://example.com/\ud800"),
    _case(29, "raw-line-break-in-path", "http://example.com/a\r\nX: y"),
    _case(30, "port-0", "http://example.com:0/"),
    _case(30, "port-negative", "http://example.com:-1/"),
    _case(30, "port-too-high", "http://example.com:99999/"),
    _case(30, "port-65536", "http://example.com:65536/"),
    _case(30, "port-fullwidth", "http://example.com:８０/"),
    _case(30, "port-empty", "http://example.com:/"),
    _case(30, "port-empty-v6", "http://[2606:4700::1111]:/"),
    _case(30, "two-ports", "http://example.com:80:80/"),
    *(_case(30, f"blocked-{port}", f"http://example.com:{port}/") for port in (22, 25, 6379, 5432)),
    _case(31, "empty", ""),
    _case(31, "empty-host", "http:///x"),
    _case(31, "only-scheme", "http://"),
    _case(31, "only-port", "http://:80/"),
    _case(31, "only-query", "http://?x"),
    _case(31, "no-scheme", "//example.com/"),
    _case(31, "relative", "example.com/"),
    _case(31, "no-slashes", "http:example.com"),
    _case(31, "one-slash", "http:/example.com"),
    _case(31, "empty-brackets", "http://[]/"),
    _case(31, "open-bracket", "http://[::1/"),
    _case(31, "text-after-bracket", "http://[2606:4700::1111]x/"),
    _case(31, "v6-without-brackets", "http://2606:4700::1111/"),
    _case(31, "v6-too-short", "http://[2606:4700]/"),
    _case(32, "label-of-64", f"http://{'a' * 64}.com/"),
    _case(32, "a-label-too-long", f"http://{'ü' * 63}.com/"),
    _case(32, "name-of-254", "http://" + ("a" * 62 + ".") * 4 + "bc" + "/"),
    _case(32, "url-of-2049", "http://example.com/" + "a" * 2030),
    _case(32, "url-longer-once-encoded", "http://example.com/" + "ü" * 1000),
    _case(32, "two-dots", "http://example..com/"),
    _case(32, "leading-dot", "http://.example.com/"),
    _case(32, "two-trailing-dots", "http://example.com../"),
    _case(32, "only-a-dot", "http://./"),
    _case(33, "invalid-a-label", "http://xn--a-ecp.ru\uff0f/"),
    _case(33, "empty-a-label", "http://xn--.com/"),
    _case(33, "broken-punycode", "http://xn--99999999.com/"),
    _case(33, "a-label-of-ascii", "http://xn--localhost-.com/"),
    _case(33, "emoji", "http://💍.example/"),
    _case(33, "leading-hyphen", "http://-example.com/"),
    _case(33, "underscore", "http://my_hook.example.com/"),
    _case(33, "slash-lookalike", "http://example.com／.evil.com/"),
    _case(33, "account-of-lookalike", "http://example.com℀.evil.com/"),
    _case(35, "single-label", "http://intranet/"),
    _case(35, "single-label-dot", "http://redis./"),
    _case(35, "internal", "http://hooks.internal/"),
    _case(35, "local", "http://printer.local/"),
    _case(35, "svc", "http://api.default.svc/"),
    _case(35, "cluster", "http://api.default.svc.cluster.local/"),
    _case(35, "metadata-name", "http://metadata.google.internal/"),
    _case(35, "metadata-public-name", "http://metadata.goog/"),
]


@pytest.mark.parametrize("url", REFUSED)
def test_refused_at_registration_with_a_reason(url: str) -> None:
    with pytest.raises(UrlRefused) as raised:
        STRICT.check_url(url)
    assert len(raised.value.reason) > 10
    assert raised.value.reason.isprintable() or not url.isprintable()
    assert raised.value.problems[0][0] == "/url"


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        pytest.param("https://hooks.example.com/a?b=c", "https://hooks.example.com/a?b=c", id="plain"),
        pytest.param("HTTPS://Hooks.Example.COM", "https://hooks.example.com/", id="case-and-empty-path"),
        pytest.param("https://example.com:443/", "https://example.com/", id="default-port"),
        pytest.param("http://example.com:443/", "http://example.com:443/", id="other-schemes-port"),
        pytest.param("https://example.com.:8443/", "https://example.com:8443/", id="trailing-dot"),
        pytest.param("https://example.com?x=1", "https://example.com/?x=1", id="query-without-path"),
        pytest.param("https://example.com/?", "https://example.com/?", id="empty-query"),
        pytest.param("https://example.com/a//../b", "https://example.com/a//../b", id="path-as-it-is"),
        pytest.param("https://example.com/@me?a[]=1", "https://example.com/@me?a[]=1", id="signs-in-path"),
        pytest.param("https://example.com/ü?ö", "https://example.com/%C3%BC?%C3%B6", id="non-ascii-path"),
        pytest.param('https://example.com/"<>`{}', "https://example.com/%22%3C%3E%60%7B%7D", id="quotes"),
        pytest.param("https://8.8.8.8/x", "https://8.8.8.8/x", id="public-v4"),
        pytest.param("https://[2606:4700:0::1111]/", "https://[2606:4700::1111]/", id="public-v6"),
        pytest.param("https://[64:ff9b::808:808]/", "https://[64:ff9b::808:808]/", id="public-by-nat64"),
        pytest.param("http://example.com#@127.0.0.1/", "http://example.com/", id="case-26-fragment"),
        pytest.param(
            "http://example.com/a%0d%0ab?%0D%0a", "http://example.com/a%0d%0ab?%0D%0a", id="case-29-crlf"
        ),
        pytest.param(f"http://{'a' * 63}.com/", f"http://{'a' * 63}.com/", id="case-32-label-of-63"),
        pytest.param("https://faß.de/", "https://xn--fa-hia.de/", id="case-33-sharp-s"),
        pytest.param("https://Bücher.example/", "https://xn--bcher-kva.example/", id="case-33-a-label"),
        pytest.param("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/", id="case-33-kept"),
        pytest.param("https://аpple.com/", "https://xn--pple-43d.com/", id="case-33-mixed-script"),
        pytest.param("https://ｅｘａｍｐｌｅ.com/", "https://example.com/", id="case-33-fullwidth"),
    ],
)
def test_accepted_in_the_form_that_is_sent(url: str, sent: str) -> None:
    assert STRICT.check_url(url) == sent
    assert STRICT.check_url(sent) == sent


URLISH = st.text(st.sampled_from("htps:/@#?[]%\\.-_0127xf①。ßü\t\n ae"), max_size=40) | st.text(max_size=60)


@settings(deadline=None)
@given(URLISH)
def test_any_text_is_refused_or_becomes_a_url_that_is_read_in_one_way(text: str) -> None:
    for url in (text, "http://" + text, "https://example.com" + text):
        try:
            sent = STRICT.check_url(url)
        except UrlRefused:
            continue
        assert STRICT.check_url(sent) == sent
        assert sent.isascii()
        assert sent.isprintable()
        assert " " not in sent
        other = urlsplit(sent)
        assert other.scheme in ("http", "https")
        assert other.username is other.password is None
        assert not other.fragment
        _check_host(other.hostname or "")


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    """By the standard library's table, which calls every mapped address private and multicast global."""
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (inner or address).is_global and not (inner or address).is_multicast


def _check_host(host: str) -> None:
    try:
        address = ip_address(host)
    except ValueError:
        assert "." in host
        return
    assert _is_public(address)
    assert STRICT.check_address(host) is None


@settings(deadline=None)
@given(st.ip_addresses(v=4, network="127.0.0.0/8") | st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_no_legacy_spelling_of_a_private_address_is_accepted(address: IPv4Address) -> None:
    number = int(address)
    a, b, c, d = address.packed
    spellings = (
        f"{a}.{b}.{c}.{d}",
        f"{a}.{b}.{c << 8 | d}",
        f"{a}.{number & 0xFFFFFF}",
        f"{number}",
        f"{number:#x}",
        f"0{number:o}",
        f"{a:#x}.0{b:o}.{c}.{d:#X}",
        f"000{a:o}.{b}.{c}.{d}",
        f"[::ffff:{address}]",
        f"[::{address}]",
        f"[64:ff9b::{address}]",
        f"[2002:{number >> 16:x}:{number & 0xFFFF:x}::]",
    )
    for spelling in spellings:
        with pytest.raises(UrlRefused):
            STRICT.check_url(f"http://{spelling}/")


def test_a_legacy_spelling_is_refused_with_the_address_that_is_meant() -> None:
    with pytest.raises(UrlRefused, match=r"127\.1 is an unusual spelling of the address 127\.0\.0\.1"):
        STRICT.check_url("http://127.1/")
    for neither in ("1.2.3.4.5", "256.1.1.1", "4294967296", "08.0.0.1", "-1.0.0.1", "a.1", "1.2.3.0xg.0x100"):
        with pytest.raises(UrlRefused, match="no IPv4 address"):
            STRICT.check_url(f"http://{neither}/")


# ── what the operator may open ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9000/",
        "http://localhost:9000/",
        "http://a.localhost:9000/x",
        "http://[::1]:9000/",
        "https://example.com/",
    ],
)
def test_an_allowed_network_can_be_reached(url: str) -> None:
    assert LOOPBACK.check_url(url) == url


def test_localhost_needs_only_one_of_the_loopback_networks() -> None:
    assert Guard(allow_networks=["127.0.0.0/8"]).check_url("http://localhost:9000/")
    assert Guard(allow_networks=["::1"]).check_url("http://localhost:9000/")


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/",
        "http://0.0.0.0/",
        "http://127.1/",
        "http://intranet/",
        "http://hooks.internal/",
        "http://127.0.0.1:22/",
        "http://localhost:6379/",
        "http://169.254.169.254/",
    ],
)
def test_allowing_loopback_opens_nothing_else(url: str) -> None:
    with pytest.raises(UrlRefused):
        LOOPBACK.check_url(url)


def test_names_of_private_networks_come_with_a_private_network() -> None:
    guard = Guard(allow_networks=["10.0.0.0/8"])
    assert guard.check_url("http://hooks.shop.svc.cluster.local/")
    for url in ("http://hooks/", "http://metadata.google.internal/", "http://localhost/"):
        with pytest.raises(UrlRefused):
            guard.check_url(url)


def test_an_embedded_address_is_allowed_when_what_it_reaches_is() -> None:
    guard = Guard(allow_networks=["10.0.0.0/8"])
    assert guard.check_address("::ffff:10.0.0.1") is None
    assert guard.check_address("64:ff9b::10.0.0.1") is None
    assert guard.check_address("2002:a00:1::") is not None


def test_wide_networks_open_neither_metadata_services_nor_multicast() -> None:
    guard = Guard(allow_networks=["0.0.0.0/0", "::/0"])
    assert guard.check_address("192.168.1.1") is None
    assert guard.check_address("169.254.1.1") is None
    for address in ("169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254", "224.0.0.1", "ff02::1"):
        assert guard.check_address(address) is not None


def test_a_metadata_service_can_be_allowed_alone() -> None:
    assert Guard(allow_networks=["168.63.129.16/32"]).check_address("168.63.129.16") is None


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "10.0.0", "localhost", "::1/129", "10.0.0.0/8,::1"])
def test_a_bad_network_is_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigurationError, match="allow_networks"):
        Guard(allow_networks=[text])


def test_ports_can_be_chosen() -> None:
    assert Guard(blocked_ports=()).check_url("https://example.com:22/")
    with pytest.raises(UrlRefused, match="8443"):
        Guard(blocked_ports=[*BLOCKED_PORTS, 8443]).check_url("https://example.com:8443/")


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://Ringbearer.example.com./v1/events", id="case-34-api"),
        pytest.param("https://[2606:4700::1111]:9000/", id="case-34-address"),
        pytest.param("https://8.8.4.4/", id="case-34-v4"),
    ],
)
def test_our_own_hosts_are_refused(url: str) -> None:
    own = frozenset({"ringbearer.example.com", "[2606:4700::1111]", "8.8.4.4"})
    assert STRICT.check_url(url)
    with pytest.raises(UrlRefused, match="itself"):
        Guard(own_hosts=own).check_url(url)


def test_our_own_hosts_are_those_of_the_settings() -> None:
    """Case 34: the address that publishers and viewers use, the database and Redis."""
    own = own_hosts(
        Settings(
            public_url="https://hooks.example.com:8443/api",
            database_url="postgresql://r@db.example.com/hooks",
            redis_url="redis://cache.example.com:6379/0",
        )
    )
    assert {"hooks.example.com", "db.example.com", "cache.example.com"} <= own


def test_loopback_among_our_own_hosts_is_left_to_the_allowed_networks() -> None:
    guard = Guard(allow_networks=["127.0.0.0/8"], own_hosts=frozenset({"localhost", "127.0.0.1", "::1", ""}))
    assert guard.check_url("http://127.0.0.1:9000/")
    assert guard.check_url("http://localhost:9000/")


# ── addresses, as they are dialled ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "127.0.0.1 is a loopback address"),
        ("169.254.169.254", "169.254.169.254 is a cloud's metadata service"),
        ("169.254.1.1", "169.254.1.1 is a link-local address"),
        ("239.1.1.1", "239.1.1.1 is a multicast address"),
        ("::1", "::1 is a loopback address"),
        ("fe80::1%eth0", "fe80::1 is a link-local address"),
        ("64:ff9b::a00:1", "64:ff9b::a00:1 reaches 10.0.0.1, which is a private address"),
        ("2001:0:1::1", "2001:0:1::1 is a Teredo address"),
        ("5f00::1", "5f00::1 is an address outside the public internet"),
        ("", "'' is no IP address"),
        ("127.1", "'127.1' is no IP address"),
        ("/run/postgres", "'/run/postgres' is no IP address"),
    ],
)
def test_the_reason_not_to_dial(address: str, reason: str) -> None:
    assert STRICT.check_address(address) == reason


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_public_addresses_may_be_dialled(address: str) -> None:
    assert STRICT.check_address(address) is None


@settings(deadline=None)
@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_nothing_is_dialled_that_the_standard_library_calls_private(
    address: IPv4Address | IPv6Address,
) -> None:
    assert STRICT.check_address(str(address)) is not None or _is_public(address)


@settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_an_embedded_address_is_judged_like_itself(address: IPv4Address) -> None:
    allowed = STRICT.check_address(str(address)) is None
    for wrapped in (f"::ffff:{address}", f"64:ff9b::{address}"):
        assert (STRICT.check_address(wrapped) is None) is allowed
    for wrapped in (f"::{address}", f"64:ff9b:1::{address}", f"::ffff:0:{address}"):
        assert STRICT.check_address(wrapped) is not None


@settings(deadline=None)
@given(st.text(max_size=80))
def test_what_is_no_address_is_never_dialled(text: str) -> None:
    if STRICT.check_address(text) is None:
        ip_address(text.partition("%")[0])


# ── names, as they resolve at registration ──────────────────────────────────────────────────────────────────


def _resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    asked: list[str] = []

    def answer(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


def _fail_to_resolve(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)


@pytest.mark.parametrize(
    "addresses",
    [
        pytest.param(["10.0.0.1"], id="case-36-private"),
        pytest.param(["1.1.1.1", "127.0.0.1"], id="case-36-mixed"),
        pytest.param(["1.1.1.1", "::1"], id="case-38-mixed-families"),
        pytest.param(["169.254.169.254"], id="case-36-metadata"),
        pytest.param([f"1.1.1.{n}" for n in range(250)] + ["10.0.0.1"], id="case-39-many"),
    ],
)
def test_a_name_with_a_forbidden_address_is_refused(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    _resolve_to(monkeypatch, *addresses)
    with pytest.raises(UrlRefused, match=r"hooks\.example\.com resolves to"):
        asyncio.run(Guard().check_resolved("https://hooks.example.com/"))


def test_a_name_with_public_addresses_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _resolve_to(monkeypatch, "1.1.1.1", "2606:4700::1111")
    asyncio.run(Guard().check_resolved("https://Bücher.example/"))
    assert asked == ["xn--bcher-kva.example"]


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(socket.gaierror(socket.EAI_NONAME, "unknown"), id="case-42-nxdomain"),
        pytest.param(socket.gaierror(socket.EAI_AGAIN, "later"), id="case-42-servfail"),
        pytest.param(TimeoutError(), id="case-41-deadline"),
        pytest.param(UnicodeError(), id="codec"),
    ],
)
def test_a_name_that_does_not_resolve_is_fine(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    _fail_to_resolve(monkeypatch, error)
    asyncio.run(Guard().check_resolved("https://hooks.example.com/"))


def test_a_resolver_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hostile case 41."""
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer.wait())
    monkeypatch.setattr("ringbearer.delivery.guard._RESOLVE_SECONDS", 0.01)
    try:
        asyncio.run(Guard().check_resolved("https://hooks.example.com/"))
    finally:
        answer.set()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000/", "http://localhost:9000/", "https://[2606::1]/"])
def test_addresses_and_localhost_are_not_looked_up(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    asked = _resolve_to(monkeypatch, "10.0.0.1")
    asyncio.run(LOOPBACK.check_resolved(url))
    assert asked == []


def test_a_refused_url_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _resolve_to(monkeypatch, "1.1.1.1")
    with pytest.raises(InvalidInput):
        asyncio.run(Guard().check_resolved("http://intranet/"))
    assert asked == []


def test_a_guard_tells_what_it_allows() -> None:
    assert repr(STRICT) == "<Guard allowing public addresses only>"
    assert repr(LOOPBACK) == "<Guard allowing 127.0.0.0/8, ::1/128>"
