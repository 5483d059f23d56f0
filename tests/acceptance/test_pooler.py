"""The whole service behind a transaction pooler: no state outlives a transaction, and every promise is kept."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.databases import pooled
from chaos.run import PATIENT, Rig
from chaos.service import wait_for
from tools import require_tool

_SECONDS = 30.0


@pytest.fixture(params=["alone", "with redis"])
def rig(request: pytest.FixtureRequest, postgres_url: str, tmp_path: Path) -> Iterator[Rig]:
    redis_url = request.getfixturevalue("redis_url") if request.param == "with redis" else ""
    with (
        pooled(postgres_url, require_tool("pgbouncer")) as url,
        Rig(
            tmp_path / "rig",
            database_url=url,
            workers=1,
            timeout=PATIENT,
            database_prepare=False,
            redis_url=redis_url,
        ) as opened,
    ):
        yield opened


def test_the_service_works_behind_a_transaction_pooler(rig: Rig) -> None:
    """Ordering keys, idempotency keys, leases and migrations: all on ten connections that change hands."""
    rig.service.start()
    rig.set_up()
    with rig.traffic(seed=7, pause=0.02):
        wait_for(lambda: rig.accepted() >= 100, _SECONDS, "100 events")
    rig.drain()
    verdict = rig.judge()
    assert verdict.violations == []
    assert (verdict.lost, verdict.duplicates) == (0, 0)
    assert rig.failures() == {}
