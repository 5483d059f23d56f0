"""Reports reach whoever listens for their kind, and nobody who listens can break the work."""

import logging
import re

import pytest
from prometheus_client import CollectorRegistry

from ringbearer.monitor.prometheus import PrometheusMetrics
from ringbearer.telemetry import EventsRefused, HistoryPruned, Report, StoreFailed, Telemetry


def test_a_report_reaches_all_who_listen_for_its_kind_and_nobody_else() -> None:
    telemetry = Telemetry()
    first: list[Report] = []
    second: list[Report] = []
    other: list[Report] = []
    telemetry.listen(HistoryPruned, first.append)
    telemetry.listen(HistoryPruned, second.append)
    telemetry.listen(StoreFailed, other.append)
    telemetry.emit(HistoryPruned(3))
    telemetry.emit(EventsRefused(1, "overloaded"))
    assert first == second == [HistoryPruned(3)]
    assert other == []


def test_a_listener_that_raises_is_logged_and_skipped(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry()
    heard: list[Report] = []

    def broken(report: HistoryPruned) -> None:
        raise RuntimeError("I cannot hear")

    telemetry.listen(HistoryPruned, broken)
    telemetry.listen(HistoryPruned, heard.append)
    with caplog.at_level(logging.ERROR):
        telemetry.emit(HistoryPruned(0))
        telemetry.emit(HistoryPruned(1))
    assert len(heard) == 2
    assert [r.getMessage() for r in caplog.records] == ["a telemetry listener failed on HistoryPruned"] * 2
    assert "I cannot hear" in caplog.text


def test_without_listeners_a_report_is_lost_quietly() -> None:
    Telemetry().emit(StoreFailed("accept", "disk full"))


def test_78_no_label_of_a_metric_is_somebodys_word() -> None:
    registry = CollectorRegistry()
    PrometheusMetrics(Telemetry(), registry=registry)
    labels = {name for metric in registry._collector_to_names for name in getattr(metric, "_labelnames", ())}
    assert "outcome" in labels
    assert not {name for name in labels if re.search(r"supplier|endpoint|event|url|key|id$|name", name)}
