"""The link to Redis: opened by URL, with bounded waits, one kind of failure, sealed values and hashed names.

redis://user:password@host:6379/0                          one server
rediss://host:6379/0?ca_file=…&cert_file=…&key_file=…      with TLS, its certificate always checked
redis+sentinel://host:26379,host2:26379/service?db=0       the primary that the sentinels name
redis+cluster://host:6379,host2:6379                       Redis Cluster, found through any of these nodes

`rediss+sentinel` and `rediss+cluster` are the same with TLS. Redis ≥ 6.2 and Valkey. Nothing that lies in Redis
can be read there: values are sealed, and what names a supplier or an endpoint is hashed with a key.
"""

import hashlib
import hmac
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from ringbearer.errors import ConfigurationError, RedisUnavailable
from ringbearer.storage.envelopes import Envelopes
from ringbearer.storage.vault import Vault

TIMEOUT = 1.0
"""Seconds that a command may take, and a connection to be made."""

_MOST_CONNECTIONS = 32  # of one process to one server
_PORTS = {"": 6379, "cluster": 6379, "sentinel": 26379}
_EXPECTED = "RINGBEARER_REDIS_URL must be like redis://host:6379/0, rediss://…, redis+sentinel://h1,h2/service or redis+cluster://h1,h2"
_OPTIONS = frozenset({"ca_file", "cert_file", "key_file", "db", "sentinel_username", "sentinel_password"})

Client = redis.Redis | RedisCluster
_Given = dict[str, Any]  # arguments of several classes of the client library, each with types of its own


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """What a URL says."""

    kind: str
    """Empty for one server, else `sentinel` or `cluster`."""
    hosts: tuple[tuple[str, int], ...]
    tls: bool = False
    db: int = 0
    service: str = ""
    username: str | None = None
    password: str | None = None
    options: dict[str, str] = {}

    def __repr__(self) -> str:
        where = ",".join(f"{host}:{port}" for host, port in self.hosts)
        scheme = ("rediss" if self.tls else "redis") + (f"+{self.kind}" if self.kind else "")
        return f"{scheme}://{where}/{self.service or self.db or ''}"


def parse(url: str) -> Address:
    """What the URL says; raises ConfigurationError, which never shows a password."""
    scheme, found, rest = url.partition("://")
    base, _, kind = scheme.partition("+")
    if not found or base not in {"redis", "rediss"} or kind not in _PORTS or ("+" in scheme and not kind):
        raise ConfigurationError(_EXPECTED)
    # Several hosts are no URL for the standard library: what stands around them is read without them.
    authority, slash, tail = rest.partition("/")
    if not slash:
        authority, mark, query = rest.partition("?")
        tail = mark + query
    credentials, _, hosts = authority.rpartition("@")
    path = urlsplit("//host/" + tail)
    options = _options(path.query)
    name = unquote(path.path.strip("/"))
    if kind == "sentinel" and not name:
        raise ConfigurationError(f"{_EXPECTED}: the service that the sentinels watch is missing")
    username, _, password = credentials.partition(":")
    return Address(
        kind=kind,
        hosts=tuple(_host(part, _PORTS[kind]) for part in hosts.split(",")),
        tls=base == "rediss",
        db=_db(options.pop("db", "") or ("" if kind == "sentinel" else name), kind),
        service=name if kind == "sentinel" else "",
        username=unquote(username) or None,
        password=unquote(password) or None,
        options=options,
    )


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query))
    for name, value in options.items():
        if name not in _OPTIONS:
            raise ConfigurationError(
                f"RINGBEARER_REDIS_URL has no option {name!r}; there are: {', '.join(sorted(_OPTIONS))}"
            )
        if name.endswith("_file") and not Path(value).is_file():
            raise ConfigurationError(f"RINGBEARER_REDIS_URL: {name} {value} is not a file")
    return options


def _host(part: str, default: int) -> tuple[str, int]:
    try:
        parsed = urlsplit("//" + part)
        if parsed.hostname:
            return parsed.hostname, parsed.port or default
    except ValueError:
        pass
    raise ConfigurationError(f"{_EXPECTED}: a host or its port is not valid")


def _db(text: str, kind: str) -> int:
    if not text:
        return 0
    if kind == "cluster" or not (text.isascii() and text.isdecimal()):
        raise ConfigurationError(
            f"{_EXPECTED}: the database must be a number, and a cluster has none; got {text!r}"
        )
    return int(text)


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """How much more a Redis takes, of a cluster the node that has least; None where there is no limit, or none told."""

    free_connections: int | None
    free_memory: float | None
    """As a share of what it may use."""


class Script:
    """A Lua script, sent once to each server and called by its digest from then on."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisLink:
    """One Redis for a process; may be used by several threads. Nothing is connected before it is needed.

    Everything here blocks, as the store does: an event loop calls it from a thread. Whatever goes wrong on the way raises RedisUnavailable, within about `timeout` seconds for each command.
    """

    def __init__(self, address: Address, vault: Vault, *, timeout: float = TIMEOUT) -> None:
        self._address = address
        self._timeout = timeout
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._envelopes = Envelopes(vault)
        _, self._name_key = vault.derive("names in Redis")
        self.prefix = f"rb:{self.hashed('installation')[:8]}"
        """What the name of every key starts with: two installations may share a Redis."""

    def __repr__(self) -> str:
        return f"<RedisLink to {self._address!r}>"

    @property
    def clustered(self) -> bool:
        """Whether keys are spread over servers, so that one script may touch keys of one hash tag only."""
        return self._address.kind == "cluster"

    @property
    def client(self) -> Client:
        """The client of this process; raises RedisUnavailable. Use it within `translated`."""
        with self._lock:
            if self._client is None:
                with translated():
                    self._client = self._open()
            return self._client

    def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[bytes | str | int | float]
    ) -> object:
        """Run a script; it is loaded where the server does not know it. Raises RedisUnavailable."""
        client = self.client
        with translated():
            try:
                return client.evalsha(script.digest, len(keys), *keys, *arguments)
            except NoScriptError:
                return client.eval(script.text, len(keys), *keys, *arguments)

    def ping(self) -> None:
        """Ask for a sign of life; raises RedisUnavailable."""
        client = self.client
        with translated():
            client.ping()

    def usage(self) -> Usage:
        """What is free of its connections and its memory; raises RedisUnavailable."""
        client = self.client
        with translated():
            if isinstance(client, RedisCluster):
                told = client.info(target_nodes=RedisCluster.PRIMARIES)
                nodes: list[_Given] = [one for one in told.values() if isinstance(one, dict)] or [told]
            else:
                nodes = [client.info()]
        connections = [n["maxclients"] - n["connected_clients"] for n in nodes if n.get("maxclients")]
        memory = [1.0 - n["used_memory"] / n["maxmemory"] for n in nodes if n.get("maxmemory")]
        return Usage(
            free_connections=min(connections, default=None),
            free_memory=max(0.0, min(memory)) if memory else None,
        )

    def seal(self, value: bytes, bound_to: str) -> bytes:
        """The sealed form, which opens only together with the same `bound_to`."""
        return self._envelopes.seal(value, bound_to)

    def open(self, sealed: bytes, bound_to: str) -> bytes | None:
        """The value, or None when it was sealed for something else, altered, or with a key that is not at hand."""
        return self._envelopes.open(sealed, bound_to)

    def hashed(self, name: str) -> str:
        """A name that tells nothing: 24 hexadecimal digits of HMAC-SHA256 with a key of this installation."""
        return hmac.digest(self._name_key, name.encode(), "sha256").hex()[:24]

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _open(self) -> Client:
        given = self._arguments()
        given["retry"] = Retry(NoBackoff(), 0)
        address = self._address
        if address.kind == "cluster":
            nodes = [ClusterNode(host, port) for host, port in address.hosts]  # type: ignore[no-untyped-call]
            return RedisCluster(startup_nodes=nodes, ssl=address.tls, **given)
        given["db"] = address.db
        if address.kind == "sentinel":
            sentinel = Sentinel(  # type: ignore[no-untyped-call]
                address.hosts, sentinel_kwargs=self._sentinel_arguments(), ssl=address.tls, **given
            )
            primary: redis.Redis = sentinel.master_for(address.service)  # type: ignore[no-untyped-call]
            return primary
        host, port = address.hosts[0]
        return redis.Redis(host=host, port=port, ssl=address.tls, **given)

    def _arguments(self) -> _Given:
        address = self._address
        return self._common() | {
            "username": address.username,
            "password": address.password,
            "max_connections": _MOST_CONNECTIONS,
        }

    def _common(self) -> _Given:
        given: _Given = {
            "socket_timeout": self._timeout,
            "socket_connect_timeout": self._timeout,
            "protocol": 2,
        }
        options = self._address.options
        if self._address.tls:
            given |= {
                "ssl_ca_certs": options.get("ca_file"),
                "ssl_certfile": options.get("cert_file"),
                "ssl_keyfile": options.get("key_file"),
                "ssl_cert_reqs": "required",
                "ssl_check_hostname": True,
            }
        return given

    def _sentinel_arguments(self) -> _Given:
        options = self._address.options
        return self._common() | {
            "ssl": self._address.tls,
            "username": options.get("sentinel_username"),
            "password": options.get("sentinel_password"),
        }


def open_redis(url: str, vault: Vault, *, timeout: float = TIMEOUT) -> RedisLink:
    """The link that a URL names; connects later. Raises ConfigurationError."""
    return RedisLink(parse(url), vault, timeout=timeout)


@contextmanager
def translated() -> Iterator[None]:
    """Whatever a client of this link raises becomes RedisUnavailable."""
    try:
        yield
    except (RedisError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RedisUnavailable(f"Redis does not answer as it should: {first}") from error
