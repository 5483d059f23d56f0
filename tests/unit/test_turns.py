"""Turns: one writer at a time over threads and processes, and nobody waits for ever."""

import fcntl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ringbearer.errors import StoreUnavailable
from ringbearer.storage.turns import Turns

_HOLDER = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(file, fcntl.LOCK_EX)
print("holding", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.lock"


class Holder:
    """Another process that has its turn until it is told to end."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"holding\n"

    def end(self) -> None:
        self._process.communicate(b"\n")


def _free(path: Path) -> bool:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_threads_have_their_turn_one_after_the_other(path: Path) -> None:
    turns = Turns(path, patience=30)
    inside, most = 0, 0

    def write() -> None:
        nonlocal inside, most
        for _ in range(200):
            with turns.take():
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert _free(path)
    turns.close()


def test_a_turn_comes_when_another_process_ends_its_own(path: Path) -> None:
    turns = Turns(path, patience=30)
    holder = Holder(path)
    threading.Timer(0.05, holder.end).start()
    with turns.take():
        assert not _free(path)
    assert _free(path)
    turns.close()


def test_who_waits_too_long_goes_and_does_not_keep_what_comes_later(path: Path) -> None:
    turns = Turns(path, patience=0.05)
    holder = Holder(path)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="another process"), turns.take():
            pytest.fail("two have the turn")
    before = {thread for thread in threading.enumerate() if thread.name == "turn"}
    assert len(before) == 1
    holder.end()
    for thread in before:
        thread.join(30)
    assert _free(path)
    with turns.take():
        assert not _free(path)
    turns.close()


def test_who_comes_back_while_the_wait_goes_on_gets_that_turn(path: Path) -> None:
    turns = Turns(path, patience=0.05)
    holder = Holder(path)
    with pytest.raises(StoreUnavailable), turns.take():
        pytest.fail("two have the turn")
    turns._patience = 30  # the one who comes back is more patient
    threading.Timer(0.05, holder.end).start()
    with turns.take():
        assert not _free(path)
    turns.close()


def test_a_thread_that_keeps_its_turn_makes_another_one_go(path: Path) -> None:
    turns = Turns(path, patience=0.05)
    with turns.take():
        errors: list[Exception] = []

        def write() -> None:
            try:
                with turns.take():
                    pass
            except StoreUnavailable as error:
                errors.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert len(errors) == 1
    turns.close()
