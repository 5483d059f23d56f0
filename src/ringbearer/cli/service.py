"""Commands that are the service itself: up, serve, work, migrate, doctor."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from cyclopts import App, Group, Parameter

from ringbearer.cli import output
from ringbearer.cli.options import OUTPUT, examples
from ringbearer.errors import ConfigurationError

if TYPE_CHECKING:
    from ringbearer.settings import Settings

app = App(default_parameter=Parameter(negative=()))

SETTINGS = Group(
    "Settings",
    help="Each can also be set in the environment (RINGBEARER_PORT) or in ringbearer.toml (port).",
)


@Parameter(name="*", group=SETTINGS)
@dataclass(frozen=True, kw_only=True)
class Store:
    """Settings of every command that opens the store; None is unset."""

    data_dir: Annotated[
        Path | None, Parameter(name="--data-dir", help="Directory of the database and keys.")
    ] = None
    database_url: Annotated[
        str | None,
        Parameter(name="--database-url", help="Database, such as postgresql://user@host/name."),
    ] = None
    config: Annotated[Path | None, Parameter(name="--config", help="Configuration file (TOML).")] = None


@Parameter(name="*", group=SETTINGS)
@dataclass(frozen=True, kw_only=True)
class Running(Store):
    """Settings of the commands that keep running; None is unset."""

    host: Annotated[str | None, Parameter(name="--host", help="Address to listen on.")] = None
    port: Annotated[int | None, Parameter(name="--port", help="Port to listen on.")] = None
    allow_networks: Annotated[
        list[str] | None,
        Parameter(
            name="--allow-networks",
            help="Private networks (CIDR, comma-separated or repeated) that deliveries may reach.",
        ),
    ] = None
    log_format: Annotated[
        Literal["json", "pretty"] | None, Parameter(name="--log-format", help="How log lines are written.")
    ] = None


@Parameter(name="*", group=SETTINGS)
@dataclass(frozen=True, kw_only=True)
class Everything(Running):
    """Settings of `up`; None is unset."""

    workers: Annotated[
        int | Literal["auto"] | None,
        Parameter(name="--workers", help="Worker processes; auto: as many as the load needs."),
    ] = None


@app.command(
    help_epilogue=examples(
        "ringbearer up",
        "ringbearer up --data-dir /var/lib/ringbearer --workers 4",
        "ringbearer up --database-url postgresql://ringbearer@db/ringbearer --log-format json",
    )
)
def up(*, options: Everything = Everything()) -> None:
    """Run everything on this machine: API and workers, until interrupted."""
    from ringbearer import supervisor

    supervisor.up(_settings(options))


@app.command(
    help_epilogue=examples(
        "ringbearer serve --host 0.0.0.0 --port 8200", "ringbearer serve --config /etc/ringbearer.toml"
    )
)
def serve(*, options: Running = Running()) -> None:
    """Run the HTTP API until interrupted; any number may run on one database."""
    from ringbearer.api import server

    server.serve(_settings(options))


@app.command(
    help_epilogue=examples(
        "ringbearer work --database-url postgresql://ringbearer@db/ringbearer",
        "ringbearer work --allow-networks 10.0.0.0/8,192.168.0.0/16",
    )
)
def work(*, options: Running = Running()) -> None:
    """Run one worker, which delivers, until interrupted; any number may run on one database."""
    from ringbearer.worker import work as run

    run(_settings(options))


@app.command(
    help_epilogue=examples(
        "ringbearer migrate", "ringbearer migrate --database-url postgresql://ringbearer@db/ringbearer"
    )
)
def migrate(*, options: Store = Store()) -> None:
    """Bring the database's tables to this version, keeping what is in them."""
    from ringbearer import process

    process.migrate(_settings(options))
    output.note("the tables are up to date")


@app.command(
    help_epilogue=examples("ringbearer doctor", "ringbearer doctor --config /etc/ringbearer.toml --json")
)
def doctor(
    *,
    json: Annotated[bool, Parameter(name="--json", group=OUTPUT, help="Print the findings as JSON.")] = False,
    options: Running = Running(),
) -> int:
    """Check the configuration and say what is wrong; the exit status is 1 when something is."""
    from ringbearer.doctor import examine

    findings = examine(_settings(options))
    if json:
        rows = [{"level": f.level, "subject": f.subject, "detail": f.detail} for f in findings]
        output.print_json(msgspec.json.encode(rows))
    else:
        output.print_table(("level", "subject", "detail"), [(f.level, f.subject, f.detail) for f in findings])
    return int(any(finding.level == "error" for finding in findings))


@app.command(help_epilogue=examples("ringbearer bench --quick", "ringbearer bench --database sqlite"))
def bench(
    *,
    quick: Annotated[
        bool, Parameter(name="--quick", help="Everything in small, to see that it works.")
    ] = False,
    database: Annotated[
        Literal["sqlite", "postgresql"] | None, Parameter(name="--database", help="Default: each in turn.")
    ] = None,
) -> int:
    """Measure the whole system on this machine; needs the source tree and what `make test` installs."""
    if not Path("bench/__main__.py").is_file():
        raise ConfigurationError("there is no bench/ here: run this in Ringbearer's source tree")
    arguments = [*(["--quick"] if quick else []), *(["--database", database] if database else [])]
    return subprocess.run([sys.executable, "-m", "bench", *arguments], check=False).returncode  # noqa: S603


def rotate_encryption(*, options: Store = Store()) -> None:
    """Encrypt all stored secrets anew with the first encryption key."""
    from ringbearer import process

    count = process.rotate_encryption(_settings(options))
    output.note(f"{count} secrets encrypted anew")


def overrides(options: Store) -> dict[str, object]:
    """The options that were given, by the name of their setting."""
    given: dict[str, object] = {name: value for name, value in vars(options).items() if value is not None}
    if isinstance(options, Running) and options.allow_networks is not None:
        given["allow_networks"] = tuple(
            network.strip()
            for text in options.allow_networks
            for network in text.split(",")
            if network.strip()
        )
    return given


def _settings(options: Store) -> "Settings":
    from ringbearer import settings

    return settings.load(overrides(options))
