"""Ringbearer inside an application: no service and no other process; what waits is sent when the application likes.

    python examples/embed.py http://127.0.0.1:9000/ 100

Each part of Ringbearer can be used alone. This takes the store, the cache, the publisher and the processor: events are
on the disk before `publish` returns, and what is leased and not settled, because the program died, is leased again.
"""

import asyncio
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ringbearer import clock, ids
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.delivery import signing
from ringbearer.delivery.guard import Guard
from ringbearer.delivery.processor import HighPerformanceWebhookProcessor
from ringbearer.domain.endpoints import Endpoint
from ringbearer.domain.events import NewEvent
from ringbearer.domain.suppliers import Supplier
from ringbearer.limits.breakers import Breakers
from ringbearer.limits.database import DatabaseRateLimiter
from ringbearer.publish import Publisher
from ringbearer.queue.base import Demand
from ringbearer.queue.bell import SocketBell
from ringbearer.queue.database import DatabaseQueue
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.vault import Vault, generate_key
from ringbearer.telemetry import Telemetry

QUOTAS = (50, 50, 50, 50)  # claimed of each lane at a time
LEASE = 60 * clock.SECOND


async def publish_and_send(storage: Storage, directory: Path, count: int) -> tuple[int, int]:
    """Publish so many events and send them; returns how many were delivered, and how many have to be tried later."""
    telemetry = Telemetry()
    queue = DatabaseQueue(storage.ledger, SocketBell(directory / "run", listen=False))
    async with WebhookCacheManager(catalog=storage.catalog, telemetry=telemetry) as cache:
        publisher = Publisher(cache=cache, ledger=storage.ledger, queue=queue, telemetry=telemetry)
        publisher.start()
        event = NewEvent(supplier_id="lumen", type="booking.confirmed", data=msgspec.Raw(b'{"booking":42}'))
        await asyncio.gather(*(publisher.publish(event) for _ in range(count)))
        await publisher.stop()

        delivered = later = 0
        async with HighPerformanceWebhookProcessor(
            cache=cache,
            limiter=DatabaseRateLimiter(storage.database),
            breakers=Breakers(table=storage.breakers, telemetry=telemetry),
            telemetry=telemetry,
            refuse=Guard(allow_networks=["127.0.0.0/8"]).check_address,
            slots=64,
        ) as processor:
            while leases := await asyncio.to_thread(
                queue.claim, Demand(quotas=QUOTAS, worker="embedded", until=clock.now() + LEASE)
            ):
                batch = await processor.process_batch_deliveries(leases)
                await asyncio.to_thread(queue.settle, batch.outcomes, now=clock.now())
                delivered += batch.delivered
                later += batch.retried + batch.put_back
    return delivered, later


def set_up(storage: Storage, url: str) -> None:
    """A supplier with one endpoint, which wants everything."""
    now = datetime.now(UTC)
    storage.catalog.put_supplier(Supplier(id="lumen", created_at=now, updated_at=now))
    endpoint = Endpoint(id=ids.endpoint(), supplier_id="lumen", url=url, created_at=now, updated_at=now)
    storage.catalog.add_endpoint(endpoint, signing.generate_secret("hmac"))


def main(url: str, count: int) -> None:
    """Do it in a directory that is gone afterwards; an application keeps its own, and the vault's key."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with open_storage(f"sqlite:///{directory / 'store.db'}", Vault([generate_key()])) as storage:
            storage.migrate()
            set_up(storage, url)
            delivered, later = asyncio.run(publish_and_send(storage, directory, count))
    print(f"{delivered} delivered, {later} to be tried later")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
