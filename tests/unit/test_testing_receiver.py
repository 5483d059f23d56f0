"""The receiver tells right signatures from wrong ones, and misbehaves exactly as it is told."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from ringbearer import clock, testing
from ringbearer.errors import ConfigurationError
from ringbearer.testing import Received, Receiver, verify

SECRET = "whsec_" + base64.b64encode(b"a secret of 24 bytes ok.").decode()
OTHER = "whsec_" + base64.b64encode(b"another one of 24 bytes.").decode()
BODY = b'{"id":"evt_1","type":"booking.confirmed","timestamp":"2026-06-20T14:00:00Z","data":{"a":1}}'


def headers(
    secret: str = SECRET, *, body: bytes = BODY, seconds: int | None = None, attempt: int = 1
) -> dict[str, str]:
    """What a sender puts on a request, signed by the reference implementation."""
    stamp = clock.now() // clock.SECOND if seconds is None else seconds
    return {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(stamp),
        "webhook-signature": Webhook(secret).sign(
            "evt_1", clock.to_datetime(stamp * clock.SECOND), body.decode()
        ),
        "ringbearer-attempt": str(attempt),
    }


def with_receiver(receiver: Receiver, play: Callable[[httpx.AsyncClient], Awaitable[None]]) -> list[Received]:
    """Plays against the running receiver and returns what it received."""

    async def run() -> list[Received]:
        async with receiver, httpx.AsyncClient(base_url=receiver.url, trust_env=False) as http:
            await play(http)
        return receiver.received

    return asyncio.run(run())


def test_tells_what_came() -> None:
    async def play(http: httpx.AsyncClient) -> None:
        answer = await http.post("/hooks/7", content=BODY, headers=headers(attempt=3))
        assert answer.status_code == 200

    before = clock.now()
    (received,) = with_receiver(Receiver(secret=SECRET), play)
    assert (received.id, received.type, received.attempt) == ("evt_1", "booking.confirmed", 3)
    assert (received.path, received.status, received.verified) == ("/hooks/7", 200, True)
    assert received.body == BODY
    assert before <= received.at <= clock.now()


def test_a_wrong_signature_is_seen_and_a_receiver_without_secrets_claims_nothing() -> None:
    async def play(http: httpx.AsyncClient) -> None:
        await http.post("/", content=BODY, headers=headers(OTHER))
        await http.post("/", content=BODY)

    assert [one.verified for one in with_receiver(Receiver(secret=SECRET), play)] == [False, False]
    assert [one.verified for one in with_receiver(Receiver(), play)] == [None, None]


def test_a_secret_may_come_later() -> None:
    receiver = Receiver(secret=OTHER)

    async def play(http: httpx.AsyncClient) -> None:
        await http.post("/", content=BODY, headers=headers())
        receiver.trust(SECRET)
        await http.post("/", content=BODY, headers=headers())

    assert [one.verified for one in with_receiver(receiver, play)] == [False, True]


def test_any_of_several_signatures_and_secrets_is_enough() -> None:
    both = headers()
    both["webhook-signature"] = f"v1,broken! v2,AAAA {headers(OTHER)['webhook-signature']}"
    assert verify([SECRET, OTHER], both, BODY)
    assert not verify(SECRET, both, BODY)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("webhook-id", "evt_2"),
        ("webhook-id", ""),
        ("webhook-timestamp", "soon"),
        ("webhook-timestamp", "-5"),
        ("webhook-timestamp", "1e9"),
        ("webhook-timestamp", "²"),
        ("webhook-signature", ""),
        ("webhook-signature", "v1"),
        ("webhook-signature", "v1,"),
        ("webhook-signature", "v1,é"),
    ],
)
def test_a_changed_header_does_not_verify(name: str, value: str) -> None:
    assert verify(SECRET, headers(), BODY)
    assert not verify(SECRET, headers() | {name: value}, BODY)


def test_every_header_is_needed() -> None:
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        rest = {key: value for key, value in headers().items() if key != name}
        assert not verify(SECRET, rest, BODY)


@given(place=st.integers(0, len(BODY) - 1), change=st.integers(1, 255))
def test_a_changed_byte_of_the_body_does_not_verify(place: int, change: int) -> None:
    changed = bytearray(BODY)
    changed[place] ^= change
    assert not verify(SECRET, headers(), bytes(changed))


@pytest.mark.parametrize(
    ("age", "verified"), [(0, True), (300, True), (301, False), (-300, True), (-301, False)]
)
def test_an_old_or_future_timestamp_does_not_verify(age: int, verified: bool) -> None:
    now = 1_800_000_000
    assert verify(SECRET, headers(seconds=now - age), BODY, now=now * clock.SECOND) is verified


def test_public_keys_verify_their_own_signatures_only() -> None:
    private = Ed25519PrivateKey.generate()
    public = "whpk_" + base64.b64encode(private.public_key().public_bytes_raw()).decode()
    signed = headers()
    content = f"evt_1.{signed['webhook-timestamp']}.".encode() + BODY
    right = base64.b64encode(private.sign(content)).decode()
    assert verify(public, signed | {"webhook-signature": f"v1a,{right}"}, BODY)
    assert not verify(public, signed | {"webhook-signature": f"v1,{right}"}, BODY)
    assert not verify(public, signed, BODY)
    wrong = base64.b64encode(Ed25519PrivateKey.generate().sign(content)).decode()
    assert not verify(public, signed | {"webhook-signature": f"v1a,{wrong}"}, BODY)
    assert not verify(public, signed | {"webhook-signature": "v1a,AAAA"}, BODY)


def test_a_public_key_is_no_shared_secret() -> None:
    public = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    stamp = clock.now() // clock.SECOND
    digest = hmac.digest(public, f"evt_1.{stamp}.".encode() + BODY, hashlib.sha256)
    forged = headers(seconds=stamp) | {"webhook-signature": f"v1,{base64.b64encode(digest).decode()}"}
    assert not verify("whpk_" + base64.b64encode(public).decode(), forged, BODY)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_%%%", "whpk_AAAA", "whsk_AAAA", "AAAA"])
def test_a_malformed_secret_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Receiver(secret=secret)
    assert "%%%" not in str(caught.value)


def test_fails_every_nth_request() -> None:
    async def play(http: httpx.AsyncClient) -> None:
        statuses = [(await http.post("/", content=BODY)).status_code for _ in range(6)]
        assert statuses == [200, 200, 503, 200, 200, 503]

    assert [one.status for one in with_receiver(Receiver(fail=503, every=3), play)].count(503) == 2


def test_fails_every_request_until_told_otherwise() -> None:
    receiver = Receiver(fail=500)

    async def play(http: httpx.AsyncClient) -> None:
        assert (await http.post("/", content=BODY)).status_code == 500
        receiver.fail = None
        assert (await http.post("/", content=BODY)).status_code == 200

    with_receiver(receiver, play)


def test_every_below_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="every"):
        Receiver(fail=500, every=0)


def test_slow_answers_come_after_the_request_is_noted() -> None:
    receiver = Receiver(slow=3600.0)

    async def play(http: httpx.AsyncClient) -> None:
        asking = asyncio.create_task(http.post("/", content=BODY))
        (received,) = await receiver.wait_for(1)
        assert received.type == "booking.confirmed"
        assert not asking.done()
        asking.cancel()

    with_receiver(receiver, play)


def test_waits_for_so_many_requests() -> None:
    receiver = Receiver()

    async def play(http: httpx.AsyncClient) -> None:
        waiting = asyncio.create_task(receiver.wait_for(3))
        await asyncio.gather(*(http.post("/", content=BODY) for _ in range(3)))
        assert len(await waiting) == 3

    with_receiver(receiver, play)


def test_keeps_the_newest_only() -> None:
    receiver = Receiver(keep=2)

    async def play(http: httpx.AsyncClient) -> None:
        for number in range(5):
            await http.post(f"/{number}", content=BODY)

    assert [one.path for one in with_receiver(receiver, play)] == ["/3", "/4"]
    assert receiver.total == 5


def test_keeps_no_more_bytes_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "KEEP_BYTES", 25)

    async def play(http: httpx.AsyncClient) -> None:
        for number in range(4):
            await http.post(f"/{number}", content=b"0123456789")

    assert [one.path for one in with_receiver(Receiver(), play)] == ["/2", "/3"]


def test_a_body_that_is_too_large_is_refused_and_not_kept() -> None:
    async def play(http: httpx.AsyncClient) -> None:
        assert (await http.post("/", content=b"x" * (testing.MAX_BODY_BYTES + 1))).status_code == 413

    assert with_receiver(Receiver(), play) == []


@pytest.mark.parametrize("body", [b"", b"no json", b"[1]", b'{"type":7}', b"\xff\xfe"])
def test_strange_bodies_have_no_type(body: bytes) -> None:
    async def play(http: httpx.AsyncClient) -> None:
        assert (await http.post("/", content=body)).status_code == 200

    (received,) = with_receiver(Receiver(), play)
    assert (received.type, received.attempt, received.id) == ("", 0, "")


def test_a_callback_hears_of_each_request_before_its_answer() -> None:
    heard: list[str] = []

    async def play(http: httpx.AsyncClient) -> None:
        await http.post("/a", content=BODY)
        assert heard == ["/a"]

    with_receiver(Receiver(on_receive=lambda one: heard.append(one.path)), play)


def test_two_receivers_have_ports_of_their_own_and_a_taken_port_is_refused() -> None:
    async def run() -> None:
        async with Receiver() as first, Receiver() as second:
            assert first.url != second.url
            taken = int(first.url.rpartition(":")[2])
            with pytest.raises(ConfigurationError, match="cannot listen"):
                await Receiver(port=taken).__aenter__()

    asyncio.run(run())


def test_nothing_answers_after_the_block() -> None:
    async def run() -> None:
        async with Receiver() as receiver:
            url = receiver.url
        async with httpx.AsyncClient(trust_env=False) as http:
            with pytest.raises(httpx.ConnectError):
                await http.post(url)

    asyncio.run(run())
