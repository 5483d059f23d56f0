"""Workers come and go by themselves, and whatever happens to them meanwhile, every promise is kept."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from chaos.run import PATIENT, Rig
from chaos.service import Service, signal_pid, wait_for
from ringbearer.process import open_store

_SECONDS = 40.0


@pytest.fixture
def rig(database_url: str | None, tmp_path: Path) -> Iterator[Rig]:
    with Rig(
        tmp_path / "rig",
        database_url=database_url,
        workers="auto",
        max_workers=3,
        timeout=PATIENT,
    ) as opened:
        yield opened


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_workers_that_come_go_hang_and_die_break_no_promise(rig: Rig) -> None:
    """I1–I5: started, drained, killed while draining, stopped and killed, while traffic flows."""
    service = rig.service
    service.start()
    rig.set_up()
    with service.client() as client, rig.traffic(seed=5, pause=0.02):

        def workers(number: int) -> list[int]:
            client.patch("/v1/scaling", json={"fixed": number}).raise_for_status()
            wait_for(lambda: len(service.pids("work")) == number, _SECONDS, f"{number} workers")
            return service.pids("work")

        workers(3)
        wait_for(
            lambda: client.get("/v1/scaling").json()["current_workers"] == 3, _SECONDS, "three to be ready"
        )
        rig.grows(20)
        left = workers(1)
        assert rig.failures() == {}  # the two that left did so in order
        rig.grows(20)
        grown = workers(3)
        assert set(left) < set(grown)  # the oldest stayed, with its warm cache
        rig.grows(20)
        killed, hanging = (pid for pid in grown if pid not in left)
        assert signal_pid(killed, signal.SIGKILL)
        wait_for(lambda: len(set(service.pids("work")) - {killed}) == 3, _SECONDS, "another in its place")
        psutil.Process(hanging).suspend()
        workers_now = client.patch("/v1/scaling", json={"fixed": 1})
        workers_now.raise_for_status()
        rig.grows(20)
        assert signal_pid(hanging, signal.SIGKILL)  # while it is being drained
        wait_for(lambda: service.pids("work") == left, _SECONDS, "one worker to be left")
        rig.grows(20)
    rig.drain()
    verdict = rig.judge(workers_lost=2)
    assert verdict.violations == []
    assert (verdict.lost, verdict.pending) == (0, 0)
    assert verdict.accepted > 0


def test_the_number_follows_the_load(database_url: str | None, tmp_path: Path) -> None:
    """Deliveries that hang hold all slots of a worker: a second one is started by itself, and delivers."""
    with Service(tmp_path, database_url=database_url, workers="auto", max_workers=2, slots=4) as service:
        service.start()
        with open_store(service.settings()) as storage, service.client() as client:
            assert len(service.pids("work")) == 1
            wait_for(lambda: storage.scaling.latest() is not None, _SECONDS, "a first decision")
            client.patch("/v1/scaling", json={"drain_seconds": [1, 1, 1, 1]}).raise_for_status()
            client.put("/v1/suppliers/lumen", json={}).raise_for_status()
            with _Hanging() as port:
                endpoint = {"url": f"http://127.0.0.1:{port}/", "timeout": 30}
                client.post("/v1/suppliers/lumen/endpoints", json=endpoint).raise_for_status()
                event = {"supplier_id": "lumen", "type": "booking.confirmed", "data": {}}
                client.post("/v1/events/batch", json=[event] * 200).raise_for_status()
                wait_for(lambda: len(service.pids("work")) == 2, _SECONDS, "a second worker")
                wait_for(
                    lambda: (
                        all(n.signals.get("held") for n in storage.nodes.alive() if n.kind == "work")
                        and storage.nodes.working() == 2
                    ),
                    _SECONDS,
                    "both to deliver",
                )
            found = client.get("/v1/scaling").json()
            assert found["desired_workers"] == 2
            processes = client.get("/v1/scaling/resources").json()["processes"]
            assert sorted(each["kind"] for each in processes) == ["serve", "up", "work", "work"]
            assert all(each["signals"]["memory"] > 1e6 for each in processes)
            metrics = client.get("/metrics").text
            assert "ringbearer_workers_wanted 2.0" in metrics
            record = client.get("/v1/scaling/decisions").json()["items"]
            grown = next(item for item in record if item["desired"] == 2)
            assert grown["inputs"]["backlog"][2] > 0
        service.stop()


class _Hanging:
    """Takes connections and never answers; the port."""

    def __init__(self) -> None:
        import socket

        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)

    def __enter__(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        self._socket.close()
