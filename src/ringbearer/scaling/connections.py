"""Connections to the store: how healthy they are, and how many each process may open."""

import time

import msgspec
from sqlalchemy import text

from ringbearer import clock
from ringbearer.errors import StoreUnavailable
from ringbearer.storage.base import Storage
from ringbearer.storage.database import CONNECTIONS, ConnectionLimit, ConnectionUse

_PINGS = 5
_FEWEST, _MOST = 6, 12  # the fewest are kept open, so no limit goes below
_RESERVE = 0.1  # of what the server takes, for people and other programs


class ConnectionHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds; None where the store does not answer, or cannot know."""

    healthy: bool
    round_trip: float | None
    """The median of a few."""
    slowest: float | None
    pool: ConnectionUse
    server_free: int | None
    reason: str


class PoolOptimization(msgspec.Struct, frozen=True, kw_only=True):
    """How many connections each process may open, before and after."""

    before: int
    after: int
    processes: int
    server_free: int | None
    changed: bool
    reason: str


def health(storage: Storage) -> ConnectionHealth:
    """Ask the store a few times; never raises for its sake."""
    database = storage.database
    times = []
    try:
        for _ in range(_PINGS):
            began = time.perf_counter()
            with database.read() as connection:
                connection.execute(text("SELECT 1")).one()
            times.append(time.perf_counter() - began)
        free = database.free_connections()
    except StoreUnavailable as error:
        return ConnectionHealth(
            healthy=False,
            round_trip=None,
            slowest=None,
            pool=database.connections(),
            server_free=None,
            reason=str(error),
        )
    pool = database.connections()
    short = free is not None and free < _FEWEST
    return ConnectionHealth(
        healthy=not short,
        round_trip=sorted(times)[_PINGS // 2],
        slowest=max(times),
        pool=pool,
        server_free=free,
        reason=f"the server takes only {free} more connections" if short else "the store answers",
    )


def optimize(storage: Storage, *, processes: int) -> PoolOptimization:
    """Share what the server takes evenly among the processes, and let all of them follow within a second."""
    database = storage.database
    free, own, before = database.free_connections(), database.own_connections(), database.connections().most
    if free is None or own is None:
        return PoolOptimization(
            before=before,
            after=before,
            processes=processes,
            server_free=None,
            changed=False,
            reason="the number of connections is no limit of this store, or a pooler in front of it keeps it",
        )
    after = fair_share(free + own, processes)
    reason = f"{processes} processes share the {free + own} connections that the server has for them"
    if after != before:
        plan = msgspec.json.encode(ConnectionLimit(most=after)).decode()
        storage.plans.put(CONNECTIONS, plan, now=clock.now(), reason=reason)
        database.limit_connections(after)
    return PoolOptimization(
        before=before,
        after=after,
        processes=processes,
        server_free=free,
        changed=after != before,
        reason=reason,
    )


def fair_share(connections: int, processes: int) -> int:
    """How many of so many connections each process may open: an even share less a reserve, within bounds."""
    return max(_FEWEST, min(_MOST, int(connections * (1.0 - _RESERVE)) // max(1, processes)))
