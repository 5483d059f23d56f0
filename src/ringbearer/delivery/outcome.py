"""What came of one try, as HTTP saw it, and the facts that are written down of it.

An error is a stable code, then a colon and a sentence. The codes:

 blocked_address                                          the guard let none of the addresses be dialled
 dns_failed, dns_timeout                                  the name
 connect_failed, connection_refused, unreachable,
 connect_timeout, connection_reset, receive_failed,
 send_failed, timeout, aborted                            the connection
 tls_expired, tls_not_yet_valid, tls_wrong_host,
 tls_self_signed, tls_untrusted, tls_revoked, tls_weak    the certificate
 tls_version, tls_not_spoken, tls_client_certificate,
 tls_own_material, tls_handshake                          the rest of TLS
 token_failed                                             the token that the endpoint asks for could not be had
 payload_failed                                           no form of the event that the endpoint asks for
 empty_response, incomplete_response, bad_response,
 too_large, protocol_error                                what was answered
 http_<status>                                            a whole answer that is not 2xx
 transport_error                                          anything else that libcurl reports
"""

import codecs
from enum import Enum

import msgspec

from ringbearer.delivery import heads
from ringbearer.delivery.heads import CONTROLS
from ringbearer.domain.deliveries import Record, Timing

MAX_KEPT_BODY = 4 * 1024
"""Bytes of an answer's body that are kept, counted in UTF-8."""
_MAX_DETAIL = 200
_encode = msgspec.json.Encoder().encode

_OK = range(200, 300)
_FIRST_FINAL = 200
_REDIRECTS = range(300, 400)
_TOO_MANY = 429
_FIRST_SERVER_ERROR = 500
_READ_ENOUGH = frozenset({23, 63})  # CURLE_WRITE_ERROR, CURLE_FILESIZE_EXCEEDED: we stopped reading


class Exchange(msgspec.Struct, kw_only=True, gc=False):
    """One try, in libcurl's terms. `started_at` is a stored time, `duration` in microseconds.

    `status` is 0 without an answer, `curl_code` 0 without a transport error (its numbers:
    https://curl.se/libcurl/c/libcurl-errors.html). `head` is as libcurl hands it over: that of interim
    answers too, with status lines, line ends and blank lines. `body` is what was read, its content coding left on. `blocked` is the guard's reason when it let no address be dialled. `os_errno` is the
    system's reason for a failed connect (CURLINFO_OS_ERRNO), 0 when it is not known. `failure` is an error, code and
    sentence, that kept the request from being made. `ours` says what of our own failed, `dns: …` or `proxy: …`, when
    it was neither the receiver nor the way to it.
    """

    started_at: int
    duration: int
    status: int = 0
    curl_code: int = 0
    curl_message: str = ""
    head: bytes = b""
    body: bytes = b""
    blocked: str | None = None
    os_errno: int = 0
    failure: str | None = None
    ours: str = ""
    timing: Timing | None = None


def record(exchange: Exchange) -> Record:
    """The facts to store: bounded, without control characters in headers, without NUL and cookies."""
    return Record(
        started_at=exchange.started_at,
        duration=exchange.duration,
        status_code=exchange.status or None,
        error=error(exchange),
        response_body=_text(exchange.body) if exchange.body else None,
        response_headers=heads.read(exchange.head).headers if exchange.head else None,
        timing=None if exchange.timing is None else _encode(exchange.timing).decode(),
    )


def taken(exchange: Exchange) -> bool:
    """Whether it is a plain success, as nearly all are: a whole answer of 2xx, read to its end."""
    return exchange.curl_code == 0 and exchange.status in _OK


def answered(exchange: Exchange) -> int:
    """The final status of a whole answer, or of one whose body was longer than we read; else 0."""
    if exchange.status < _FIRST_FINAL:
        return 0
    if exchange.curl_code == 0:
        return exchange.status
    if exchange.curl_code in _READ_ENOUGH and (exchange.body or heads.whole(exchange.head)):
        return exchange.status
    return 0


def succeeded(exchange: Exchange) -> bool:
    """Whether the receiver took the event: a whole answer with 200 to 299."""
    return answered(exchange) in _OK


class Health(Enum):
    """What an exchange tells of the receiver's state."""

    WELL = 1
    """It took the event."""
    INDIFFERENT = 2
    """It answered something that says nothing of its state (3xx, 4xx), or we let nothing go out."""
    BUSY = 3
    """It asked to be left alone: 429."""
    FAILED = 4
    """It answered 5xx, or no whole answer came in time."""
    UNREACHED = 5
    """No connection came about."""


def health(exchange: Exchange) -> Health:
    """What the exchange tells of the receiver's state."""
    status = answered(exchange)
    if status in _OK:
        return Health.WELL
    if status == _TOO_MANY:
        return Health.BUSY
    if status:
        return Health.FAILED if status >= _FIRST_SERVER_ERROR else Health.INDIFFERENT
    if exchange.blocked is not None or exchange.ours:
        return Health.INDIFFERENT
    return Health.UNREACHED if _code(exchange) in _UNREACHED else Health.FAILED


def error(exchange: Exchange) -> str | None:
    """What went wrong, as a code and a sentence; None for a success."""
    if exchange.failure is not None:
        return exchange.failure
    status = answered(exchange)
    if status in _OK:
        return None
    if status in _REDIRECTS:
        return f"http_{status}: the receiver answered {status}, and redirects are not followed"
    if status:
        return f"http_{status}: the receiver answered {status}"
    if exchange.blocked is not None:
        return f"blocked_address: {exchange.blocked}"
    if exchange.curl_code == 0:
        return f"bad_response: {_SENTENCES['bad_response']} (no final status)"
    return _transport_error(exchange)


# ── what libcurl reports ────────────────────────────────────────────────────────────────────────────────────

_SENTENCES = {
    "dns_failed": "the host name could not be resolved",
    "dns_timeout": "the host name could not be resolved in time",
    "connect_failed": "no connection could be made",
    "connection_refused": "the receiver refused the connection",
    "unreachable": "no route leads to the receiver",
    "connect_timeout": "no connection was made in time",
    "connection_reset": "the receiver broke the connection off",
    "receive_failed": "the answer could not be received",
    "send_failed": "the request could not be sent",
    "timeout": "no whole answer came in time",
    "aborted": "the exchange was broken off on our side",
    "tls_expired": "the receiver's certificate has expired",
    "tls_not_yet_valid": "the receiver's certificate is not valid yet",
    "tls_wrong_host": "the receiver's certificate is for another host",
    "tls_self_signed": "the receiver's certificate is signed by itself",
    "tls_untrusted": "the receiver's certificate leads to no authority that is trusted",
    "tls_revoked": "the receiver's certificate was revoked",
    "tls_weak": "the receiver's certificate or key is too weak",
    "tls_version": "the receiver speaks no TLS version that is secure: 1.2 or 1.3, as the endpoint says",
    "tls_not_spoken": "the receiver does not speak TLS on this port",
    "tls_client_certificate": "the receiver wants a client certificate",
    "tls_own_material": "the endpoint's own certificate, key or authorities cannot be used",
    "tls_handshake": "the TLS handshake failed",
    "empty_response": "the receiver closed the connection without an answer",
    "incomplete_response": "the answer ended too early",
    "bad_response": "what came back is not a valid HTTP answer",
    "too_large": "the answer is larger than allowed",
    "protocol_error": "the receiver broke the rules of HTTP/2 or HTTP/3",
    "transport_error": "the exchange failed",
}

_BY_CURL_CODE = {
    1: "bad_response",  # what libcurl makes of HTTP/0.9 and other banners
    6: "dns_failed",
    7: "connect_failed",
    8: "bad_response",
    16: "protocol_error",
    18: "incomplete_response",
    23: "too_large",
    28: "timeout",
    35: "tls_handshake",
    42: "aborted",
    52: "empty_response",
    55: "send_failed",
    56: "receive_failed",
    58: "tls_own_material",
    59: "tls_handshake",
    60: "tls_untrusted",
    61: "bad_response",
    63: "too_large",
    77: "tls_own_material",
    83: "tls_untrusted",
    91: "tls_revoked",
    92: "protocol_error",
    95: "protocol_error",
    96: "protocol_error",
    97: "connect_failed",
    100: "too_large",
}

_UNREACHED = frozenset(
    {
        "dns_failed",
        "dns_timeout",
        "connect_failed",
        "connection_refused",
        "unreachable",
        "connect_timeout",
        *(code for code in _SENTENCES if code.startswith("tls_")),
    }
)

_RESET = (("reset", "connection_reset"), ("broken pipe", "connection_reset"))
_WEAK = (("too weak", "tls_weak"), ("too small", "tls_weak"))
_CLIENT_CERTIFICATE = (
    ("certificate required", "tls_client_certificate"),
    ("alert bad certificate", "tls_client_certificate"),
    ("alert unknown ca", "tls_client_certificate"),
)
_BY_MESSAGE: dict[int, tuple[tuple[str, str], ...]] = {
    28: (
        ("resolving", "dns_timeout"),
        ("connection timed out", "connect_timeout"),
        ("connection timeout", "connect_timeout"),
        ("failed to connect", "connect_timeout"),
    ),
    35: (
        ("protocol version", "tls_version"),
        ("unsupported protocol", "tls_version"),
        ("wrong version number", "tls_not_spoken"),
        ("packet length too long", "tls_not_spoken"),
        ("http request", "tls_not_spoken"),
        *_WEAK,
        *_CLIENT_CERTIFICATE,
    ),
    55: (*_RESET, *_CLIENT_CERTIFICATE),
    56: (
        *_RESET,
        *_CLIENT_CERTIFICATE,
        ("too large", "too_large"),
        ("chunk", "bad_response"),
    ),
    60: (
        ("has expired", "tls_expired"),
        ("not yet valid", "tls_not_yet_valid"),
        ("subject name", "tls_wrong_host"),
        ("hostname mismatch", "tls_wrong_host"),
        ("ip address mismatch", "tls_wrong_host"),
        ("revoked", "tls_revoked"),
        *_WEAK,
        (
            "in certificate chain",
            "tls_untrusted",
        ),  # a private authority, which is not the same as self-signed
        ("self-signed", "tls_self_signed"),
        ("self signed", "tls_self_signed"),
    ),
}
"""Where libcurl has one number for several things, its message, lower-cased, tells them apart."""

_BY_ERRNO = {
    101: "unreachable",  # ENETUNREACH
    110: "connect_timeout",  # ETIMEDOUT
    111: "connection_refused",  # ECONNREFUSED
    113: "unreachable",  # EHOSTUNREACH
}
_COULD_NOT_CONNECT = 7


def _transport_error(exchange: Exchange) -> str:
    code = _code(exchange)
    detail = exchange.curl_message[:_MAX_DETAIL].translate(CONTROLS) or f"libcurl error {exchange.curl_code}"
    return f"{code}: {_SENTENCES[code]} ({detail})"


def _code(exchange: Exchange) -> str:
    number = exchange.curl_code
    if number == _COULD_NOT_CONNECT and exchange.os_errno in _BY_ERRNO:
        return _BY_ERRNO[exchange.os_errno]
    message = exchange.curl_message.lower()
    for needle, code in _BY_MESSAGE.get(number, ()):
        if needle in message:
            return code
    return _BY_CURL_CODE.get(number, "transport_error")


# ── what is kept of an answer ───────────────────────────────────────────────────────────────────────────────


def _text(body: bytes) -> str:
    """The start of the body as text, at most 4 KiB in UTF-8, that every store can keep."""
    whole = len(body) <= MAX_KEPT_BODY
    # With final=False a character that the cut went through is left out instead of replaced.
    text = codecs.utf_8_decode(body[:MAX_KEPT_BODY], "replace", whole)[0]
    if text.isascii() and "\0" not in text:
        return text
    # A replaced byte takes three, so what was short enough may be too long by now.
    return text.replace("\0", "\ufffd").encode()[:MAX_KEPT_BODY].decode(errors="ignore")
