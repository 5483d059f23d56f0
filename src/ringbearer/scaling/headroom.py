"""Headroom: how many more workers the store and Redis can take."""

import logging

import msgspec

from ringbearer import clock
from ringbearer.errors import RedisUnavailable
from ringbearer.redis_link import RedisLink
from ringbearer.storage.base import Storage

_log = logging.getLogger(__name__)

_FRESH_SECONDS = 10.0
_STORE_CONNECTIONS = 13  # as a worker opens at most: its pool, and one to listen
_REDIS_CONNECTIONS = 8  # as many as a worker's threads use at a time: its queue, its cache, its bells


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What is left; None where that is no limit, or cannot be known."""

    store_connections: int | None = None
    redis_connections: int | None = None
    redis_memory: float | None = None
    """The part of the memory that Redis may use which is not in use."""


class Headroom:
    """Asks the store and Redis now and then. Blocks; raises StoreUnavailable, but never for Redis's sake."""

    def __init__(self, storage: Storage, redis: RedisLink | None) -> None:
        self._storage = storage
        self._redis = redis
        self._known: tuple[float, Room] | None = None

    def __repr__(self) -> str:
        return f"<Headroom {self._known[1] if self._known is not None else 'not looked at yet'}>"

    def room(self) -> Room:
        """What was left some seconds ago at most."""
        now = clock.monotonic()
        if self._known is None or now - self._known[0] > _FRESH_SECONDS:
            self._known = now, self._look()
        return self._known[1]

    def _look(self) -> Room:
        room = Room(store_connections=self._storage.database.free_connections())
        if self._redis is None:
            return room
        try:
            usage = self._redis.usage()
        except RedisUnavailable as error:
            _log.warning("how much Redis can take is not known: %s", error)
            return room
        return msgspec.structs.replace(
            room, redis_connections=usage.free_connections, redis_memory=usage.free_memory
        )


def workers(connections: int | None, running: int, *, each: int) -> int | None:
    """How many workers there are connections for, those that run among them."""
    return None if connections is None else running + max(0, connections) // each


def store_workers(room: Room, running: int) -> int | None:
    """How many workers the store has connections for."""
    return workers(room.store_connections, running, each=_STORE_CONNECTIONS)


def redis_workers(room: Room, running: int) -> int | None:
    """How many workers Redis has connections for."""
    return workers(room.redis_connections, running, each=_REDIS_CONNECTIONS)
