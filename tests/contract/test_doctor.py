"""The doctor looks at Redis and at PostgreSQL's row level security where there are any, and says what is wrong."""

from pathlib import Path

import psycopg
import pytest

from chaos.ports import free_port
from chaos.redis_servers import Server, one_server
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


def postgres_findings(tmp_path: Path, url: str) -> dict[str, Finding]:
    settings = Settings(data_dir=tmp_path / "data", database_url=url)
    return {finding.subject: finding for finding in examine(settings, {})}


def test_a_database_that_keeps_suppliers_apart_is_well(tmp_path: Path, postgres_url: str) -> None:
    found = postgres_findings(tmp_path, postgres_url)
    assert found["row level security"].level == "ok"
    assert "outbox" not in found


def test_events_that_were_refused_are_told_of(tmp_path: Path, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("SELECT ringbearer.emit('a.b', 'nobody', '1')")
        connection.execute("UPDATE ringbearer.outbox SET refused_at = now(), reason = 'for a reason'")
    try:
        assert postgres_findings(tmp_path, postgres_url)["outbox"].level == "warning"
    finally:
        with psycopg.connect(postgres_url) as connection:
            connection.execute("DELETE FROM ringbearer.outbox")


def test_a_role_from_which_policies_hide_everything_is_an_error(tmp_path: Path, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE stranger LOGIN")
        connection.execute("GRANT USAGE ON SCHEMA ringbearer TO stranger")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public, ringbearer TO stranger")
    try:
        found = postgres_findings(tmp_path, postgres_url.replace("postgres:@", "stranger:@"))
        assert found["row level security"].level == "error"
        assert "own" in found["row level security"].detail
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("DROP OWNED BY stranger")
            connection.execute("DROP ROLE stranger")
