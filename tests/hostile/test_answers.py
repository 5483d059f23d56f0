"""Whatever a receiver answers, an attempt ends in time, keeps little, and harms nobody else."""

from pathlib import Path

import msgspec
import pytest

from hostile.certificates import Authority
from hostile.driving import Ended, Sender
from ringbearer import misbehaving, misbehaving_h2
from ringbearer.delivery.handle import MAX_ANSWER
from ringbearer.delivery.outcome import MAX_KEPT_BODY
from ringbearer.domain.deliveries import State
from ringbearer.misbehaving import Behaviour, Rogue, Rogues, bomb, greets, says, trickles

_H2 = ["h2"]
_TIMEOUT = 3.0  # seconds, enough for what is not meant to hang on a busy machine
# Read and thrown away until the time is over: how much that is depends on the machine, what is kept does not.
_READ_UNTIL_THE_END = {
    "case-51-endless-chunk-extension",
    "case-60-http2-settings-flood",
    "case-60-http2-ping-flood",
}
_FEW_MEGABYTES = 16 * 1024 * 1024  # what the buffers of a connection on this machine can swallow, generously


class Case(msgspec.Struct, frozen=True):
    """A behaviour, and what must come of it: None for a success, else any of some codes."""

    id: str
    behaviour: Behaviour
    codes: frozenset[str] | None
    status: int | None = None
    http2: bool = False


def _fails(
    name: str, behaviour: Behaviour, *codes: str, status: int | None = None, http2: bool = False
) -> Case:
    return Case(name, behaviour, frozenset(codes), status, http2)


def _delivers(name: str, behaviour: Behaviour, *, status: int = 200, http2: bool = False) -> Case:
    return Case(name, behaviour, None, status, http2)


def _answer(head: str, body: bytes = b"", *, status: str = "200 OK") -> Behaviour:
    return says(f"HTTP/1.1 {status}\r\n{head}\r\n\r\n".encode("latin-1") + body)


_CHUNKED = "transfer-encoding: chunked"
_BROKEN_STREAM = ("receive_failed", "protocol_error", "timeout")

CASES = [
    _fails("case-45-reset-after-accept", misbehaving.resets, "connect_failed", "connection_reset"),
    _fails("case-45-reset-after-request", misbehaving.resets_after_request, "connection_reset"),
    _fails("case-45-reset-in-body", misbehaving.resets_in_body, "connection_reset", status=200),
    _fails("case-45-hangs-up", misbehaving.hangs_up, "empty_response"),
    _fails("case-49-never-answers", misbehaving.never_answers, "timeout"),
    _fails("case-50-trickled-status-line", trickles(b"", pause=0.05), "timeout", "bad_response"),
    _fails(
        "case-50-trickled-headers", trickles(b"HTTP/1.1 200 OK\r\nx: ", pause=0.05), "timeout", status=200
    ),
    _fails("case-50-trickled-body", trickles(b"HTTP/1.1 200 OK\r\n\r\n", pause=0.05), "timeout", status=200),
    _delivers("case-51-endless-chunks", misbehaving.endless_chunks),
    _delivers("case-51-endless-body", misbehaving.endless_body),
    _fails("case-51-endless-failure", misbehaving.endless_failure, "http_500", status=500),
    _fails(
        "case-51-endless-chunk-extension",
        misbehaving.endless_chunk_extension,
        "timeout",
        "bad_response",
        status=200,
    ),
    _delivers("case-51-http2-endless-body", misbehaving_h2.endless_body, http2=True),
    _delivers("case-52-colossal-body", misbehaving.colossal_body),
    _delivers("case-52-length-beyond-64-bits", _answer(f"content-length: {10**23}", b"ok")),
    _fails("case-53-endless-headers", misbehaving.endless_headers, "too_large", status=200),
    _fails("case-53-endless-header-line", misbehaving.endless_header_line, "too_large", status=200),
    _delivers("case-53-endless-trailers", misbehaving.endless_trailers),
    _fails(
        "case-53-http2-endless-continuation",
        misbehaving_h2.floods_continuations,
        *_BROKEN_STREAM,
        status=200,
        http2=True,
    ),
    _fails("case-54-endless-100", misbehaving.endless_continue, "too_large", status=100),
    _fails("case-54-endless-103", misbehaving.endless_early_hints, "too_large", status=103),
    _fails(
        "case-54-http2-endless-103",
        misbehaving_h2.endless_early_hints,
        "too_large",
        "timeout",
        status=103,
        http2=True,
    ),
    _delivers("case-55-gzip-bomb", says(bomb("gzip"))),
    _delivers("case-55-deflate-bomb", says(bomb("deflate"))),
    _delivers("case-55-nested-bomb", says(bomb("gzip", "deflate", "gzip"))),
    _fails(
        "case-55-gzip-as-transfer-encoding",
        _answer("transfer-encoding: gzip, chunked", b"2\r\nok\r\n0\r\n\r\n"),
        "bad_response",
        status=200,
    ),
    _fails(
        "case-55-thousand-transfer-encodings",
        _answer("transfer-encoding: " + "gzip, " * 1000 + "chunked", b"2\r\nok\r\n0\r\n\r\n"),
        "bad_response",
        status=200,
    ),
    _fails("case-56-chunk-size-not-a-number", _answer(_CHUNKED, b"zz\r\nok\r\n"), "bad_response", status=200),
    _fails("case-56-chunk-size-negative", _answer(_CHUNKED, b"-2\r\nok\r\n"), "bad_response", status=200),
    _fails("case-56-chunk-size-huge", _answer(_CHUNKED, b"f" * 30 + b"\r\n"), "bad_response", status=200),
    _fails("case-56-chunk-cut-short", _answer(_CHUNKED, b"5\r\nok"), "incomplete_response", status=200),
    _fails(
        "case-56-both-lengths",
        _answer(f"content-length: 2\r\n{_CHUNKED}", b"2\r\nok\r\n0\r\n\r\n"),
        "bad_response",
        status=200,
    ),
    _fails("case-56-negative-length", _answer("content-length: -1", b"ok"), "bad_response", status=200),
    _fails("case-56-length-not-a-number", _answer("content-length: two", b"ok"), "bad_response", status=200),
    _fails(
        "case-56-two-lengths",
        _answer("content-length: 2\r\ncontent-length: 30", b"ok"),
        "bad_response",
        status=200,
    ),
    _fails("case-56-body-cut-short", _answer("content-length: 30", b"ok"), "incomplete_response", status=200),
    _fails("case-57-status-999", _answer("content-length: 0", status="999 Beyond"), "http_999", status=999),
    _fails("case-57-status-0", _answer("content-length: 0", status="0 Nothing"), "bad_response"),
    _fails("case-57-status-000", _answer("content-length: 0", status="000 Nothing"), "bad_response"),
    _fails("case-57-status-negative", _answer("content-length: 0", status="-200 OK"), "bad_response"),
    _fails("case-57-only-1xx", _answer("x: y", status="150 Wait"), "empty_response", status=150),
    _fails(
        "case-57-only-1xx-for-ever",
        says(b"HTTP/1.1 150 Wait\r\n\r\n", close=False),
        "timeout",
        status=150,
    ),
    _fails("case-57-http-0.9", says(b"ok"), "bad_response"),
    _fails("case-57-http-9.9", says(b"HTTP/9.9 200 OK\r\n\r\n"), "bad_response"),
    _fails("case-57-garbage", says(bytes(range(256))), "bad_response"),
    _fails("case-57-ssh-banner", greets(b"SSH-2.0-OpenSSH_9.6\r\n"), "bad_response"),
    _fails("case-57-smtp-banner", greets(b"220 mail.example.com ESMTP\r\n"), "bad_response"),
    _fails("case-57-header-without-colon", _answer("nonsense"), "bad_response", status=200),
    _fails("case-57-nul-in-header", _answer("x: a\0b"), "bad_response", status=200),
    _fails(
        "case-60-upgrade",
        _answer("upgrade: websocket\r\nconnection: upgrade", b"\x81\x02hi", status="101 Switching"),
        "bad_response",
        status=101,
    ),
    _fails("case-60-http2-goaway", misbehaving_h2.goes_away, "protocol_error", http2=True),
    _fails(
        "case-60-http2-goaway-for-ever", misbehaving_h2.refuses_and_goes_away, *_BROKEN_STREAM, http2=True
    ),
    _fails("case-60-http2-rst-stream", misbehaving_h2.resets_streams, "protocol_error", http2=True),
    _fails("case-60-http2-refused-for-ever", misbehaving_h2.refuses_streams, *_BROKEN_STREAM, http2=True),
    _fails("case-60-http2-settings-flood", misbehaving_h2.floods_settings, *_BROKEN_STREAM, http2=True),
    _fails("case-60-http2-ping-flood", misbehaving_h2.floods_pings, *_BROKEN_STREAM, http2=True),
    _fails("case-60-http2-window-0", misbehaving_h2.takes_nothing, "timeout", http2=True),
    _fails("case-60-http2-never-answers", misbehaving_h2.never_answers, "timeout", http2=True),
    _fails("case-60-http2-garbage", misbehaving_h2.garbage, *_BROKEN_STREAM, http2=True),
]


@pytest.fixture(scope="module")
def met(
    rogues: Rogues, sender: Sender, authority: Authority, certificates: Path
) -> dict[str, tuple[Rogue, Ended, Ended]]:
    """All cases at once on one courier: the rogue, what came of it, and of the good delivery right after it."""
    issued = authority.issue("127.0.0.1")
    serving = {
        case.id: rogues.serve(
            case.behaviour, tls=issued.context(certificates, alpn=_H2) if case.http2 else None
        )
        for case in CASES
    }
    good = rogues.serve(misbehaving.answers)
    urls = {name: rogue.url for name, rogue in serving.items()}
    ended = sender.send_all(urls, timeout=_TIMEOUT, after_each=good.url)
    return {name: (serving[name], ended[name], ended[f"{name} and then"]) for name in serving}


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_hostile_answer(case: Case, met: dict[str, tuple[Rogue, Ended, Ended]]) -> None:
    rogue, ended, afterwards = met[case.id]
    ended.check_bounds(_TIMEOUT)
    if case.id not in _READ_UNTIL_THE_END:
        assert rogue.sent < _FEW_MEGABYTES
    assert ended.record.status_code == case.status
    if case.codes is None:
        assert ended.code is None
        assert ended.verdict.state is State.DELIVERED
    else:
        assert ended.code in case.codes, ended.record.error
        assert ended.verdict.state is State.SCHEDULED
    assert not ended.verdict.disable
    assert afterwards.verdict.state is State.DELIVERED


def test_case_51_what_is_read_of_an_endless_body_is_kept(met: dict[str, tuple[Rogue, Ended, Ended]]) -> None:
    for name in ("case-51-endless-body", "case-52-colossal-body"):
        ended = met[name][1]
        assert ended.exchange.body == b"a" * MAX_ANSWER
        assert ended.record.response_body == "a" * MAX_KEPT_BODY


def test_case_55_a_bomb_is_stored_as_it_came(met: dict[str, tuple[Rogue, Ended, Ended]]) -> None:
    ended = met["case-55-gzip-bomb"][1]
    assert ended.exchange.body == bomb("gzip").partition(b"\r\n\r\n")[2]


def test_case_60_a_receiver_cannot_have_a_request_sent_for_ever(
    met: dict[str, tuple[Rogue, Ended, Ended]],
) -> None:
    for name in ("case-60-http2-goaway-for-ever", "case-60-http2-refused-for-ever"):
        assert 1 <= len(met[name][0].requests) <= 6


# ── bodies ──────────────────────────────────────────────────────────────────────────────────────────────────

_BODIES = {
    "nul": b"a\0b",
    "invalid-utf-8": b"\xff\xfe\xc3(",
    "only-continuation-bytes": b"\x80" * MAX_ANSWER,
    "surrogates": b"\xed\xa0\x80\xed\xb0\x80",
    "ansi-escapes": b"\x1b[2J\x1b]0;owned\x07\x1b[31mred",
    "script": b"<script>alert(1)</script>",
    "jndi": b"${jndi:ldap://127.0.0.1:1389/a}",
    "deep-json": b"[" * 64 + b"]" * 64,
    "very-deep-json": b"[" * MAX_ANSWER,
    "bidi-override": "\u202eno\u202c".encode(),
}


@pytest.mark.parametrize("name", [pytest.param(name, id=f"case-58-{name}") for name in _BODIES])
def test_hostile_body(name: str, rogues: Rogues, sender: Sender) -> None:
    body = _BODIES[name]
    rogue = rogues.serve(_answer(f"content-length: {len(body)}", body))
    ended = sender.send(rogue.url)
    ended.check_bounds()
    assert ended.verdict.state is State.DELIVERED
    assert ended.exchange.body == body
    kept = ended.record.response_body
    assert kept is not None
    assert kept.encode().decode() == kept
    if body.isascii() and b"\0" not in body:
        assert kept == body[:MAX_KEPT_BODY].decode()


# ── answers that nobody asked for ───────────────────────────────────────────────────────────────────────────


def test_case_59_two_answers_in_one_piece(rogues: Rogues, sender: Sender) -> None:
    rogue = rogues.serve(misbehaving.answers_twice)
    assert sender.send(rogue.url).record.status_code == 200
    assert rogue.done.wait(10)
    again = sender.send(rogue.url)
    assert again.record.status_code == 200  # of a new connection: 299 was meant for nobody
    assert rogue.connections == 2


def test_case_59_an_answer_on_an_idle_connection(rogues: Rogues, sender: Sender) -> None:
    rogue = rogues.serve(misbehaving.answers_again_later)
    assert sender.send(rogue.url).record.status_code == 200
    assert rogue.done.wait(10)
    again = sender.send(rogue.url)
    assert again.record.status_code == 200
    assert rogue.connections == 2


# ── Retry-After, 410, cookies ───────────────────────────────────────────────────────────────────────────────

_HOUR = 3600.0


@pytest.mark.parametrize(
    ("value", "pause"),
    [
        pytest.param("1000000000", _HOUR, id="case-61-billion-seconds"),
        pytest.param("9" * 500, 5.0, id="case-61-too-many-digits"),
        pytest.param("-5", 5.0, id="case-61-negative"),
        pytest.param("NaN", 5.0, id="case-61-nan"),
        pytest.param("1e9", 5.0, id="case-61-exponent"),
        pytest.param("Infinity", 5.0, id="case-61-infinity"),
        pytest.param("Thu, 01 Jan 2099 00:00:00 GMT", _HOUR, id="case-61-date-2099"),
        pytest.param("Thu, 01 Jan 1970 00:00:00 GMT", 1.0, id="case-61-date-long-ago"),
        pytest.param("Thu, 99 Foo 2099 99:99:99 GMT", 5.0, id="case-61-date-malformed"),
        pytest.param("", 5.0, id="case-61-empty"),
        pytest.param("120", 120.0, id="case-61-sensible"),
    ],
)
def test_retry_after(value: str, pause: float, rogues: Rogues, sender: Sender) -> None:
    rogue = rogues.serve(_answer(f"retry-after: {value}\r\ncontent-length: 0", status="503 Busy"))
    ended = sender.send(rogue.url)
    ended.check_bounds()
    assert ended.code == "http_503"
    assert ended.verdict.state is State.SCHEDULED
    assert ended.pause == pytest.approx(pause)
    assert ended.verdict.due_at is not None
    assert ended.verdict.slow_until is not None
    assert ended.verdict.due_at >= ended.verdict.slow_until


@pytest.mark.parametrize(
    "status", [pytest.param(429, id="case-62-too-many"), pytest.param(503, id="case-62-unavailable")]
)
def test_busy_receiver_is_slowed(status: int, rogues: Rogues, sender: Sender) -> None:
    rogue = rogues.serve(_answer("content-length: 0", status=f"{status} Later"))
    ended = sender.send(rogue.url)
    assert (ended.code, ended.verdict.state, ended.pause) == (f"http_{status}", State.SCHEDULED, 5.0)


def test_case_62_gone(rogues: Rogues, sender: Sender) -> None:
    ended = sender.send(rogues.serve(_answer("content-length: 0", status="410 Gone")).url)
    assert (ended.verdict.state, ended.verdict.disable) == (State.HELD, True)


def test_case_63_cookies_are_neither_stored_nor_sent_back(rogues: Rogues, sender: Sender) -> None:
    answer = b"HTTP/1.1 200 OK\r\nset-cookie: a=1; Path=/\r\nx-kept: yes\r\ncontent-length: 0\r\n\r\n"
    rogue = rogues.serve(says(answer, close=False))
    for _ in range(2):
        ended = sender.send(rogue.url)
        headers = msgspec.json.decode(ended.record.response_headers or "{}")
        assert headers == {"x-kept": "yes", "content-length": "0"}
    assert rogue.connections == 1
    assert len(rogue.requests) == 2
    assert all(b"cookie" not in request.lower() for request in rogue.requests)
