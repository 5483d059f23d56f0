"""The command `ringbearer`: finds the command's module, runs it, and turns errors into sentences."""

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from ringbearer import __version__
from ringbearer.cli import service
from ringbearer.cli.options import examples
from ringbearer.errors import RingbearerError, StoreUnavailable

EXIT_FAILED = 1
EXIT_USAGE = 2

app = App(
    name="ringbearer",
    help="Webhook delivery: events in, signed webhooks out, at least once, even on the busiest day.",
    help_epilogue=examples(
        "ringbearer up",
        "ringbearer suppliers put lumen-photo --timezone Europe/Paris",
        "ringbearer endpoints create lumen-photo https://lumen.example/hooks",
        "ringbearer publish --supplier lumen-photo --type booking.confirmed --data '{\"booking\":7}'",
        "ringbearer deliveries list --state dead",
    ),
    version=__version__,
    default_parameter=Parameter(negative=()),
)

app.command(service.app, name="*")

# Given as text: a family's module is imported when one of its commands runs, not when `ringbearer` starts.
for _module, _name, _help in (
    ("suppliers", "suppliers", "Those who are told: the tenants."),
    ("endpoints", "endpoints", "Where and how a supplier wants to be told."),
    ("shapes", "shapes", "How events looked in older versions."),
    ("events", "publish", "Hand over one event, or a file of them."),
    ("deliveries", "deliveries", "What became of each event at each endpoint."),
    ("cache", "cache", "The cache of suppliers and their endpoints."),
    ("workers", "workers", "The workers that run, and how much each does at a time."),
    ("report", "report", "A month's deliveries and service levels."),
    ("slos", "slos", "What is promised of deliveries, and how it is kept."),
    ("alerts", "alerts", "What is wrong, and who is told of it."),
    ("keys", "keys", "Keys to the API, and the key under which secrets are kept."),
    ("forecast", "forecast", "What is to come: deliveries by day and hour."),
    ("order:queue", "queue", "How the lanes stand, what the queue follows, and what limits it."),
    ("order:priorities", "priorities", "The rules that choose lanes, and the weights of tiers."),
    ("order:season", "season", "What changes by itself in the season and on its peak days."),
    ("order:calendar", "calendar", "The coming peak days."),
    ("receive", "receive", "Receive webhooks while developing, and check their signatures."),
    ("demo", "demo", "A wedding day in a minute: service, receivers and a failure."),
):
    _file, _, _variable = _module.partition(":")
    app.command(f"ringbearer.cli.{_file}:{_variable or 'app'}", name=_name, help=_help)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 done, 1 failed, 2 wrongly called, 130 interrupted."""
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except CycloptsError:
        return EXIT_USAGE
    except RingbearerError as error:
        print(f"ringbearer: {error}", file=sys.stderr)
        for pointer, message in getattr(error, "problems", ()):
            print(f"  {pointer}: {message}", file=sys.stderr)
        if isinstance(error, StoreUnavailable):
            print(
                "  is it running, and RINGBEARER_DATABASE_URL right? ringbearer doctor looks", file=sys.stderr
            )
        return EXIT_FAILED
    except BrokenPipeError:
        # The reader of a pipe has seen enough; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


def _run(arguments: Sequence[str]) -> int:
    status: object = app(
        list(arguments), exit_on_error=False, result_action="return_int_as_exit_code_else_zero"
    )
    return status if isinstance(status, int) else 0
