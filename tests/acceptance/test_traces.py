"""Traces: a publisher's goes on to the receiver, and our spans of it reach a collector by OTLP over HTTP."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status as StatusMessage

from chaos.service import ADMIN_KEY, NO_TLS, Service, plain_get, wait_for
from ringbearer.domain import traces
from ringbearer.testing import Received, Receiver

_TRACE = "0af7651916cd43dd8448eb211c80319c"
_PARENT = "b7ad6b7169203331"
_UNSAMPLED = "1" * 32
_WAIT = 20.0


class Collector(NamedTuple):
    """A collector of spans."""

    url: str
    spans: list[SpanMessage]
    paths: list[str]

    def of(self, trace_id: str, count: int) -> list[SpanMessage]:
        """The spans of a trace, once there are so many, publishing first."""

        def found() -> list[SpanMessage]:
            return [span for span in self.spans if span.trace_id.hex() == trace_id]

        wait_for(lambda: len(found()) >= count, _WAIT, f"{count} spans of a trace")
        return sorted(found(), key=lambda span: span.start_time_unix_nano)


@contextmanager
def collector() -> Iterator[Collector]:
    """One that takes what OTLP over HTTP says: protobuf, POSTed."""
    spans: list[SpanMessage] = []
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            paths.append(self.path)
            for resource in ExportTraceServiceRequest.FromString(raw).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Collector(f"http://127.0.0.1:{server.server_address[1]}", spans, paths)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _client(service: Service) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    return httpx.AsyncClient(
        base_url=service.url, headers=headers, timeout=20, trust_env=False, verify=NO_TLS
    )


async def _subscribe(client: httpx.AsyncClient, receiver: Receiver) -> None:
    assert (await client.put("/v1/suppliers/lumen", json={})).status_code == 201
    wanted = {"url": receiver.url + "/hooks", "retry_schedule": [1]}
    made = await client.post("/v1/suppliers/lumen/endpoints", json=wanted)
    assert made.status_code == 201, made.text


def _event(number: int) -> dict[str, object]:
    return {"supplier_id": "lumen", "type": "booking.confirmed", "data": {"number": number}}


def test_a_publishers_trace_reaches_receiver_and_collector(database_url: str | None, tmp_path: Path) -> None:
    with collector() as told, Service(tmp_path, database_url=database_url, otlp_url=told.url) as service:
        service.start()
        parents = asyncio.run(_publish_within_a_trace(service))
        published, failed, delivered = told.of(_TRACE, 3)
        assert published.name == "publish booking.confirmed"
        assert published.parent_span_id.hex() == _PARENT
        assert {failed.parent_span_id, delivered.parent_span_id} == {published.span_id}
        assert [failed.span_id.hex(), delivered.span_id.hex()] == parents
        assert failed.status.code == StatusMessage.STATUS_CODE_ERROR
        assert _attribute(failed, "http.response.status_code") == 500
        assert _attribute(failed, "error.type") == "http_500"
        assert _attribute(delivered, "ringbearer.attempt") == 2
        assert published.start_time_unix_nano <= published.end_time_unix_nano
        assert delivered.start_time_unix_nano <= delivered.events[0].time_unix_nano
        assert delivered.events[0].time_unix_nano <= delivered.end_time_unix_nano
        assert set(told.paths) == {"/v1/traces"}

        begun = asyncio.run(_publish_without(service))
        assert {span.name for span in told.of(begun, 2)} == {
            "publish booking.confirmed",
            "deliver booking.confirmed",
        }
        assert not any(span.trace_id.hex() == _UNSAMPLED for span in told.spans)
        metrics = plain_get(f"{service.url}/metrics").text
        assert 'ringbearer_trace_spans_total{result="exported"}' in metrics
        assert service.stop() == 0


async def _publish_within_a_trace(service: Service) -> list[str]:
    """Two attempts for one event; returns the spans that the receiver is told of."""

    def recover(_: Received) -> None:
        receiver.fail = None  # from the next one on

    receiver = Receiver(fail=500, on_receive=recover)
    async with _client(service) as client, receiver:
        await _subscribe(client, receiver)
        given = {"traceparent": f"00-{_TRACE}-{_PARENT}-01", "tracestate": "congo=t61rcWkgMzE"}
        accepted = await client.post("/v1/events", json=_event(1), headers=given)
        assert accepted.status_code == 202, accepted.text
        async with asyncio.timeout(_WAIT):
            arrived = await receiver.wait_for(2)
        assert all(each.headers["tracestate"] == "congo=t61rcWkgMzE" for each in arrived)
        spans = [traces.read(each.headers["traceparent"]) for each in arrived]
        assert {span.trace_id for span in spans} == {_TRACE}
        return [span.span_id for span in spans]


async def _publish_without(service: Service) -> str:
    """What its publisher does not want sampled is not; where there is no trace, one begins: its id."""
    async with _client(service) as client, Receiver() as receiver:
        (endpoint,) = (await client.get("/v1/suppliers/lumen/endpoints")).json()["items"]
        path = f"/v1/suppliers/lumen/endpoints/{endpoint['id']}"
        assert (await client.patch(path, json={"url": receiver.url})).status_code == 200
        unsampled = {"traceparent": f"00-{_UNSAMPLED}-{_PARENT}-00"}
        await client.post("/v1/events", json=_event(2), headers=unsampled)
        await client.post("/v1/events", json=_event(3), headers={"traceparent": "nonsense"})
        async with asyncio.timeout(_WAIT):
            arrived = await receiver.wait_for(2)
        spans = [traces.read(each.headers["traceparent"]) for each in arrived]
        (begun,) = (span for span in spans if span.trace_id != _UNSAMPLED)
        assert begun.sampled
        return begun.trace_id


def test_without_a_collector_traces_are_passed_on_or_left(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        service.start()
        asyncio.run(_batch(service, {_TRACE}))
        assert service.stop() == 0
    with Service(tmp_path / "off", trace_context=False) as service:
        service.start()
        asyncio.run(_batch(service, set()))


async def _batch(service: Service, expected: set[str]) -> None:
    """Events of one request belong to its trace; those of another belong to none."""
    async with _client(service) as client, Receiver() as receiver:
        await _subscribe(client, receiver)
        given = {"traceparent": f"00-{_TRACE}-{_PARENT}-01"}
        answer = await client.post("/v1/events/batch", json=[_event(1), _event(2)], headers=given)
        assert answer.json()["accepted"] == 2
        await client.post("/v1/events", json=_event(3))
        async with asyncio.timeout(_WAIT):
            arrived = await receiver.wait_for(3)
        told = [each.headers["traceparent"] for each in arrived if "traceparent" in each.headers]
        assert len(told) == (2 if expected else 0)
        assert {traces.read(each).trace_id for each in told} == expected
        assert len({traces.read(each).span_id for each in told} - {_PARENT}) == len(told)


def _attribute(span: SpanMessage, name: str) -> object:
    (value,) = (each.value for each in span.attributes if each.key == name)
    return getattr(value, str(value.WhichOneof("value")))
