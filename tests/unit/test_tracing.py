"""Spans that no collector takes: bounded, counted, and in nobody's way."""

import asyncio
import socket

import pytest

from ringbearer.domain import traces
from ringbearer.domain.deliveries import State
from ringbearer.monitor import tracing
from ringbearer.monitor.tracing import Tracing, traces_url
from ringbearer.telemetry import (
    AttemptMade,
    AttemptsMade,
    AttemptTraced,
    EventsTraced,
    EventTraced,
    SpansSent,
    Telemetry,
)


def _event(context: str) -> EventTraced:
    return EventTraced(
        context=context,
        parent="",
        event_id="evt_1",
        supplier_id="lumen",
        event_type="booking.confirmed",
        deliveries=1,
        duplicate=False,
        began_at=1,
        ended_at=2,
    )


def _attempt(context: str | None) -> AttemptMade:
    traced = None if context is None else AttemptTraced(context, traces.new_span(), "dlv_1", "evt_1", None)
    return AttemptMade(
        outcome="receiver",
        send_seconds=0.2,
        accept_to_send=None,
        reused_connection=False,
        lane=0,
        tier="premium",
        supplier_id="lumen",
        endpoint_id="ep_1",
        event_type="booking.confirmed",
        attempt=1,
        state=State.SCHEDULED,
        error="connect_refused",
        accepted_at=1,
        ready_at=1,
        claimed_at=2,
        first_byte_at=None,
        answered_at=3,
        traced=traced,
    )


def _nobody() -> str:
    """The address of a collector that is away."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_spans_that_nobody_takes_are_counted_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MAX_WAITING", 10)
    monkeypatch.setattr(tracing, "_TIMEOUT", 0.2)
    telemetry = Telemetry()
    told: list[tuple[str, int]] = []
    telemetry.listen(SpansSent, lambda report: told.append((report.how, report.count)))
    made = Tracing(telemetry, url=_nobody(), process="node_1", kind="work")
    unsampled = traces.kept(f"00-{'1' * 32}-{'2' * 16}-00")
    assert unsampled is not None
    telemetry.emit(EventsTraced([_event(traces.begin()) for _ in range(8)] + [_event(unsampled)]))
    telemetry.emit(AttemptsMade([_attempt(None), _attempt(unsampled)], 4))
    assert told == []
    telemetry.emit(AttemptsMade([_attempt(traces.begin()) for _ in range(5)], 4))
    assert told == [("dropped", 3)]
    assert repr(made) == "<Tracing with 10 spans waiting>"
    asyncio.run(made.stop())
    assert told == [("dropped", 3), ("failed", 10)]
    assert repr(made) == "<Tracing with 0 spans waiting>"


@pytest.mark.parametrize(("ratio", "begins"), [(1.0, True), (0.0, False)])
def test_a_trace_begins_as_often_as_was_asked_for(ratio: float, begins: bool) -> None:
    made = Tracing(Telemetry(), url=_nobody(), process="node_1", kind="serve", ratio=ratio)
    begun = made.context(None)
    assert (begun is not None) is begins
    given = traces.begin()
    child = made.context(given)
    assert child is not None
    assert child[:35] == given[:35]
    assert child[36:52] != given[36:52]
    asyncio.run(made.stop())


@pytest.mark.parametrize(
    ("url", "to"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318/", "http://c:4318/v1/traces"),
        ("https://c/otlp/v1/traces", "https://c/otlp/v1/traces"),
    ],
)
def test_where_spans_go(url: str, to: str) -> None:
    assert traces_url(url) == to
