"""API keys and what each scope may do."""

import hashlib
import re
import secrets

import msgspec

from ringbearer.domain.times import Moment

SCOPE = re.compile(r"admin|publish|read|scaling|supplier:[A-Za-z0-9._-]{1,64}")


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key to the API: its scope is `admin`, `publish`, `read`, `scaling` or `supplier:<id>`."""

    id: str
    scope: str
    name: str | None = None
    created_at: Moment
    last_four: str

    @property
    def supplier_id(self) -> str | None:
        """The only supplier this key may see, or None when it is not bound to one."""
        return self.scope[len("supplier:") :] if self.scope.startswith("supplier:") else None


def generate() -> str:
    """A new key with 256 bits of randomness, `rb_…`."""
    return "rb_" + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """The form in which a key is stored: keys are random, so a plain SHA-256 cannot be searched."""
    return hashlib.sha256(key.encode()).hexdigest()
