"""How long a change takes to count elsewhere: processes that look at a supplier all the time, and one that changes it.

Each process has the cache as the service runs it. Moments are of CLOCK_MONOTONIC, which processes share.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec

from ringbearer import settings
from ringbearer.app import Services
from ringbearer.domain.suppliers import Supplier

_SUPPLIER = "watched"
_FOREVER = 30.0
_PAUSE = 0.15  # between two changes: not in step with the follower's interval


def measure(directory: Path, options: dict[str, str], *, watchers: int, changes: int) -> list[float]:
    """Seconds from each change's commit until each of the watching processes believed it, ascending."""
    environment = {f"RINGBEARER_{name.upper()}": value for name, value in options.items()}
    taken: list[float] = []
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(_watcher(environment)) for _ in range(watchers)]
        services = Services(settings.load(environ=environment), listen=False)
        stack.callback(services.close)
        services.storage.catalog.put_supplier(_named(0))
        services.cache.start()
        for child in children:
            _line(child)  # it looks
        for number in range(1, changes + 1):
            time.sleep(_PAUSE)
            services.storage.catalog.put_supplier(_named(number))
            committed = time.monotonic()
            services.cache.invalidate([_SUPPLIER])
            for child in children:
                seen, moment = _line(child).split()
                if int(seen) != number:
                    raise RuntimeError(f"saw change {seen} when {number} was to be seen")
                taken.append(float(moment) - committed)
        for child in children:
            child.terminate()
    return sorted(taken)


@contextlib.contextmanager
def _watcher(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.cache_watch", msgspec.json.encode(environment).decode()],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def _line(child: subprocess.Popen[str]) -> str:
    stream: IO[str] | None = child.stdout
    line = stream.readline() if stream is not None else ""
    if not line:
        raise RuntimeError("a watching process ended")
    return line


def _named(number: int) -> Supplier:
    now = datetime.now(UTC)
    return Supplier(id=_SUPPLIER, name=str(number), created_at=now, updated_at=now)


def _watch(environment: dict[str, str]) -> None:
    services = Services(settings.load(environ=environment), listen=False)
    services.cache.start()
    last = ""
    while True:
        found = services.cache.lookup([_SUPPLIER])[_SUPPLIER]
        name = found.supplier.name if found is not None else None
        if name is not None and name != last:
            last = name
            print(name, time.monotonic(), flush=True)
        time.sleep(0.0005)


if __name__ == "__main__":
    _watch(msgspec.json.decode(sys.argv[1], type=dict[str, str]))
