"""The index: which deliveries are ready, by lane and rank, in Redis; a copy of what the store knows.

Endpoints are hashed to shards. The keys of one shard share a hash tag, so that one script may touch them; in a
Cluster there are several shards, whose tags are chosen so that they lie on slots far apart.
"""

import logging
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from itertools import count, islice
from typing import Any, NamedTuple, cast

import msgspec
from redis.crc import key_slot

from ringbearer import clock
from ringbearer.domain.deliveries import Content
from ringbearer.errors import RedisUnavailable
from ringbearer.redis_link import RedisLink, Script, translated
from ringbearer.telemetry import RedisFailed, Telemetry

LANE_MOST = 200_000
"""Deliveries of a lane in the index; above that they wait in the store, which has all of them."""
LANES = 4

_CLUSTER_SHARDS = 8
_SLOTS = 16_384
_CHUNK = 1_000  # deliveries in one call
_REACH_STEPS = 16  # looks into a lane of a shard, to learn what of it comes before what others have
_BODY_MOST = 4_096  # a longer body is read from the store when its delivery is claimed
_FORGET_SECONDS = 2 * 86_400
_FIRST_PAUSE = 0.25  # after a failure nobody asks Redis for so long, and twice as long after the next one
_LAST_PAUSE = 5.0

_log = logging.getLogger(__name__)
_pack = msgspec.msgpack.Encoder().encode
_read_content = msgspec.msgpack.Decoder(Content).decode
_BOUND = "body "  # before the event's id; in JSON, as bodies once were, they were bound to the id alone


class Entry(NamedTuple):
    """A ready delivery, as the index holds it."""

    delivery_id: str
    endpoint_id: str
    lane: int
    rank: int
    body: bytes | None


Popped = tuple[str, bytes | None]
"""A delivery's id and its event's sealed body, if it had one."""


class _Got(NamedTuple):
    counts: list[int]
    taken: list[Popped]


class Stretch(NamedTuple):
    """So many deliveries that follow each other in a lane of a shard, the first of them with this rank."""

    lane: int
    rank: float
    shard: int
    size: int


class _Walk:
    """Which shards may have more of which lane, while a claim goes through them."""

    __slots__ = ("_first", "open", "whole")

    def __init__(self, shards: int, first: int) -> None:
        self.open = [set(range(shards)) for _ in range(LANES)]
        self.whole = True
        self._first = first  # turns, so that no shard is always asked for the larger part

    def asks(self, need: Sequence[int]) -> list[tuple[int, list[int]]]:
        """What to ask each shard for."""
        asks: dict[int, list[int]] = {}
        for lane, wanted in enumerate(need):
            shards = sorted(self.open[lane])
            for number, part in zip(shards, _spread(wanted, len(shards), self._first), strict=True):
                if part:
                    asks.setdefault(number, [0] * LANES)[lane] = part
        self._first += 1
        return list(asks.items())

    def close(self, number: int) -> None:
        """Ask a shard for nothing more."""
        for lane in self.open:
            lane.discard(number)


class _Shard(NamedTuple):
    bodies: str
    lanes: tuple[str, ...]
    epoch: str


class RedisIndex:
    """Ready deliveries by lane and rank. May be used by several threads; every method blocks.

    After a failure it does not ask Redis for a while, and raises RedisUnavailable at once.
    """

    def __init__(self, link: RedisLink, telemetry: Telemetry, *, lane_most: int = LANE_MOST) -> None:
        self._link = link
        self._telemetry = telemetry
        number = _CLUSTER_SHARDS if link.clustered else 1
        self._shards = [_shard(link.prefix, i, number) for i in range(number)]
        self._lane_most = max(1, lane_most // number)
        self._scripts = {
            name: Script(files(__package__).joinpath(f"{name}.lua").read_text())
            for name in ("push", "pop", "reach", "missing", "epoch")
        }
        self._turn = count()
        self._crowded = False
        self._lock = threading.Lock()
        self._pause = 0.0
        self._closed_until = 0.0

    def __repr__(self) -> str:
        state = "answers" if not self._pause else "does not answer"
        return f"<RedisIndex of {len(self._shards)} shards on {self._link!r}, which {state}>"

    @property
    def shards(self) -> range:
        """The numbers of the shards."""
        return range(len(self._shards))

    @property
    def keys(self) -> list[str]:
        """The name of every key that the index may have."""
        return [key for shard in self._shards for key in (shard.bodies, *shard.lanes, shard.epoch)]

    def shard_of(self, endpoint_id: str) -> int:
        """The shard that holds an endpoint's deliveries."""
        return zlib.crc32(endpoint_id.encode()) % len(self._shards)

    def seal(self, event_id: str, content: Content) -> bytes | None:
        """What an event's deliveries take along into Redis; None if it is too long for that."""
        if len(content.data) > _BODY_MOST:
            return None
        return self._link.seal(_pack(content), _BOUND + event_id)

    def unseal(self, event_id: str, body: bytes) -> Content | None:
        """What was sealed, or None when this process cannot open it."""
        opened = self._link.open(body, _BOUND + event_id)
        return None if opened is None else _read_content(opened)

    def push(self, entries: Iterable[Entry], *, most: int | None = None) -> int:
        """Put deliveries in; returns how many found no room in their lane. Raises RedisUnavailable."""
        left_out = 0
        most = self._lane_most if most is None else most
        for number, part in self._by_shard(entries):
            for chunk in _chunks(part):
                lanes: list[list[str]] = [[] for _ in range(LANES)]
                bodies: list[bytes | str] = []
                for entry in chunk:
                    lanes[entry.lane] += (str(entry.rank), entry.delivery_id)
                    if entry.body is not None:
                        bodies += (entry.delivery_id, entry.body)
                shard = self._shards[number]
                with self._watched("push"):
                    answer = self._link.run(
                        self._scripts["push"],
                        [shard.bodies, *shard.lanes],
                        [most, _FORGET_SECONDS, _pack(lanes), *bodies],
                    )
                left_out += cast(int, answer)
        return left_out

    def pop(self, quotas: Sequence[int]) -> tuple[list[Popped], bool]:
        """Take out the first of each lane, at most `quotas[lane]`; what a lane leaves goes to the others.

        Several shards are asked for equal parts while they have less than that; when the last claim got all that it
        asked for, each is asked for its part of what comes first by rank.

        Returns ids of deliveries with their sealed bodies, and whether every shard's index was whole. Raises
        RedisUnavailable when nothing was taken; what was taken without being told of is found in the store again.
        """
        popped: list[Popped] = []
        walk = _Walk(len(self._shards), next(self._turn))
        try:
            self._pop_lanes(list(quotas), popped, walk)
            for lane in range(LANES):
                spare = sum(quotas) - len(popped)
                if spare and walk.open[lane]:
                    only = [spare if lane == other else 0 for other in range(LANES)]
                    self._pop_lanes(only, popped, walk)
        except RedisUnavailable:
            if not popped:
                raise
            walk.whole = False
        self._crowded = len(self._shards) > 1 and len(popped) >= sum(quotas)
        return popped, walk.whole

    def _pop_lanes(self, need: list[int], popped: list[Popped], walk: _Walk) -> None:
        """Ask shard after shard for its part, until nothing is needed or nobody has any more."""
        if self._crowded:
            self._pop_parts(by_rank(need, self._reach(need)), need, popped, walk)
        while asks := walk.asks(need):
            self._pop_parts(asks, need, popped, walk)

    def _pop_parts(
        self, asks: Iterable[tuple[int, list[int]]], need: list[int], popped: list[Popped], walk: _Walk
    ) -> None:
        share = len(self._shards) == 1  # the one shard can do at once what else takes several rounds
        for number, lanes in asks:
            got = self._pop(number, lanes, share)
            if got is None:
                walk.close(number)
                walk.whole = False
                continue
            popped += got.taken
            for lane, (asked, came) in enumerate(zip(lanes, got.counts, strict=True)):
                need[lane] -= min(came, need[lane])
                if came < asked or share:
                    walk.open[lane].discard(number)

    def _reach(self, need: Sequence[int]) -> list[Stretch]:
        """What each shard has at the head of its lanes, in stretches."""
        steps = [max(1, -(-wanted // _REACH_STEPS)) for wanted in need]
        found: list[Stretch] = []
        for number in self.shards:
            with self._watched("claim"):
                answer = self._link.run(
                    self._scripts["reach"], list(self._shards[number].lanes), [*need, *steps]
                )
            for lane, told in enumerate(cast(list[list[Any]], answer)):
                step = steps[lane]
                found += [
                    Stretch(lane, float(rank), number, min(step, told[0] - step * n))
                    for n, rank in enumerate(told[1:])
                ]
        return found

    def _pop(self, number: int, lanes: Sequence[int], share: bool) -> _Got | None:
        shard = self._shards[number]
        with self._watched("claim"):
            answer = self._link.run(
                self._scripts["pop"], [shard.bodies, *shard.lanes, shard.epoch], [*lanes, int(share)]
            )
        if answer is None:
            return None
        parts = cast(list[Any], answer)
        taken: list[Popped] = []
        for names, bodies in zip(parts[LANES::2], parts[LANES + 1 :: 2], strict=True):
            taken += [(name.decode(), body) for name, body in zip(names, bodies, strict=True)]
        return _Got(parts[:LANES], taken)

    def missing(self, entries: Sequence[Entry]) -> set[str]:
        """The ids of those deliveries that are not in their lane. Raises RedisUnavailable."""
        found: set[str] = set()
        for number, part in self._by_shard(entries):
            lanes: list[list[str]] = [[] for _ in range(LANES)]
            for entry in part:
                lanes[entry.lane].append(entry.delivery_id)
            with self._watched("look"):
                answer = self._link.run(
                    self._scripts["missing"], list(self._shards[number].lanes), [_pack(lanes)]
                )
            found.update(name.decode() for name in cast(list[bytes], answer))
        return found

    def torn(self) -> list[int]:
        """The shards whose server does not hold a whole index. Raises RedisUnavailable."""
        return [number for number in self.shards if not self._epoch(number, "look")]

    def clear(self, shards: Iterable[int]) -> None:
        """Empty shards, which are not whole from then on. Raises RedisUnavailable."""
        for number in shards:
            shard = self._shards[number]
            with self._watched("rebuild"):
                self._link.client.unlink(shard.epoch, shard.bodies, *shard.lanes)

    def mark(self, shards: Iterable[int]) -> None:
        """Write down that these shards are whole. Raises RedisUnavailable."""
        for number in shards:
            self._epoch(number, "mark")

    def held(self) -> int:
        """How many deliveries are in the index. Raises RedisUnavailable."""
        total = 0
        for shard in self._shards:
            for lane in shard.lanes:
                with self._watched("look"):
                    total += self._link.client.zcard(lane)
        return total

    def _epoch(self, number: int, verb: str) -> bool:
        with self._watched("rebuild"):
            answer = self._link.run(
                self._scripts["epoch"], [self._shards[number].epoch], [verb, _FORGET_SECONDS]
            )
        return answer == 1

    def _by_shard(self, entries: Iterable[Entry]) -> Iterable[tuple[int, Sequence[Entry]]]:
        if len(self._shards) == 1:
            part = list(entries)
            return [(0, part)] if part else []
        parts: dict[int, list[Entry]] = {}
        for entry in entries:
            parts.setdefault(self.shard_of(entry.endpoint_id), []).append(entry)
        return parts.items()

    @contextmanager
    def _watched(self, during: str) -> Iterator[None]:
        """Ask nothing of a Redis that failed a moment ago."""
        now = clock.monotonic()
        if now < self._closed_until:
            raise RedisUnavailable("Redis failed a moment ago; it is asked again soon")
        try:
            with translated():
                yield
        except RedisUnavailable as error:
            with self._lock:
                self._pause = min(_LAST_PAUSE, self._pause * 2 or _FIRST_PAUSE)
                self._closed_until = clock.monotonic() + self._pause
            self._telemetry.emit(RedisFailed(during, str(error)))
            raise
        if self._pause:
            self._pause = 0.0
            _log.info("Redis answers again")


def _shard(prefix: str, number: int, of: int) -> _Shard:
    """The keys of a shard; its hash tag is the first of its kind that lies in that part of a Cluster's slots."""
    tags = (f"{prefix}:q{number}.{n}" for n in count())
    tag = next(tag for tag in tags if key_slot(tag.encode()) * of // _SLOTS == number)
    lanes = tuple(f"{{{tag}}}:lane{lane}" for lane in range(LANES))
    return _Shard(f"{{{tag}}}:bodies", lanes, f"{{{tag}}}:epoch")


def by_rank(need: Sequence[int], stretches: Iterable[Stretch]) -> list[tuple[int, list[int]]]:
    """How many of each lane to take from which shard, so that what comes first by rank is taken first."""
    left = list(need)
    parts: dict[int, list[int]] = {}
    for lane, _, shard, size in sorted(stretches):
        part = min(size, left[lane])
        if part:
            left[lane] -= part
            parts.setdefault(shard, [0] * LANES)[lane] += part
    return list(parts.items())


def _spread(total: int, parts: int, first: int) -> list[int]:
    """`total` in as equal parts as can be; which parts get one more turns with `first`."""
    if not parts:
        return []
    each, more = divmod(total, parts)
    return [each + ((i + first) % parts < more) for i in range(parts)]


def _chunks(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    source = iter(entries)
    while chunk := list(islice(source, _CHUNK)):
        yield chunk
