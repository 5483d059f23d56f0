"""Signatures as Standard Webhooks 1.0 wants them: HMAC-SHA256 (`v1`) and Ed25519 (`v1a`).

 scheme    secret                                     receiver checks with   signature
 hmac      whsec_ + base64 of 24 to 64 random bytes   the same secret        v1,base64
 ed25519   whsk_  + base64 of seed, or seed + public  whpk_ + base64         v1a,base64

What is signed is `{event id}.{timestamp}.{body}`, the timestamp in whole seconds.
Source: https://github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md.
"""

import binascii
import hashlib
import secrets as randomness
from collections.abc import Callable, Iterable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ringbearer.domain.endpoints import Signing
from ringbearer.errors import InvalidInput

HMAC_PREFIX = "whsec_"
PRIVATE_PREFIX = "whsk_"
PUBLIC_PREFIX = "whpk_"

_HMAC_BYTES = 32
_HMAC_SHORTEST = 24
_HMAC_LONGEST = 64
_SEED_BYTES = 32
_PAIR_BYTES = 64
_BLOCK = 64  # of SHA-256, and the longest key that HMAC takes as it is
_INNER, _OUTER = bytes(byte ^ 0x36 for byte in range(256)), bytes(byte ^ 0x5C for byte in range(256))
_LONGEST_SECRET = 128  # characters; 64 bytes are 88 in base64

_Sign = Callable[[bytes], str]


def generate_secret(signing: Signing) -> str:
    """A new random secret: 256 bits for HMAC, seed and public key for Ed25519."""
    if signing == "hmac":
        return HMAC_PREFIX + _base64(randomness.token_bytes(_HMAC_BYTES))
    key = Ed25519PrivateKey.generate()
    return PRIVATE_PREFIX + _base64(key.private_bytes_raw() + key.public_key().public_bytes_raw())


def public_key(secret: str) -> str:
    """The `whpk_…` key with which receivers check what a `whsk_…` secret signs; raises InvalidInput."""
    return PUBLIC_PREFIX + _base64(_ed25519_key(secret).public_key().public_bytes_raw())


def validate_secret(secret: str, signing: Signing) -> str:
    """The secret in its canonical spelling: padded base64 after the prefix that its scheme has.

    Raises InvalidInput, pointing at `/secret`, when it does not fit the scheme; no message repeats it.
    """
    if signing == "hmac":
        return HMAC_PREFIX + _base64(_hmac_key(secret))
    _ed25519_key(secret)
    return PRIVATE_PREFIX + _base64(_decoded(secret, PRIVATE_PREFIX))


class Signer:
    """Signs for one endpoint.

    `secrets` are pairs of a secret and the stored time when it stops signing (None: never). Raises
    InvalidInput when there is none, or one is no secret.
    """

    __slots__ = ("_keys", "_only")

    def __init__(self, secrets: Iterable[tuple[str, int | None]]) -> None:
        self._keys = tuple((_signing_with(secret), expires_at) for secret, expires_at in secrets)
        if not self._keys:
            raise _refused("there must be a secret to sign with")
        self._only = self._keys[0][0] if len(self._keys) == 1 and self._keys[0][1] is None else None

    def __repr__(self) -> str:
        return f"<Signer with {len(self._keys)} secrets>"

    def sign(self, event_id: str, timestamp: int, body: bytes, now: int) -> str:
        """The value of `webhook-signature`: one signature per secret that has not expired at `now`.

        `timestamp` is in seconds and must be what `webhook-timestamp` says; `now` is a stored time. Empty
        when every secret has expired.
        """
        content = f"{event_id}.{timestamp}.".encode() + body
        if self._only is not None:  # as nearly always
            return self._only(content)
        return " ".join(
            [sign(content) for sign, expires_at in self._keys if expires_at is None or now < expires_at]
        )


def _signing_with(secret: str) -> _Sign:
    if secret.startswith(PRIVATE_PREFIX):
        private = _ed25519_key(secret)
        return lambda content: "v1a," + _base64(private.sign(content))
    return _hmac(_hmac_key(secret))


def _hmac(key: bytes) -> _Sign:
    """HMAC-SHA256 (RFC 2104), of which the part that is the key's alone is computed once."""
    padded = key.ljust(_BLOCK, b"\0")
    inner, outer = hashlib.sha256(padded.translate(_INNER)), hashlib.sha256(padded.translate(_OUTER))

    def sign(content: bytes) -> str:
        within, around = inner.copy(), outer.copy()
        within.update(content)
        around.update(within.digest())
        return "v1," + _base64(around.digest())

    return sign


def _hmac_key(secret: str) -> bytes:
    key = _decoded(secret, HMAC_PREFIX)
    if not _HMAC_SHORTEST <= len(key) <= _HMAC_LONGEST:
        raise _refused(f"expected {_HMAC_SHORTEST} to {_HMAC_LONGEST} bytes in base64, not {len(key)}")
    return key


def _ed25519_key(secret: str) -> Ed25519PrivateKey:
    material = _decoded(secret, PRIVATE_PREFIX)
    if len(material) not in (_SEED_BYTES, _PAIR_BYTES):
        raise _refused(f"expected {_SEED_BYTES} or {_PAIR_BYTES} bytes in base64, not {len(material)}")
    key = Ed25519PrivateKey.from_private_bytes(material[:_SEED_BYTES])
    public = material[_SEED_BYTES:]
    if public and public != key.public_key().public_bytes_raw():
        raise _refused("its second half is not the public key of its first half")
    return key


def _decoded(secret: str, prefix: str) -> bytes:
    if not secret.startswith(prefix):
        raise _refused(f"expected {prefix} and base64")
    text = secret[len(prefix) :].rstrip("=")
    if len(text) > _LONGEST_SECRET:
        raise _refused(f"expected at most {_LONGEST_SECRET} characters of base64")
    try:
        return binascii.a2b_base64((text + "=" * (-len(text) % 4)).encode("ascii"), strict_mode=True)
    except ValueError:  # both binascii.Error and UnicodeEncodeError
        raise _refused(f"what follows {prefix} is not base64") from None


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def _refused(reason: str) -> InvalidInput:
    return InvalidInput(f"the secret is refused: {reason}", [("/secret", reason)])
