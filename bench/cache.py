"""`python -m bench.cache`: the cache on the month's traffic, beside a plain LRU and Redis alone; in some six minutes; `--quick` in one.

One trace goes through all of them in the same run: 2,847 suppliers by Zipf's law, Saturdays, changes of endpoints, and
a worker that starts cold each Saturday. Then latencies of each tier, a cold worker, and how long changes take.
"""

import argparse
import asyncio
import contextlib
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, event

from bench import cache_watch
from bench.cache_rivals import PlainLru, RedisOnly, lru_misses, s3_fifo_misses
from bench.cache_trace import CHANGES_PER_DAY, FULL, QUICK, Size, Step, name, trace
from bench.report import RESULTS, machine
from chaos.redis_servers import one_server
from chaos.service import postgres
from ringbearer import ids
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.cache.redis import RedisTier
from ringbearer.domain.endpoints import Endpoint
from ringbearer.domain.suppliers import Supplier
from ringbearer.redis_link import open_redis
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.vault import Vault, generate_key

_BATCH = 100
_CHANGE_RATES = (0.001, 0.01, 0.1)  # of configurations, each day
_POLICIES = (0.05, 0.1, 0.25, 0.5, 0.9, 1.0)  # of the suppliers, as the size of a cache

Figures = dict[str, float]


class Bench:
    """The store, the Redis and the trace that all of them share."""

    def __init__(self, storage: Storage, redis_url: str, vault: Vault, size: Size) -> None:
        self.storage, self.redis_url, self.vault, self.size = storage, redis_url, vault, size
        self.statements = 0
        event.listen(Engine, "before_cursor_execute", self._count)

    def _count(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        self.statements += not statement.startswith(("BEGIN", "PRAGMA"))

    def cache(self) -> WebhookCacheManager:
        """One process's cache, following nobody: the trace says when it looks."""
        made = WebhookCacheManager(
            catalog=self.storage.catalog,
            heat=self.storage.heat,
            shared=RedisTier(open_redis(self.redis_url, self.vault)),
        )
        made.refresh()
        return made

    def fill(self) -> None:
        """The suppliers, each with one to three endpoints."""
        for number in range(self.size.suppliers):
            self.change(name(number))
            for _ in range(1 + number % 3):
                now = datetime.now(UTC)
                endpoint = Endpoint(
                    id=ids.endpoint(),
                    supplier_id=name(number),
                    url=f"https://hooks.example/{number}",
                    event_types=("booking.*", "payment.received"),
                    created_at=now,
                    updated_at=now,
                )
                self.storage.catalog.add_endpoint(endpoint, "whsec_" + "A" * 32)

    def change(self, supplier_id: str) -> int:
        """Change a supplier; returns the version that this took."""
        now = datetime.now(UTC)
        supplier = Supplier(id=supplier_id, name=supplier_id, created_at=now, updated_at=now)
        self.storage.catalog.put_supplier(supplier)
        return self.storage.catalog.version()

    def steps(self, changes_per_day: float = CHANGES_PER_DAY) -> Iterator[Step]:
        """The trace."""
        return trace(self.size, _BATCH, changes_per_day=changes_per_day)


def ours(bench: Bench, changes_per_day: float = CHANGES_PER_DAY) -> Figures:
    """The trace through two processes: one that makes the changes, and a worker that is new each Saturday.

    Queries are those that deliveries and changes cause. Each process asks for the version twice a second besides,
    however many deliveries there are.
    """
    api, worker = bench.cache(), bench.cache()
    newest: dict[str, int] = {}
    asked = hits = from_store = stale = deliveries = statements = 0
    retired: list[WebhookCacheManager] = []
    began = time.process_time()
    for day, steps in itertools.groupby(bench.steps(changes_per_day), key=lambda step: step.day):
        if day % 7 == 5:  # a peak begins: one more worker, which knows nothing
            retired.append(worker)
            worker = bench.cache()
        for step in steps:
            before = bench.statements
            found = worker.lookup(step.suppliers)
            statements += bench.statements - before
            deliveries += len(step.suppliers)
            stale += sum(v is not None and v.version < newest.get(k, 0) for k, v in found.items())
            for key in step.changed:
                newest[key] = bench.change(key)
                api.invalidate([key])
                before = bench.statements
                api.refresh()
                worker.refresh()
                statements += bench.statements - before
    seconds = time.process_time() - began
    for cache in (*retired, worker):
        memory, _, store = cache.figures()
        asked += memory.hits + memory.misses
        hits += memory.hits
        from_store += store.hits
    for cache in (*retired, worker, api):
        cache.close()
    return {
        "ours.deliveries": deliveries,
        "ours.l1_hit_ratio": hits / asked,
        "ours.l1_l2_hit_ratio": 1 - from_store / asked,
        "ours.queries_per_1000": 1000 * statements / deliveries,
        "ours.stale": stale,
        "ours.cpu_us_per_delivery": seconds * 1e6 / deliveries,
    }


def sensitivity(bench: Bench) -> Figures:
    """What the same trace comes to when configurations change less or more than is assumed, from an empty Redis."""
    found: Figures = {}
    for share in _CHANGE_RATES:
        with contextlib.closing(open_redis(bench.redis_url, bench.vault)) as link:
            link.client.flushall()
        figures = ours(bench, share)
        for figure in ("l1_hit_ratio", "l1_l2_hit_ratio", "queries_per_1000", "stale"):
            found[f"{share:.1%}_change_daily.{figure}"] = figures[f"ours.{figure}"]
    return found


def rivals(bench: Bench) -> Figures:
    """The same trace through a plain LRU that is emptied each Saturday, and through Redis alone."""
    found: Figures = {}
    with contextlib.closing(open_redis(bench.redis_url, bench.vault)) as link:
        plain = PlainLru(bench.storage.catalog, 20_000)
        shared = RedisOnly(bench.storage.catalog, link.client)  # type: ignore[arg-type]  # a single server
        for label, rival in (("plain_lru", plain), ("redis_only", shared)):
            deliveries, seen, before = 0, -1, bench.statements
            began, changing = time.process_time(), 0.0
            for step in bench.steps():
                if rival is plain and step.day != seen and step.day % 7 == 5:
                    plain.cache.clear()
                seen = step.day
                rival.lookup(step.suppliers)
                deliveries += len(step.suppliers)
                paused, statements = time.process_time(), bench.statements
                for key in step.changed:
                    rival.newest[key] = bench.change(key)
                changing += time.process_time() - paused
                before += bench.statements - statements
            found |= {
                f"{label}.hit_ratio": 1 - rival.missed / rival.asked,
                f"{label}.queries_per_1000": 1000 * (bench.statements - before) / deliveries,
                f"{label}.stale": rival.stale,
                f"{label}.cpu_us_per_delivery": (time.process_time() - began - changing) * 1e6 / deliveries,
            }
    return found


def latencies(bench: Bench, rounds: int) -> Figures:
    """What one look into each tier takes, seen by who looks."""
    with contextlib.closing(bench.cache()) as cache:
        everybody = [name(number) for number in range(bench.size.suppliers)]
        cache.lookup(everybody)
        keys = list(itertools.islice(itertools.cycle(everybody), rounds))
        link = open_redis(bench.redis_url, bench.vault)
        with contextlib.closing(RedisTier(link)) as shared:
            shared.follow(bench.storage.catalog.version(), lambda _: ())
            version = bench.storage.catalog.version()
            peeks = _timed(cache.peek, keys)
            single = _timed(lambda key: shared.read([key], version=version), keys[: rounds // 20])
            batches = [keys[n : n + _BATCH] for n in range(0, rounds // 5, _BATCH)]
            many = _timed(lambda batch: shared.read(batch, version=version), batches)
            stored = _timed(lambda key: bench.storage.catalog.snapshot([key]), keys[: rounds // 100])
    found: Figures = {}
    for label, taken in (("l1", peeks), ("l2", single), ("l2_batch", many), ("l3", stored)):
        for share in (0.5, 0.99):
            found[f"latency.{label}_p{share * 100:.0f}_us"] = taken[int(len(taken) * share)] * 1e6
    return found


def cold(bench: Bench) -> Figures:
    """A new worker's time until it answers 95 of 100 from memory: by itself, warmed from Redis, and from the store."""
    found: Figures = {}
    last_saturday = [step.suppliers for step in bench.steps() if step.day == 19]
    busiest = sorted(itertools.chain(*last_saturday))
    hottest = [
        key
        for key, _ in sorted(((k, -len(list(g))) for k, g in itertools.groupby(busiest)), key=lambda i: i[1])
    ]
    coming = [step.suppliers for step in bench.steps() if step.day == 26]
    with contextlib.closing(bench.cache()) as cache:
        found["cold.unwarmed_first_1000"] = _hit_ratio(cache, coming[:10])
    with contextlib.closing(bench.cache()) as cache:
        found |= _warmed("redis", cache, hottest, coming)
    with contextlib.closing(open_redis(bench.redis_url, bench.vault)) as link:
        link.client.flushall()
    with contextlib.closing(bench.cache()) as cache:
        found |= _warmed("store", cache, hottest, coming)
    return found


def policies(bench: Bench) -> Figures:
    """Miss ratios of two policies at sizes that do not hold everybody, and how well SHARDS foretells that of LRU."""
    references = [key for step in itertools.islice(bench.steps(), 3_000) for key in step.suppliers]
    found: Figures = {}
    with contextlib.closing(bench.cache()) as cache:
        cache.lookup(sorted(set(references)))
        for key in references:
            cache.peek(key)
            if len(cache._reader.seen) > 10_000:
                cache._tuner.watch()
        curve = asyncio.run(cache.optimize_cache_hit_ratio()).curve
    for share in _POLICIES:
        entries = int(share * bench.size.suppliers)
        label = f"policy.{share:.0%}".rstrip("%")
        exact = lru_misses(references, entries)
        found |= {
            f"{label}_lru_misses": exact,
            f"{label}_s3_fifo_misses": s3_fifo_misses(references, entries),
            f"{label}_shards_error": abs(curve.miss_ratio(entries) - exact),
        }
    return found


def propagation(directory: Path, redis_url: str, changes: int) -> Figures:
    """From the commit of a change until two other processes believe it."""
    found: Figures = {}
    common = {"config": "", "log_level": "error", "secret_key": generate_key()}
    with postgres(directory / "postgres") as database_url:
        for label, options in (
            ("sqlite", {"data_dir": str(directory / "sqlite")}),
            ("postgresql", {"data_dir": str(directory / "one"), "database_url": database_url}),
            (
                "postgresql_redis",
                {"data_dir": str(directory / "two"), "database_url": database_url, "redis_url": redis_url},
            ),
            (
                "unheard",  # no LISTEN and no Redis: only the look at the version
                {
                    "data_dir": str(directory / "one"),
                    "database_url": database_url,
                    "database_prepare": "false",
                },
            ),
        ):
            Path(options["data_dir"]).mkdir(exist_ok=True)
            url = options.get("database_url", f"sqlite:///{options['data_dir']}/ringbearer.db")
            with open_storage(url, Vault([common["secret_key"]])) as storage:
                storage.migrate()
            taken = cache_watch.measure(directory, common | options, watchers=2, changes=changes)
            for share in (0.5, 0.99):
                found[f"change.{label}_p{share * 100:.0f}_ms"] = taken[int(len(taken) * share)] * 1e3
            found[f"change.{label}_most_ms"] = taken[-1] * 1e3
    return found


def _warmed(label: str, cache: WebhookCacheManager, hottest: list[str], coming: list[list[str]]) -> Figures:
    began = time.perf_counter()
    cache._warm(hottest, why="for the bench", within=60, urgent=True)
    return {
        f"cold.{label}_seconds": time.perf_counter() - began,
        f"cold.{label}_first_1000": _hit_ratio(cache, coming[:10]),
    }


def _hit_ratio(cache: WebhookCacheManager, batches: Sequence[list[str]]) -> float:
    before = cache.figures()[0]
    for batch in batches:
        cache.lookup(batch)
    after = cache.figures()[0]
    hits = after.hits - before.hits
    return hits / (hits + after.misses - before.misses)


def _timed(
    look: Callable[[str], object] | Callable[[list[str]], object], keys: Sequence[object]
) -> list[float]:
    taken = []
    for key in keys:
        began = time.perf_counter()
        look(key)  # type: ignore[arg-type]  # callers pair them
        taken.append(time.perf_counter() - began)
    return sorted(taken)


_TARGETS: dict[str, tuple[str, float]] = {
    "ours.l1_l2_hit_ratio": (">=", 0.99),
    "ours.queries_per_1000": ("<", 5),
    "ours.stale": ("<=", 0),
    "latency.l1_p99_us": ("<", 10),
    "latency.l2_p99_us": ("<", 2_000),
    "cold.redis_seconds": ("<", 2),
    "cold.redis_first_1000": (">=", 0.95),
    "cold.store_seconds": ("<", 2),
    "cold.store_first_1000": (">=", 0.95),
    **{
        f"change.{label}_p99_ms": ("<", 1_000)
        for label in ("sqlite", "postgresql", "postgresql_redis", "unheard")
    },
}


def show(console: Console, title: str, figures: Figures, *, quick: bool) -> None:
    """Print the table."""
    table = Table(title=f"The cache: {title}" + (" (quick: too short to be quoted)" if quick else ""))
    for column in ("figure", "measured", "target"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for figure, value in figures.items():
        sign, bound = _TARGETS.get(figure, ("", 0.0))
        met = {"": None, ">=": value >= bound, "<": value < bound, "<=": value <= bound}[sign]
        color = "" if met is None else "[green]" if met else "[red]"
        table.add_row(figure, f"{color}{value:,.4g}", f"{sign} {bound:g}" if sign else "")
    console.print(table)


def main() -> int:
    """Measure, print, and keep the figures in a dated file."""
    parser = argparse.ArgumentParser(prog="python -m bench.cache", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="everything in small")
    quick: bool = parser.parse_args().quick
    size, console = (QUICK if quick else FULL), Console()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        facts = machine(directory)
        redis = stack.enter_context(one_server(directory / "redis"))
        vault = Vault([generate_key()])
        storage = stack.enter_context(open_storage(f"sqlite:///{directory / 'store.db'}", vault))
        storage.migrate()
        bench = Bench(storage, redis.url, vault, size)
        bench.fill()
        figures: Figures = {}
        parts: dict[str, Callable[[], Figures]] = {
            "a month": lambda: ours(bench),
            "rivals": lambda: rivals(bench),
            "latencies": lambda: latencies(bench, 20_000 if quick else 400_000),
            "policies": lambda: policies(bench),
            "a cold worker": lambda: cold(bench),
            "changes, in processes": lambda: propagation(directory, redis.url, 20 if quick else 100),
            "how often configurations change": lambda: sensitivity(bench),
        }
        for title, part in parts.items():
            measured = part()
            show(console, title, measured, quick=quick)
            figures |= measured
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": facts,
        "figures": {figure: round(value, 6) for figure, value in figures.items()},
    }
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-cache{'-quick' if quick else ''}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    console.print(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
