"""The guard: which URLs may be registered, and which addresses may be dialled.

A URL is parsed once, here, and what is sent is what this parser wrote back. That is not enough to be safe,
since a name can lead anywhere at any time; so the same table is asked again for each address that is dialled.
"""

import asyncio
import re
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import NamedTuple
from urllib.parse import quote

import idna

from ringbearer.errors import ConfigurationError, UrlRefused

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network

BLOCKED_PORTS = frozenset(
    {
        *(
            20,
            21,
            22,
            23,
            25,
            53,
            110,
            111,
            135,
            139,
            143,
            389,
            445,
            465,
            512,
            513,
            514,
            587,
            636,
            873,
            993,
            995,
        ),
        *(1433, 1521, 2049, 2375, 2376, 2379, 2380, 3306, 3389, 4369, 5432, 5672, 5900, 6379, 6380),
        *(9042, 9092, 10250, 11211, 26379, 27017),
    }
)
"""Ports of remote shells, mail, file shares, databases, caches, brokers and container engines."""

MAX_URL = 2_048
_MAX_NAME = 253
_MAX_LABEL = 63
_RESOLVE_SECONDS = 5.0
_LOOKUPS = 4  # at a time, on threads of their own: name servers that hang must not take those of the store
_REMEMBERED = 16_384
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65_535

# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────

_PRIVATE_SUFFIXES = frozenset(
    {"internal", "local", "svc", "localdomain", "lan", "intranet", "corp", "home", "private", "home.arpa"}
)
"""Endings that only a private network's name server knows."""
_METADATA_HOSTS = frozenset({"metadata.google.internal", "metadata.goog", "instance-data.ec2.internal"})

# ── addresses ───────────────────────────────────────────────────────────────────────────────────────────────

_METADATA_ADDRESSES = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",  # AWS, Azure, GCP, DigitalOcean, OpenStack
            "169.254.170.2",  # AWS ECS
            "169.254.170.23",  # AWS EKS
            "168.63.129.16",  # Azure
            "100.100.100.200",  # Alibaba
            "192.0.0.192",  # Oracle
            "fd00:ec2::254",  # AWS
            "fd00:ec2::23",  # AWS EKS
            "fd20:ce::254",  # GCP
        ),
    )
)

_FORBIDDEN_V4 = tuple(
    (IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/8", "an address of this very network"),
        ("10.0.0.0/8", "a private address"),
        ("100.64.0.0/10", "an address shared behind a carrier's NAT"),
        ("127.0.0.0/8", "a loopback address"),
        ("169.254.0.0/16", "a link-local address"),
        ("172.16.0.0/12", "a private address"),
        ("192.0.0.0/24", "an address reserved for protocols"),
        ("192.0.2.0/24", "an address for documentation"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "a private address"),
        ("198.18.0.0/15", "an address for benchmarks"),
        ("198.51.100.0/24", "an address for documentation"),
        ("203.0.113.0/24", "an address for documentation"),
        ("224.0.0.0/4", "a multicast address"),
        ("240.0.0.0/4", "a reserved address"),
    )
)
"""Source: IANA IPv4 Special-Purpose Address Registry, and RFC 5771 for multicast."""

_FORBIDDEN_V6 = tuple(
    (IPv6Network(network), what)
    for network, what in (
        ("::/128", "the unspecified address"),
        ("::1/128", "a loopback address"),
        ("::/96", "an IPv4-compatible address"),
        ("::ffff:0:0:0/96", "a translated IPv4 address"),
        ("64:ff9b:1::/48", "a NAT64 address of a local network"),
        ("2001::/32", "a Teredo address"),
        ("2001::/23", "an address reserved for protocols"),
        ("2001:db8::/32", "an address for documentation"),
        ("2002::/16", "a 6to4 address"),
        ("3fff::/20", "an address for documentation"),
        ("fc00::/7", "a private address"),
        ("fe80::/10", "a link-local address"),
        ("fec0::/10", "a site-local address"),
        ("ff00::/8", "a multicast address"),
    )
)
"""Source: IANA IPv6 Special-Purpose Address Registry. The first network that contains an address names it."""

_GLOBAL_V6 = IPv6Network("2000::/3")
"""All that IANA has given out for the internet; the rest is refused without a reason of its own."""
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_TAIL = 0xFFFF_FFFF
_LOOPBACK = ("127.0.0.1", "::1")

# ── URLs ────────────────────────────────────────────────────────────────────────────────────────────────────

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(/[^?#]*)?(\?[^#]*)?(?:#.*)?")
_PORT = re.compile(r"[0-9]{1,5}")
_IPV6 = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::(.*))?")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_ENDS_IN_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
_IPV4 = re.compile(r"(0|[1-9][0-9]{0,2})(\.(0|[1-9][0-9]{0,2})){3}")
_IPV4_PARTS = 4
_HEXADECIMAL = re.compile(r"0x[0-9a-f]*")
_OCTAL = re.compile(r"0[0-7]*")
_DECIMAL = re.compile(r"[1-9][0-9]*")
_KEPT = "/?%:@!$&'()*+,;=~-._[]|^"
"""Besides letters and digits: the characters of path and query that are sent as they are."""


class _Parts(NamedTuple):
    """A URL in pieces: `host` is an A-label name or a canonical address, `rest` path and query."""

    scheme: str
    host: str
    address: _Address | None
    port: int
    rest: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.rest}"


class Guard:
    """Refuses URLs and addresses that deliveries must never reach.

    `allow_networks` are CIDRs that may be reached although they are not public; they never open multicast,
    and the metadata services of clouds only when named alone (`169.254.169.254/32`). With one beyond loopback,
    names of private networks (`.internal`, `.svc`, …) may be registered. `blocked_ports` are refused in URLs
    whatever the address. `own_hosts` are the host names of our own API, database and Redis; loopback among
    them is left to `allow_networks`. Raises ConfigurationError for a CIDR that is none.
    """

    def __init__(
        self,
        *,
        allow_networks: Sequence[str] = (),
        blocked_ports: Iterable[int] = BLOCKED_PORTS,
        own_hosts: frozenset[str] = frozenset(),
    ) -> None:
        self._allowed = tuple(_network(text) for text in allow_networks)
        self._blocked_ports = frozenset(blocked_ports)
        self._own_hosts = frozenset(
            host for host in map(_plain_host, own_hosts) if host and not _is_loopback(host)
        )
        self._verdict = lru_cache(maxsize=_REMEMBERED)(self._examine)
        self._resolver = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="resolve")
        self._loopback_allowed = any(self.check_address(address) is None for address in _LOOPBACK)
        self._inside_allowed = any(not network.is_loopback for network in self._allowed)

    def __repr__(self) -> str:
        return f"<Guard allowing {', '.join(map(str, self._allowed)) or 'public addresses only'}>"

    def check_url(self, url: str) -> str:
        """The URL as it may be stored and sent to: host in A-labels, no fragment, default port left out.

        Path and query keep their percent-encoding; what may not stand there is encoded. No name is resolved.
        Raises UrlRefused with the reason.
        """
        return str(self._check(url))

    async def check_resolved(self, url: str) -> None:
        """Look at the addresses that the host's name has now; raises UrlRefused when one must not be dialled.

        A name that does not resolve, or not within 5 s, is no reason: its DNS may come later, and each
        address is examined again before it is dialled.
        """
        parts = self._check(url)
        if parts.address is not None or _is_loopback(parts.host):
            return
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = await loop.run_in_executor(self._resolver, _addresses, parts.host)
        except (OSError, UnicodeError):  # TimeoutError is an OSError
            return
        for address in found:
            reason = self.check_address(address)
            if reason is not None:
                raise UrlRefused(f"{parts.host} resolves to an address that is not allowed: {reason}")

    def check_address(self, address: str) -> str | None:
        """Why this address must not be dialled, or None when it may be. What is no address is refused."""
        return self._verdict(address)

    # ── addresses ───────────────────────────────────────────────────────────────────────────────────────

    def _examine(self, text: str) -> str | None:
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            return f"{text!r} is no IP address"
        inner = _unwrapped(address)
        what = self._forbidden(inner)
        if what is None:
            return None
        return f"{address} is {what}" if inner == address else f"{address} reaches {inner}, which is {what}"

    def _forbidden(self, address: _Address) -> str | None:
        """What the address is, if it must not be dialled."""
        if address.is_multicast:
            return "a multicast address"
        if address in _METADATA_ADDRESSES:
            named = any(network.num_addresses == 1 and address in network for network in self._allowed)
            return None if named else "a cloud's metadata service"
        if any(address in network for network in self._allowed):
            return None
        if isinstance(address, IPv4Address):
            return next((what for network, what in _FORBIDDEN_V4 if address in network), None)
        what = next((what for network, what in _FORBIDDEN_V6 if address in network), None)
        if what is None and address not in _GLOBAL_V6:
            return "an address outside the public internet"
        return what

    # ── URLs ────────────────────────────────────────────────────────────────────────────────────────────

    def _check(self, url: str) -> _Parts:
        parts = _parse(url)
        if parts.port in self._blocked_ports:
            raise UrlRefused(f"port {parts.port} belongs to a service that takes no webhooks")
        if parts.host in self._own_hosts:
            raise UrlRefused(f"{parts.host} is a host of this service itself")
        if parts.address is not None:
            reason = self.check_address(str(parts.address))
            if reason is not None:
                raise UrlRefused(reason)
        else:
            self._check_name(parts.host)
        return parts

    def _check_name(self, name: str) -> None:
        if _is_loopback(name):
            if not self._loopback_allowed:
                raise UrlRefused(f"{name} is this machine itself")
            return
        if name in _METADATA_HOSTS:
            raise UrlRefused(f"{name} is a cloud's metadata service")
        if "." not in name:
            raise UrlRefused(f"{name!r} is a name without a domain; expected one such as hooks.example.com")
        if not self._inside_allowed and any(_ends_with(name, suffix) for suffix in _PRIVATE_SUFFIXES):
            raise UrlRefused(f"{name} is a name of a private network")


# ── how a URL is taken apart ────────────────────────────────────────────────────────────────────────────────


def _parse(url: str) -> _Parts:
    """The only place where a URL is taken apart; raises UrlRefused."""
    _check_characters(url)
    match = _URL.fullmatch(url)
    if match is None:
        raise UrlRefused("it must begin with https:// or http:// and a host")
    scheme, authority, path, query = match.groups()
    scheme = scheme.lower()
    if scheme not in _DEFAULT_PORTS:
        raise UrlRefused(f"the scheme must be https or http, not {scheme[:20]}")
    if "@" in authority:
        raise UrlRefused(
            "it must not contain a user name or password; use the endpoint's headers for credentials"
        )
    host_text, port = _split_authority(authority, _DEFAULT_PORTS[scheme])
    host, address = _host(host_text)
    parts = _Parts(
        scheme, host, address, port, quote(path or "/", safe=_KEPT) + quote(query or "", safe=_KEPT)
    )
    if len(str(parts)) > MAX_URL:
        raise UrlRefused(f"it is longer than {MAX_URL} characters once it is encoded")
    return parts


def _check_characters(url: str) -> None:
    if len(url) > MAX_URL:
        raise UrlRefused(f"it is longer than {MAX_URL} characters")
    if "\\" in url:
        raise UrlRefused("it must not contain a backslash")
    # isprintable is False for control and format characters, surrogates, and every space but the plain one.
    if " " in url or not url.isprintable():
        raise UrlRefused("it must not contain spaces, line breaks or control characters; percent-encode them")


def _split_authority(authority: str, default_port: int) -> tuple[str, int]:
    """The host's text, an IPv6 address without its brackets but for the first, and the port."""
    if authority.startswith("["):
        match = _IPV6.fullmatch(authority)
        if match is None:
            raise UrlRefused("what stands in the brackets is no IPv6 address; zones (%) are not possible")
        host, port = "[" + match[1], match[2]
    else:
        host, colon, after = authority.partition(":")
        port = after if colon else None
    if not host:
        raise UrlRefused("it has no host")
    if port is None:
        return host, default_port
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= _MAX_PORT:
        raise UrlRefused(f"the port must be a number from 1 to {_MAX_PORT}")
    return host, int(port)


def _host(text: str) -> tuple[str, _Address | None]:
    """The canonical host, and the address when it is one."""
    if text.startswith("["):
        try:
            v6 = IPv6Address(text[1:])
        except ValueError:
            raise UrlRefused(f"{text[1:]!r} is no IPv6 address") from None
        return str(v6), v6
    if "%" in text:
        raise UrlRefused("the host must not be percent-encoded")
    try:
        mapped = idna.uts46_remap(text, std3_rules=True).removesuffix(".")
    except ValueError as error:  # IDNAError is a UnicodeError
        raise UrlRefused(f"the host is no valid name: {error}") from None
    if _ENDS_IN_NUMBER.fullmatch(mapped):
        v4 = _ipv4(mapped)
        return str(v4), v4
    return _name(mapped), None


def _ipv4(text: str) -> IPv4Address:
    """The address in dotted decimal; other spellings are refused, since programs read them differently."""
    if _IPV4.fullmatch(text):
        try:
            return IPv4Address(text)
        except ValueError:
            raise UrlRefused(f"{text} is no IPv4 address") from None
    meant = _legacy_ipv4(text)
    if meant is None:
        raise UrlRefused(f"{text!r} ends in a number but is no IPv4 address")
    raise UrlRefused(f"{text} is an unusual spelling of the address {meant}")


def _legacy_ipv4(text: str) -> IPv4Address | None:
    """What the C library's inet_aton makes of it: one to four parts, decimal, octal or hexadecimal."""
    *heads, last = (_number(part) for part in text.split("."))
    if last is None or len(heads) >= _IPV4_PARTS:
        return None
    total = 0
    for head in heads:
        if head is None or head > 0xFF:
            return None
        total = total << 8 | head
    room = 8 * (_IPV4_PARTS - len(heads))
    return None if last >> room else IPv4Address(total << room | last)


def _number(part: str) -> int | None:
    if _HEXADECIMAL.fullmatch(part):
        return int(part[2:] or "0", 16)
    if _OCTAL.fullmatch(part):
        return int(part, 8)
    return int(part) if _DECIMAL.fullmatch(part) else None


def _name(mapped: str) -> str:
    """A mapped name with every label as an A-label of IDNA2008."""
    name = ".".join(_label(label) for label in mapped.split("."))
    if len(name) > _MAX_NAME:
        raise UrlRefused(f"the host is longer than {_MAX_NAME} characters")
    return name


def _label(label: str) -> str:
    if not label:
        raise UrlRefused("the host has an empty part between its dots")
    if not label.isascii() or label.startswith("xn--"):
        try:
            label = idna.alabel(label).decode("ascii")
        except ValueError as error:
            raise UrlRefused(f"the host is no valid name: {error}") from None
    if len(label) > _MAX_LABEL:
        raise UrlRefused(f"a part of the host is longer than {_MAX_LABEL} characters")
    if not _LABEL.fullmatch(label):
        raise UrlRefused(f"{label!r} cannot be part of a host: only letters, digits and inner hyphens can")
    return label


def _addresses(host: str) -> list[str]:
    """The addresses that the system's resolver knows for a name; blocks; raises OSError."""
    return [str(target[0]) for *_, target in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


def _plain_host(text: str) -> str:
    return text.strip().strip("[]").rstrip(".").lower()


def _is_loopback(host: str) -> bool:
    """Whether a name or address can only mean this machine (RFC 6761, section 6.3)."""
    if _ends_with(host, "localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _ends_with(name: str, suffix: str) -> bool:
    return name == suffix or name.endswith("." + suffix)


# ── addresses inside addresses ──────────────────────────────────────────────────────────────────────────────


def _unwrapped(address: _Address) -> _Address:
    """The IPv4 address that a mapped or NAT64 one really reaches; any other as it is.

    6to4, Teredo and IPv4-compatible addresses carry one too, but are forbidden whatever it is.
    """
    if isinstance(address, IPv6Address) and (address in _MAPPED or address in _NAT64):
        return IPv4Address(int(address) & _TAIL)
    return address


def _network(text: str) -> _Network:
    try:
        return ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise ConfigurationError(f"allow_networks: {text!r} is no network in CIDR form: {error}") from None
