"""Tracing: spans of publishing and of attempts, made afterwards from what telemetry reports, sent on by OTLP.

OpenTelemetry's SDK stands at the end of the way only: its exporter encodes and sends finished spans. On the hot path
an id is drawn for each attempt whose event belongs to a trace, and nothing else.
"""

import asyncio
import logging
import random
import threading
from collections import deque
from collections.abc import Iterable
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from ringbearer import __version__
from ringbearer.domain import traces
from ringbearer.domain.events import LANES
from ringbearer.looper import Looper
from ringbearer.telemetry import (
    AttemptMade,
    AttemptsMade,
    AttemptTraced,
    EventsTraced,
    EventTraced,
    SpansSent,
    Telemetry,
)

MAX_WAITING = 20_000
"""Spans that may wait to be sent on; of more, the oldest are dropped and counted."""
MAX_BATCH = 500
_SECONDS = 1.0
_TIMEOUT = 5.0  # of one request, repetitions included
_NANOSECONDS = 1_000  # in one of the stored times' microseconds

_log = logging.getLogger(__name__)


class Tracing:
    """Sends the spans of one process to a collector, a batch at a time. Made by `app.py` where a collector is named.

    `ratio` is the part of events without a publisher's trace that begin one.
    """

    def __init__(
        self, telemetry: Telemetry, *, url: str, process: str, kind: str, ratio: float = 1.0
    ) -> None:
        self._telemetry = telemetry
        self._ratio = ratio
        self._random = random.Random()  # noqa: S311  a sample, not a secret
        self._exporter = OTLPSpanExporter(endpoint=traces_url(url), timeout=_TIMEOUT)
        self._resource = Resource.create(
            {
                "service.name": "ringbearer",
                "service.version": __version__,
                "service.instance.id": process,
                "ringbearer.process": kind,
            }
        )
        self._waiting: deque[ReadableSpan] = deque()
        self._lock = threading.Lock()
        self._looper = Looper("tracing", self._send_some, interval=_SECONDS)
        telemetry.listen(EventsTraced, self._on_events)
        telemetry.listen(AttemptsMade, self._on_attempts)

    def __repr__(self) -> str:
        return f"<Tracing with {len(self._waiting)} spans waiting>"

    def context(self, trace: str | None) -> str | None:
        """The context of our own span under a publisher's, or of a trace that begins here, or None."""
        if trace is not None:
            return traces.child(trace, traces.new_span())
        return traces.begin() if self._random.random() < self._ratio else None

    def start(self) -> None:
        """Begin to send."""
        self._looper.start()

    async def stop(self) -> None:
        """Send what waits, as far as one more try brings it, then end."""
        await self._looper.stop()
        await asyncio.to_thread(self._send_all)
        await asyncio.to_thread(self._exporter.shutdown)

    async def _send_some(self) -> float | None:
        more = await asyncio.to_thread(self._send)
        return 0.0 if more else None

    def _send_all(self) -> None:
        while self._send():
            pass

    def _send(self) -> bool:
        """Send a batch; returns whether to go on at once: more waits, and the collector takes it."""
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
        if not batch:
            return False
        taken = self._exporter.export(batch) is SpanExportResult.SUCCESS
        self._telemetry.emit(SpansSent("exported" if taken else "failed", len(batch)))
        if not taken:
            _log.warning("the collector did not take %d spans", len(batch))
        return taken and bool(self._waiting)

    # ── what is heard ───────────────────────────────────────────────────────────────────────────────────

    def _on_events(self, report: EventsTraced) -> None:
        self._keep(self._publishing(event) for event in report.events if traces.read(event.context).sampled)

    def _on_attempts(self, report: AttemptsMade) -> None:
        self._keep(
            self._attempt(each, each.traced)
            for each in report.attempts
            if each.traced is not None and traces.read(each.traced.context).sampled
        )

    def _keep(self, spans: Iterable[ReadableSpan]) -> None:
        made = list(spans)
        with self._lock:
            self._waiting.extend(made)
            excess = len(self._waiting) - MAX_WAITING
            for _ in range(excess):
                self._waiting.popleft()
        if excess > 0:
            self._telemetry.emit(SpansSent("dropped", excess))

    def _publishing(self, event: EventTraced) -> ReadableSpan:
        own = traces.read(event.context)
        return ReadableSpan(
            f"publish {event.event_type}",
            context=_context(own, own.span_id),
            parent=_context(own, event.parent) if event.parent else None,
            resource=self._resource,
            kind=SpanKind.PRODUCER,
            attributes={
                "messaging.system": "ringbearer",
                "messaging.operation.type": "send",
                "messaging.message.id": event.event_id,
                "ringbearer.supplier.id": event.supplier_id,
                "ringbearer.event.type": event.event_type,
                "ringbearer.deliveries": event.deliveries,
                "ringbearer.duplicate": event.duplicate,
            },
            start_time=event.began_at * _NANOSECONDS,
            end_time=event.ended_at * _NANOSECONDS,
        )

    def _attempt(self, attempt: AttemptMade, traced: AttemptTraced) -> ReadableSpan:
        own = traces.read(traced.context)
        attributes: dict[str, str | int | float] = {
            "http.request.method": "POST",
            "messaging.message.id": traced.event_id,
            "ringbearer.delivery.id": traced.delivery_id,
            "ringbearer.endpoint.id": attempt.endpoint_id,
            "ringbearer.supplier.id": attempt.supplier_id,
            "ringbearer.event.type": attempt.event_type,
            "ringbearer.attempt": attempt.attempt,
            "ringbearer.lane": LANES[attempt.lane],
            "ringbearer.state": attempt.state.value,
            "ringbearer.waited": max(0, attempt.claimed_at - attempt.ready_at) / 1e6,
        }
        if traced.status_code:
            attributes["http.response.status_code"] = traced.status_code
        if attempt.error is not None:
            attributes["error.type"] = attempt.error
        sent = attempt.first_byte_at
        return ReadableSpan(
            f"deliver {attempt.event_type}",
            context=_context(own, traced.span),
            parent=_context(own, own.span_id),
            resource=self._resource,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            events=[] if sent is None else [Event("first byte sent", timestamp=sent * _NANOSECONDS)],
            status=Status(StatusCode.OK if attempt.outcome == "delivered" else StatusCode.ERROR),
            start_time=attempt.claimed_at * _NANOSECONDS,
            end_time=attempt.answered_at * _NANOSECONDS,
        )


def traces_url(url: str) -> str:
    """Where spans go: a URL without a path gets the one that OTLP over HTTP has for them."""
    return url if urlsplit(url).path.strip("/") else f"{url.rstrip('/')}/v1/traces"


def _context(span: traces.Span, span_id: str) -> SpanContext:
    return SpanContext(
        int(span.trace_id, 16),
        int(span_id, 16),
        is_remote=span_id != span.span_id,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
        trace_state=TraceState.from_header([span.state]) if span.state else None,
    )
