"""Reports reach whoever listens for their kind, and nobody who listens can break the work."""

import logging
import re

import pytest
from prometheus_client import CollectorRegistry

from ringbearer.monitor.prometheus import PrometheusMetrics
from ringbearer.telemetry import CacheAsked, EventsRefused, Report, StoreFailed, Telemetry


def test_a_report_reaches_all_who_listen_for_its_kind_and_nobody_else() -> None:
    telemetry = Telemetry()
    first: list[Report] = []
    second: list[Report] = []
    other: list[Report] = []
    telemetry.listen(CacheAsked, first.append)
    telemetry.listen(CacheAsked, second.append)
    telemetry.listen(StoreFailed, other.append)
    telemetry.emit(CacheAsked(hits=3, misses=1))
    telemetry.emit(EventsRefused(1, "overloaded"))
    assert first == second == [CacheAsked(hits=3, misses=1)]
    assert other == []


def test_a_listener_that_raises_is_logged_and_skipped(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry()
    heard: list[Report] = []

    def broken(report: CacheAsked) -> None:
        raise RuntimeError("I cannot hear")

    telemetry.listen(CacheAsked, broken)
    telemetry.listen(CacheAsked, heard.append)
    with caplog.at_level(logging.ERROR):
        telemetry.emit(CacheAsked(hits=0, misses=0))
        telemetry.emit(CacheAsked(hits=1, misses=0))
    assert len(heard) == 2
    assert [r.getMessage() for r in caplog.records] == ["a telemetry listener failed on CacheAsked"] * 2
    assert "I cannot hear" in caplog.text


def test_without_listeners_a_report_is_lost_quietly() -> None:
    Telemetry().emit(StoreFailed("accept", "disk full"))


def test_78_no_label_of_a_metric_is_somebodys_word() -> None:
    registry = CollectorRegistry()
    PrometheusMetrics(Telemetry(), registry=registry)
    labels = {name for metric in registry._collector_to_names for name in getattr(metric, "_labelnames", ())}
    assert "outcome" in labels
    assert not {name for name in labels if re.search(r"supplier|endpoint|event|url|key|id$|name", name)}
