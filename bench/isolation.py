"""`python -m bench.isolation`: what endpoints that fail, with half of all traffic, cost the others.

A worker's whole processor sends at a steady rate to quick receivers: first alone, then with as much again for one
endpoint that never answers (F12), then with as much for four that answer 500, break off, send a byte a second or never
answer (F11). The table compares how long the quick ones' deliveries took from their turn to the answer: the P95 may move
by a tenth, the P99 double (I7). Deliveries that are put back come again when they are due, as in the queue.
"""

import argparse
import heapq
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from rich.console import Console
from rich.table import Table

from bench.courier import listens
from bench.senders import Known, lease
from chaos.ports import free_port
from chaos.service import wait_for
from ringbearer import clock
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.delivery.processor import HighPerformanceWebhookProcessor
from ringbearer.domain.deliveries import Lease
from ringbearer.limits.breakers import Breakers
from ringbearer.limits.database import DatabaseRateLimiter
from ringbearer.storage.base import open_storage
from ringbearer.storage.vault import Vault, generate_key
from ringbearer.telemetry import Telemetry

_QUICK = 20
_SLOTS = 256
_TIMEOUT = 5.0
_TRAFFIC = {
    "quick ones alone": (),
    "and as much for one that hangs": (_QUICK + 3,),
    "and as much for four that fail": (_QUICK, _QUICK + 1, _QUICK + 2, _QUICK + 3),
}


class _Run:
    """One run at a steady rate for so many seconds."""

    def __init__(
        self, processor: HighPerformanceWebhookProcessor, *, rate: float, others: Sequence[int]
    ) -> None:
        """`others` are the numbers of endpoints that get as much by turns as all quick ones together."""
        self._processor = processor
        self._rate = rate
        self._others = others
        self._due: list[tuple[int, int, Lease]] = []
        self._turn: dict[str, int] = {}
        self._number = 0
        self.waits: list[float] = []
        self.put_back = 0

    def drive(self, seconds: float) -> None:
        """Send what is due, whatever the answers do, until the time is over."""
        began = clock.now()
        sent = 0
        while (now := clock.now()) < began + seconds * clock.SECOND:
            wanted = int((now - began) / clock.SECOND * self._rate)
            leases = []
            for n in range(sent, wanted):
                leases.append(self._make(n % _QUICK, began + int(n / self._rate * clock.SECOND)))
                if self._others:
                    leases.append(self._make(self._others[n % len(self._others)], now))
            sent = wanted
            while self._due and self._due[0][0] <= now:
                leases.append(heapq.heappop(self._due)[2])
            outcomes = self._processor.begin(leases) if leases else []
            found, _ = self._processor.poll(0.002)
            for outcome in outcomes + found:
                if outcome.record is None:
                    self.put_back += 1
                    self._number += 1
                    heapq.heappush(self._due, (outcome.due_at or now, self._number, outcome.lease))
                elif (turn := self._turn.pop(outcome.lease.delivery_id, None)) is not None:
                    ended = outcome.record.started_at + outcome.record.duration
                    self.waits.append((ended - turn) / clock.SECOND)
            self._processor.report()

    def _make(self, endpoint: int, turn: int) -> Lease:
        made = lease(endpoint)
        if endpoint < _QUICK:
            self._turn[made.delivery_id] = turn
        return made


def main() -> int:
    """Measure without and with endpoints that fail."""
    parser = argparse.ArgumentParser(prog="python -m bench.isolation", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="everything in small")
    arguments = parser.parse_args()
    seconds, rate = (4.0, 200.0) if arguments.quick else (40.0, 500.0)
    table = Table("traffic", "quick deliveries", "P50 ms", "P95 ms", "P99 ms", "put back", box=None)
    found: dict[str, list[float]] = {}
    for name, others in _TRAFFIC.items():
        run = _measure(seconds, rate, others)
        waits = sorted(run.waits)
        found[name] = [waits[int(len(waits) * part)] * 1e3 for part in (0.5, 0.95, 0.99)]
        table.add_row(name, f"{len(waits):,}", *(f"{each:.2f}" for each in found[name]), f"{run.put_back:,}")
    console = Console()
    console.print(table)
    alone, *beside = found.values()
    for name, figures in zip(list(found)[1:], beside, strict=True):
        console.print(
            f"{name}: the P95 moved by {figures[1] / alone[1] - 1:+.1%}, the P99 by {figures[2] / alone[2] - 1:+.1%}"
        )
    return 0


def _measure(seconds: float, rate: float, others: Sequence[int]) -> _Run:
    quick = free_port()
    receivers = [
        subprocess.Popen(
            [sys.executable, "-m", *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for program in (("bench.courier_slow", str(quick), "0.005"), ("bench.courier_rude",))
    ]
    try:
        wait_for(lambda: listens(quick), 20, "the quick receiver")
        told = receivers[1].stdout
        assert told is not None
        rude = [int(port) for port in told.readline().split()]
        urls = [f"http://127.0.0.{n + 1}:{quick}/" for n in range(_QUICK)]
        urls += [f"http://127.0.0.1:{port}/" for port in rude]
        with (
            TemporaryDirectory() as directory,
            open_storage(f"sqlite:///{Path(directory) / 'store.db'}", Vault([generate_key()])) as storage,
        ):
            storage.migrate()
            telemetry = Telemetry()
            processor = HighPerformanceWebhookProcessor(
                cache=cast(WebhookCacheManager, Known(urls, timeout=_TIMEOUT)),
                limiter=DatabaseRateLimiter(storage.database),
                breakers=Breakers(table=storage.breakers, telemetry=telemetry),
                telemetry=telemetry,
                refuse=lambda _address: None,
                slots=_SLOTS,
            )
            run = _Run(processor, rate=rate, others=others)
            run.drive(seconds)
            processor.close()
            return run
    finally:
        for receiver in receivers:
            receiver.communicate(timeout=60)


if __name__ == "__main__":
    sys.exit(main())
