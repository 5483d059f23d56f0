"""The whole service on PostgreSQL: events emitted in SQL are delivered, and a supplier's key reads as that supplier."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psycopg
import pytest

from chaos.databases import pooled
from chaos.service import ADMIN_KEY, Service
from ringbearer.testing import Receiver
from tools import require_tool

_LONG = 60.0


@pytest.fixture(params=["direct", "pooled"])
def service(request: pytest.FixtureRequest, postgres_url: str, tmp_path: Path) -> Iterator[Service]:
    """A running service, on PostgreSQL itself and behind a transaction pooler."""
    with ExitStack() as stack:
        settings: dict[str, object] = {"database_url": postgres_url}
        if request.param == "pooled":
            url = stack.enter_context(pooled(postgres_url, require_tool("pgbouncer")))
            settings = {"database_url": url, "database_prepare": False}
        running = stack.enter_context(Service(tmp_path, workers=1, **settings))  # type: ignore[arg-type]
        running.start()
        yield running


def test_what_is_emitted_in_a_transaction_is_delivered(service: Service, postgres_url: str) -> None:
    asyncio.run(_emit_and_look(service, postgres_url))


async def _emit_and_look(service: Service, postgres_url: str) -> None:
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    async with (
        httpx.AsyncClient(base_url=service.url, headers=headers, timeout=_LONG) as client,
        Receiver() as receiver,
        asyncio.timeout(_LONG),
    ):
        for supplier in ("lumen", "nova"):
            await client.put(f"/v1/suppliers/{supplier}", json={})
            made = await client.post(f"/v1/suppliers/{supplier}/endpoints", json={"url": receiver.url})
            assert made.status_code == 201, made.text
        await asyncio.to_thread(_emit, postgres_url)
        received = await receiver.wait_for(2)
        assert {each.type for each in received} == {"booking.confirmed"}
        key = (await client.post("/v1/keys", json={"scope": "supplier:lumen"})).json()["key"]
        mine = {"authorization": f"Bearer {key}"}
        whole = (await client.get("/v1/deliveries")).json()["items"]
        assert {each["supplier_id"] for each in whole} == {"lumen", "nova"}
        for _ in range(3):  # on connections that were others' before, and are again afterwards
            seen = (await client.get("/v1/deliveries", headers=mine)).json()["items"]
            assert [each["id"] for each in seen] == [
                each["id"] for each in whole if each["supplier_id"] == "lumen"
            ]
            (endpoint,) = (await client.get("/v1/suppliers/lumen/endpoints", headers=mine)).json()["items"]
            assert endpoint["url"] == receiver.url + "/"
            assert len((await client.get("/v1/deliveries")).json()["items"]) == 2
        for each in whole:
            expected = 200 if each["supplier_id"] == "lumen" else 404
            for path in (f"/v1/deliveries/{each['id']}", f"/v1/events/{each['event_id']}"):
                assert (await client.get(path, headers=mine)).status_code == expected


def _emit(url: str) -> None:
    with psycopg.connect(url) as application:
        application.execute("SELECT ringbearer.emit('booking.cancelled', 'lumen', '0')")
        application.rollback()
        for supplier in ("lumen", "nova"):
            application.execute("SELECT ringbearer.emit('booking.confirmed', %s, '{\"n\": 1}')", [supplier])
