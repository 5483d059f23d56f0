"""Publishing over HTTP as it is served: what is taken, what is refused and why; hostile cases by their number."""

import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from api.harness import Json, pointers, problem
from chaos.service import ADMIN_KEY, Service
from ringbearer.domain.events import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, MAX_DATA_BYTES

_PLAIN = {"content-type": "application/json"}
_LINES = {"content-type": "application/x-ndjson"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("ingest"), workers=0) as started:
        started.start()
        yield started


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as opened:
        assert opened.put("/v1/suppliers/lumen").status_code == 201
        yield opened


def text(data: str = "{}", **fields: object) -> bytes:
    """A request's body whose data are these very characters."""
    said = {"supplier_id": "lumen", "type": "booking.confirmed", **fields}
    return (json.dumps(said)[:-1] + f', "data": {data}}}').encode()


def accepted(answer: httpx.Response) -> Json:
    """The body of a 202."""
    assert answer.status_code == 202, answer.text
    body: Json = answer.json()
    return body


def one(client: httpx.Client, content: bytes, **headers: str) -> httpx.Response:
    return client.post("/v1/events", content=content, headers={**_PLAIN, **headers})


def chunked(client: httpx.Client, content: bytes) -> httpx.Response:
    """The same without a Content-Length: another way through the server."""
    return client.post("/v1/events", content=iter([content[:1000], content[1000:]]), headers=_PLAIN)


def test_72_data_of_just_the_limit_is_taken_and_a_byte_more_is_413(client: httpx.Client) -> None:
    fits = text('"' + "x" * (MAX_DATA_BYTES - 2) + '"')
    over = text('"' + "x" * (MAX_DATA_BYTES - 1) + '"')
    accepted(one(client, fits))
    accepted(chunked(client, fits))
    for answer in (one(client, over), chunked(client, over)):
        assert str(MAX_DATA_BYTES) in str(problem(answer, 413)["detail"])
    problem(one(client, b" " * (2 * MAX_DATA_BYTES)), 413)
    problem(chunked(client, b" " * (2 * MAX_DATA_BYTES)), 413)


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "gzip, gzip"])
def test_72_an_encoded_body_is_refused_unopened(client: httpx.Client, encoding: str) -> None:
    problem(one(client, b"\x1f\x8b" + b"\x00" * 100, **{"content-encoding": encoding}), 415)


@pytest.mark.parametrize(
    "content",
    [
        text("NaN"),
        text("Infinity"),
        text("-"),
        text('{"a": }'),
        text("[" * 10_000 + "]" * 9_999),
        text('"\xff"').replace("\xff".encode(), b"\xff"),
        b"",
        text() * 2,
        text('"\\ud800"'),
        text()[:-1],
    ],
)
def test_73_what_is_not_json_is_400(client: httpx.Client, content: bytes) -> None:
    problem(one(client, content), 400)


@pytest.mark.parametrize(
    "data",
    [
        "9223372036854775808",
        "1.50",
        "1e400",
        '{"a":1,"a":2}',
        ' [ 1 ,\t{"ü":"\\u00fc"} ] ',
        '"\\u0000"',
    ],
)
def test_73_unusual_json_is_kept_as_it_came(client: httpx.Client, data: str) -> None:
    event = accepted(one(client, text(data)))
    stored = client.get(f"/v1/events/{event['id']}")
    assert f'"data":{data.strip()}'.encode() in stored.content


def test_73_deep_nesting_is_kept_or_refused(client: httpx.Client) -> None:
    answer = one(client, text("[" * 10_000 + "]" * 10_000))
    assert answer.status_code in (202, 400)
    accepted(one(client, text()))  # and the server lives


def test_74_a_key_reused_with_another_body_is_409_and_a_huge_one_is_refused(client: httpx.Client) -> None:
    first = accepted(one(client, text("1"), **{"idempotency-key": "k74"}))
    again = accepted(one(client, text("1", idempotency_key="k74")))
    assert (again["id"], again["duplicate"]) == (first["id"], True)
    assert "k74" in str(problem(one(client, text("2"), **{"idempotency-key": "k74"}), 409)["detail"])
    assert pointers(one(client, text(idempotency_key="k" * 300))) == ["/idempotency_key"]
    assert one(client, text(idempotency_key="k" * 1024 * 1024)).status_code in (413, 422)
    contradicting = one(client, text(idempotency_key="k75"), **{"idempotency-key": "k76"})
    assert pointers(contradicting) == ["/idempotency_key"]


def test_every_field_that_is_wrong_is_named(client: httpx.Client) -> None:
    assert pointers(one(client, text(colour="red"))) == ["/colour"]
    assert pointers(one(client, b'{"supplier_id": "lumen", "data": 1}')) == ["/type"]
    assert pointers(one(client, text(priority="soon"))) == ["/priority"]
    problem(one(client, text(supplier_id="nobody")), 404)


@pytest.mark.parametrize("header", ["authorization", "idempotency-key", "content-type", "content-encoding"])
def test_a_header_that_decides_something_is_sent_once(client: httpx.Client, header: str) -> None:
    twice = {"authorization": f"Bearer {ADMIN_KEY}", "content-encoding": "identity", **_PLAIN}
    value = twice.get(header, "k")
    headers = [
        *((name, said) for name, said in twice.items() if name != header),
        (header, value),
        (header, value),
    ]
    for path in ("/v1/events", "/v1/events/batch"):
        with httpx.Client(base_url=client.base_url, trust_env=False, timeout=30) as bare:
            answer = bare.post(path, content=text(), headers=headers)
        assert header in str(problem(answer, 400)["detail"])


def test_who_may_publish(client: httpx.Client, service: Service) -> None:
    for scope, status in (("publish", 202), ("admin", 202), ("read", 403), ("supplier:lumen", 403)):
        key = client.post("/v1/keys", json={"scope": scope}).json()["key"]
        answer = one(client, text(), authorization=f"Bearer {key}")
        assert answer.status_code == status, (scope, answer.text)
    for wrong in ("", "Bearer", "Bearer x", f"Basic {ADMIN_KEY}"):
        problem(one(client, text(), authorization=wrong), 401)


def test_a_batch_answers_in_input_order(client: httpx.Client) -> None:
    lines = [
        text("1", idempotency_key="b1"),
        b"{",
        text("2", colour="red"),
        text("1", idempotency_key="b1"),
        text("3", supplier_id="nobody"),
        text("9", idempotency_key="b1"),
        text("4"),
    ]
    for content, headers in ((b"\n".join(lines), _LINES), (b"\r\n\r\n".join(lines) + b"\n", _LINES)):
        answer = accepted(client.post("/v1/events/batch", content=content, headers=headers))
        rejected = answer["rejected"]
        assert isinstance(rejected, list)
        assert [entry["index"] for entry in rejected] == [1, 2, 4, 5]
        assert all(entry["detail"] for entry in rejected)
        ids = answer["ids"]
        assert isinstance(ids, list)
        assert [given is None for given in ids] == [False, True, True, False, True, True, False]
        assert ids[0] == ids[3]
    array = b"[" + b",".join([text("5"), b"7", text("6")]) + b"]"
    answer = accepted(client.post("/v1/events/batch", content=array, headers=_PLAIN))
    assert (answer["accepted"], answer["duplicates"]) == (2, 0)
    assert [given is None for given in answer["ids"]] == [False, True, False]  # type: ignore[attr-defined]


def test_a_batch_has_limits(client: httpx.Client) -> None:
    line = text() + b"\n"
    most = accepted(client.post("/v1/events/batch", content=line * MAX_BATCH_EVENTS, headers=_LINES))
    assert most["accepted"] == MAX_BATCH_EVENTS
    problem(client.post("/v1/events/batch", content=line * (MAX_BATCH_EVENTS + 1), headers=_LINES), 413)
    problem(client.post("/v1/events/batch", content=b" " * (MAX_BATCH_BYTES + 1), headers=_LINES), 413)
    problem(client.post("/v1/events/batch", content=line, headers={"content-type": "text/csv"}), 415)
    problem(client.post("/v1/events/batch", content=b"[" * 100_000, headers=_PLAIN), 400)
    nothing = accepted(client.post("/v1/events/batch", content=b"\n", headers=_LINES))
    assert (nothing["accepted"], nothing["ids"]) == (0, [])


def test_requests_that_come_together_on_one_connection_are_answered_in_order(service: Service) -> None:
    body = text("1", idempotency_key="pipelined")
    head = (
        f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    live = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall((head + body) * 2 + live)
        received = b""
        while part := connection.recv(65_536):
            received += part
    assert received.count(b"HTTP/1.1 202") == 2
    assert received.count(b"HTTP/1.1 200") == 1
    assert (
        received.index(b'"duplicate":false') < received.index(b'"duplicate":true') < received.index(b" 200 ")
    )


def test_a_connection_that_ends_within_a_body_stores_nothing(service: Service, client: httpx.Client) -> None:
    body = text("1", idempotency_key="cut")
    head = (
        f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body) + 1}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall(head + body)
    assert accepted(one(client, text("1", idempotency_key="cut")))["duplicate"] is False
