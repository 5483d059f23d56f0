"""The calls of endpoints that fail, in Redis: one script for all that a worker has to tell."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import cast

import msgspec

from ringbearer import clock
from ringbearer.errors import RedisUnavailable
from ringbearer.limits.breaker import BreakerPolicy, judged, length
from ringbearer.limits.calls import MOST_TROUBLED, SharedCalls
from ringbearer.redis_link import RedisLink, Script, translated

_PAUSE = 5.0  # seconds in which nobody asks a Redis that failed
_FORGET_SECONDS = 86_400
_BOUND = "an endpoint's calls"
_pack = msgspec.msgpack.Encoder().encode


class RedisCalls(SharedCalls):
    """Lines under hashed names, each with its endpoint's sealed id; while Redis is away, `otherwise` has others."""

    def __init__(self, link: RedisLink, otherwise: SharedCalls) -> None:
        self._link = link
        self._otherwise = otherwise
        self._closed_until = 0.0
        self._key = f"{link.prefix}:calls"
        self._script = Script(files(__package__).joinpath("calls.lua").read_text())
        self._ids: dict[bytes, str] = {}  # of the lines that there were at the last look

    def __repr__(self) -> str:
        return f"<RedisCalls in {self._link!r}>"

    def add(self, calls: Mapping[str, str], policy: BreakerPolicy, *, now: int) -> dict[str, str]:
        if clock.monotonic() < self._closed_until:
            return self._otherwise.add(calls, policy, now=now)
        try:
            return self._add(calls, policy)
        except RedisUnavailable:
            self._closed_until = clock.monotonic() + _PAUSE
            return self._otherwise.add(calls, policy, now=now)

    def _add(self, calls: Mapping[str, str], policy: BreakerPolicy) -> dict[str, str]:
        names = {self._link.hashed(endpoint_id): endpoint_id for endpoint_id in calls}
        numbers = (
            length(policy),
            policy.window,
            policy.calls,
            policy.failure_ratio,
            policy.connect_errors,
        )
        arguments: list[bytes | str | int | float] = [_pack(numbers), _FORGET_SECONDS, MOST_TROUBLED]
        for name, endpoint_id in names.items():
            arguments += (name, self._link.seal(endpoint_id.encode(), _BOUND), calls[endpoint_id])
        answer = iter(cast(list[bytes], self._link.run(self._script, [self._key], arguments)))
        found = [(name.decode(), line.decode()) for name, line in zip(answer, answer, strict=True)]
        return {names[name]: judged(line, policy) or line for name, line in found}

    def troubled(self) -> frozenset[str]:
        if clock.monotonic() < self._closed_until:
            return self._otherwise.troubled()
        try:
            return self._troubled()
        except RedisUnavailable:
            self._closed_until = clock.monotonic() + _PAUSE
            return self._otherwise.troubled()

    def _troubled(self) -> frozenset[str]:
        client = self._link.client
        with translated():
            lines = cast(dict[bytes, bytes], client.hgetall(self._key))
        ids = {name: self._ids.get(name) or self._opened(kept) for name, kept in lines.items()}
        self._ids = {name: endpoint_id for name, endpoint_id in ids.items() if endpoint_id is not None}
        return frozenset(self._ids.values())

    def _opened(self, kept: bytes) -> str | None:
        _, _, sealed = kept.partition(b":")
        opened = self._link.open(sealed, _BOUND)
        return None if opened is None else opened.decode()

    def forget(self, endpoint_ids: Sequence[str]) -> None:
        self._otherwise.forget(endpoint_ids)  # it may have had its turn when the circuit opened
        if clock.monotonic() < self._closed_until:
            return
        client = self._link.client
        with translated():
            client.hdel(self._key, *(self._link.hashed(endpoint_id) for endpoint_id in endpoint_ids))
