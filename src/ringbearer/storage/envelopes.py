"""Envelopes: many short-lived values sealed with AES-256-GCM under keys derived from the vault's.

An envelope is: version byte 0x02 ▸ key id (4 bytes) ▸ salt (16) ▸ counter (8) ▸ ciphertext and tag. Random nonces
allow 2³² values under one key (NIST SP 800-38D), which a busy queue reaches in days. So each process derives a key
of its own from a random salt, and counts its nonces.
"""

import itertools
import os
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ringbearer.errors import ConfigurationError
from ringbearer.storage.vault import Vault

_VERSION = b"\x02"
_HEAD, _BODY = 21, 29  # where the counter begins, and what is sealed
_PADDING = b"\0\0\0\0"  # the nonce has twelve bytes, the counter eight
_SENDERS = 1_024  # whose keys are kept at hand: processes that lived lately


class Envelopes:
    """Seals with the vault's first key and opens what was sealed with any of them, by whichever process."""

    def __init__(self, vault: Vault) -> None:
        salt = os.urandom(16)
        key_id, _ = vault.derive("envelopes")
        self._head = _VERSION + key_id + salt
        self._count = itertools.count()
        self._seal = _cipher(vault, self._head)
        self._cipher = lru_cache(_SENDERS)(lambda head: _cipher(vault, head))

    def seal(self, value: bytes, bound_to: str) -> bytes:
        """The sealed form, which opens only together with the same `bound_to`."""
        count = next(self._count).to_bytes(8, "big")
        return b"".join((self._head, count, self._seal.encrypt(_PADDING + count, value, bound_to.encode())))

    def open(self, sealed: bytes, bound_to: str) -> bytes | None:
        """The value; None when it was sealed for something else, altered, or with a key that is not at hand.

        What lies in an envelope is a copy of what the store has: whoever cannot open one asks the store.
        """
        if sealed[:1] != _VERSION or len(sealed) < _BODY:
            return None
        try:
            cipher = self._cipher(sealed[:_HEAD])
            return cipher.decrypt(_PADDING + sealed[_HEAD:_BODY], sealed[_BODY:], bound_to.encode())
        except (ConfigurationError, InvalidTag):
            return None


def _cipher(vault: Vault, head: bytes) -> AESGCM:
    """The cipher of who seals with this head: version, key id and salt."""
    key_id, salt = head[1:5], head[5:]
    return AESGCM(vault.derive("envelopes " + salt.hex(), key_id)[1])
