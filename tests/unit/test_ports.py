"""A port is given to one process only, as long as that runs, whether or not anybody listens there yet."""

import subprocess
import sys

import pytest

from chaos import ports

_ASKS = "import sys; from chaos.ports import free_port; print(free_port(), flush=True); sys.stdin.read()"


def test_a_port_that_another_process_was_given_is_given_to_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _ASKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        monkeypatch.setattr(ports, "_PORTS", range(theirs - 30, theirs + 30))
        ours = [ports.free_port() for _ in range(10)]
    assert theirs not in ours
    assert len(set(ours)) == len(ours)
