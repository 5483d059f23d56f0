"""Ports for servers of tests and benches, each given out once among all processes of the machine that ask here.

Between the moment a port is found free and the moment its server listens, another process's server could take it. A
lock on a file stands for the port until the process that asked ends, whatever its own servers do meanwhile.
"""

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

_PORTS = range(12_000, 32_000)  # below those that outgoing connections are given
_BUS = 10_000  # a cluster node's second port is that much above its first


def free_port(*, with_bus: bool = False) -> int:
    """A port of 127.0.0.1 that is nobody else's, and of which the second port of a cluster node is."""
    while True:
        port = random.choice(_PORTS[:-_BUS] if with_bus else _PORTS)
        wanted = (port, port + _BUS) if with_bus else (port,)
        if all(_is_free(number) for number in wanted) and all(_take(number) for number in wanted):
            return port


def _is_free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


def _take(port: int) -> bool:
    directory = Path(tempfile.gettempdir()) / f"ringbearer-ports-{os.getuid()}"
    directory.mkdir(exist_ok=True)
    lock = os.open(
        directory / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    )  # open until this process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    return True
