"""Tidying: deliveries follow their endpoints, which were enabled, disabled or deleted."""

import asyncio

from ringbearer import clock
from ringbearer.queue.base import Queue
from ringbearer.storage.ledger import Ledger
from ringbearer.telemetry import DeliveriesMoved, Telemetry

_BATCH = 1_000
_LATELY = 60 * clock.SECOND


async def tidy(ledger: Ledger, queue: Queue, telemetry: Telemetry) -> None:
    """Hold, release, cancel and promote deliveries until each stands where its endpoint lets it stand.

    Raises StoreUnavailable; what was done until then stays done.
    """
    now = clock.now()
    since = now - _LATELY
    steps = [
        ("unheld", lambda: ledger.unhold(limit=_BATCH)),
        ("cancelled", lambda: ledger.cancel_orphans(now=now, limit=_BATCH)),
        ("promoted", lambda: ledger.promote_waiting(limit=_BATCH)),
    ]
    if await asyncio.to_thread(ledger.lately_closed, since=since):
        steps += [
            ("held", lambda: ledger.hold(since=since, limit=_BATCH)),
            ("cancelled", lambda: ledger.cancel(since=since, now=now, limit=_BATCH)),
        ]
    for how, step in steps:
        while count := await asyncio.to_thread(step):
            telemetry.emit(DeliveriesMoved(how, count))
            queue.push(count)
            if count < _BATCH:
                break
