"""Whatever a receiver answers is stored in a bounded, harmless form, with an error that has a stable code."""

import json
import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringbearer.delivery.heads import MAX_KEPT_HEADER_BYTES, MAX_KEPT_HEADERS, value
from ringbearer.delivery.outcome import (
    _BY_CURL_CODE,
    _BY_ERRNO,
    _BY_MESSAGE,
    _SENTENCES,
    MAX_KEPT_BODY,
    Exchange,
    answered,
    error,
    record,
    succeeded,
)

OK = [b"HTTP/1.1 200 OK\r\n", b"Content-Type: text/plain\r\n", b"\r\n"]


def _exchange(**facts: object) -> Exchange:
    return msgspec.convert({"started_at": 1, "duration": 2} | facts, Exchange, strict=True)


def _answer(status: int = 200, lines: list[bytes] | None = None, body: bytes = b"") -> Exchange:
    return Exchange(
        started_at=1, duration=2, status=status, head=b"".join(OK if lines is None else lines), body=body
    )


def _failed(curl_code: int, message: str = "", status: int = 0, os_errno: int = 0) -> Exchange:
    return _exchange(curl_code=curl_code, curl_message=message, status=status, os_errno=os_errno)


def _headers(exchange: Exchange) -> dict[str, str]:
    stored = record(exchange).response_headers
    return {} if stored is None else msgspec.json.decode(stored, type=dict[str, str])


def _code(exchange: Exchange) -> str:
    text = error(exchange)
    assert text is not None
    code, colon, sentence = text.partition(": ")
    assert colon
    assert sentence
    assert re.fullmatch(r"[a-z0-9_]+", code)
    return code


def test_a_success_is_stored_without_an_error() -> None:
    made = record(_answer(202, body=b"thanks"))
    assert (made.started_at, made.duration, made.status_code) == (1, 2, 202)
    assert (made.error, made.response_body) == (None, "thanks")
    assert made.response_headers == '{"content-type":"text/plain"}'


def test_nothing_received_is_stored_as_nothing() -> None:
    made = record(_failed(6, "Could not resolve host: hooks.example.com"))
    assert (made.status_code, made.response_body, made.response_headers) == (None, None, None)
    assert made.error == (
        "dns_failed: the host name could not be resolved (Could not resolve host: hooks.example.com)"
    )


# ── whether it is an answer ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_success(status: int) -> None:
    assert succeeded(_answer(status))


@pytest.mark.parametrize("status", [0, 100, 101, 103, 199, 300, 302, 400, 404, 410, 500, 999])
def test_everything_else_is_not(status: int) -> None:
    assert not succeeded(_answer(status))


@pytest.mark.parametrize("curl_code", [23, 63])
def test_an_answer_longer_than_we_read_counts_case_51_52(curl_code: int) -> None:
    exchange = Exchange(started_at=1, duration=2, status=200, curl_code=curl_code, head=b"".join(OK))
    assert succeeded(exchange)
    assert error(exchange) is None
    exchange.status = 503
    assert answered(exchange) == 503
    assert _code(exchange) == "http_503"


@pytest.mark.parametrize("curl_code", [23, 63])
def test_headers_longer_than_we_read_do_not_count_case_53(curl_code: int) -> None:
    lines = [b"HTTP/1.1 100 Continue\r\n", b"\r\n", b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"]
    exchange = Exchange(started_at=1, duration=2, status=200, curl_code=curl_code, head=b"".join(lines))
    assert not succeeded(exchange)
    assert _code(exchange) == "too_large"


@pytest.mark.parametrize("curl_code", [1, 8, 16, 18, 28, 55, 56, 92])
def test_a_2xx_that_broke_off_is_a_failure(curl_code: int) -> None:
    exchange = Exchange(
        started_at=1, duration=2, status=200, curl_code=curl_code, head=b"".join(OK), body=b"ha"
    )
    assert not succeeded(exchange)
    assert record(exchange).status_code == 200
    assert record(exchange).response_body == "ha"


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────────────

VERIFY = "SSL certificate OpenSSL verify result: "
CONNECT = "TLS connect error: error:0A000410:SSL routines::"


@pytest.mark.parametrize(
    ("exchange", "code"),
    [
        pytest.param(
            _failed(60, VERIFY + "certificate has expired (10)"), "tls_expired", id="case-64-expired"
        ),
        pytest.param(
            _failed(60, VERIFY + "certificate is not yet valid or the system clock is incorrect (9)"),
            "tls_not_yet_valid",
            id="case-64-not-yet-valid",
        ),
        pytest.param(
            _failed(60, "SSL: no alternative certificate subject name matches target hostname 'localhost'"),
            "tls_wrong_host",
            id="case-64-wrong-host",
        ),
        pytest.param(
            _failed(60, "SSL: no alternative certificate subject name matches target IPv4 address '1.1.1.1'"),
            "tls_wrong_host",
            id="case-69-wrong-address",
        ),
        pytest.param(
            _failed(60, VERIFY + "self-signed certificate (18)"), "tls_self_signed", id="case-64-self-signed"
        ),
        pytest.param(
            _failed(60, VERIFY + "self-signed certificate in certificate chain (19)"),
            "tls_untrusted",
            id="case-64-private-authority",
        ),
        pytest.param(
            _failed(60, VERIFY + "unable to get local issuer certificate (20)"),
            "tls_untrusted",
            id="case-64-missing-intermediate",
        ),
        pytest.param(
            _failed(60, VERIFY + "EE certificate key too weak (66)"), "tls_weak", id="case-64-1024-bit"
        ),
        pytest.param(
            _failed(60, VERIFY + "CA signature digest algorithm too weak (68)"), "tls_weak", id="case-64-sha1"
        ),
        pytest.param(_failed(60, VERIFY + "certificate revoked (23)"), "tls_revoked", id="case-64-revoked"),
        pytest.param(
            _failed(35, CONNECT + "tlsv1 alert protocol version"), "tls_version", id="case-65-tls-1.0"
        ),
        pytest.param(
            _failed(35, CONNECT + "ssl/tls alert handshake failure"),
            "tls_handshake",
            id="case-65-null-cipher",
        ),
        pytest.param(_failed(35, CONNECT + "wrong version number"), "tls_not_spoken", id="plain-http-on-tls"),
        pytest.param(_failed(35, "Recv failure: Connection reset by peer"), "tls_handshake", id="tls-reset"),
        pytest.param(
            _failed(56, "OpenSSL SSL_read: error:0A00045C:SSL routines::tlsv13 alert certificate required"),
            "tls_client_certificate",
            id="case-68-client-certificate",
        ),
        pytest.param(_failed(6, "Could not resolve host: x.example"), "dns_failed", id="case-42-nxdomain"),
        pytest.param(
            _failed(28, "Resolving timed out after 5000 milliseconds"), "dns_timeout", id="case-41-dns"
        ),
        pytest.param(
            _failed(28, "Connection timed out after 5001 milliseconds"),
            "connect_timeout",
            id="case-44-blackhole",
        ),
        pytest.param(
            _failed(28, "Operation timed out after 10000 milliseconds with 2 out of 10 bytes received", 200),
            "timeout",
            id="case-50-slow-body",
        ),
        pytest.param(
            _failed(7, "Failed to connect to 1.1.1.1:81", os_errno=111), "connection_refused", id="refused"
        ),
        pytest.param(
            _failed(7, "Failed to connect to 1.1.1.1:81", os_errno=113), "unreachable", id="no-route"
        ),
        pytest.param(_failed(7, "Failed to connect to 1.1.1.1:81"), "connect_failed", id="unknown-reason"),
        pytest.param(
            _failed(56, "Recv failure: Connection reset by peer"), "connection_reset", id="case-45-reset"
        ),
        pytest.param(_failed(55, "Send failure: Broken pipe"), "connection_reset", id="case-45-broken-pipe"),
        pytest.param(_failed(52, "Empty reply from server"), "empty_response", id="case-57-nothing"),
        pytest.param(
            _failed(52, "Empty reply from server", 103), "empty_response", id="case-57-interim-only"
        ),
        pytest.param(_failed(1, "Received HTTP/0.9 when not allowed"), "bad_response", id="case-57-banner"),
        pytest.param(
            _failed(1, "Unsupported response code in HTTP response"), "bad_response", id="case-57-status-0"
        ),
        pytest.param(_failed(8, "Invalid Content-Length: value", 200), "bad_response", id="case-56-length"),
        pytest.param(
            _failed(56, "chunk hex-length char not a hex digit: 0x7a", 200),
            "bad_response",
            id="case-56-chunk",
        ),
        pytest.param(
            _failed(56, "Too large response headers: 307223 > 307200", 100), "too_large", id="case-54-interim"
        ),
        pytest.param(
            _failed(100, "Too many response headers, 5000 is max", 200), "too_large", id="case-53-headers"
        ),
        pytest.param(
            _failed(18, "end of response with 97 bytes missing", 200), "incomplete_response", id="cut-short"
        ),
        pytest.param(
            _failed(92, "HTTP/2 stream 1 was not closed cleanly"), "protocol_error", id="case-60-h2"
        ),
        pytest.param(_answer(101), "bad_response", id="case-60-upgrade"),
        pytest.param(_answer(999), "http_999", id="case-57-status-999"),
        pytest.param(_answer(302), "http_302", id="case-46-redirect"),
        pytest.param(_answer(503), "http_503", id="503"),
        pytest.param(_exchange(), "bad_response", id="nothing-at-all"),
        pytest.param(_failed(9_999, "new"), "transport_error", id="unknown-to-us"),
        pytest.param(
            _exchange(curl_code=7, blocked="127.0.0.1 is a loopback address"), "blocked_address", id="blocked"
        ),
    ],
)
def test_error_codes(exchange: Exchange, code: str) -> None:
    assert _code(exchange) == code


def test_an_answer_counts_more_than_an_address_that_was_refused_case_38() -> None:
    exchange = _answer(200)
    exchange.blocked = "::1 is a loopback address"
    assert succeeded(exchange)
    assert error(exchange) is None


def test_every_code_has_its_sentence() -> None:
    codes = {*_BY_CURL_CODE.values(), *_BY_ERRNO.values()}
    codes |= {code for needles in _BY_MESSAGE.values() for _, code in needles}
    assert codes | {"aborted", "transport_error"} == set(_SENTENCES)


@settings(deadline=None)
@given(st.integers(min_value=1, max_value=200), st.text(max_size=500), st.integers(0, 200))
def test_an_error_is_short_and_printable_on_one_line(curl_code: int, message: str, os_errno: int) -> None:
    text = error(_failed(curl_code, message.replace("\ud800", ""), os_errno=os_errno))
    assert text is not None
    assert len(text) < 400
    assert not any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in text)


# ── the body ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        pytest.param(b"a\0b", "a\ufffdb", id="case-58-nul"),
        pytest.param(b"a\xffb", "a\ufffdb", id="case-58-invalid-utf8"),
        pytest.param("ж".encode(), "ж", id="utf8"),
        pytest.param(
            b"\x1b[31m<script>${jndi:x}", "\x1b[31m<script>${jndi:x}", id="case-58-escaped-where-shown"
        ),
        pytest.param(b"\x1f\x8b\x08", "\x1f\ufffd\x08", id="case-55-gzip-as-it-is"),
        pytest.param(b"x" * 65_536, "x" * MAX_KEPT_BODY, id="case-51-long"),
        pytest.param(b"x" * 4_095 + "ж".encode() * 9, "x" * 4_095, id="cut-inside-a-character"),
        pytest.param(b"x" * 10 + b"\xd0", "x" * 10 + "\ufffd", id="ends-inside-a-character"),
        pytest.param(b"", None, id="empty"),
    ],
)
def test_kept_body(body: bytes, kept: str | None) -> None:
    assert record(_answer(body=body)).response_body == kept


@settings(deadline=None)
@given(st.binary(max_size=200).map(lambda part: part * 60))
def test_a_kept_body_is_bounded_text_without_nul(body: bytes) -> None:
    kept = record(_answer(body=body)).response_body or ""
    assert len(kept.encode()) <= MAX_KEPT_BODY
    assert "\0" not in kept


# ── the headers ─────────────────────────────────────────────────────────────────────────────────────────────


def test_headers_are_those_of_the_final_answer() -> None:
    lines = [
        b"HTTP/1.1 103 Early Hints\r\n",
        b"Link: </style.css>\r\n",
        b"\r\n",
        b"HTTP/2 200\r\n",
        b"X-One:  a \r\n",
        b"x-one: b\r\n",
        b"no colon\r\n",
        b": no name\r\n",
        b"\r\n",
        b"X-Trailer: late\r\n",
    ]
    assert _headers(_answer(lines=lines)) == {"x-one": "a, b"}


def test_a_header_that_looks_like_a_status_line_hides_nothing() -> None:
    lines = [b"HTTP/1.1 200 OK\r\n", b"A: 1\r\n", b"HTTP/x: 2\r\n", b"B: 3\r\n", b"\r\n"]
    assert _headers(_answer(lines=lines)) == {"a": "1", "http/x": "2", "b": "3"}


def test_cookies_are_not_stored_case_63() -> None:
    lines = [b"HTTP/1.1 200 OK\r\n", b"Set-Cookie: a=b\r\n", b"SET-COOKIE2: a=b\r\n", b"\r\n"]
    assert record(_answer(lines=lines)).response_headers is None


def test_control_characters_in_headers_are_replaced() -> None:
    lines = [b"HTTP/1.1 200 OK\r\n", b"X-A\x01: a\0b\x1bc\x7f\x85d\xe9\te\r\n"]
    assert _headers(_answer(lines=lines)) == {"x-a\ufffd": "a\ufffdb\ufffdc\ufffd\ufffddé e"}


def test_headers_are_bounded_case_53() -> None:
    many = [b"HTTP/1.1 200 OK\r\n", *(b"X-%d: y\r\n" % number for number in range(5_000))]
    assert len(_headers(_answer(lines=many))) == MAX_KEPT_HEADERS
    large = [b"HTTP/1.1 200 OK\r\n", b"A: 1\r\n", b"B: " + b"x" * 100_000 + b"\r\n", b"C: 2\r\n"]
    assert _headers(_answer(lines=large)) == {"a": "1"}
    repeated = [b"HTTP/1.1 200 OK\r\n", *[b"A: " + b"x" * 100 + b"\r\n"] * 5_000]
    assert len(_headers(_answer(lines=repeated))["a"]) <= MAX_KEPT_HEADER_BYTES


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"\r\n", b"HTTP/1.1 200\r\n", b"A: b\r\n"])))
def test_any_lines_become_a_bounded_json_object(lines: list[bytes]) -> None:
    stored = record(_answer(lines=lines)).response_headers
    if stored is None:
        return
    headers = json.loads(stored)
    assert 1 <= len(headers) <= MAX_KEPT_HEADERS
    for name, said in headers.items():
        assert name == name.strip().lower()
        assert not any(ord(char) < 0x20 for char in name + said)


def test_a_header_is_found_by_its_lower_case_name() -> None:
    lines = [
        b"HTTP/1.1 503 Busy\r\n",
        b"RETRY-AFTER:\t7 \r\n",
        b"Retry-After: 8\r\n",
        b"\r\n",
        b"Late: 1\r\n",
    ]
    assert value(b"".join(lines), "retry-after") == "7"
    assert value(b"".join(lines), "late") is None
    assert value(b"", "retry-after") is None
