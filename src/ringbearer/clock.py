"""The time, read here and nowhere else, so that every rule can be given its `now`."""

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache

SECOND = 1_000_000
"""Microseconds in a second: stored times are whole microseconds since 1970-01-01 UTC."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> int:
    """Wall-clock time in microseconds since the epoch."""
    return time.time_ns() // 1_000


def monotonic() -> float:
    """Seconds on a clock that never goes back; for durations and deadlines inside one process."""
    return time.monotonic()


def cpu() -> float:
    """Seconds of CPU that the calling thread has used."""
    return time.thread_time()


def to_datetime(microseconds: int) -> datetime:
    """The stored time as an aware UTC datetime, exact to the microsecond."""
    return _EPOCH + timedelta(microseconds=microseconds)


def to_rfc3339(microseconds: int) -> str:
    """The stored time as RFC 3339 in UTC, with all six digits of the fraction."""
    seconds, fraction = divmod(microseconds, SECOND)
    return f"{_second(seconds)}.{fraction:06d}Z"


@lru_cache(256)  # events come thick and fast within the same few seconds
def _second(seconds: int) -> str:
    return to_datetime(seconds * SECOND).strftime("%Y-%m-%dT%H:%M:%S")


def from_datetime(moment: datetime) -> int:
    """The aware datetime as a stored time; raises ValueError when it has no time zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone")
    return (moment - _EPOCH) // timedelta(microseconds=1)
