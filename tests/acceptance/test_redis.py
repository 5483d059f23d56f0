"""The whole service with Redis: it is used, it may go away and come back, and no promise depends on it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.redis_servers import Server, one_server
from chaos.run import PATIENT, Rig
from chaos.service import plain_get, wait_for

_SECONDS = 30.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with one_server(tmp_path / "redis") as opened:
        yield opened


@pytest.fixture
def rig(server: Server, tmp_path: Path, postgres_url: str) -> Iterator[Rig]:
    with Rig(
        tmp_path / "rig", database_url=postgres_url, workers=1, timeout=PATIENT, redis_url=server.url
    ) as opened:
        yield opened


def _health(rig: Rig) -> str:
    answer = plain_get(f"{rig.service.url}/health/ready", timeout=_SECONDS)
    assert answer.status_code == 200
    status: str = answer.json()["status"]
    return status


def _index(rig: Rig, how: str) -> float:
    """How many deliveries went that way through the index, all processes together."""
    page = plain_get(f"{rig.service.url}/metrics", timeout=_SECONDS).text
    found = re.findall(rf'^ringbearer_index_deliveries_total{{how="{how}"}} (\S+)$', page, re.MULTILINE)
    return sum(map(float, found))


def _claimed_more(rig: Rig) -> None:
    before = _index(rig, "claimed")
    wait_for(lambda: _index(rig, "claimed") > before + 10, _SECONDS, "claims from the index")


def test_redis_may_go_and_come_back_at_any_time(rig: Rig, server: Server) -> None:
    """F5, I1–I5, I9, I11, I12: nobody restarts anything, and without a lost worker nothing is sent twice."""
    rig.service.start()
    rig.set_up()
    wait_for(lambda: _health(rig) == "ready", _SECONDS, "a whole index")
    with rig.traffic(seed=5, pause=0.02):
        _claimed_more(rig)
        with server.client() as client:
            client.flushall()
        _claimed_more(rig)
        server.kill()
        wait_for(lambda: _health(rig) == "degraded", _SECONDS, "a word about Redis")
        rig.grows(30)
        server.start()
        _claimed_more(rig)
        wait_for(lambda: _health(rig) == "ready", _SECONDS, "a whole index again")
    rig.drain()
    verdict = rig.judge()
    assert verdict.violations == []
    assert (verdict.lost, verdict.duplicates) == (0, 0)
    assert verdict.accepted > 0
    assert rig.failures() == {}
