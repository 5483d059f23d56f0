"""The doctor looks at Redis where there is one, and what is wrong there is a warning: all goes on without."""

from pathlib import Path

import pytest

from chaos.redis_servers import Server, free_port, one_server
from ringbearer.doctor import Finding, examine
from ringbearer.settings import Settings


def redis_findings(tmp_path: Path, url: str | None) -> list[Finding]:
    settings = Settings(data_dir=tmp_path / "data", redis_url=url)
    return [finding for finding in examine(settings, {}) if finding.subject == "redis"]


def test_without_redis_nothing_is_said(tmp_path: Path) -> None:
    assert redis_findings(tmp_path, None) == []


def test_a_redis_that_answers_is_well(tmp_path: Path, redis_url: str) -> None:
    (finding,) = redis_findings(tmp_path, redis_url)
    assert finding.level == "ok"


@pytest.mark.parametrize("away", [True, False])
def test_what_is_wrong_is_a_warning(tmp_path: Path, away: bool) -> None:
    if away:
        (finding,) = redis_findings(tmp_path, Server(tmp_path, free_port()).url)
    else:
        with one_server(tmp_path, ("--maxmemory-policy", "allkeys-lru")) as server:
            (finding,) = redis_findings(tmp_path, server.url)
        assert "noeviction" in finding.detail
    assert finding.level == "warning"
