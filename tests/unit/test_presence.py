"""A process leads while it can renew its lease, does its duties then, and only then."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.service import wait_for
from ringbearer.api.probes import Probes
from ringbearer.maintenance import presence
from ringbearer.maintenance.presence import Leadership, Presence
from ringbearer.monitor.prometheus import PrometheusMetrics
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.sqlite import SQLiteDatabase
from ringbearer.storage.vault import Vault, generate_key
from ringbearer.telemetry import Telemetry
from tools import migrated_sqlite

PATIENCE = 20.0


class Watched:
    """A duty that tells when it begins and ends."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.ended = asyncio.Event()

    def start(self) -> None:
        self.ended.clear()
        self.began.set()

    async def stop(self) -> None:
        self.began.clear()
        self.ended.set()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "_RENEW_SECONDS", 0.05)
    monkeypatch.setattr(presence, "_BEAT_SECONDS", 0.05)


def _store(path: Path) -> Storage:
    return open_storage(migrated_sqlite(path / "store.db"), Vault([generate_key()]))


@pytest.mark.usefixtures("quick")
def test_duties_move_from_a_leader_that_goes_to_the_next(tmp_path: Path) -> None:
    async def run(storage: Storage) -> None:
        duties = [Watched(), Watched()]
        first, second = (
            Leadership(nodes=storage.nodes, name="chores", holder=name, duties=[duty])
            for name, duty in zip("ab", duties, strict=True)
        )
        first.start()
        async with asyncio.timeout(PATIENCE):
            await duties[0].began.wait()
        second.start()
        assert first.leads
        assert repr(first) == "<Leadership of chores, held>"
        beats = iter(range(1_000_000))
        beaten_twice = asyncio.Event()

        def signals() -> dict[str, float]:
            if next(beats):  # asked again: what was told the first time is written down
                beaten_twice.set()
            return {"busy": 0.5}

        beating = Presence(nodes=storage.nodes, node_id="a", kind="work", signals=signals)
        beating.start()
        async with asyncio.timeout(PATIENCE):
            await beaten_twice.wait()
        (node,) = storage.nodes.alive()
        assert (node.id, node.kind, node.signals) == ("a", "work", {"busy": 0.5})
        assert not second.leads
        assert not duties[1].began.is_set()
        await first.stop()
        assert duties[0].ended.is_set()
        assert not first.leads
        await beating.stop()
        assert storage.nodes.alive() == []
        async with asyncio.timeout(PATIENCE):
            await duties[1].began.wait()
        assert storage.nodes.leader("chores") == "b"
        await second.stop()

    with _store(tmp_path) as storage:
        asyncio.run(run(storage))


@pytest.mark.usefixtures("quick")
def test_a_leader_that_cannot_renew_gives_up_before_another_can_take_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store goes away under it: nobody tells it so, and it stops by its own clock."""
    assert presence._SURE_SECONDS < presence.LEASE_SECONDS
    monkeypatch.setattr(presence, "_SURE_SECONDS", 0.5)

    async def run(storage: Storage) -> None:
        duty = Watched()
        leadership = Leadership(nodes=storage.nodes, name="chores", holder="a", duties=[duty])
        leadership.start()
        async with asyncio.timeout(PATIENCE):
            await duty.began.wait()
            with storage.database.write():  # whoever wants to write waits for this transaction
                await duty.ended.wait()
                assert not leadership.leads
            await duty.began.wait()  # it is back
        await leadership.stop()

    with _store(tmp_path) as storage:
        asyncio.run(run(storage))


@pytest.mark.usefixtures("quick")
def test_a_process_whose_store_takes_no_writes_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "_UNWRITTEN_SECONDS", 0.0)

    async def run(storage: Storage) -> None:
        beating = Presence(nodes=storage.nodes, node_id="a", kind="serve")
        metrics = PrometheusMetrics(Telemetry())
        probes = Probes(storage=storage, metrics=metrics, unwritten=beating.unwritten)

        async def ready() -> tuple[object, object]:
            sent: list[dict[str, object]] = []

            async def send(message: dict[str, object]) -> None:
                sent.append(message)

            assert await probes.answered("/health/ready", send)
            return sent[0]["status"], sent[1]["body"]

        beating.start()
        assert await ready() == (200, b'{"status":"ready"}')
        _take_writes(storage, yes=False)
        await _until(lambda: beating.unwritten() is not None)
        refused = (
            b'{"status":"unavailable","failing":{"store":"the store takes no writes; the log tells why"}}'
        )
        assert await ready() == (503, refused)
        _take_writes(storage, yes=True)
        await _until(lambda: beating.unwritten() is None)
        assert await ready() == (200, b'{"status":"ready"}')
        await beating.stop()

    with _store(tmp_path) as storage:
        asyncio.run(run(storage))


def _take_writes(storage: Storage, *, yes: bool) -> None:
    """Reading goes on, as with a disk that is full."""
    assert isinstance(storage.database, SQLiteDatabase)
    with contextlib.closing(storage.database._relaxed.raw_connection()) as connection:
        connection.cursor().execute(f"PRAGMA query_only = {int(not yes)}")


async def _until(is_so: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_for, is_so, PATIENCE, "what the test is about")
