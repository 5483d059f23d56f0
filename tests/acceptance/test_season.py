"""The season's plan is followed by everything that runs, without a restart, and given up again."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from chaos.service import Service, wait_for
from ringbearer.process import open_store

_SECONDS = 60.0
_TODAY = datetime.now(UTC).date()
_AROUND = [(_TODAY + timedelta(days=n)).isoformat() for n in (-1, 0, 1)]  # whatever the hour is
_PLAN = {
    "name": "the fair",
    "calendar": {
        "preset": "none",
        "dates": [{"date": day, "multiplier": 5, "name": "the fair"} for day in _AROUND],
    },
    "peak_worker_floor": 2,
    "peak_weights": [20, 4, 2, 1],
    "peak_prefetch": 0.8,
    "tier_reserves": {"premium": 3},
    "warm_at": [],
}
_OVER = {**_PLAN, "ends_on": (_TODAY - timedelta(days=2)).isoformat()}


def _told(service: Service) -> Counter[str]:
    """How many processes said that they follow each change of phase."""
    lines = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
    return Counter(line["changes"]["phase"] for line in lines if "phase" in line.get("changes", ()))


def test_a_peak_changes_what_runs_and_its_end_changes_it_back(
    database_url: str | None, tmp_path: Path
) -> None:
    with Service(tmp_path, database_url=database_url, workers="auto", max_workers=2) as service:
        service.start()
        with open_store(service.settings()) as storage, service.client() as client:
            wait_for(lambda: storage.scaling.latest() is not None, _SECONDS, "a first decision")
            client.patch("/v1/scaling", json={"calm_seconds": 10}).raise_for_status()
            (first,) = service.pids("work")
            before = client.get("/v1/queue").json()["plan"]

            shown = client.put("/v1/season", json=_PLAN).json()
            assert (shown["state"]["phase"], shown["state"]["tier_reserves"]) == ("peak", {"premium": 3})
            wait_for(lambda: len(service.pids("work")) == 2, _SECONDS, "the peak's second worker")
            wait_for(lambda: _told(service)["ordinary → peak"] == 3, _SECONDS, "all to follow the peak")
            peak = client.get("/v1/queue").json()["plan"]
            assert (peak["weights"], peak["prefetch"]) == ([20, 4, 2, 1], 0.8)
            assert peak["backlog_age"] == before["backlog_age"] / 2
            decided = client.get("/v1/scaling/decisions").json()["items"]
            assert next(item for item in decided if item["desired"] == 2)["rule"] == "season"

            client.put("/v1/season", json=_OVER).raise_for_status()
            wait_for(lambda: _told(service)["peak → ordinary"] == 3, _SECONDS, "all to follow its end")
            assert client.get("/v1/queue").json()["plan"] == before
            wait_for(lambda: service.pids("work") == [first], _SECONDS, "the second worker to leave")
        assert service.stop() == 0
