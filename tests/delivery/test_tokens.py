"""Bearer tokens: fetched once for all who wait, refreshed early, and a token URL that fails hurts nobody else."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs

import pytest

from hostile.driving import BODY, HEADERS, Ended, conclude
from ringbearer import clock, misbehaving
from ringbearer.delivery.guard import Guard
from ringbearer.delivery.handle import Order
from ringbearer.delivery.tokens import TokenCourier
from ringbearer.domain.deliveries import State
from ringbearer.domain.endpoints import ClientAuth, Grant
from ringbearer.misbehaving import Behaviour, Peer, Rogue, Rogues, bomb, says

_LONG = 60.0


@pytest.fixture
def courier() -> Iterator[TokenCourier]:
    """A courier without tokens."""
    made = TokenCourier(slots=128, refuse=lambda address: None)
    yield made
    made.close()


def _grant(
    url: str,
    *,
    client_secret: str = "hush-hush",
    scope: str | None = None,
    audience: str | None = None,
    client_auth: ClientAuth = "basic",
) -> Grant:
    return Grant(url, "studio", client_secret, scope, audience, client_auth)


def _http(status: int, body: object) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content


def _gives_tokens(*, expires_in: object = 3_600) -> Behaviour:
    """A token URL: t1, t2, …"""

    async def behave(peer: Peer) -> None:
        while True:
            await peer.request()
            token = f"t{len(peer.rogue.requests)}"
            await peer.send(
                _http(200, {"access_token": token, "token_type": "bearer", "expires_in": expires_in})
            )

    return behave


def _run(courier: TokenCourier, url: str, grant: Grant | None, count: int = 1) -> list[Ended]:
    for _ in range(count):
        courier.submit(Order(token="", url=url, headers=[*HEADERS], body=BODY, timeout=_LONG, grant=grant))
    ended: list[Ended] = []
    while len(ended) < count:
        ended += [conclude(returned) for returned in courier.poll(_LONG)[0]]
    return ended


def _bearers(rogue: Rogue) -> list[str]:
    heads = [request.partition(b"\r\n\r\n")[0].decode().split("\r\n") for request in rogue.requests]
    return [line.partition(" ")[2] for head in heads for line in head if line.startswith("authorization:")]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets so many seconds pass at once."""
    passed = 0
    now = clock.now
    monkeypatch.setattr(clock, "now", lambda: now() + passed)

    def pass_by(seconds: float) -> None:
        nonlocal passed
        passed += int(seconds * clock.SECOND)

    return pass_by


# ── tokens that come ────────────────────────────────────────────────────────────────────────────────────────


def test_all_who_wait_share_one_token(rogues: Rogues, courier: TokenCourier) -> None:
    tokens, receiver = rogues.serve(_gives_tokens()), rogues.serve(misbehaving.answers)
    ended = _run(courier, receiver.url, _grant(tokens.url), 50)
    ended += _run(courier, receiver.url, _grant(tokens.url), 5)
    assert {each.code for each in ended} == {None}
    assert len(tokens.requests) == 1
    assert _bearers(receiver) == ["Bearer t1"] * 55
    assert courier.in_flight == 0


def test_the_question_is_that_of_oauth(rogues: Rogues, courier: TokenCourier) -> None:
    tokens, receiver = rogues.serve(_gives_tokens()), rogues.serve(misbehaving.answers)
    _run(courier, receiver.url, _grant(tokens.url, client_secret="a b+%"))
    _run(courier, receiver.url, _grant(tokens.url, client_auth="post", scope="x y", audience="them"))
    (head, _, form), (other_head, _, other_form) = (r.partition(b"\r\n\r\n") for r in tokens.requests)
    assert head.startswith(b"POST / HTTP/1.1")
    assert b"authorization: Basic " + b64encode(b"studio:a+b%2B%25") in head
    assert b"content-type: application/x-www-form-urlencoded" in head
    assert parse_qs(form.decode()) == {"grant_type": ["client_credentials"]}
    assert b"authorization" not in other_head
    assert parse_qs(other_form.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["studio"],
        "client_secret": ["hush-hush"],
        "scope": ["x y"],
        "audience": ["them"],
    }
    assert _bearers(receiver) == ["Bearer t1", "Bearer t2"]  # to another scope, another token


def test_a_token_is_refreshed_before_its_end_and_nobody_waits_for_that(
    rogues: Rogues, courier: TokenCourier, later: Callable[[float], None]
) -> None:
    tokens, receiver = rogues.serve(_gives_tokens(expires_in="100")), rogues.serve(misbehaving.answers)
    grant = _grant(tokens.url)
    _run(courier, receiver.url, grant)
    later(85)
    _run(courier, receiver.url, grant)
    while courier.in_flight:  # the token that was asked for beside it
        courier.poll(_LONG)
    _run(courier, receiver.url, grant)
    later(99)
    _run(courier, receiver.url, grant)
    assert _bearers(receiver) == ["Bearer t1", "Bearer t1", "Bearer t2", "Bearer t3"]


def test_a_token_that_the_receiver_does_not_take_is_forgotten(rogues: Rogues, courier: TokenCourier) -> None:
    tokens, receiver = rogues.serve(_gives_tokens()), rogues.serve(_takes_only("t2"))
    grant = _grant(tokens.url)
    ended = [_run(courier, receiver.url, grant)[0].code for _ in range(3)]
    assert ended == ["http_401", None, None]
    assert len(tokens.requests) == 2


def _takes_only(token: str) -> Behaviour:
    async def behave(peer: Peer) -> None:
        while True:
            known = f"Bearer {token}\r\n".encode() in await peer.request()
            await peer.send(_http(200 if known else 401, {}))

    return behave


# ── tokens that do not come ─────────────────────────────────────────────────────────────────────────────────

_GOOD = {"access_token": "t", "token_type": "Bearer"}
_POOR = {
    "refused": _http(401, {"error": "invalid_client"}),
    "error-with-status-200": _http(200, {"error": "invalid_client"}),
    "redirect": b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n",
    "no-json": _http(200, b"<html>"),
    "not-an-object": _http(200, [1]),
    "no-token": _http(200, {"token_type": "bearer"}),
    "token-with-a-line-end": _http(200, _GOOD | {"access_token": "t\r\nx-evil: 1"}),
    "token-beyond-ascii": _http(200, _GOOD | {"access_token": "tökén"}),
    "token-without-end": _http(200, _GOOD | {"access_token": "t" * 20_000}),
    "token-of-no-text": _http(200, _GOOD | {"access_token": {"a": 1}}),
    "another-type": _http(200, _GOOD | {"token_type": "mac"}),
    "bomb": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n" + bomb("gzip"),
    "endless": b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n" + b" " * 200_000,
    "nothing": b"",
    "another-protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
}


@pytest.mark.parametrize("answer", [pytest.param(answer, id=name) for name, answer in _POOR.items()])
def test_a_token_that_cannot_be_had_fails_the_attempt(
    answer: bytes, rogues: Rogues, courier: TokenCourier
) -> None:
    tokens, receiver = rogues.serve(says(answer)), rogues.serve(misbehaving.answers)
    for ended in _run(courier, receiver.url, _grant(tokens.url), 3):
        assert ended.code == "token_failed", ended.record.error
        assert ended.verdict.state is State.SCHEDULED
        assert ended.record.status_code is None
        assert "hush" not in str(ended.record.error)
        ended.check_bounds()
    assert receiver.connections == 0
    assert _run(courier, receiver.url, None)[0].code is None


@pytest.mark.parametrize("life", [-1, 0, 1e300, "nan", "inf", None, 10**30])
def test_a_life_that_makes_no_sense_is_bounded(life: object, rogues: Rogues, courier: TokenCourier) -> None:
    tokens, receiver = rogues.serve(_gives_tokens(expires_in=life)), rogues.serve(misbehaving.answers)
    for _ in range(2):
        assert _run(courier, receiver.url, _grant(tokens.url))[0].code is None


def test_a_token_url_that_failed_is_left_alone_for_a_moment(
    rogues: Rogues, courier: TokenCourier, later: Callable[[float], None]
) -> None:
    tokens, receiver = rogues.serve(says(_http(503, {}))), rogues.serve(misbehaving.answers)
    grant = _grant(tokens.url)
    ended = _run(courier, receiver.url, grant, 20) + _run(courier, receiver.url, grant, 20)
    assert len(tokens.requests) == 1
    later(6)
    ended += _run(courier, receiver.url, grant)
    assert len(tokens.requests) == 2
    assert {each.code for each in ended} == {"token_failed"}


def test_a_token_url_that_must_not_be_dialled_is_a_matter_of_configuration(rogues: Rogues) -> None:
    tokens = rogues.serve(_gives_tokens())
    courier = TokenCourier(slots=8, refuse=Guard().check_address)
    try:
        (ended,) = _run(courier, "http://127.0.0.1:1/", _grant(tokens.url))
    finally:
        courier.close()
    assert ended.code == "token_failed"
    assert ended.verdict.state is State.DEAD
    assert tokens.connections == 0


def test_a_token_url_that_hangs_holds_up_nobody_else(rogues: Rogues, courier: TokenCourier) -> None:
    tokens, receiver = rogues.serve(misbehaving.never_answers), rogues.serve(misbehaving.answers)
    waiting = Order(
        token="waits",
        url=receiver.url,
        headers=[*HEADERS],
        body=BODY,
        timeout=_LONG,
        grant=_grant(tokens.url),
    )
    courier.submit(waiting)
    assert {each.code for each in _run(courier, receiver.url, None, 20)} == {None}
    assert courier.abandon() == [waiting]
    assert courier.in_flight == 0
    assert courier.poll(0) == ([], False)
