"""L2: entries in Redis, for all processes; sealed, under hashed names, and believed only as far as a mark vouches.

Redis may be away, slow, flushed, restored from an old snapshot or failed over to a replica that lags behind: then
this tier knows nothing until it has caught up with the store's changes. The mark lies in the same shard as the
entries that it vouches for, so that a replica that lost some of the last writes lost the later ones too.
"""

import hashlib
import logging
import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.resources import files
from typing import cast

import msgspec

from ringbearer import clock
from ringbearer.cache.base import Entry, Since, Tier, TierState
from ringbearer.domain.endpoints import Target
from ringbearer.domain.suppliers import Supplier
from ringbearer.errors import RedisUnavailable
from ringbearer.redis_link import RedisLink, Script, translated
from ringbearer.storage.catalog import Subscriptions

_log = logging.getLogger(__name__)
_SHARDS = 8  # on a Cluster, where one script may touch keys of one shard only
_MOST_CHANGED = 1_000  # suppliers in one follow: beyond it is cheaper to begin anew
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds without asking, after a failure and after many
_UNKNOWN_LIFETIME = 60.0
_HEAD = 32  # generation and version


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    """What is sealed: None for a supplier that does not exist."""

    supplier: Supplier | None
    targets: tuple[Target, ...]
    version: int
    weight: int
    """Of the entry in memory: working it out takes longer than all the rest."""


_encode = msgspec.msgpack.Encoder().encode
_Decoder = msgspec.msgpack.Decoder(_Stored)
# Processes of different versions may run side by side: what one does not know, it must not read as the default.
_FORM = hashlib.sha256(
    msgspec.json.encode(msgspec.json.schema(_Stored, schema_hook=lambda kind: {"title": kind.__name__}))
).hexdigest()[:8]


class RedisTier(Tier):
    """Entries in Redis. One script per shard and batch: one in all, but on a Cluster. The link is closed with it."""

    name = "l2"

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._follow = Script((files(__package__) / "follow.lua").read_text())
        self._keep = Script((files(__package__) / "keep.lua").read_text())
        self._shards = [f"{{{link.prefix}:c:{_FORM}:{n}}}:" for n in range(_SHARDS if link.clustered else 1)]
        self._marks: dict[str, int] = {}
        self._ahead: set[str] = (
            set()
        )  # shards whose mark was found ahead of the store: of one that was replaced?
        self._pause = 0.0
        self._away_until = 0.0

    def __repr__(self) -> str:
        return f"<RedisTier on {self._link!r}, {'away' if self._away() else 'there'}>"

    def read(self, supplier_ids: Sequence[str], *, version: int) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        if self._away():
            return found
        try:
            for shard, ids in self._sharded(supplier_ids).items():
                if shard not in self._ahead:
                    found |= self._read(shard, ids, version)
        except RedisUnavailable as error:
            self._failed(error)
        return found

    def write(self, entries: Mapping[str, Entry]) -> int:
        kept = 0
        if self._away():
            return kept
        try:
            for shard, ids in self._sharded(entries).items():
                names = [self._name(shard, supplier_id) for supplier_id in ids]
                given: list[bytes | str | int | float] = []
                for name, supplier_id in zip(names, ids, strict=True):
                    entry = entries[supplier_id]
                    given += [self._sealed(name, entry), self._milliseconds(entry)]
                kept += max(0, self._run(self._keep, [shard + "mark", *names], given))
        except RedisUnavailable as error:
            self._failed(error)
        return kept

    def follow(self, version: int, since: Since) -> None:
        for shard in self._shards:
            if self._marks.get(shard) == version:
                self._ahead.discard(shard)
                continue
            if self._away():
                continue
            try:
                self._catch_up(shard, version, since)
            except RedisUnavailable as error:
                self._failed(error)

    def forget(self, supplier_ids: Sequence[str]) -> None:
        """Nothing: a change is everybody's business, and comes with its version."""

    def state(self) -> TierState:
        return TierState()

    def close(self) -> None:
        self._link.close()

    # ── the steps ───────────────────────────────────────────────────────────────────────────────────────

    def _read(self, shard: str, ids: Sequence[str], version: int) -> dict[str, Entry]:
        names = [self._name(shard, supplier_id) for supplier_id in ids]
        client, began = self._link.client, clock.monotonic()
        with translated():
            mark, *values = cast("list[bytes | None]", client.mget([shard + "mark", *names]))
        self._succeeded()
        if mark is None or not mark[16:_HEAD].isdigit():
            self._marks.pop(shard, None)  # flushed: to be followed anew
            return {}
        generation, vouched = mark[:16], int(mark[16:_HEAD])
        if vouched < version:
            self._marks[shard] = vouched
            return {}
        return {
            supplier_id: entry
            for supplier_id, name, value in zip(ids, names, values, strict=True)
            if value is not None and value[:16] == generation and value[16:_HEAD].isdigit()
            for entry in (self._opened(name, value, vouched, began),)
            if entry is not None
        }

    def _opened(self, name: str, value: bytes, vouched: int, began: float) -> Entry | None:
        written = int(value[16:_HEAD])
        plain = self._link.open(value[_HEAD:], f"{name} {written}")
        if plain is None:
            return None
        stored = _Decoder.decode(plain)
        subscriptions = None
        if stored.supplier is not None:
            targets = {target.endpoint.id: target for target in stored.targets}
            subscriptions = Subscriptions(stored.supplier, targets, stored.version)
        return Entry(subscriptions, max(written, vouched), stored.weight, began)

    def _sealed(self, name: str, entry: Entry) -> bytes:
        value = entry.value
        stored = _Stored(
            supplier=value.supplier if value is not None else None,
            targets=tuple(value.targets.values()) if value is not None else (),
            version=value.version if value is not None else 0,
            weight=entry.weight,
        )
        return b"%016d" % entry.version + self._link.seal(_encode(stored), f"{name} {entry.version}")

    def _catch_up(self, shard: str, version: int, since: Since) -> None:
        """Bring a shard's mark to the version, from wherever it is."""
        at = self._marks.get(shard, version)
        replaced = at > version  # than what this process saw, or another one
        for _ in range(3):  # the first one may only tell where the mark is; it may move once more meanwhile
            names: Collection[str] = ()
            if at < version:
                names = [
                    self._name(s, key)
                    for s, keys in self._sharded(since(at)).items()
                    if s == shard
                    for key in keys
                ]
            anew = replaced or len(names) > _MOST_CHANGED
            at = self._run(
                self._follow,
                [shard + "mark", *(names if not anew else ())],
                [min(at, version), version, secrets.token_hex(8), int(anew)],
            )
            self._marks[shard] = at
            if at >= version:
                # Another process may have seen a change that this one has not: the next look will tell. If it does
                # not, the store went back to an older state, from a backup, while nobody looked.
                (self._ahead.add if at > version else self._ahead.discard)(shard)
                return

    def _run(self, script: Script, keys: Sequence[str], given: Sequence[bytes | str | int | float]) -> int:
        answer = cast(int, self._link.run(script, keys, given))
        self._succeeded()
        return answer

    def _sharded(self, supplier_ids: Iterable[str]) -> dict[str, list[str]]:
        if len(self._shards) == 1:
            return {self._shards[0]: list(supplier_ids)}
        found: dict[str, list[str]] = defaultdict(list)
        for supplier_id in supplier_ids:
            found[self._shards[int(self._link.hashed(supplier_id)[:4], 16) % len(self._shards)]].append(
                supplier_id
            )
        return found

    def _name(self, shard: str, supplier_id: str) -> str:
        return shard + self._link.hashed(supplier_id)

    def _milliseconds(self, entry: Entry) -> int:
        return int(
            1000 * (self.lifetime if entry.value is not None else min(self.lifetime, _UNKNOWN_LIFETIME))
        )

    # ── being away ──────────────────────────────────────────────────────────────────────────────────────

    def _away(self) -> bool:
        return clock.monotonic() < self._away_until

    def _failed(self, error: RedisUnavailable) -> None:
        """Ask no more for a while: whoever asks next goes to the store at once."""
        self.failures += 1
        if self._pause == 0.0:
            _log.warning("the cache goes on without Redis: %s", error)
        self._pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * self._pause))
        self._away_until = clock.monotonic() + self._pause
        self._marks.clear()

    def _succeeded(self) -> None:
        if self._pause:
            _log.info("the cache has Redis again")
            self._pause = 0.0
