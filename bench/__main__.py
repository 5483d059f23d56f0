"""`python -m bench`: measure the whole system; `--quick` in a minute or two, to see that it works."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import get_args

from rich.console import Console

from bench import report
from bench.receiver import Receiver
from bench.scenarios import FULL, QUICK, run_all
from bench.system import Backend, installed
from chaos.ports import free_port


def main() -> int:
    """Measure on each database in turn."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="everything in small")
    parser.add_argument(
        "--database", choices=get_args(Backend), action="append", help="default: each in turn"
    )
    parser.add_argument("--directory", type=Path, default=None, help="on the disk that is to be measured")
    parser.add_argument("--workers", type=int, default=1, help="worker processes; default: 1")
    arguments = parser.parse_args()
    console = Console()
    backends: list[Backend] = arguments.database or list(get_args(Backend))
    for backend in backends:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.directory) as name:
            directory = Path(name)
            facts = report.machine(directory)
            console.print(
                f"{backend}: {facts['cores']} cores, {facts['processor']}, load {facts['load_average']:.1f}"
            )
            with (
                Receiver(free_port()) as receiver,
                installed(backend, directory, receiver.port, workers=arguments.workers) as system,
            ):
                figures = run_all(system, receiver, QUICK if arguments.quick else FULL, console.print)
        report.show(console, figures, backend, quick=arguments.quick)
        name = backend if arguments.workers == 1 else f"{backend}-{arguments.workers}-workers"
        console.print(f"written to {report.write(figures, name, facts, quick=arguments.quick)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
