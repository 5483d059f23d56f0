"""What alert rules look at: the value of each metric and group now, read from the store.

urgent_age, queue_age   seconds that the oldest ready delivery of a lane has waited; by lane
workers                 worker processes that are alive
store_errors            failures of the store in this minute and the one before
failed_by_us,
failed_by_receivers     shares of the attempts of this minute and the one before, if there were at least LEAST
error_rate              the share that failed, whoever's fault it was
dead                    deliveries given up within five minutes
p95_reach               seconds from ready to first byte sent, of five minutes; by lane
breakers_open           the share of the enabled endpoints that is left alone
burn_fast, burn_slow    burn rates as ratios to what their alerts begin at; by objective
"""

from collections.abc import Mapping

from sqlalchemy import text

from ringbearer import clock
from ringbearer.domain.events import LANES
from ringbearer.monitor.burning import BurnBook
from ringbearer.monitor.figures import Figures, Reader
from ringbearer.monitor.slo import worst
from ringbearer.storage.base import Storage

LEAST = 20
"""Fewer attempts than these say nothing of a share."""
METRICS = (
    "urgent_age",
    "queue_age",
    "workers",
    "store_errors",
    "failed_by_us",
    "failed_by_receivers",
    "error_rate",
    "dead",
    "p95_reach",
    "breakers_open",
    "burn_fast",
    "burn_slow",
)
_MINUTE = 60 * clock.SECOND


def gather(storage: Storage, book: BurnBook, *, now: int) -> dict[tuple[str, str], float]:
    """The values now; blocks, and raises StoreUnavailable."""
    reader = Reader(storage.rollups)
    found = _queue(storage, now)
    found["workers", ""] = float(sum(node.kind == "work" for node in storage.nodes.alive()))
    lately = reader.grouped("path", since=now - _MINUTE, until=now + 1, now=now)
    found |= shares(lately)
    five = reader.grouped(
        "path", since=now - 5 * _MINUTE, until=now + 1, now=now, by=lambda key: key.partition("/")[0]
    )
    found["dead", ""] = float(sum(figures.dead for figures in five.values()))
    for lane, figures in five.items():
        reach = figures.stage("reach")
        if reach.count >= LEAST:
            found["p95_reach", lane] = reach.percentile(0.95) or 0.0
    flows = reader.grouped("flow", since=now - _MINUTE, until=now + 1, now=now, key="store_errors")
    found["store_errors", ""] = float(flows["store_errors"].attempts) if flows else 0.0
    found["breakers_open", ""] = _breakers(storage)
    burns = book.burns(now)
    for metric, fast in (("burn_fast", True), ("burn_slow", False)):
        found |= {(metric, objective): ratio for objective, ratio in worst(burns, fast=fast).items()}
    return found


def shares(paths: Mapping[str, Figures]) -> dict[tuple[str, str], float]:
    """Which shares of attempts failed, by whose fault; nothing when there were too few."""
    attempts = sum(figures.attempts for figures in paths.values())
    if attempts < LEAST:
        return {}
    ours = sum(figures.ours for figures in paths.values())
    receiver = sum(figures.receiver for figures in paths.values())
    return {
        ("failed_by_us", ""): ours / attempts,
        ("failed_by_receivers", ""): receiver / attempts,
        ("error_rate", ""): (ours + receiver) / attempts,
    }


def _queue(storage: Storage, now: int) -> dict[tuple[str, str], float]:
    oldest = storage.ledger.oldest()
    ages = {name: max(0, now - oldest.get(lane, now)) / clock.SECOND for lane, name in enumerate(LANES)}
    found: dict[tuple[str, str], float] = {("queue_age", name): age for name, age in ages.items()}
    found["urgent_age", "urgent"] = ages["urgent"]
    return found


def _breakers(storage: Storage) -> float:
    with storage.database.read() as connection:
        enabled: int = connection.execute(
            text("SELECT count(*) FROM endpoints WHERE enabled AND NOT deleted")
        ).scalar_one()
    return storage.breakers.count_open() / enabled if enabled else 0.0
