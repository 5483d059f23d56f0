"""Every wire: a word reaches all who listen, `wake` ends a wait, and what was lost is connected anew."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaos.redis_servers import Group, one_server
from ringbearer.cache.pubsub import RedisBell
from ringbearer.cache.wire import BellWire, SilentWire, Wire
from ringbearer.queue.bell import Bell, PostgresBell, SocketBell
from ringbearer.redis_link import open_redis
from ringbearer.storage.vault import Vault, generate_key

VAULT = Vault([generate_key()])
SOON = 30.0


@pytest.fixture(params=["socket", "postgresql", "redis", "sentinel", "cluster"])
def bells(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Bell]]:
    """Makes bells of one kind that hear each other, as those of several processes do."""
    directories = iter(range(100))
    links = []

    def make() -> Bell:
        if request.param == "socket":  # one per process: here each has the name of another one
            bell = SocketBell(tmp_path, listen=True, name="config")
            os.rename(tmp_path / f"{os.getpid()}.config", tmp_path / f"{next(directories)}.config")
            return bell
        if request.param == "postgresql":
            return PostgresBell(request.getfixturevalue("postgres_url"), listen=True, name="config")
        links.append(open_redis(_redis(request), VAULT))
        return RedisBell(links[-1], name="config")

    yield make
    for link in links:
        link.close()


def _redis(request: pytest.FixtureRequest) -> str:
    if request.param == "redis":
        url: str = request.getfixturevalue("redis_url")
        return url
    group: Group = request.getfixturevalue(f"redis_{request.param}")
    return group.url


def in_a_thread(wire: Wire) -> tuple[threading.Thread, list[bool]]:
    """Someone who waits for a word."""
    heard: list[bool] = []
    thread = threading.Thread(target=lambda: heard.append(wire.wait(SOON)))
    thread.start()
    return thread, heard


def test_a_word_reaches_everybody(bells: Callable[[], Bell]) -> None:
    wires = [BellWire(bells()) for _ in range(3)]
    for wire in wires:
        wire.wait(0)  # connects
    waiting = [in_a_thread(wire) for wire in wires[1:]]
    wires[0].announce()
    for thread, heard in waiting:
        thread.join(SOON)
        assert heard == [True]
    for wire in wires:
        while wire.wait(0):
            pass
        assert wire.wait(0) is False, "a word is heard once"
        wire.close()


@pytest.mark.parametrize("silent", [True, False])
def test_a_waiting_thread_can_be_woken(tmp_path: Path, silent: bool) -> None:
    wire = SilentWire() if silent else BellWire(SocketBell(tmp_path, listen=True, name="config"))
    thread, heard = in_a_thread(wire)
    wire.wake()
    thread.join(SOON)
    assert heard == [True]
    assert wire.wait(0) is False
    wire.announce()
    wire.close()


def test_bells_of_another_name_are_not_heard(tmp_path: Path) -> None:
    work, config = (SocketBell(tmp_path, listen=True, name=name) for name in ("bell", "config"))
    wire = BellWire(config)
    work.ring()
    assert wire.wait(0) is False
    config.ring()
    assert wire.wait(0) is True
    wire.close()
    work.close()


def test_a_redis_that_goes_and_comes_is_listened_to_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringbearer.cache.pubsub._PAUSE", 0.0)
    with one_server(tmp_path) as server:
        links = [open_redis(server.url, VAULT) for _ in range(2)]
        teller, ear = (BellWire(RedisBell(link, name="config")) for link in links)
        ear.wait(0)
        server.kill()
        ear.wait(SOON)  # the broken connection is noticed at once
        teller.announce()
        assert ear.wait(0) is False
        server.start()
        ear.wait(0)
        while ear.wait(0):
            pass
        teller.announce()
        assert ear.wait(SOON) is True
        for wire in (teller, ear):
            wire.close()
        for link in links:
            link.close()
