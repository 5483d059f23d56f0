"""Commands for workers that run: how they are, how much each does at a time, and what they find out about themselves."""

import time
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from ringbearer.cli import output
from ringbearer.cli.client import DEFAULT_CONNECTION, Client, Connection, decode, path
from ringbearer.cli.options import Json, examples
from ringbearer.errors import ConfigurationError

_LOOK_SECONDS = 0.5
_ON_TOP = 15.0  # seconds that a worker may take besides what it measures for
_MEASURING = 20.0  # seconds that all sizes of a batch take

app = App(
    name="workers",
    help="The workers that run: how much each does at a time, and what it finds out about itself.",
    help_epilogue=examples("ringbearer workers list", "ringbearer workers tune --slots 2000 --couriers 2"),
    default_parameter=Parameter(negative=()),
)

Only = Annotated[str | None, Parameter(name="--worker", help="Only this one; else all that run.")]


class _Worker(msgspec.Struct):
    id: str
    host: str
    pid: int
    version: str
    couriers: int
    slots: int
    held: int
    batch: int
    cpu_share: float
    appetite: float
    draining: bool


class _Workers(msgspec.Struct):
    items: list[_Worker]


class _Answer(msgspec.Struct):
    worker: str
    result: dict[str, object] | None
    error: str | None


class _Command(msgspec.Struct):
    id: str
    workers: list[str]
    answers: list[_Answer]


@app.command(name="list", help_epilogue=examples("ringbearer workers list", "ringbearer workers list --json"))
def list_workers(*, json: Json = False, connection: Connection = DEFAULT_CONNECTION) -> None:
    """List the workers that run."""
    with connection.open() as client:
        answer = client.items(path("workers"), limit=None)
    if json:
        output.print_json(answer)
        return
    output.print_table(
        ("worker", "host", "pid", "couriers", "slots", "held", "claims", "CPU share", "appetite", ""),
        [
            (
                worker.id,
                worker.host,
                worker.pid,
                worker.couriers,
                worker.slots,
                worker.held,
                worker.batch,
                f"{worker.cpu_share:.0%}",
                f"{worker.appetite:.0%}",
                "ends" if worker.draining else "",
            )
            for worker in decode(answer, _Workers).items
        ],
    )


@app.command(
    help_epilogue=examples(
        "ringbearer workers tune --processes 3",
        "ringbearer workers tune --slots 4000 --batch 512",
        "ringbearer workers tune --cpu-share 0.5",
    )
)
def tune(
    *,
    processes: Annotated[
        int | None, Parameter(help="Worker processes, whatever the load is; 0 lets the load decide.")
    ] = None,
    couriers: Annotated[
        int | None, Parameter(help="Threads that send in each; another process usually does more.")
    ] = None,
    slots: Annotated[int | None, Parameter(help="Deliveries in flight.")] = None,
    batch: Annotated[int | None, Parameter(help="Deliveries claimed at a time, at most.")] = None,
    cpu_share: Annotated[
        float | None, Parameter(help="The part of one core that each sending thread may use.")
    ] = None,
    worker: Only = None,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Change how much workers do at a time; without --worker those that start later begin like that too."""
    given: dict[str, object] = {
        "processes": processes,
        "couriers": couriers,
        "slots": slots,
        "batch": batch,
        "cpu_share": cpu_share,
    }
    if all(value is None for value in given.values()):
        raise ConfigurationError(
            "say what is to change: --processes, --couriers, --slots, --batch or --cpu-share"
        )
    _have_done({"what": "parallelism"} | given, worker, json, connection)


@app.command(name="batch-size", help_epilogue=examples("ringbearer workers batch-size 5000"))
def batch_size(
    target: Annotated[float, Parameter(help="Deliveries a second that each worker is to reach.")],
    /,
    *,
    worker: Only = None,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Find the smallest claim that reaches a rate, by trying sizes on live traffic."""
    _have_done({"what": "batch_size", "target": target}, worker, json, connection, seconds=_MEASURING)


@app.command(
    help_epilogue=examples("ringbearer workers connections", "ringbearer workers connections --ahead")
)
def connections(
    *,
    ahead: Annotated[
        bool, Parameter(help="Also connect to the endpoints sent to last, before a peak.")
    ] = False,
    worker: Only = None,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Fit connections to the traffic, and see how often they are used again; done by itself once a minute."""
    _have_done({"what": "connections", "ahead": ahead}, worker, json, connection)


@app.command(help_epilogue=examples("ringbearer workers backoff"))
def backoff(*, worker: Only = None, json: Json = False, connection: Connection = DEFAULT_CONNECTION) -> None:
    """Fit the first pause of circuits to how long endpoints are away; done by itself once a minute."""
    _have_done({"what": "backoff"}, worker, json, connection)


@app.command(help_epilogue=examples("ringbearer workers memory"))
def memory(*, worker: Only = None, json: Json = False, connection: Connection = DEFAULT_CONNECTION) -> None:
    """Let go of what is not in use."""
    _have_done({"what": "memory"}, worker, json, connection)


@app.command(help_epilogue=examples("ringbearer workers cache"))
def cache(*, worker: Only = None, json: Json = False, connection: Connection = DEFAULT_CONNECTION) -> None:
    """Fit workers' caches to the traffic that they see; done by itself once a minute."""
    _have_done({"what": "cache"}, worker, json, connection)


@app.command(help_epilogue=examples("ringbearer workers batch 500", "ringbearer workers batch --seconds 20"))
def batch(
    size: Annotated[int, Parameter(help="Deliveries to see through.")] = 100,
    /,
    *,
    seconds: Annotated[float, Parameter(help="How long to wait for them, up to 30.")] = 5.0,
    worker: Only = None,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """Watch workers deliver so many: what they became, how fast, and how long each lane waited."""
    _have_done({"what": "batch", "size": size, "seconds": seconds}, worker, json, connection, seconds=seconds)


@app.command(
    help_epilogue=examples("ringbearer workers profile", "ringbearer workers profile --seconds 10 --json")
)
def profile(
    *,
    seconds: Annotated[float, Parameter(help="How long to watch, up to 30.")] = 2.0,
    worker: Only = None,
    json: Json = False,
    connection: Connection = DEFAULT_CONNECTION,
) -> None:
    """See what sending threads spend their time on."""
    _have_done({"what": "profile", "seconds": seconds}, worker, json, connection, seconds=seconds)


def _have_done(
    command: dict[str, object],
    worker: str | None,
    json: bool,
    connection: Connection,
    *,
    seconds: float = 0.0,
) -> None:
    with connection.open() as client:
        asked = client.send("POST", path("workers", "commands"), {"command": command, "worker": worker})
        answer = _answered(client, asked, seconds + _ON_TOP)
    if json:
        output.print_json(answer)
        return
    found = decode(answer, _Command)
    said = {each.worker: each for each in found.answers}
    for name in found.workers:
        output.print_fields((("worker", name), *_told(said.get(name))))
    if not found.workers:
        output.note("no worker runs; those that start begin like that")


def _answered(client: Client, asked: bytes, seconds: float) -> bytes:
    """The command when all have answered, or as it stands after so many seconds."""
    deadline = time.monotonic() + seconds
    answer = asked
    command = decode(answer, _Command)
    while len(command.answers) < len(command.workers) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        answer = client.get(path("workers", "commands", command.id))
        command = decode(answer, _Command)
    return answer


def _told(answer: _Answer | None) -> list[tuple[str, object]]:
    if answer is None:
        return [("answer", "none came in time")]
    if answer.result is None:
        return [("failed", answer.error)]
    return [(name.replace("_", " "), _shown(value)) for name, value in answer.result.items()]


def _shown(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(each)}" for name, each in value.items())
    if isinstance(value, list):
        return "; ".join(str(_shown(each)) for each in value)
    return value
