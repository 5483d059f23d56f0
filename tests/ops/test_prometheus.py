"""Prometheus and Grafana: the shipped rules are valid, name metrics that exist, and a real Prometheus fires one."""

import contextlib
import json
import re
import runpy
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from chaos.service import Service, wait_for
from ringbearer.monitor.prometheus import PrometheusMetrics
from ringbearer.storage.base import open_storage
from ringbearer.storage.vault import Vault, generate_key
from ringbearer.telemetry import Telemetry
from tools import migrated_sqlite, require_tool

OPS = Path(__file__).parents[2] / "ops"
MAKER = OPS / "grafana" / "make.py"
BOARD = OPS / "grafana" / "ringbearer.json"
RULES = [OPS / "prometheus" / "recording.yml", OPS / "prometheus" / "alerts.yml"]
PATIENCE = 60.0
_METRIC = re.compile(r"ringbearer[a-z0-9_:]*")


def test_promtool_finds_nothing_wrong() -> None:
    promtool = require_tool("promtool")
    for arguments in (
        ["check", "rules", *map(str, RULES)],
        ["check", "config", str(OPS / "prometheus/prometheus.yml")],
    ):
        done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def _rules() -> list[dict[str, Any]]:
    return [
        rule
        for file in RULES
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]


def _known(tmp_path: Path) -> set[str]:
    """Every series that a scrape has, and every one that is recorded."""
    metrics = PrometheusMetrics(Telemetry(), registry=CollectorRegistry())
    with open_storage(migrated_sqlite(tmp_path / "store.db"), Vault([generate_key()])) as storage:
        families = list(text_string_to_metric_families(metrics.render(storage).decode()))
    names = {rule["record"] for rule in _rules() if "record" in rule}
    for family in families:
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(
            family.type, ("",)
        )
        names |= {family.name + suffix for suffix in suffixes}
    return names


def test_every_rule_and_every_query_names_what_exists(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    known = _known(tmp_path)
    board = json.loads(BOARD.read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    queries += [rule["expr"] for rule in _rules()]
    assert len(queries) > 40
    for query in queries:
        names = set(_METRIC.findall(re.sub(r'"[^"]*"', "", query)))
        assert names <= known, f"{query} asks for {names - known}"


def test_the_dashboard_is_what_its_code_makes() -> None:
    made = runpy.run_path(str(MAKER))["text"]()
    assert BOARD.read_text() == made, "run: python ops/grafana/make.py"


@contextlib.contextmanager
def _prometheus(directory: Path, target: str) -> Iterator[httpx.Client]:
    """A real Prometheus that scrapes the target each second, with the shipped rules."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(file) for file in RULES],
        "scrape_configs": [{"job_name": "ringbearer", "static_configs": [{"targets": [target]}]}],
    }
    file = directory / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    command = [
        require_tool("prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
    ]
    command += [f"--web.listen-address={address}", "--log.level=error"]
    with (
        (directory / "prometheus.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
        httpx.Client(base_url=f"http://{address}", timeout=10) as client,
    ):
        try:
            yield client
        finally:
            process.terminate()


def test_a_real_prometheus_scrapes_and_fires(tmp_path: Path) -> None:
    require_tool("prometheus")
    with Service(tmp_path, workers=0) as service:
        service.start()
        with _prometheus(tmp_path, service.url.removeprefix("http://")) as prometheus:
            alert = _firing(prometheus, "RingbearerNoWorker")
            assert alert["labels"]["severity"] == "critical"
            assert _value(prometheus, "ringbearer_store_up") == 1
            assert _value(prometheus, 'up{job="ringbearer"}') == 1
            assert _firing(prometheus, "RingbearerWatchdog")
        assert service.stop() == 0


def _firing(prometheus: httpx.Client, name: str) -> dict[str, Any]:
    """The alert, once it fires."""
    found: list[dict[str, Any]] = []

    def fires() -> bool:
        with contextlib.suppress(httpx.HTTPError):  # it does not listen, or reads its log, yet
            alerts = prometheus.get("/api/v1/alerts").raise_for_status().json()["data"]["alerts"]
            found[:] = [a for a in alerts if a["labels"]["alertname"] == name and a["state"] == "firing"]
        return bool(found)

    wait_for(fires, PATIENCE, f"{name} to fire")
    return found[0]


def _value(prometheus: httpx.Client, query: str) -> float:
    (result,) = prometheus.get("/api/v1/query", params={"query": query}).json()["data"]["result"]
    return float(result["value"][1])
