"""A rate limit is one limit, however many worker processes there are, with Redis and without."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text

from chaos import journal, receiver
from chaos.ports import free_port
from chaos.receiver import Manners, Receiver, Seen
from chaos.redis_servers import Server
from chaos.service import Service, wait_for
from ringbearer import clock
from ringbearer.process import open_store

_SECONDS = 30.0
_WORKERS = 3
_SLOTS = 4
"""Of each worker, which gives one endpoint no more than half of them: two workers cannot send five at a time."""
_REQUESTS, _PERIOD = 5, 60.0
_EVENTS = 12


@pytest.fixture(params=["sqlite", "postgresql+redis"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """Three workers on each kind of installation in turn."""
    options: dict[str, object] = {}
    if request.param == "postgresql+redis":
        server: Server = request.getfixturevalue("redis_server")
        options = {"database_url": request.getfixturevalue("postgres_url"), "redis_url": server.url}
    with Service(tmp_path / "service", workers=_WORKERS, slots=_SLOTS, stop_grace=1, **options) as made:  # type: ignore[arg-type]
        made.start()
        yield made


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The port of a receiver that never answers, and where it writes down what it was sent."""
    file = tmp_path / "seen.jsonl"
    start = receiver.Start(port=free_port(), journal=str(file), secret="whsec_bm9ib2R5IGNoZWNrcw==", seed=0)
    with Receiver(start) as opened:
        opened.behave(Manners(hang=1.0))
        yield opened.port, file


def test_three_workers_send_five_a_minute_and_not_one_more(service: Service, seen: tuple[int, Path]) -> None:
    """What is sent stays under way, so that each worker is full: who held the five shows who asked for them."""
    port, file = seen
    with service.client() as client:
        client.put("/v1/suppliers/studio", json={}).raise_for_status()
        endpoint = {
            "url": f"http://127.0.0.1:{port}/",
            "timeout": 30,
            "rate_limit": {"requests": _REQUESTS, "period": _PERIOD},
        }
        client.post("/v1/suppliers/studio/endpoints", json=endpoint).raise_for_status()
        event = {"supplier_id": "studio", "type": "booking.confirmed", "data": {}}
        for _ in range(_EVENTS):
            client.post("/v1/events", json=event).raise_for_status()
    with open_store(service.settings()) as storage:

        def query(sql: str) -> list[tuple[str, str, int]]:
            with storage.database.read() as connection:
                return [(row[0], row[1], row[2]) for row in connection.execute(text(sql))]

        def sends() -> list[int]:
            kept = query("SELECT key, sends, 0 FROM rate_windows")
            return msgspec.json.decode(kept[0][1], type=list[int]) if kept else []

        def refused() -> bool:
            """Whether somebody asked for a sixth, and was told when that may go."""
            due = query("SELECT delivery_id, state, due_at FROM jobs WHERE state = 'scheduled'")
            return any(at >= sends()[0] + _PERIOD * clock.SECOND for _, _, at in due)

        def leased() -> list[str]:
            return [
                worker for worker, _, _ in query("SELECT worker, state, 0 FROM jobs WHERE state = 'leased'")
            ]

        wait_for(lambda: len(sends()) == _REQUESTS, _SECONDS, "five sends")
        wait_for(refused, _SECONDS, "a refusal of the sixth")
        wait_for(lambda: len(journal.read(file, Seen)) >= _REQUESTS, _SECONDS, "five requests")
        assert len(sends()) == _REQUESTS
        assert len(set(leased())) == _WORKERS
    assert len(journal.read(file, Seen)) == _REQUESTS
