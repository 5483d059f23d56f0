"""Identifiers: a prefix that tells the kind, then a UUIDv7, so that text order is time order.

A delivery's id is its event's with another prefix and a four-digit hexadecimal ordinal: the deliveries of an
event are one range of the primary key, and a day of events, deliveries and attempts is one range of ids.
"""

from uuid_utils import uuid7

_HEX_MILLISECONDS = 12
_UUID_HEX = 32
MAX_FANOUT = 0x10000
"""How many deliveries one event may have; the ordinal has four hexadecimal digits."""


def event() -> str:
    """A new event id, `evt_…`."""
    return "evt_" + uuid7().hex


def endpoint() -> str:
    """A new endpoint id, `ep_…`."""
    return "ep_" + uuid7().hex


def key() -> str:
    """A new API key id, `key_…`."""
    return "key_" + uuid7().hex


def replay() -> str:
    """A new replay id, `rpl_…`."""
    return "rpl_" + uuid7().hex


def worker() -> str:
    """A new worker id, `wrk_…`: one per worker process and start."""
    return "wrk_" + uuid7().hex


def node() -> str:
    """A new node id, `node_…`: one per process of the service and start."""
    return "node_" + uuid7().hex


def scaling() -> str:
    """A new id of a decision on the number of workers, `scl_…`."""
    return "scl_" + uuid7().hex


def command() -> str:
    """A new id of a command to workers, `cmd_…`."""
    return "cmd_" + uuid7().hex


def alert() -> str:
    """A new alert id, `alr_…`."""
    return "alr_" + uuid7().hex


def channel() -> str:
    """A new id of a channel for alerts, `chn_…`."""
    return "chn_" + uuid7().hex


def silence() -> str:
    """A new silence id, `sil_…`."""
    return "sil_" + uuid7().hex


def delivery(event_id: str, ordinal: int) -> str:
    """The id of an event's delivery number `ordinal`, from 0 to MAX_FANOUT - 1."""
    return f"dlv_{event_id[4:]}{ordinal:04x}"


def event_of(delivery_id: str) -> str:
    """The id of the event that a delivery belongs to."""
    return "evt_" + delivery_id[4 : 4 + _UUID_HEX]


def floor(prefix: str, microseconds: int) -> str:
    """The smallest id with that prefix that was made at or after a stored time: a bound for ranges of ids."""
    return f"{prefix}_{max(0, microseconds // 1000):0{_HEX_MILLISECONDS}x}"
