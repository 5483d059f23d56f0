"""The vault: what must not lie open in the database is sealed with AES-256-GCM before it is stored.

A sealed value is: version byte 0x01 ▸ key id (4 bytes) ▸ nonce (12 bytes) ▸ ciphertext and tag. The key id is
the start of the key's SHA-256, so that a new key can be put first while old values still open.
"""

import base64
import binascii
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ringbearer.errors import ConfigurationError

_VERSION = b"\x01"
_ID = 4
_NONCE = 12
_KEY = 32


class Vault:
    """Seals with the first key and opens with any of them.

    Raises ConfigurationError when a key is not 32 bytes in base64.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise ConfigurationError("the vault needs at least one key: set RINGBEARER_SECRET_KEY")
        self._secrets = {_id(secret): secret for secret in map(_decode, keys)}
        self._ciphers = {key_id: AESGCM(secret) for key_id, secret in self._secrets.items()}
        self._first_id = next(iter(self._ciphers))
        self._first = self._ciphers[self._first_id]

    def __repr__(self) -> str:
        return f"<Vault with {len(self._ciphers)} keys>"

    def seal(self, value: bytes, bound_to: str) -> bytes:
        """The sealed form, which opens only together with the same `bound_to` (say, an endpoint's id)."""
        nonce = os.urandom(_NONCE)
        return _VERSION + self._first_id + nonce + self._first.encrypt(nonce, value, bound_to.encode())

    def open(self, sealed: bytes, bound_to: str) -> bytes:
        """The value; raises ConfigurationError when no key at hand opens it."""
        cipher = self._ciphers.get(sealed[1 : 1 + _ID]) if sealed[:1] == _VERSION else None
        if cipher is None:
            raise ConfigurationError(
                "a stored secret was sealed with a key that is not at hand: add that key after the first one in "
                "RINGBEARER_SECRET_KEY (comma-separated), or restore the secret.key file"
            )
        start = 1 + _ID + _NONCE
        try:
            return cipher.decrypt(sealed[1 + _ID : start], sealed[start:], bound_to.encode())
        except InvalidTag:
            raise ConfigurationError(
                f"the sealed secret of {bound_to} was altered or belongs elsewhere"
            ) from None

    def derive(self, purpose: str, key_id: bytes | None = None) -> tuple[bytes, bytes]:
        """A key of 32 bytes for another use (HKDF-SHA256, RFC 5869), with the id of the key that it comes from.

        That is the first key, unless `key_id` names another; raises ConfigurationError when it is not at hand.
        """
        key_id = self._first_id if key_id is None else key_id
        if key_id not in self._secrets:
            raise ConfigurationError("something was sealed with a key that is not at hand")
        made = HKDF(algorithm=SHA256(), length=_KEY, salt=None, info=b"ringbearer " + purpose.encode())
        return key_id, made.derive(self._secrets[key_id])

    def current(self, sealed: bytes) -> bool:
        """Whether the value is sealed with the first key already."""
        return sealed[1 : 1 + _ID] == self._first_id


def generate_key() -> str:
    """A new key: 32 random bytes in base64."""
    return base64.b64encode(secrets.token_bytes(_KEY)).decode()


def key_file(path: Path) -> list[str]:
    """The keys in the file, one a line, the first one sealing; made with one new key and mode 0600 when absent.

    Raises ConfigurationError when it is there and empty.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        keys = [line.strip() for line in path.read_text().splitlines() if line.strip()]
        if not keys:
            raise ConfigurationError(
                f"{path.absolute()} holds no key: restore it from your copy, since without it stored secrets are lost; "
                "delete it only where nothing is stored yet"
            ) from None
        return keys
    with os.fdopen(descriptor, "w") as file:
        key = generate_key()
        file.write(key + "\n")
    return [key]


def _id(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()[:_ID]


def _decode(key: str) -> bytes:
    try:
        raw = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != _KEY:
        raise ConfigurationError(
            "RINGBEARER_SECRET_KEY must be 32 bytes in base64; make one with: "
            "python3 -c 'import base64,os; print(base64.b64encode(os.urandom(32)).decode())'"
        )
    return raw
