"""The commands for what the queue follows, against the API itself."""

import json

import pytest

from api.harness import Api
from ringbearer.cli.main import main


@pytest.fixture
def run(api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Run":
    monkeypatch.setenv("RINGBEARER_URL", api.url)
    header = api.as_("admin").headers["authorization"]
    monkeypatch.setenv("RINGBEARER_KEY", header.partition(" ")[2])
    return Run(capsys)


class Run:
    """Runs commands, and returns what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str, status: int = 0) -> str:
        assert main(arguments) == status
        told = self._capsys.readouterr()
        return told.out if status == 0 else told.err


def test_priorities_are_shown_and_set(run: Run) -> None:
    assert "the occasion is today or tomorrow  urgent" in run("priorities", "show")
    rules = {"rules": [{"name": "photos", "lane": "bulk", "event_types": ["photo.*"], "tags": ["album"]}]}
    shown = run("priorities", "set", json.dumps(rules))
    assert "type photo.*; tag album" in shown
    assert "standard 1, premium 2, enterprise 4" in shown
    assert json.loads(run("priorities", "show", "--json"))["version"] == 1
    assert "is not JSON" in run("priorities", "set", "{", status=1)


def test_a_season_is_set_shown_and_rehearsed(run: Run) -> None:
    assert "there is no season plan" in run("season", "show")
    plan = {
        "name": "summer",
        "starts_on": "2027-05-01",
        "timezones": ["Europe/Paris"],
        "peak_worker_floor": 4,
    }
    assert "1, on peak days 4" in run("season", "set", json.dumps(plan))
    rehearsed = run("season", "rehearse", "2027-06-19")
    assert "phase: season → peak" in rehearsed
    assert len(rehearsed.splitlines()) == 25
    assert len(json.loads(run("season", "rehearse", "2027-06-19", "--json"))["hours"]) == 24


def test_the_queue_is_shown_and_set(run: Run) -> None:
    assert "50% of the slots" in run("queue", "show")
    assert "no" in run("queue", "set", '{"automatic": false}')
    assert json.loads(run("queue", "show", "--json"))["plan"]["automatic"] is False


def test_the_calendar_is_the_services_or_a_presets(run: Run) -> None:
    assert "Saturday" in run("calendar", "--days", "7")
    assert "Black Friday" in run("calendar", "--preset", "retail", "--days", "366")
    assert json.loads(run("calendar", "--preset", "none", "--json")) == {"preset": "none", "peaks": []}
    assert "is not a time zone" in run("calendar", "--timezone", "Mars/Base", status=1)
