"""Sessions: who looks at the pages, kept in a sealed cookie, with a token that every change must bring along.

The cookie holds nothing that can be read or made elsewhere: it is sealed with the vault's key. It names the
digest of the API key that was presented, never the key; when that key is deleted, its sessions end with it. Who logs
out ends the session in the store, whoever may have kept its cookie.
"""

import base64
import binascii
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from ringbearer import clock
from ringbearer.domain.keys import Key
from ringbearer.errors import ConfigurationError, Forbidden, TooManyRequests
from ringbearer.storage.vault import Vault

COOKIE = "ringbearer_session"
LIFETIME = 12 * 3_600
"""Seconds after which whoever looks must present a key again."""
MAX_FAILURES = 5
"""Wrong keys that one address may present before it has to pause."""
PAUSE = 30.0
"""Seconds of that pause."""
MAX_ADDRESSES = 10_000
"""Addresses remembered; beyond that, the one whose last failure lies furthest back is forgotten."""

_BOUND = "session"
_MAX_COOKIE = 1_024


class Session(msgspec.Struct, frozen=True):
    """What the cookie says: whose key, until when (stored time), and the token of its forms."""

    digest: str
    token: str
    until: int


class Visitor(msgspec.Struct, frozen=True):
    """Who looks at a page: the key and the session it came by."""

    key: Key
    session: Session

    @property
    def may_change(self) -> bool:
        """Whether this key may do more than look."""
        return self.key.scope != "read"


def begin(vault: Vault, digest: str, *, now: int) -> str:
    """A new session, as the value of its cookie."""
    session = Session(digest, secrets.token_urlsafe(24), now + LIFETIME * clock.SECOND)
    sealed = vault.seal(msgspec.json.encode(session), _BOUND)
    return base64.urlsafe_b64encode(sealed).decode().rstrip("=")


def resume(vault: Vault, cookie: str | None, *, now: int) -> Session | None:
    """The session that the cookie stands for, unless it was altered or is over."""
    if not cookie or len(cookie) > _MAX_COOKIE:
        return None
    try:
        sealed = base64.urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
        session = msgspec.json.decode(vault.open(sealed, _BOUND), type=Session)
    except (binascii.Error, ValueError, ConfigurationError):
        return None
    return session if now < session.until else None


def cookie_header(value: str, *, secure: bool, lifetime: int = LIFETIME) -> str:
    """The Set-Cookie header; a lifetime of 0 takes the cookie away."""
    parts = [f"{COOKIE}={value}", "Path=/", f"Max-Age={lifetime}", "HttpOnly", "SameSite=Strict"]
    return "; ".join([*parts, "Secure"] if secure else parts)


class Headers(Protocol):
    """The headers of a request, by their names in small letters."""

    def get(self, name: str, /) -> str | None: ...


def require_own_origin(headers: Headers) -> None:
    """Let a change pass only when the browser says that it comes from our own pages; raises Forbidden.

    Browsers say so in Sec-Fetch-Site where they trust the connection, and in Origin everywhere. The scheme is not
    compared: a proxy in front may have taken TLS away.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        own = site == "same-origin"
    else:
        own = origin is not None and urlsplit(origin).netloc.lower() == (headers.get("host") or "").lower()
    if not own:
        raise Forbidden("this form was not sent from a page of this service; open the page again and retry")


def require_token(session: Session, presented: str | None) -> None:
    """Let a change pass only with the token of the session's own forms; raises Forbidden."""
    if not hmac.compare_digest(session.token.encode(), (presented or "").encode()):
        raise Forbidden("this form belongs to another session; reload the page and try again")


class Attempts:
    """Counts wrong keys by address; after MAX_FAILURES of them in PAUSE seconds, the address has to wait."""

    def __init__(self, *, monotonic: Callable[[], float] = clock.monotonic) -> None:
        self._monotonic = monotonic
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Attempts of {len(self._failures)} addresses>"

    def check(self, address: str) -> None:
        """Raises TooManyRequests while the address has to wait."""
        count, last = self._failures.get(address, (0, 0.0))
        rest = last + PAUSE - self._monotonic()
        if count >= MAX_FAILURES and rest > 0:
            raise TooManyRequests("too many wrong keys came from your address", rest)

    def failed(self, address: str) -> None:
        """Note down a wrong key."""
        now = self._monotonic()
        count, last = self._failures.get(address, (0, 0.0))
        self._failures[address] = (count + 1 if now - last < PAUSE else 1, now)
        self._failures.move_to_end(address)
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Forget the address's wrong keys."""
        self._failures.pop(address, None)
