"""Outages: what is done to PostgreSQL and to Redis, each thing whole: when it returns, they work again.

F5   Redis: flushed, started again empty, full, standing still in a script of two seconds
F6   Redis: its primary killed, so that a replica takes over
F7   PostgreSQL: stopped at once and started again, out of connections, its jobs locked, read-only
"""

import random
import time
from collections.abc import Callable, Sequence

from chaos.databases import Postgres
from chaos.redis_servers import Group, wait_until

_STALL = """
local began = redis.call('TIME')
repeat
  local now = redis.call('TIME')
until (now[1] - began[1]) * 1000000 + now[2] - began[2] > 2000000
return 1
"""

_PROMOTED = (
    90.0  # seconds; sentinels wait twice their timeout of 3 s between two failovers, and 30 s when in doubt
)

Outage = tuple[int, str, Callable[[], None]]
"""How often against others, what it is called, and doing it."""


def of_postgres(server: Postgres, chance: random.Random) -> Sequence[Outage]:
    """What can happen to a PostgreSQL server."""

    def crash() -> None:
        server.crash()
        time.sleep(chance.random())
        server.start()

    def exhaust() -> None:
        with server.exhausted():
            time.sleep(1 + chance.random())

    def lock() -> None:
        with server.locked():
            time.sleep(1 + 2 * chance.random())

    def forbid() -> None:
        with server.read_only():
            time.sleep(1 + chance.random())

    return [
        (2, "crash database", crash),
        (1, "exhaust database", exhaust),
        (1, "lock jobs", lock),
        (1, "read-only database", forbid),
    ]


BLOCKING = frozenset({"crash database", "exhaust database", "lock jobs", "read-only database"})
"""Those in which leases may run out although their workers live."""


def of_redis(group: Group, chance: random.Random) -> Sequence[Outage]:
    """What can happen to that Redis."""

    def flush() -> None:
        for server in group.primaries():
            with server.client() as client:
                client.flushall()

    def fill() -> None:
        full = group.primaries()
        for limit in (1, 0):
            for server in full:
                with server.client() as client:
                    client.config_set("maxmemory", limit)
            if limit:
                time.sleep(1 + chance.random())

    def stall() -> None:
        with chance.choice(group.primaries()).client() as client:
            client.eval(_STALL, 0)

    def restart() -> None:
        (server,) = group.servers
        server.kill()
        time.sleep(2 * chance.random())
        server.start()

    def fail_over() -> None:
        primaries = group.primaries()
        victim = chance.choice(primaries)
        victim.kill()
        wait_until(lambda: len(group.primaries()) == len(primaries), "a replica takes over", within=_PROMOTED)
        victim.start()

    deeds: list[Outage] = [(2, "flush redis", flush), (1, "fill redis", fill), (1, "stall redis", stall)]
    deeds.append(
        (2, "restart redis", restart) if len(group.servers) == 1 else (2, "fail over redis", fail_over)
    )
    return [(weight, what, _and_settle(do, group)) for weight, what, do in deeds]


def _and_settle(do: Callable[[], None], group: Group) -> Callable[[], None]:
    """Do it, and wait until the next one may come: also who only stood still may have lost its place."""

    def happen() -> None:
        do()
        group.settle()

    return happen
