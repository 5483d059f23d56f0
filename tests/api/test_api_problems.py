"""Errors that are not about content: forms, methods, sizes, stores that are away, and what nobody expected."""

import logging
import socket
import sqlite3

import httpx
import pytest

from api.harness import Api, problem
from ringbearer.api.problems import answer_to
from ringbearer.errors import Overloaded, StoreUnavailable, TooManyRequests

SUPPLIER = "/v1/suppliers/lumen"


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"{}}",
        b"{'name':'x'}",
        b'{"name":NaN}',
        b'{"name":Infinity}',
        b'{"metadata":{"a":1e999}}',
        b'{"metadata":{"a":' + b"9" * 5_000 + b"}}",
        b'{"name":"\\ud800"}',
        b'{"name":"\xff"}',
        b'{"name":"a","name":"b"}',
        b'{"metadata":{"a":1,"a":2}}',
        b'{"metadata":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"metadata":' + b'{"a":' * 100_000,
        b"\xef\xbb\xbf{}",
        b"\x00",
        "{}".encode("utf-16"),
        b" ",
    ],
)
def test_malformed_json_is_400(admin: httpx.Client, content: bytes) -> None:
    problem(admin.put(SUPPLIER, content=content, headers={"content-type": "application/json"}), 400)


@pytest.mark.parametrize(
    "content", [b"[]", b"null", b'"x"', b"5", b'{"metadata":' + b'{"a":' * 50 + b"1" + b"}" * 51]
)
def test_other_json_is_422(admin: httpx.Client, content: bytes) -> None:
    problem(admin.put(SUPPLIER, content=content, headers={"content-type": "application/json"}), 422)


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"]
)
def test_another_media_type_is_415(admin: httpx.Client, content_type: str) -> None:
    problem(admin.put(SUPPLIER, content=b"{}", headers={"content-type": content_type}), 415)


def test_json_with_parameters_or_without_a_type_is_taken(admin: httpx.Client) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert admin.put(SUPPLIER, content=b"{}", headers=headers).status_code == 201
    assert admin.put(SUPPLIER, content=b"{}").status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, gzip"])
def test_an_encoded_body_is_415(admin: httpx.Client, encoding: str) -> None:
    problem(admin.put(SUPPLIER, content=b"{}", headers={"content-encoding": encoding}), 415)


def test_a_large_body_is_413(admin: httpx.Client) -> None:
    content = b'{"name":"' + b"x" * 1024 * 1024 + b'"}'
    problem(admin.put(SUPPLIER, content=content), 413)
    problem(admin.put(SUPPLIER, content=iter([content[:700_000], content[700_000:]])), 413)


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v2/suppliers", "/v1/supplier", "/schema", "/docs/x", "/v1/%2e%2e/x"]
)
def test_an_unknown_path_is_404(admin: httpx.Client, path: str) -> None:
    problem(admin.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/v1/suppliers", "GET"),
        ("POST", "/v1/suppliers/lumen", "DELETE, GET, PUT"),
        ("PUT", "/v1/suppliers/lumen/endpoints/ep_1", "DELETE, GET, PATCH"),
        ("GET", "/v1/suppliers/lumen/endpoints/ep_1/test", "POST"),
        ("GET", "/v1/events", "POST"),
        ("GET", "/v1/events/batch", "POST"),
        ("GET", "/v1/deliveries/replay", "POST"),
        ("DELETE", "/v1/deliveries", "GET"),
        ("PATCH", "/v1/keys/key_1", "DELETE"),
        ("POST", "/health/live", "GET"),
        ("POST", "/metrics", "GET"),
        ("POST", "/docs", "GET"),
        ("LOCK", "/v1/keys", "GET, POST"),
    ],
)
def test_a_wrong_method_is_405_and_says_which_are_right(
    admin: httpx.Client, method: str, path: str, allow: str
) -> None:
    answer = admin.request(method, path)
    problem(answer, 405)
    assert answer.headers["allow"] == allow


def test_a_store_that_is_away_is_503(api: Api, admin: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable("the database does not take it: could not connect to db.internal:5432")

    monkeypatch.setattr(api.storage.catalog, "list_suppliers", fail)
    answer = admin.get("/v1/suppliers")
    problem(answer, 503)
    assert answer.headers["retry-after"] == "1"
    assert "internal" not in answer.text


def test_what_nobody_expected_is_500_and_tells_nothing(
    api: Api, admin: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise sqlite3.InterfaceError("hunter2")

    monkeypatch.setattr(api.storage.catalog, "list_suppliers", fail)
    with caplog.at_level(logging.ERROR):
        answer = admin.get("/v1/suppliers")
    problem(answer, 500)
    assert "hunter2" not in answer.text
    assert "sqlite" not in answer.text.lower()
    assert "hunter2" in caplog.text


def test_a_failing_reconciliation_does_not_undo_the_answer(
    api: Api, admin: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise StoreUnavailable("away")

    api.supplier()
    endpoint = api.endpoint()
    object.__setattr__(api.services, "reconcile", fail)
    answer = admin.post(f"{SUPPLIER}/endpoints/{endpoint['id']}/disable")
    assert (answer.status_code, answer.json()["enabled"]) == (200, False)


def test_a_client_that_goes_away_is_no_error_of_ours(
    api: Api, admin: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    url = httpx.URL(api.url)
    head = f"PUT {SUPPLIER} HTTP/1.1\r\nHost: x\r\nAuthorization: {admin.headers['authorization']}\r\n"
    with caplog.at_level(logging.WARNING):
        with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
            connection.sendall(f'{head}Content-Length: 100\r\n\r\n{{"name":'.encode())
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4_096):
                pass
        problem(admin.get(SUPPLIER), 404)
    assert caplog.text == ""


def test_errors_have_their_headers() -> None:
    assert answer_to(TooManyRequests("slow down", 0.2)).headers["retry-after"] == "1"
    assert answer_to(TooManyRequests("slow down", 7.1)).headers["retry-after"] == "8"
    assert answer_to(Overloaded("x")).status == 503
    assert answer_to(Overloaded("x")).headers["retry-after"] == "1"
