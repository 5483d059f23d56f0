"""`python -m chaos`: break things for some minutes; exit status 1 when a promise was not kept."""

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from chaos.databases import postgres_server
from chaos.redis_servers import cluster_servers, sentinel_servers, single_server
from chaos.run import Plan, Report, run

_REDIS = {"single": single_server, "sentinel": sentinel_servers, "cluster": cluster_servers}
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run, print, write down."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long things are broken (default 1)")
    parser.add_argument("--seed", type=int, default=None, help="what decides everything (default: a new one)")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument(
        "--redis",
        choices=sorted(_REDIS),
        default=None,
        help="run with Redis, and break it (default: without)",
    )
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default 2)")
    parser.add_argument("--keep", type=Path, default=None, help="a directory to keep journals and logs in")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    console = Console()
    console.print(f"seed {seed}, {arguments.database}, {arguments.minutes:g} minutes")
    with contextlib.ExitStack() as stack:
        directory = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        directory = directory.absolute()
        directory.mkdir(parents=True, exist_ok=True)
        postgres = redis = None
        if arguments.database == "postgresql":
            postgres = stack.enter_context(postgres_server(directory / "postgres"))
        if arguments.redis is not None:
            redis = stack.enter_context(_REDIS[arguments.redis](directory / "redis"))
        plan = Plan(
            seed=seed,
            seconds=arguments.minutes * 60,
            database_url=postgres.url if postgres is not None else None,
            workers=arguments.workers,
        )
        report = run(
            plan,
            directory / "run",
            lambda line: console.print(line, highlight=False),
            postgres=postgres,
            redis=redis,
        )
        backend = arguments.database + (f"+{arguments.redis}" if arguments.redis is not None else "")
        _show(console, report, backend)
        written = _write(report, backend, directory / "run")
        console.print(f"written to {written}", highlight=False, soft_wrap=True)
    return 1 if report.verdict.violations else 0


def _show(console: Console, report: Report, database: str) -> None:
    verdict = report.verdict
    table = Table(title=f"chaos, seed {report.plan.seed}, {database}")
    table.add_column("what")
    table.add_column("", justify="right")
    for name, value in (
        ("events tried", verdict.tried),
        ("accepted", verdict.accepted),
        ("answers that never came", verdict.unknown),
        ("repetitions recognised", verdict.repeated),
        ("deliveries delivered", verdict.delivered),
        ("dead letters", verdict.dead),
        ("requests at the receiver", verdict.requests),
        ("duplicates after a 2xx", f"{verdict.duplicates} (allowed {verdict.duplicates_allowed})"),
        ("lost", verdict.lost),
        ("processes killed", report.killed),
        ("leases recovered", report.recovered),
        ("seconds to drain", report.drain_seconds),
        ("times the index in Redis was made anew", report.rebuilds),
        ("… seconds, the slowest", report.rebuild_seconds),
        *sorted(report.deeds.items()),
    ):
        table.add_row(name, str(value))
    console.print(table)
    for line in verdict.violations:
        console.print(f"[red]VIOLATION[/red] {line} (seed {report.plan.seed})", highlight=False)


def _write(report: Report, database: str, journals: Path) -> Path:
    """Keep the report, and when a promise was not kept, what everybody wrote down."""
    RESULTS.mkdir(exist_ok=True)
    plan = msgspec.structs.replace(report.plan, database_url=None)
    content = msgspec.to_builtins(msgspec.structs.replace(report, plan=plan))
    stamp = datetime.now(UTC)
    document = {"at": stamp.isoformat(timespec="seconds"), "database": database, **content}
    path = RESULTS / f"{stamp:%Y-%m-%dT%H%M%S}-{database}-{report.plan.seed}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    if report.verdict.violations:
        shutil.copytree(journals, path.with_suffix(""), ignore=_sockets)
    return path


def _sockets(directory: str, names: list[str]) -> list[str]:
    """What cannot be copied."""
    return [name for name in names if Path(directory, name).is_socket()]


if __name__ == "__main__":
    sys.exit(main())
