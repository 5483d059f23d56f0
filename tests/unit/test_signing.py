"""Signatures agree with the published vectors and with the standard's own library."""

import base64
import hashlib
import hmac
import time

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from ringbearer.delivery.signing import Signer, generate_secret, public_key, validate_secret
from ringbearer.domain.endpoints import Signing
from ringbearer.errors import InvalidInput

EVENT = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = 1_614_265_330
BODY = b'{"test": 2432232314}'

HMAC_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HMAC_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
"""Source: the test suites of the Standard Webhooks libraries."""

PAIR_SECRET = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
PAIR_PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
PAIR_SIGNATURE = (
    "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
)
"""Source: the Svix server's published key pair, and the test of its asymmetric signatures."""


def _seed_of(pair: str) -> str:
    return "whsk_" + base64.b64encode(base64.b64decode(pair.removeprefix("whsk_"))[:32]).decode()


def _secret(prefix: str, size: int) -> str:
    return prefix + base64.b64encode(bytes(range(size))).decode()


@pytest.mark.parametrize(
    ("secret", "signature"),
    [
        pytest.param(HMAC_SECRET, HMAC_SIGNATURE, id="hmac"),
        pytest.param(PAIR_SECRET, PAIR_SIGNATURE, id="ed25519-seed-and-public"),
        pytest.param(_seed_of(PAIR_SECRET), PAIR_SIGNATURE, id="ed25519-seed"),
    ],
)
def test_published_vectors(secret: str, signature: str) -> None:
    assert Signer([(secret, None)]).sign(EVENT, TIMESTAMP, BODY, now=0) == signature


def test_the_published_public_key_belongs_to_the_private_one() -> None:
    assert public_key(PAIR_SECRET) == public_key(_seed_of(PAIR_SECRET)) == PAIR_PUBLIC


@settings(deadline=None)
@given(
    key=st.binary(min_size=24, max_size=64),
    data=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers()),
)
def test_the_standard_library_verifies_what_is_signed(key: bytes, data: dict[str, int]) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    body = msgspec.json.encode(data)
    now = int(time.time())
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(now),
        "webhook-signature": Signer([(secret, None)]).sign("evt_1", now, body, now=0),
    }
    Webhook(secret).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + b" ", headers)


def test_both_secrets_sign_until_the_old_one_expires() -> None:
    signer = Signer([(HMAC_SECRET, None), (PAIR_SECRET, 1_000)])
    assert signer.sign(EVENT, TIMESTAMP, BODY, now=999) == f"{HMAC_SIGNATURE} {PAIR_SIGNATURE}"
    assert signer.sign(EVENT, TIMESTAMP, BODY, now=1_000) == HMAC_SIGNATURE


def test_nothing_signs_when_all_secrets_have_expired() -> None:
    assert Signer([(HMAC_SECRET, 5)]).sign(EVENT, TIMESTAMP, BODY, now=5) == ""


def test_a_signer_needs_a_secret_and_does_not_show_it() -> None:
    with pytest.raises(InvalidInput):
        Signer([])
    assert repr(Signer([(HMAC_SECRET, None), (PAIR_SECRET, 1)])) == "<Signer with 2 secrets>"


@pytest.mark.parametrize("signing", ["hmac", "ed25519"])
def test_generated_secrets_are_valid_canonical_and_never_the_same(signing: Signing) -> None:
    secret = generate_secret(signing)
    assert validate_secret(secret, signing) == secret
    assert generate_secret(signing) != secret


def test_a_generated_pair_verifies_with_its_public_key_alone() -> None:
    secret = generate_secret("ed25519")
    signature = Signer([(secret, None)]).sign("evt_1", 7, b"{}", now=0).removeprefix("v1a,")
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key(secret).removeprefix("whpk_")))
    key.verify(base64.b64decode(signature), b"evt_1.7.{}")


@pytest.mark.parametrize("size", [24, 25, 32, 64])
def test_padding_may_be_left_out(size: int) -> None:
    secret = _secret("whsec_", size)
    assert validate_secret(secret.rstrip("="), "hmac") == secret


@pytest.mark.parametrize(
    ("secret", "signing"),
    [
        pytest.param("", "hmac", id="empty"),
        pytest.param("whsec_", "hmac", id="prefix-only"),
        pytest.param(_secret("whsec_", 23), "hmac", id="too-short"),
        pytest.param(_secret("whsec_", 65), "hmac", id="too-long"),
        pytest.param("whsec_" + "A" * 1_000_000, "hmac", id="enormous"),
        pytest.param("whsec_%%%%" + "A" * 32, "hmac", id="not-base64"),
        pytest.param("whsec_" + "A" * 32 + "\n", "hmac", id="line-break"),
        pytest.param("whsec_" + "A" * 33, "hmac", id="impossible-length"),
        pytest.param("whsec_" + "é" * 32, "hmac", id="not-ascii"),
        pytest.param("whsec_" + "\ud800" * 32, "hmac", id="surrogate"),
        pytest.param(HMAC_SECRET.removeprefix("whsec_"), "hmac", id="no-prefix"),
        pytest.param(PAIR_SECRET, "hmac", id="pair-for-hmac"),
        pytest.param(HMAC_SECRET, "ed25519", id="hmac-for-pair"),
        pytest.param(PAIR_PUBLIC, "ed25519", id="public-key"),
        pytest.param(_secret("whsk_", 31), "ed25519", id="seed-too-short"),
        pytest.param(_secret("whsk_", 63), "ed25519", id="pair-too-short"),
        pytest.param(_secret("whsk_", 64), "ed25519", id="halves-do-not-match"),
    ],
)
def test_refused_secrets_are_named_but_not_repeated(secret: str, signing: Signing) -> None:
    with pytest.raises(InvalidInput) as raised:
        validate_secret(secret, signing)
    [(pointer, sentence)] = raised.value.problems
    assert pointer == "/secret"
    assert len(secret) < 10 or secret[7:] not in sentence + str(raised.value)


@settings(deadline=None)
@given(st.text(max_size=200), st.sampled_from(["hmac", "ed25519"]), st.sampled_from(["", "whsec_", "whsk_"]))
def test_any_text_is_either_taken_or_refused(text: str, signing: Signing, prefix: str) -> None:
    try:
        canonical = validate_secret(prefix + text, signing)
    except InvalidInput:
        return
    assert validate_secret(canonical, signing) == canonical


@given(key=st.binary(min_size=24, max_size=64), body=st.binary(max_size=300))
def test_any_key_signs_as_the_standard_librarys_hmac_does(key: bytes, body: bytes) -> None:
    signer = Signer([("whsec_" + base64.b64encode(key).decode(), None)])
    expected = hmac.new(key, f"{EVENT}.{TIMESTAMP}.".encode() + body, hashlib.sha256).digest()
    for _ in range(2):  # what is kept of the key stays what it was
        assert signer.sign(EVENT, TIMESTAMP, body, 0) == "v1," + base64.b64encode(expected).decode()
