"""What a connection to the open port may do: requests that two readers would read differently, and floods of bytes."""

import re
import socket
from collections.abc import Iterator

import httpx
import pytest

from chaos.service import ADMIN_KEY, Service

_KEY = f"Authorization: Bearer {ADMIN_KEY}\r\n"
_LAST = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
_EVENT = b'{"supplier_id": "lumen", "type": "booking.confirmed", "data": 1}'
_SMUGGLED = f"DELETE /v1/suppliers/lumen HTTP/1.1\r\nHost: x\r\n{_KEY}Content-Length: 0\r\n\r\n".encode()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("connections"), workers=0) as started:
        started.start()
        with started.client() as client:
            assert client.put("/v1/suppliers/lumen").status_code == 201
        yield started


def exchange(service: Service, sent: bytes) -> bytes:
    """All that is answered until the connection is closed."""
    received = b""
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        try:
            connection.sendall(sent)
            while part := connection.recv(65_536):
                received += part
        except (ConnectionResetError, BrokenPipeError):
            pass  # closed with something of ours unread, which is its right
    return received


def statuses(answers: bytes) -> list[int]:
    """The status of each answer."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", answers)]


def post(headers: str, body: bytes, path: str = "/v1/events", version: str = "1.1") -> bytes:
    """A request to publish, with these headers as they are."""
    head = f"POST {path} HTTP/{version}\r\nHost: x\r\n{_KEY}Content-Type: application/json\r\n{headers}\r\n"
    return head.encode("latin-1") + body


@pytest.fixture
def intact(service: Service) -> Iterator[None]:
    """Afterwards the supplier is there and the service answers."""
    yield
    with service.client() as client:
        assert client.get("/v1/suppliers/lumen").status_code == 200


CHUNKED = b"0\r\n\r\n"
AMBIGUOUS = {
    "length and chunks": post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", CHUNKED + b"G"),
    "chunks and length": post("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", CHUNKED + b"G"),
    "two lengths": post("Content-Length: 0\r\nContent-Length: 64\r\n", _EVENT),
    "the same length twice": post("Content-Length: 64\r\nContent-Length: 64\r\n", _EVENT),
    "a list of lengths": post("Content-Length: 64, 64\r\n", _EVENT),
    "a signed length": post("Content-Length: +64\r\n", _EVENT),
    "a negative length": post("Content-Length: -1\r\n", b""),
    "a hexadecimal length": post("Content-Length: 0x40\r\n", _EVENT),
    "a length beyond any number": post("Content-Length: 18446744073709551617\r\n", b"{"),
    "an empty length": post("Content-Length:\r\n", b""),
    "chunks under another coding": post("Transfer-Encoding: chunked, identity\r\n", CHUNKED),
    "an unknown coding": post("Transfer-Encoding: xchunked\r\n", CHUNKED),
    "a blank before the colon": post("Transfer-Encoding : chunked\r\n", CHUNKED),
    "a folded header": post("Transfer-Encoding:\r\n chunked\r\n", CHUNKED),
    "a folded value": post("X-Fold: a\r\n b\r\nContent-Length: 0\r\n", b""),
    "a header without a colon": post("Content-Length\r\n", b""),
    "a header with NUL": post("X-Null: a\x00b\r\nContent-Length: 0\r\n", b""),
    "a bare line feed": post("X-Bare: a\nContent-Length: 0\r\n", b""),
    "a bare carriage return": post("X-Bare: a\rContent-Length: 0\r\n", b""),
    "a chunk of negative size": post("Transfer-Encoding: chunked\r\n", b"-1\r\n\r\n"),
    "a chunk of hexadecimal spelling": post("Transfer-Encoding: chunked\r\n", b"0x1\r\n{\r\n" + CHUNKED),
    "a chunk of endless size": post("Transfer-Encoding: chunked\r\n", b"f" * 17 + b"\r\n{"),
    "a chunk longer than it says": post("Transfer-Encoding: chunked\r\n", b"1\r\n{}\r\n" + CHUNKED),
    "a chunk with a bare line feed": post("Transfer-Encoding: chunked\r\n", b"1\n{\r\n" + CHUNKED),
    "an extension with a bare line feed": post("Transfer-Encoding: chunked\r\n", b"1;a\n{\r\n" + CHUNKED),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /health/live\r\n\r\n",
    "a version that is none": b"GET /health/live HTTP/9.9\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a proxy's request": b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.usefixtures("intact")
@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_read(
    service: Service, name: str
) -> None:
    answers = exchange(service, AMBIGUOUS[name] + _SMUGGLED + _LAST)
    assert statuses(answers) == [400]
    assert b"content-type: application/problem+json" in answers
    assert b"connection: close" in answers


@pytest.mark.usefixtures("intact")
@pytest.mark.parametrize(
    "headers", ["Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n", "Upgrade: websocket\r\n"]
)
@pytest.mark.parametrize("apart", [False, True])
def test_a_request_that_asks_for_another_protocol_is_answered_in_this_one_with_its_body(
    service: Service, headers: str, apart: bool
) -> None:
    asking = f"Connection: Upgrade, HTTP2-Settings\r\n{headers}Content-Length: {{}}\r\n"
    whole = post(asking.format(len(_EVENT)), _EVENT)
    hidden = post(asking.format(len(_SMUGGLED)), _SMUGGLED)
    for sent, status in ((whole, 202), (hidden, 400)):
        with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
            head, blank, body = sent.partition(b"\r\n\r\n")
            connection.sendall(head + blank if apart else sent)
            if apart:
                live = httpx.get(f"{service.url}/health/live", trust_env=False)  # by now the head was read
                assert live.status_code == 200
                connection.sendall(body)
            connection.sendall(_LAST)
            received = b""
            while part := connection.recv(65_536):
                received += part
        assert statuses(received) == [status, 200]


def test_chunks_with_extensions_and_trailers_are_taken_and_trailers_are_no_headers(service: Service) -> None:
    body = b"%x;name=value\r\n%b\r\n0\r\nIdempotency-Key: from-a-trailer\r\n\r\n" % (len(_EVENT), _EVENT)
    answers = exchange(service, post("Transfer-Encoding: chunked\r\n", body) * 2 + _LAST)
    assert statuses(answers) == [202, 202, 200]
    assert answers.count(b'"duplicate":false') == 2


def test_an_empty_header_does_not_swallow_the_next(service: Service) -> None:
    sent = post(f"X-Empty:\r\nIdempotency-Key: after-empty\r\nContent-Length: {len(_EVENT)}\r\n", _EVENT)
    answers = exchange(service, sent * 2 + _LAST)
    assert statuses(answers) == [202, 202, 200]
    assert answers.count(b'"duplicate":true') == 1


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health/live HTTP/1.1\r\nX-Long: " + b"x" * 1_000_000,
        b"GET /health/live?" + b"x" * 1_000_000,
        b"GET /health/live HTTP/1.1\r\n" + b"X-Many: x\r\n" * 100_000,
        b"GET /health/live HTTP/1.1\r\nX-Long: " + b"x" * 70_000 + b"\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nContent-Length: 2\r\nX-Long: " + b"x" * 70_000 + b"\r\n\r\n{}",
    ],
)
def test_a_head_without_end_is_broken_off(service: Service, head: bytes) -> None:
    answers = exchange(service, head)
    assert statuses(answers) in ([431], [])  # what is closed on the way may take its answer along
    assert httpx.get(f"{service.url}/health/live", trust_env=False).status_code == 200


def test_a_head_of_just_a_fitting_size_is_read(service: Service) -> None:
    head = b"GET /health/live HTTP/1.1\r\nConnection: close\r\nX-Long: " + b"x" * 60_000 + b"\r\n\r\n"
    assert statuses(exchange(service, head)) == [200]


def test_trailers_without_end_are_broken_off(service: Service) -> None:
    sent = post("Transfer-Encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n" + b"X-Trailer: x\r\n" * 4_000_000)
    assert set(statuses(exchange(service, sent))) <= {400, 413}
    assert httpx.get(f"{service.url}/health/live", trust_env=False).status_code == 200


@pytest.mark.parametrize(
    "target", ["*", "/%2e%2e/%2e%2e/etc/passwd", "//", "/%00", "/%ff", "/v1/%0d%0aX-Injected:%20x"]
)
@pytest.mark.parametrize("method", ["OPTIONS", "GET", "DELETE"])
def test_targets_that_lead_nowhere_are_answered(service: Service, method: str, target: str) -> None:
    sent = f"{method} {target} HTTP/1.1\r\nHost: x\r\n{_KEY}Connection: close\r\n\r\n".encode()
    answers = exchange(service, sent)
    (status,) = statuses(answers)
    assert 400 <= status < 500 or (target == "//" and status in (204, 303))
    assert b"\r\nX-Injected" not in answers


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
def test_a_load_balancer_may_ask_for_the_head_alone(service: Service, path: str) -> None:
    answer = httpx.head(service.url + path, trust_env=False)
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


def test_a_flood_of_requests_in_one_piece_ends_after_some(service: Service) -> None:
    """Each would be kept with all its state, at a hundred times its size."""
    answers = statuses(exchange(service, b"GET /health/live HTTP/1.1\r\n\r\n" * 2_000))
    assert 1 < len(answers) < 2_000
    assert set(answers) == {200}


def test_garbage_behind_an_event_does_not_overtake_its_answer(service: Service) -> None:
    sent = post(f"Content-Length: {len(_EVENT)}\r\n", _EVENT)
    assert statuses(exchange(service, sent + b"garbage\r\n\r\n")) == [202]
