"""Failpoints: nothing without the variable, death at the named moment with it."""

import os
import signal
import subprocess
import sys

import pytest

from ringbearer import failpoints
from ringbearer.errors import ConfigurationError


def test_parse_counts_each_point() -> None:
    assert failpoints.parse("worker.claimed") == {"worker.claimed": 1}
    assert failpoints.parse("worker.claimed:3, publish.taken:2") == {"worker.claimed": 3, "publish.taken": 2}


@pytest.mark.parametrize(
    "text", ["nowhere", "worker.claimed:0", "worker.claimed:x", "worker.claimed:-1", ","]
)
def test_parse_refuses_what_it_does_not_know(text: str) -> None:
    with pytest.raises(ConfigurationError, match="RINGBEARER_FAILPOINT"):
        failpoints.parse(text)


def test_without_the_variable_nothing_happens() -> None:
    for point in failpoints.POINTS:
        failpoints.reach(point)


def test_with_the_variable_the_process_dies_at_that_time_and_no_earlier() -> None:
    program = (
        "from ringbearer.failpoints import reach\n"
        "for n in range(5):\n"
        "    reach('worker.sent')\n"
        "    reach('worker.claimed')\n"
        "    print(n, flush=True)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, failpoints.VARIABLE: "worker.claimed:3"},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout == b"0\n1\n"
