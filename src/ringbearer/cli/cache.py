"""Commands for the cache of endpoints: how it does, its size set anew, suppliers brought into memory."""

from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from ringbearer.cli import output
from ringbearer.cli.client import DEFAULT_CONNECTION, Connection, decode, path
from ringbearer.cli.options import Json, examples

app = App(
    name="cache",
    help="The cache of suppliers and their endpoints, as the API process that answers sees it.",
    help_epilogue=examples("ringbearer cache status", "ringbearer cache warm lumen-photo hill-barn"),
    default_parameter=Parameter(negative=()),
)


class _Tier(msgspec.Struct):
    tier: str
    hits: int
    misses: int
    evictions: int
    failures: int
    hit_ratio: float | None
    entries: int | None
    bytes: int | None
    max_entries: int | None
    mean_age: float | None
    latency_p50: float | None
    latency_p99: float | None


class _Size(msgspec.Struct):
    entries: int
    bytes: int
    miss_ratio: float | None


class _Optimization(msgspec.Struct):
    before: _Size
    after: _Size
    reason: str


class _Warmed(msgspec.Struct):
    wanted: int
    present: int
    loaded: int
    unknown: int
    left: int
    duration: float
    reason: str


class _Performance(msgspec.Struct):
    tiers: list[_Tier]
    version: int | None
    version_age: float
    trusted: bool
    lifetime: float
    last_optimization: _Optimization | None
    last_warming: _Warmed | None


class _Process(msgspec.Struct):
    kind: str
    host: str
    pid: int
    warm: bool
    hits: int
    misses: int
    entries: int
    bytes: int


class _Answer(msgspec.Struct):
    here: _Performance
    processes: list[_Process]


@app.command(help_epilogue=examples("ringbearer cache status", "ringbearer cache status --json"))
def status(*, json: Json = False, connection: Connection = DEFAULT_CONNECTION) -> None:
    """Show what each tier did in the process that answers, and how memory does in all processes."""
    with connection.open() as client:
        answer = client.get(path("cache"))
    if json:
        output.print_json(answer)
        return
    told = decode(answer, _Answer)
    found = told.here
    output.print_table(
        (
            "tier",
            "hit ratio",
            "hits",
            "misses",
            "evicted",
            "failed",
            "entries",
            "of",
            "MiB",
            "age",
            "p50",
            "p99",
        ),
        [
            (
                tier.tier,
                _share(tier.hit_ratio),
                tier.hits,
                tier.misses,
                tier.evictions,
                tier.failures,
                tier.entries,
                tier.max_entries,
                None if tier.bytes is None else f"{tier.bytes / 2**20:.1f}",
                None if tier.mean_age is None else output.span(tier.mean_age),
                _short(tier.latency_p50),
                _short(tier.latency_p99),
            )
            for tier in found.tiers
        ],
    )
    output.print_fields(
        (
            ("version", found.version),
            ("confirmed", f"{output.span(found.version_age)} ago"),
            ("believed", "yes" if found.trusted else "no: the store was away for too long"),
            ("lifetime", output.span(found.lifetime)),
            ("size", found.last_optimization.reason if found.last_optimization else None),
            ("warmed", _warmed(found.last_warming) if found.last_warming else None),
        )
    )
    output.print_table(
        ("process", "host", "pid", "warm", "hit ratio", "entries", "MiB"),
        [
            (
                process.kind,
                process.host,
                process.pid,
                "yes" if process.warm else "no",
                _share(process.hits / asked if (asked := process.hits + process.misses) else None),
                process.entries,
                f"{process.bytes / 2**20:.1f}",
            )
            for process in told.processes
        ],
    )


@app.command(help_epilogue=examples("ringbearer cache optimize"))
def optimize(*, json: Json = False, connection: Connection = DEFAULT_CONNECTION) -> None:
    """Set the size by the miss-ratio curve measured so far; done by itself once a minute."""
    with connection.open() as client:
        answer = client.send("POST", path("cache", "optimize"))
    if json:
        output.print_json(answer)
        return
    found = decode(answer, _Optimization)
    output.print_table(
        ("", "entries", "MiB", "miss ratio"),
        [
            (name, size.entries, f"{size.bytes / 2**20:.1f}", _share(size.miss_ratio))
            for name, size in (("before", found.before), ("after", found.after))
        ],
    )
    output.note(found.reason)


@app.command(
    help_epilogue=examples(
        "ringbearer cache warm",
        "ringbearer cache warm lumen-photo hill-barn",
        "ringbearer cache warm --within 5",
    )
)
def warm(
    *suppliers: Annotated[str, Parameter(help="Ids; none: those that were busiest last week and yesterday.")],
    within: Annotated[float, Parameter(help="Seconds that it may take.")] = 30.0,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Bring suppliers into memory, and into Redis for the other processes."""
    body = {"suppliers": list(suppliers) or None, "within": within}
    with connection.open() as client:
        answer = client.send("POST", path("cache", "warm"), body)
    if json:
        output.print_json(answer)
        return
    output.note(_warmed(decode(answer, _Warmed)))


def _warmed(found: _Warmed) -> str:
    parts = [f"{found.loaded} loaded", f"{found.present} were there"]
    parts += [f"{found.unknown} do not exist"] if found.unknown else []
    parts += [f"{found.left} left"] if found.left else []
    return f"{', '.join(parts)}, of {found.wanted}, in {output.span(found.duration)}: {found.reason}"


def _share(ratio: float | None) -> str | None:
    return None if ratio is None else f"{ratio:.2%}"


def _short(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"
