"""A bell over Redis: a channel that every process listens to. It needs no session of the database, as LISTEN does."""

import logging

from redis.client import PubSub

from ringbearer import clock
from ringbearer.errors import RedisUnavailable
from ringbearer.queue.bell import Bell
from ringbearer.redis_link import RedisLink, translated

_log = logging.getLogger(__name__)
_PAUSE = 2.0  # seconds until a lost connection is tried again
_PING = 10.0  # seconds of silence after which the connection is asked for a sign of life


class RedisBell(Bell):
    """Rung by PUBLISH. Belongs to one thread. What is rung while the connection is lost is not heard."""

    def __init__(self, link: RedisLink, *, name: str) -> None:
        self._link = link
        self._channel = f"{link.prefix}:{name}"
        self._ear: PubSub | None = None
        self._next_try = 0.0
        self._next_ping = 0.0

    def ring(self) -> None:
        try:
            client = self._link.client
            with translated():
                client.publish(self._channel, b"!")
        except RedisUnavailable as error:
            _log.debug("could not ring: %s", error)

    def fileno(self) -> int | None:
        connection = self._ear.connection if self._ear is not None else None
        sock = getattr(connection, "_sock", None)  # the client library has no public way to wait for it
        return sock.fileno() if sock is not None else None

    def hush(self) -> None:
        now = clock.monotonic()
        if self._ear is None and now < self._next_try:
            return
        try:
            with translated():
                if self._ear is None:
                    self._listen(now)
                elif now >= self._next_ping:
                    self._next_ping = now + _PING
                    self._ear.ping()
                while self._ear is not None and self._ear.get_message(timeout=0) is not None:
                    self._next_ping = now + _PING
        except RedisUnavailable as error:
            _log.debug("the connection that listened is lost: %s", error)
            self._drop(now)

    def close(self) -> None:
        self._drop(0.0)

    def _listen(self, now: float) -> None:
        self._next_ping = now + _PING
        self._ear = self._link.client.pubsub()  # type: ignore[no-untyped-call]
        self._ear.subscribe(self._channel)

    def _drop(self, now: float) -> None:
        ear, self._ear = self._ear, None
        self._next_try = now + _PAUSE
        if ear is not None:
            ear.close()
