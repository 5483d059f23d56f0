"""Who may do what: API keys are looked up by their digest, remembered for a second, and held to their scope.

            read  change endpoints  retry  change suppliers  keys  publish  see scaling  scale  tune
admin         ●           ●           ●           ●            ●      ●          ●         ●     ●
publish       ·           ·           ·           ·            ·      ●          ·         ·     ·
read          ●           ·           ·           ·            ·      ·          ●         ·     ·
scaling       ·           ·           ·           ·            ·      ·          ●         ●     ·
supplier:x    x           x           x           ·            ·      ·          ·         ·     ·

Keys are compared by looking up their SHA-256. Whatever time that lookup takes depends on the digest of what
was presented, and nobody can steer a digest towards that of a key they do not know: timing tells nothing.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from ringbearer import clock
from ringbearer.domain import keys
from ringbearer.domain.keys import Key
from ringbearer.errors import Forbidden, NotFound, Unauthorized
from ringbearer.storage.catalog import Catalog

REMEMBERED_SECONDS = 1.0
"""How long a key may still work in other processes after it was deleted."""
MAX_REMEMBERED = 10_000
"""Keys remembered at a time, and as many strings that are none."""

KEY_IN_SCOPE = "ringbearer.key"
"""Where the pages, which are of this process, put the key of whoever is logged in. No request from outside can."""

_MAX_HEADER = 1_024
_SCHEME = b"bearer "


class Action(Enum):
    """What somebody wants to do."""

    READ = auto()
    """See suppliers, endpoints, events, deliveries and replays."""
    CHANGE_ENDPOINTS = auto()
    """Create, change, test and delete endpoints."""
    RETRY = auto()
    """Send deliveries again, one or many."""
    CHANGE_SUPPLIERS = auto()
    KEYS = auto()
    """See, create and delete API keys."""
    PUBLISH = auto()
    SEE_SCALING = auto()
    """See how many workers there shall be, and why."""
    SCALE = auto()
    """Change how that is decided."""
    SEE_SERVICE = auto()
    """See the figures of the whole service, and its alerts."""
    TUNE = auto()
    """Change how the service itself works."""


_ALLOWED: dict[str, frozenset[Action]] = {
    "admin": frozenset(Action),
    "publish": frozenset({Action.PUBLISH}),
    "read": frozenset({Action.READ, Action.SEE_SCALING, Action.SEE_SERVICE}),
    "scaling": frozenset({Action.SEE_SCALING, Action.SCALE}),
    "supplier": frozenset({Action.READ, Action.CHANGE_ENDPOINTS, Action.RETRY}),
}


class Authenticator:
    """Finds the key behind an `Authorization` header. Belongs to one event loop.

    What it found, it believes for `remembered` seconds from the moment the lookup began. Strings that are no
    key are remembered apart, so that a flood of them drives out no real key.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        remembered: float = REMEMBERED_SECONDS,
        monotonic: Callable[[], float] = clock.monotonic,
    ) -> None:
        self._catalog = catalog
        self._remembered = remembered
        self._monotonic = monotonic
        self._known: OrderedDict[str, _Finding] = OrderedDict()
        self._unknown: OrderedDict[str, _Finding] = OrderedDict()
        self._looking: dict[str, asyncio.Task[Key | None]] = {}
        self._epoch = 0

    def __repr__(self) -> str:
        return f"<Authenticator with {len(self._known)} keys and {len(self._unknown)} that are none>"

    def cached(self, header: bytes | None) -> Key | None:
        """The key, when it was found so lately that nothing needs to be asked; None means: authenticate."""
        presented = _presented(header)
        if presented is None:
            return None
        finding = self._known.get(keys.digest(presented))
        return finding.key if finding is not None and self._fresh(finding) else None

    async def authenticate(self, header: bytes | None) -> Key:
        """The key that the header presents; raises Unauthorized, or StoreUnavailable."""
        presented = _presented(header)
        if presented is None:
            raise Unauthorized("send an API key as Authorization: Bearer <key>")
        key = await self.find(keys.digest(presented))
        if key is None:
            raise Unauthorized("there is no such API key, or it was deleted")
        return key

    async def find(self, digest: str) -> Key | None:
        """The key with that digest, if there is one; raises StoreUnavailable."""
        finding = self._known.get(digest) or self._unknown.get(digest)
        return finding.key if finding is not None and self._fresh(finding) else await self._ask(digest)

    def forget(self) -> None:
        """Believe nothing that was found so far: call it after keys were created or deleted."""
        self._epoch += 1
        self._known.clear()
        self._unknown.clear()
        self._looking.clear()

    def _fresh(self, finding: "_Finding") -> bool:
        return self._monotonic() - finding.since < self._remembered

    async def _ask(self, digest: str) -> Key | None:
        """Ask the store; whoever presents the same key meanwhile waits for the same answer."""
        task = self._looking.get(digest)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._look(digest))
            self._looking[digest] = task
            task.add_done_callback(lambda done: self._forget_task(digest, done))
        return await asyncio.shield(task)

    async def _look(self, digest: str) -> Key | None:
        epoch, since = self._epoch, self._monotonic()
        key = await asyncio.to_thread(self._catalog.find_key, digest)
        if epoch == self._epoch:
            self._remember(digest, _Finding(key, since))
        return key

    def _remember(self, digest: str, finding: "_Finding") -> None:
        findings, other = (
            (self._unknown, self._known) if finding.key is None else (self._known, self._unknown)
        )
        other.pop(digest, None)
        findings[digest] = finding
        findings.move_to_end(digest)
        if len(findings) > MAX_REMEMBERED:
            findings.popitem(last=False)

    def _forget_task(self, digest: str, done: "asyncio.Task[Key | None]") -> None:
        if self._looking.get(digest) is done:
            del self._looking[digest]
        if not done.cancelled():
            done.exception()  # whoever waited has it; when nobody does any more, it is not worth a warning


class _Finding(NamedTuple):
    key: Key | None
    since: float


def require(key: Key, action: Action, supplier_id: str | None = None) -> None:
    """Let the key do this, to that supplier when one is named.

    Raises Forbidden when its scope never allows it, and NotFound when it is bound to another supplier: the
    answer is then the same whether that supplier exists or not.
    """
    if not may(key, action):
        raise Forbidden(f"a key with the scope {key.scope!r} may not do this")
    if supplier_id is not None and not may_see(key, supplier_id):
        raise NotFound(f"there is no supplier {supplier_id!r}")


def may(key: Key, action: Action) -> bool:
    """Whether the key's scope reaches that far, for some supplier at least."""
    return action in _ALLOWED[key.scope.partition(":")[0]]


def may_see(key: Key, supplier_id: str) -> bool:
    """Whether the key is not bound to another supplier."""
    return key.supplier_id is None or key.supplier_id == supplier_id


def _presented(header: bytes | None) -> str | None:
    if header is None or len(header) > _MAX_HEADER or header[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return header[len(_SCHEME) :].strip().decode("latin-1") or None
