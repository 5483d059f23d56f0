"""A change of an endpoint takes effect at once where it was made, and everywhere else within the stated second (I10).

Two API processes and two workers, on SQLite alone and on PostgreSQL with a Redis that dies half-way.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from chaos.ports import free_port
from chaos.redis_servers import Server, one_server
from chaos.service import ADMIN_KEY, NO_TLS, Service, plain_get, wait_for
from ringbearer.testing import Receiver

_EVERYWHERE = 2.0
"""Twice what is stated: a machine that is busy with other tests is not a broken promise."""
_SOON = 30.0


@dataclass
class House:
    """An installation, the address of one more API process on its store, and the Redis that they share, if any."""

    service: Service
    other: str
    redis: Server | None


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    with contextlib.ExitStack() as stack:
        redis = database_url = redis_url = None
        if request.param == "postgresql":
            redis = stack.enter_context(one_server(tmp_path / "redis"))
            database_url, redis_url = request.getfixturevalue("postgres_url"), redis.url
        service = stack.enter_context(
            Service(tmp_path, database_url=database_url, redis_url=redis_url or "", workers=2, warm_seconds=0)
        )
        service.start()
        url = stack.enter_context(_one_more_api(service))
        yield House(service, url, redis)
        assert service.stop() == 0


@contextlib.contextmanager
def _one_more_api(service: Service) -> Iterator[str]:
    port = free_port()
    with (service.directory / "other.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ringbearer", "serve"],
            env=service.environment | {"RINGBEARER_PORT": str(port)},
            stdout=log,
            stderr=log,
            cwd=service.directory,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: _answers(url), _SOON, "the other API")
        yield url
        process.terminate()
        assert process.wait(_SOON) == 0
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return plain_get(f"{url}/health/ready").status_code == 200
    return False


def test_what_changes_in_one_process_counts_in_all(house: House) -> None:
    asyncio.run(_disable_and_rotate(house))


async def _disable_and_rotate(house: House) -> None:
    async with _client(house.service.url) as one, _client(house.other) as other, Receiver() as receiver:
        (await one.put("/v1/suppliers/lumen", json={})).raise_for_status()
        answer = await one.post("/v1/suppliers/lumen/endpoints", json={"url": receiver.url})
        answer.raise_for_status()
        path = f"/v1/suppliers/lumen/endpoints/{answer.json()['id']}"
        for n in range(8):  # so that every process has the endpoint in memory
            await _publish(one if n % 2 else other)
        await _arrivals(receiver, 8)

        (await one.post(f"{path}/disable")).raise_for_status()
        forbidden = [await _publish(one) for _ in range(10)]
        await asyncio.sleep(_EVERYWHERE)
        forbidden += [await _publish(client) for client in (one, other) for _ in range(10)]
        if house.redis is not None:
            house.redis.kill()
        await _all_held(other, forbidden)

        (await other.post(f"{path}/enable")).raise_for_status()
        rotated = await other.post(f"{path}/rotate-secret", json={"grace": 0})
        rotated.raise_for_status()
        await asyncio.sleep(_EVERYWHERE)
        before = {received.id for received in receiver.received}
        receiver.trust(rotated.json()["secret"])
        released = set(forbidden) - before
        signed_anew = {await _publish(client) for client in (one, other) for _ in range(10)}
        await _until(lambda: signed_anew <= {r.id for r in receiver.received}, "what was published last")
        assert all(r.verified for r in receiver.received if r.id in signed_anew)
        await _until(lambda: released <= {r.id for r in receiver.received}, "what was held")
        assert len(receiver.received) == 8 + 30 + 20


async def _publish(client: httpx.AsyncClient) -> str:
    event = {"supplier_id": "lumen", "type": "booking.confirmed", "data": {}}
    answer = await client.post("/v1/events", json=event)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def _all_held(client: httpx.AsyncClient, events: list[str]) -> None:
    """No worker has sent any of these, nor will: they are all put aside without an attempt."""
    for event in events:
        for _ in range(int(_SOON / 0.1)):
            (delivery,) = (await client.get(f"/v1/events/{event}")).json()["deliveries"]
            if delivery["state"] == "held":
                break
            await asyncio.sleep(0.1)
        assert (delivery["state"], delivery["attempt_count"]) == ("held", 0)


async def _arrivals(receiver: Receiver, total: int) -> None:
    async with asyncio.timeout(_SOON):
        await receiver.wait_for(total)


async def _until(is_so: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_for, is_so, _SOON, what)


def _client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url,
        headers={"authorization": f"Bearer {ADMIN_KEY}"},
        timeout=30,
        trust_env=False,
        verify=NO_TLS,
    )
