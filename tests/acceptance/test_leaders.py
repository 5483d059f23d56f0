"""What one process does for all moves to another when that one is killed or stands still, and never doubles."""

import signal
from pathlib import Path

import httpx
import psutil
import pytest

from chaos.ports import free_port
from chaos.service import Service, wait_for
from ringbearer.app import HOUSEKEEPING
from ringbearer.process import open_store
from ringbearer.storage.base import Storage
from ringbearer.storage.nodes import Node

_SECONDS = 30.0


def _leader(storage: Storage) -> Node | None:
    """The worker that keeps house now."""
    holder = storage.nodes.leader(HOUSEKEEPING)
    return next((node for node in storage.nodes.alive(within=3600) if node.id == holder), None)


def _kinds(storage: Storage) -> list[str]:
    return sorted(node.kind for node in storage.nodes.alive())


def _another(storage: Storage, old: Node) -> bool:
    leader = _leader(storage)
    return leader is not None and leader.id != old.id


def test_housekeeping_survives_its_leader(database_url: str | None, tmp_path: Path) -> None:
    with Service(tmp_path, database_url=database_url, workers=2) as service:
        service.start()
        with open_store(service.settings()) as storage, service.client() as client:
            beating = ["serve", "up", "work", "work"]
            wait_for(lambda: _kinds(storage) == beating, _SECONDS, "every process to beat")
            wait_for(lambda: _leader(storage) is not None, _SECONDS, "a leader")
            _fails_once_then_staged(client, "first")

            stopped = _leader(storage)
            assert stopped is not None
            psutil.Process(stopped.pid).suspend()
            try:
                wait_for(lambda: _another(storage, stopped), _SECONDS, "the lease to move")
                _fails_once_then_staged(client, "second")
            finally:
                psutil.Process(stopped.pid).resume()

            killed = _leader(storage)
            assert killed is not None
            psutil.Process(killed.pid).send_signal(signal.SIGKILL)
            wait_for(lambda: _another(storage, killed), _SECONDS, "the lease to move")
            assert killed.id not in {node.id for node in storage.nodes.alive()}  # its parent signed it off
            _fails_once_then_staged(client, "third")
        assert service.stop() == 0


def _fails_once_then_staged(client: httpx.Client, supplier: str) -> None:
    """An endpoint that nobody answers: its second attempt shows that somebody staged the delivery when it fell due."""
    client.put(f"/v1/suppliers/{supplier}", json={}).raise_for_status()
    endpoint = {"url": f"http://127.0.0.1:{free_port()}/", "retry_schedule": [1, 3600]}
    client.post(f"/v1/suppliers/{supplier}/endpoints", json=endpoint).raise_for_status()
    event = {"supplier_id": supplier, "type": "booking.confirmed", "data": {}}
    client.post("/v1/events", json=event).raise_for_status()

    def tried_twice() -> bool:
        (delivery,) = client.get("/v1/deliveries", params={"supplier_id": supplier}).json()["items"]
        return bool(delivery["attempt_count"] == 2)

    wait_for(tried_twice, _SECONDS, "a second attempt")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_processes_sign_off_when_they_end(database_url: str | None, tmp_path: Path) -> None:
    with Service(tmp_path, database_url=database_url, workers=1) as service:
        service.start()
        with open_store(service.settings()) as storage:
            wait_for(lambda: _kinds(storage) == ["serve", "up", "work"], _SECONDS, "every process to beat")
            wait_for(lambda: _leader(storage) is not None, _SECONDS, "a leader")
            assert service.stop() == 0
            assert storage.nodes.alive() == []
            assert storage.nodes.leader(HOUSEKEEPING) is None
