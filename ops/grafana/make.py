"""Writes the Grafana dashboard: `python ops/grafana/make.py`. A test compares, and checks each query's metrics."""

import json
from pathlib import Path

FILE = Path(__file__).with_name("ringbearer.json")
_SOURCE = {"type": "prometheus", "uid": "${source}"}
_COLUMNS = 24

Panel = dict[str, object]
# title, unit, (query, legend) …
_ROWS: tuple[tuple[str, tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]], ...] = (
    (
        "Now",
        (
            (
                "Events and deliveries",
                "ops",
                (("ringbearer:accepted:rate1m", "accepted"), ("ringbearer:delivered:rate1m", "delivered")),
            ),
            (
                "Accepted ▸ first byte sent",
                "s",
                (
                    ("ringbearer:accept_to_send_seconds:p50_5m", "P50"),
                    ("ringbearer:accept_to_send_seconds:p95_5m", "P95"),
                    ("ringbearer:accept_to_send_seconds:p99_5m", "P99"),
                ),
            ),
            (
                "Attempts by outcome",
                "ops",
                (("sum by (outcome) (rate(ringbearer_attempts_total[1m]))", "{{outcome}}"),),
            ),
            (
                "Failures by whose fault",
                "ops",
                (("sum by (cause) (rate(ringbearer_failures_total[1m]))", "{{cause}}"),),
            ),
        ),
    ),
    (
        "Queue",
        (
            (
                "Ready, by lane",
                "short",
                (('max by (lane) (ringbearer_queue_depth{state="ready"})', "{{lane}}"),),
            ),
            (
                "Age of the oldest ready delivery",
                "s",
                (("max by (lane) (ringbearer_queue_oldest_age_seconds)", "{{lane}}"),),
            ),
            (
                "Scheduled, held, dead",
                "short",
                (
                    (
                        'sum by (state) (max by (lane, state) (ringbearer_queue_depth{state=~"scheduled|held|dead"}))',
                        "{{state}}",
                    ),
                ),
            ),
            (
                "Moved by background work",
                "ops",
                (("sum by (how) (rate(ringbearer_deliveries_moved_total[5m]))", "{{how}}"),),
            ),
        ),
    ),
    (
        "Workers and receivers",
        (
            (
                "Workers",
                "short",
                (("sum(ringbearer_workers)", "running"), ("max(ringbearer_workers_wanted)", "wanted")),
            ),
            ("Breakers open", "short", (("max(ringbearer_breakers_open)", "open"),)),
            ("Exchanges with receivers", "s", (("ringbearer:send_seconds:p95_5m", "P95"),)),
            (
                "Connections used again",
                "percentunit",
                (
                    (
                        'sum(rate(ringbearer_connections_total{kind="reused"}[5m]))'
                        " / sum(rate(ringbearer_connections_total[5m]))",
                        "reused",
                    ),
                ),
            ),
        ),
    ),
    (
        "Store and cache",
        (
            (
                "Time to commit, P95",
                "s",
                tuple(
                    (
                        f"histogram_quantile(0.95, sum by (le) (rate(ringbearer_{name}_seconds_bucket[5m])))",
                        name,
                    )
                    for name in ("accept", "claim", "settle")
                ),
            ),
            (
                "Failures of the store",
                "ops",
                (("sum by (during) (rate(ringbearer_store_errors_total[5m]))", "{{during}}"),),
            ),
            (
                "Cache hits",
                "percentunit",
                (
                    (
                        'sum by (tier) (rate(ringbearer_cache_requests_total{result="hit"}[5m]))'
                        " / sum by (tier) (rate(ringbearer_cache_requests_total[5m]))",
                        "{{tier}}",
                    ),
                ),
            ),
            (
                "Budget of our own failures: burn rate",
                "short",
                (
                    ("ringbearer:own_failures:ratio5m / 0.001", "5 min"),
                    ("ringbearer:own_failures:ratio1h / 0.001", "1 h"),
                    ("ringbearer:own_failures:ratio6h / 0.001", "6 h"),
                ),
            ),
        ),
    ),
)


def dashboard() -> dict[str, object]:
    """The dashboard, as Grafana imports it."""
    panels: list[Panel] = []
    top = 0
    for row, charts in _ROWS:
        panels.append(
            {
                "type": "row",
                "title": row,
                "id": len(panels) + 1,
                "gridPos": {"x": 0, "y": top, "w": _COLUMNS, "h": 1},
                "collapsed": False,
                "panels": [],
            }
        )
        width = _COLUMNS // len(charts)
        for column, (title, unit, queries) in enumerate(charts):
            place = {"x": column * width, "y": top + 1, "w": width, "h": 8}
            panels.append(_panel(len(panels) + 1, title, unit, queries, place))
        top += 9
    return {
        "title": "Ringbearer",
        "uid": "ringbearer",
        "schemaVersion": 39,
        "tags": ["ringbearer"],
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "10s",
        "timezone": "browser",
        "templating": {
            "list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "panels": panels,
    }


def _panel(
    number: int, title: str, unit: str, queries: tuple[tuple[str, str], ...], place: dict[str, int]
) -> Panel:
    return {
        "type": "timeseries",
        "title": title,
        "id": number,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 8, "lineWidth": 2}},
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + n), "expr": query, "legendFormat": legend, "datasource": _SOURCE}
            for n, (query, legend) in enumerate(queries)
        ],
    }


def text() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
