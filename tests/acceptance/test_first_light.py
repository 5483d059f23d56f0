"""First light: the whole service as processes, over real HTTP, from its start to its end and once again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from standardwebhooks import Webhook

from chaos.service import Service, wait_for
from ringbearer.testing import Received, Receiver

_ARRIVAL_SECONDS = 20.0


def test_an_event_is_delivered_signed_and_kept(database_url: str | None, tmp_path: Path) -> None:
    with Service(tmp_path, database_url=database_url, workers=1) as service:
        service.start()
        asyncio.run(_publish_and_look(service))
        processes = psutil.Process(service.pid).children(recursive=True)
        assert len(processes) == 2  # the API and a worker

        assert service.stop() == 0
        assert not any(process.is_running() for process in processes)

        service.start()
        asyncio.run(_look_again(service))
        assert service.stop() == 0


async def _publish_and_look(service: Service) -> None:
    async with _client(service) as client, Receiver() as receiver:
        made = await client.put("/v1/suppliers/lumen", json={"name": "Lumen Photo", "tier": "premium"})
        assert made.status_code == 201
        made = await client.post("/v1/suppliers/lumen/endpoints", json={"url": receiver.url + "/hooks"})
        assert made.status_code == 201, made.text
        endpoint = made.json()

        accepted = await client.post("/v1/events", json=_event("first"))
        assert accepted.status_code == 202, accepted.text
        assert (accepted.json()["deliveries"], accepted.json()["duplicate"]) == (1, False)
        (received,) = await _arrivals(receiver, 1)

        _verify(endpoint["secret"], received)
        assert received.headers["webhook-id"] == accepted.json()["id"]
        assert received.attempt == 1
        again = await client.post("/v1/events", json=_event("first"))
        assert (again.json()["id"], again.json()["duplicate"]) == (accepted.json()["id"], True)

        delivery = await _delivered(client, accepted.json()["id"])
        assert delivery["endpoint_id"] == endpoint["id"]
        (attempt,) = delivery["attempts"]
        assert (attempt["number"], attempt["status_code"], attempt["error"]) == (1, 200, None)
        metrics = (await client.get("/metrics")).text
        assert "ringbearer_events_accepted_total 1.0" in metrics
        assert "ringbearer_accept_to_send_seconds_count 1.0" in metrics
        assert await _measured(client) == [("normal", 1)]


async def _measured(client: httpx.AsyncClient) -> list[tuple[str, int]]:
    """What was delivered by lane, once the worker has written it, as it does every two seconds."""
    for _ in range(int(_ARRIVAL_SECONDS / 0.2)):
        lanes = (await client.get("/v1/figures?window=600")).json()["items"]
        if lanes:
            return [(lane["key"], lane["delivered"]) for lane in lanes]
        await asyncio.sleep(0.2)
    return []


async def _look_again(service: Service) -> None:
    """After a restart everything is as it was, and goes on."""
    async with _client(service) as client:
        (delivery,) = (await client.get("/v1/deliveries", params={"supplier_id": "lumen"})).json()["items"]
        assert delivery["state"] == "delivered"
        assert (await client.post("/v1/events", json=_event("first"))).json()["duplicate"] is True
        (endpoint,) = (await client.get("/v1/suppliers/lumen/endpoints")).json()["items"]
        async with Receiver() as receiver:
            path = f"/v1/suppliers/lumen/endpoints/{endpoint['id']}"
            rotated = await client.post(f"{path}/rotate-secret", json={"grace": 0})
            assert rotated.status_code < 300, rotated.text
            moved = await client.patch(path, json={"url": receiver.url + "/moved"})
            assert moved.status_code == 200, moved.text
            accepted = await client.post("/v1/events", json=_event("second"))
            (received,) = await _arrivals(receiver, 1)
            _verify(rotated.json()["secret"], received)
            assert received.path == "/moved"
            await _delivered(client, accepted.json()["id"])


def test_children_that_die_are_replaced_and_follow_their_parent(tmp_path: Path) -> None:
    with Service(tmp_path, workers=1) as service:
        service.start()
        for role in ("serve", "work"):
            wait_for(lambda role=role: len(service.pids(role)) == 1, 20, f"{role} to run")  # type: ignore[misc]
            (old,) = service.pids(role)
            psutil.Process(old).kill()
            wait_for(
                lambda role=role, old=old: service.pids(role) not in ([], [old]),  # type: ignore[misc]
                20,
                f"another {role}",
            )
        service.wait_ready()
        children = psutil.Process(service.pid).children(recursive=True)
        service.kill()
        assert not any(process.is_running() for process in children)


@asynccontextmanager
async def _client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {service.settings().admin_key}"}
    async with httpx.AsyncClient(
        base_url=service.url, headers=headers, timeout=20, trust_env=False
    ) as client:
        yield client


async def _arrivals(receiver: Receiver, count: int) -> list[Received]:
    async with asyncio.timeout(_ARRIVAL_SECONDS):
        return await receiver.wait_for(count)


async def _delivered(client: httpx.AsyncClient, event_id: str) -> dict[str, Any]:
    """The event's only delivery, as soon as its outcome is written down."""
    async with asyncio.timeout(_ARRIVAL_SECONDS):
        while True:
            (delivery,) = (await client.get(f"/v1/events/{event_id}")).json()["deliveries"]
            if delivery["state"] == "delivered":
                break
            await asyncio.sleep(0.02)
    detail: dict[str, Any] = (await client.get(f"/v1/deliveries/{delivery['id']}")).json()
    return detail


def _verify(secret: str, received: Received) -> None:
    Webhook(secret).verify(received.body, received.headers)


def _event(name: str) -> dict[str, object]:
    return {
        "supplier_id": "lumen",
        "type": "booking.confirmed",
        "data": {"couple": "Ada & Blaise", "name": name, "emoji": "💍"},
        "idempotency_key": f"key-{name}",
    }
