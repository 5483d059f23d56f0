"""Alerts of the whole service: what is wrong reaches a person, once, also over a restart; and so does its end."""

import asyncio
import json
from pathlib import Path

import httpx

from chaos.service import ADMIN_KEY, Service
from contract.test_alerting import Gateway


def test_a_missing_worker_is_told_once_over_a_restart_and_its_end_too(tmp_path: Path) -> None:
    with Gateway() as gateway, Service(tmp_path / "service", workers=0) as service:
        heartbeat = {"RINGBEARER_ALERT_HEARTBEAT_URL": f"http://{gateway.address}/alive"}
        service.start(**heartbeat)
        with httpx.Client(
            base_url=service.url, headers={"authorization": f"Bearer {ADMIN_KEY}"}, timeout=30
        ) as client:
            way = {"name": "team", "kind": "slack", "address": f"http://{gateway.address}/chat"}
            assert client.post("/v1/alert-channels", json=way).status_code == 201
            _wait(gateway, chat=1)
            (alert,) = client.get("/v1/alerts?state=firing").json()["items"]
            assert alert["rule"] == "no_worker"
        assert service.stop() == 0

        looked = gateway.paths.count("/alive")
        service.start(**heartbeat)
        _wait(gateway, alive=looked + 1)  # this one has looked, and found the same
        assert service.stop() == 0
        service.start(RINGBEARER_WORKERS="1", **heartbeat)
        _wait(gateway, chat=2)
        assert service.stop() == 0
    told = [json.loads(body)["text"] for _, path, _, body in gateway.taken if path == "/chat"]
    assert len(told) == 2
    assert told[0].startswith("[critical] Ringbearer: no_worker")
    assert told[1].startswith("[over] Ringbearer: no_worker")


def _wait(gateway: Gateway, *, chat: int = 0, alive: int = 0) -> None:
    while gateway.paths.count("/chat") < chat or gateway.paths.count("/alive") < alive:
        asyncio.run(gateway.until(len(gateway.taken) + 1))
