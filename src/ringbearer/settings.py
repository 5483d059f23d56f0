"""Settings: one validated place; a file is overruled by the environment, and that by arguments.

Every setting is `name` in `ringbearer.toml` and `RINGBEARER_NAME` in the environment; those that change from run
to run are `--name` on the command line too. What is not said stays unset, and has the default that stands here.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from types import NoneType
from typing import Literal, get_args
from urllib.parse import urlsplit

import msgspec

from ringbearer.errors import ConfigurationError
from ringbearer.limits.breaker import BreakerPolicy
from ringbearer.storage.vault import key_file

_PREFIX = "RINGBEARER_"
_FILE = "ringbearer.toml"
# Variables of the same prefix that are no settings: for the command-line client, and from parent to child.
_OTHERS = frozenset({"KEY", "URL", "CONFIG", "PARENT_PIPE", "SOCKET_DESCRIPTOR", "NODE_ID", "FAILPOINT"})
_PUBLIC_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the service can be told."""

    data_dir: Path = Path("data")
    """Where the embedded database, generated keys and sockets are."""
    database_url: str | None = None
    """`sqlite:///path` or `postgresql://…`; a SQLite file in the data directory when unset."""
    database_prepare: bool = True
    """False behind a transaction pooler that cannot keep prepared statements; also stops LISTEN."""
    redis_url: str | None = None
    """`redis://…`, `rediss://…`, `redis+sentinel://…` or `redis+cluster://…`; works without Redis when unset."""
    host: str = "127.0.0.1"
    port: int = 8200
    workers: int | Literal["auto"] = "auto"
    """Worker processes that `up` runs; `auto` lets the load decide between the next two."""
    min_workers: int = 1
    max_workers: int | None = None
    """As many as the machine has processors when unset."""
    slots: int = 1024
    """Deliveries that a worker holds at a time."""
    sends_per_second: int = 0
    """Deliveries that all workers together may send in a second; 0 for any number."""
    memory_limit: int = 0
    """MiB that a worker may use: near it less is claimed, at it nothing; 0 for no limit."""
    cpu_share: float = 1.0
    """The part of one core that a worker's sending thread may use."""
    lease_seconds: float = 60.0
    """How long a delivery stays with a worker that gives no sign of life: what its loss costs."""
    admin_key: str | None = None
    """The first admin key; generated into the data directory when unset."""
    secret_key: str | None = None
    """Keys that seal stored secrets, 32 bytes in base64, comma-separated, the first one sealing."""
    allow_networks: tuple[str, ...] = ()
    """CIDRs that deliveries may reach although they are private."""
    public_url: str | None = None
    """Where the API is reached from outside, for links that are sent to receivers; paths alone when unset."""
    ca_file: Path | None = None
    """Certificate authorities to trust instead of the bundled ones."""
    proxy_url: str | None = None
    """An HTTP proxy through which deliveries leave, `http://user:password@host:port`; none when unset."""
    retention_days: float = 30.0
    """How long events, finished deliveries and attempts are kept."""
    cache_bytes: int = 64 * 1024 * 1024
    """Memory that a process may spend on suppliers and their endpoints."""
    cache_stale_seconds: float = 300.0
    """How long they are believed while the store cannot be asked whether they changed."""
    warm_seconds: float = 10.0
    """How long a worker that starts brings suppliers into memory before it claims anything, at most."""
    changes_per_minute: int = 5
    """Changes of one endpoint that the management API takes in a minute; 0 for any number."""
    breaker_window: int = 20
    """An endpoint's circuit breaker looks at so many of its latest attempts."""
    breaker_calls: int = 10
    """It says nothing before so many attempts."""
    breaker_failure_ratio: float = 0.5
    """The part of them that must have failed for it to open."""
    breaker_connect_errors: int = 5
    """It opens as well after so many attempts in a row that reached nobody."""
    breaker_pause: float = 30.0
    """Seconds that it stays open at first; each failed probe doubles them."""
    breaker_longest_pause: float = 900.0
    """The most seconds between two probes."""
    stop_grace: float = 15.0
    """Seconds that a stopping process waits for what is in flight."""
    log_format: Literal["json", "pretty"] | None = None
    """`pretty` on a terminal and `json` elsewhere when unset."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    alert_heartbeat_url: str | None = None
    """Called with GET each minute that alerts are looked after: whoever misses the call raises the alarm."""
    trace_context: bool = True
    """Whether a publisher's `traceparent` and `tracestate` are kept with its events and passed on to receivers."""
    otlp_url: str | None = None
    """Where spans go by OTLP over HTTP, such as `http://collector:4318`; needs the extra `otel`. Nowhere when unset."""
    trace_ratio: float = 1.0
    """The part of events without a publisher's trace that begin one; only with `otlp_url`."""
    metrics_port: int | None = None
    """Where a worker started by `work` serves its metrics; nowhere when unset. `up` has no use for it."""

    @property
    def store_url(self) -> str:
        """The database's URL, the default filled in."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'ringbearer.db').absolute()}"

    @property
    def worker_bounds(self) -> tuple[int, int]:
        """The fewest and the most workers that `up` may run by itself; (0, 0) when the number is fixed."""
        if self.workers != "auto":
            return 0, 0
        most = self.max_workers or max(os.cpu_count() or 1, self.min_workers)
        return self.min_workers, most

    @property
    def embedded(self) -> bool:
        """Whether the store is a file of this machine."""
        return self.store_url.startswith("sqlite")

    @property
    def breaker_policy(self) -> BreakerPolicy:
        """When circuit breakers open, and for how long."""
        return BreakerPolicy(
            window=self.breaker_window,
            calls=self.breaker_calls,
            failure_ratio=self.breaker_failure_ratio,
            connect_errors=self.breaker_connect_errors,
            pause=self.breaker_pause,
            longest_pause=self.breaker_longest_pause,
        )

    def vault_keys(self) -> list[str]:
        """The keys that seal stored secrets; made in the data directory at the first start."""
        if self.secret_key is not None:
            return [key.strip() for key in self.secret_key.split(",") if key.strip()]
        self.make_data_dir()
        return key_file(self.data_dir / "secret.key")

    def make_data_dir(self) -> None:
        """Make the data directory unless it is there; raises ConfigurationError when nothing can be written to it."""
        advice = "choose another with --data-dir or RINGBEARER_DATA_DIR"
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigurationError(
                f"the data directory {self.data_dir.absolute()} cannot be made: {error.strerror}; {advice}"
            ) from None
        if not os.access(self.data_dir, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"this user cannot write to the data directory {self.data_dir.absolute()}; give it to the user, "
                f"or {advice}"
            )


def load(overrides: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings; raises ConfigurationError that names the field, what was expected and where it came from.

    `overrides` may hold `config`, the path of the file to read instead of `ringbearer.toml`.
    """
    given = dict(overrides or {})
    environ = os.environ if environ is None else environ
    path = given.pop("config", None) or environ.get(_PREFIX + "CONFIG")
    layers = (
        _from_file(Path(str(path)) if path else None),
        _from_environment(environ),
        {name: (value, f"--{name.replace('_', '-')}") for name, value in given.items()},
    )
    merged: dict[str, object] = {}
    for layer in layers:
        for name, (value, source) in layer.items():
            if value != "" or name not in _FIELDS:  # what is empty is not said
                merged[name] = _convert(name, value, source)
    settings = Settings(**merged)  # type: ignore[arg-type]  # each value was converted to its field's type
    _check(settings)
    return settings


_Layer = dict[str, tuple[object, str]]
_FIELDS = {field.name: field for field in msgspec.structs.fields(Settings)}


def _from_file(path: Path | None) -> _Layer:
    chosen = path or Path(_FILE)
    if not chosen.exists():
        if path is not None:
            raise ConfigurationError(f"the configuration file {path} does not exist")
        return {}
    try:
        content = tomllib.loads(chosen.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{chosen} is not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"{chosen} cannot be read: {error.strerror}") from None
    return {name: (value, f"{name} in {chosen}") for name, value in content.items()}


def _from_environment(environ: Mapping[str, str]) -> _Layer:
    found: _Layer = {}
    for variable, value in environ.items():
        name = variable.removeprefix(_PREFIX).lower()
        if variable.startswith(_PREFIX) and name in _FIELDS:
            found[name] = (value, variable)
    return found


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Variables that look like settings and are none.

    They are not an error: orchestrators set variables of their own after a service's name.
    """
    return sorted(
        variable
        for variable in environ
        if variable.startswith(_PREFIX)
        and (name := variable.removeprefix(_PREFIX)) not in _OTHERS
        and name.lower() not in _FIELDS
    )


def _convert(name: str, value: object, source: str) -> object:
    field = _FIELDS.get(name)
    if field is None:
        known = ", ".join(sorted(_FIELDS))
        raise ConfigurationError(f"{source} is not a setting of Ringbearer; there are: {known}")
    if name == "allow_networks" and isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, Path):
        value = str(value)
    try:
        return msgspec.convert(value, field.type, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        shown = "something else" if name.endswith(("_key", "_url")) else repr(value)
        parts = [part for part in _parts(field.type) if part is not NoneType]
        words = [part for part in parts if isinstance(part, str)]
        expected = f"expected one of {', '.join(words)}" if words == parts else str(error)
        raise ConfigurationError(f"{source}: {expected}, got {shown}") from None


def _parts(kind: object) -> Iterator[object]:
    """The types that a type is made of, and the words of a Literal."""
    inner = get_args(kind)
    if not inner:
        yield kind
    for part in inner:
        yield from _parts(part)


def _decode(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    raise TypeError(f"settings have no {kind}")


def _check_proxy(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path not in {"", "/"}:
        raise ConfigurationError("proxy_url must be http://host:port or http://user:password@host:port")


def _check_otlp(url: str) -> None:
    if not _PUBLIC_URL.fullmatch(url):
        raise ConfigurationError(
            f"otlp_url must be http:// or https:// and a host, such as http://collector:4318, got {url!r}"
        )
    try:
        there = find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        there = False
    if not there:
        raise ConfigurationError(
            "otlp_url needs OpenTelemetry's exporter, which is not installed; "
            "run: pip install 'ringbearer[otel]'"
        )


def _check(settings: Settings) -> None:
    if settings.proxy_url is not None:
        _check_proxy(settings.proxy_url)
    ranges: tuple[tuple[str, float, float], ...] = (
        ("port", 0, 65_535),
        ("min_workers", 0, 256),
        ("max_workers", 1, 256),
        ("slots", 1, 20_000),
        ("sends_per_second", 0, 1_000_000),
        ("memory_limit", 0, 1_048_576),
        ("cpu_share", 0.05, 1),
        ("lease_seconds", 2, 3_600),  # a worker renews its leases each third of it, between two batches
        ("retention_days", 0.01, 36_500),
        ("cache_bytes", 8 * 1024 * 1024, 64 * 1024**3),
        ("cache_stale_seconds", 1, 86_400),
        ("warm_seconds", 0, 600),
        ("changes_per_minute", 0, 1_000_000),
        ("breaker_window", 1, 1_000),
        ("breaker_calls", 1, 1_000),
        ("breaker_failure_ratio", 0.01, 1),
        ("breaker_connect_errors", 1, 1_000),
        ("breaker_pause", 0.1, 86_400),
        ("breaker_longest_pause", 0.1, 86_400),
        ("stop_grace", 0, 3_600),
        ("metrics_port", 0, 65_535),
        ("trace_ratio", 0, 1),
    )
    for name, low, high in ranges:
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            raise ConfigurationError(f"{name} must be between {low} and {high}, got {value}")
    if settings.workers != "auto" and not 0 <= settings.workers <= 256:
        raise ConfigurationError(f"workers must be auto, or between 0 and 256, got {settings.workers}")
    if settings.max_workers is not None and settings.max_workers < settings.min_workers:
        raise ConfigurationError(
            f"max_workers must not be less than min_workers, which is {settings.min_workers}, "
            f"got {settings.max_workers}"
        )
    if settings.redis_url is not None:
        from ringbearer.redis_link import parse  # 0.15 s, which commands without Redis need not wait for

        parse(settings.redis_url)
    if settings.public_url is not None and not _PUBLIC_URL.fullmatch(settings.public_url):
        raise ConfigurationError(
            "public_url must be http:// or https:// and a host, such as https://hooks.example.com, "
            f"got {settings.public_url!r}"
        )
    if settings.otlp_url is not None:
        _check_otlp(settings.otlp_url)
    for network in settings.allow_networks:
        try:
            ip_network(network, strict=False)
        except ValueError:
            raise ConfigurationError(
                f"allow_networks: {network!r} is not a network; expected CIDRs such as 10.0.0.0/8"
            ) from None
