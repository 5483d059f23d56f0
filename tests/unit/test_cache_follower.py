"""The follower steps at once when something changed, survives a step that fails, and gathers changes that come thick."""

import logging
import threading

import pytest

from ringbearer.cache.follower import Follower
from ringbearer.cache.wire import SilentWire

SOON = 30.0


class Steps:
    """Counts the steps, each of which somebody can wait for; those that are told to fail do."""

    def __init__(self) -> None:
        self.done = 0
        self.failing = False
        self._changed = threading.Condition()

    def __call__(self) -> None:
        with self._changed:
            self.done += 1
            self._changed.notify_all()
        if self.failing:
            raise RuntimeError("for the test")

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.done >= count, SOON)


class Announced(SilentWire):
    """Counts what is announced."""

    def __init__(self) -> None:
        super().__init__()
        self.words = 0

    def announce(self) -> None:
        self.words += 1


def test_it_steps_at_once_and_whenever_something_changed_here() -> None:
    steps, wire = Steps(), Announced()
    follower = Follower(steps, wire, interval=600)
    follower.tell()  # before it runs: told when it does
    follower.start()
    steps.wait_for(1)
    for number in (2, 3):
        follower.tell()
        steps.wait_for(number)
    assert "running" in repr(follower)
    follower.stop()
    assert "stopped" in repr(follower)
    assert wire.words == 3


def test_it_looks_for_itself_when_nobody_says_anything() -> None:
    steps = Steps()
    follower = Follower(steps, SilentWire(), interval=0.001)
    follower.start()
    steps.wait_for(5)
    follower.stop()


def test_a_step_that_fails_is_logged_once_until_one_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    steps = Steps()
    follower = Follower(steps, SilentWire(), interval=0.001)
    with caplog.at_level(logging.WARNING):
        steps.failing = True
        follower.start()
        steps.wait_for(5)
        assert len(caplog.records) == 1
        steps.failing = False
        steps.wait_for(steps.done + 3)
        steps.failing = True
        steps.wait_for(steps.done + 3)
    follower.stop()
    assert [record.getMessage() for record in caplog.records] == [
        "the cache cannot follow the store, and tries on: for the test"
    ] * 2


def test_one_that_never_ran_can_be_stopped() -> None:
    Follower(Steps(), SilentWire(), interval=1).stop()


def test_what_was_changed_last_is_told_before_it_ends() -> None:
    steps, wire = Steps(), Announced()
    follower = Follower(steps, wire, interval=600)
    follower._stopping.set()  # somebody changes something between the last step and the end
    follower.tell()
    follower.start()
    follower.stop()
    assert (steps.done, wire.words) == (0, 1)
