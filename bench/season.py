"""The season's rehearsal: `python -m bench.season [--quick]`, or `make season`.

Their 30 days in one sitting: 1,247,832 deliveries to 2,847 suppliers, four Saturdays, a peak hour and a tenfold spike,
through `ringbearer up` as anybody starts it, with receivers in processes of their own. Nothing is simulated but the
calendar: a day takes eight seconds.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table

from bench import report, season_page, season_report
from bench.receiver import Receiver
from bench.season_load import Job, Mark
from bench.season_plan import DAYS, DELIVERIES, SUPPLIERS, is_saturday, month
from bench.season_report import Sample, Season
from bench.system import KEY, POSTGRES, accept_to_send
from chaos.ports import free_port
from chaos.service import Service, postgres, wait_for
from ringbearer import clock, ids
from ringbearer.delivery.signing import generate_secret
from ringbearer.domain.deliveries import State
from ringbearer.domain.endpoints import Endpoint
from ringbearer.domain.suppliers import Supplier
from ringbearer.monitor.monitor import WebhookPerformanceMonitor
from ringbearer.process import open_store
from ringbearer.storage.base import Storage
from ringbearer.telemetry import Telemetry

_SAMPLE_SECONDS = 0.5
_RATE_SAMPLES = 10  # the rate that is shown is that of so many
_DRAIN_SECONDS = 300.0
_FULL_SECONDS, _QUICK_SECONDS = 240.0, 30.0
_QUICK_SHARE = 24
_TIERS = ("standard", "premium", "enterprise")
# Time is compressed some ten thousand times: a calm of five minutes would be weeks.
_POLICY = {"calm_seconds": 10, "growth_seconds": 1}


class Rehearsal:
    """The running month, and what is seen of it."""

    def __init__(
        self, service: Service, storage: Storage, receivers: list[Receiver], *, seconds_a_day: float
    ) -> None:
        self._service = service
        self._seconds_a_day = seconds_a_day
        self._storage = storage
        self._receivers = receivers
        self._samples: list[Sample] = []
        self._days: list[tuple[Mark, Counter[float]]] = []
        self._ended = threading.Event()
        self._began = self._ended_at = time.time()

    def run(self, job: Job, console: Console) -> Season:
        """Publish all, wait until all is delivered, and say what was seen."""
        self._began = time.time()
        sampler = threading.Thread(target=self._sample_until_ended, daemon=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.season_load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(job))
        process.stdin.close()
        sampler.start()
        with Live(self._progress(), console=console, refresh_per_second=4) as live:
            for line in process.stdout:
                self._days.append((msgspec.json.decode(line, type=Mark), self._histogram()))
                live.update(self._progress())
            if process.wait() or not self._days or self._days[-1][0].day != -1:
                raise RuntimeError("the publishers ended before the month did")
            wait_for(lambda: self._drained(live), _DRAIN_SECONDS, "everything to be delivered")
            self._ended_at = time.time()
        self._ended.set()
        sampler.join()
        return self._season()

    def _drained(self, live: Live) -> bool:
        live.update(self._progress())
        time.sleep(0.1)
        return self._queued() == 0

    def _queued(self) -> int:
        return sum(d.count for d in self._storage.ledger.depth() if d.state is not State.DEAD)

    def _histogram(self) -> Counter[float]:
        return accept_to_send(self._service.url)

    def _arrived(self) -> int:
        return sum(receiver.counts().total for receiver in self._receivers)

    def _sample_until_ended(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            with contextlib.suppress(httpx.HTTPError):
                self._samples.append(self._sample())

    def _sample(self) -> Sample:
        nodes = self._storage.nodes.alive()
        working = [node.signals for node in nodes if node.kind == "work"]
        decision = self._storage.scaling.latest()
        held = sum(signals.get("held", 0.0) for signals in working)
        slots = sum(signals.get("slots", 0.0) for signals in working)
        return Sample(
            at=time.time() - self._began,
            arrived=self._arrived(),
            queued=self._queued(),
            held=int(held),
            utilisation=held / slots if slots else 0.0,
            workers=len(working),
            wanted=decision.desired if decision is not None else 0,
            memory=max((node.signals.get("memory", 0.0) for node in nodes), default=0.0),
        )

    def _progress(self) -> Table:
        table = Table(title="The season's rehearsal")
        for name in ("day", "published", "delivered", "per second", "queued", "in flight", "workers"):
            table.add_column(name, justify="right")
        if self._days and self._samples:
            mark, sample = self._days[-1][0], self._samples[-1]
            earlier = self._samples[max(0, len(self._samples) - _RATE_SAMPLES)]
            rate = (sample.arrived - earlier.arrived) / max(_SAMPLE_SECONDS, sample.at - earlier.at)
            day = (
                "over" if mark.day < 0 else f"{mark.day + 1}{' (Saturday)' if is_saturday(mark.day) else ''}"
            )
            table.add_row(
                day,
                f"{mark.published:,}",
                f"{sample.arrived:,}",
                f"{rate:,.0f}",
                f"{sample.queued:,}",
                f"{sample.held:,}",
                str(sample.workers),
            )
        return table

    def _wedding_p95(self) -> float:
        """Of the urgent lane, in which are the events about a wedding of the day: from ready to the first byte sent."""
        monitor = WebhookPerformanceMonitor(storage=self._storage, telemetry=Telemetry(), process="bench")
        lanes = monitor.window(int(self._began * clock.SECOND), clock.now(), group_by="lane")
        found = lanes["urgent"].distribution("reach").p95 if "urgent" in lanes else None
        return found or 0.0

    def _season(self) -> Season:
        last, arrived = self._days[-1][0], self._arrived()
        end = self._histogram()
        boundaries = [histogram for _, histogram in self._days] + [end]
        days = [
            (mark.day, mark.at, season_report.minus(boundaries[index + 1], histogram))
            for index, (mark, histogram) in enumerate(self._days)
            if mark.day >= 0
        ]
        page = httpx.get(f"{self._service.url}/metrics", timeout=30, trust_env=False).text
        numbers = [
            (decision.at.timestamp(), decision.desired)
            for decision in reversed(self._storage.scaling.decisions(limit=2_000))
            if decision.rule != "policy"
        ]
        return season_report.summarise(
            days=days,
            whole=season_report.minus(end, boundaries[0]),
            published=last.published,
            bad=last.bad,
            refused=last.refused,
            arrived=arrived,
            began=self._began,
            seconds=self._ended_at - self._began,
            seconds_a_day=self._seconds_a_day,
            wedding_p95=self._wedding_p95(),
            samples=self._samples,
            decisions=numbers,
            spike_at=last.spike_at,
            metrics=page,
        )


def _fill(storage: Storage, suppliers: int, ports: list[int]) -> None:
    storage.migrate()
    now = datetime.now(UTC)
    for number in range(suppliers):
        supplier = f"b{number}"
        tier = _TIERS[0 if number % 10 < 7 else 1 if number % 10 < 9 else 2]
        storage.catalog.put_supplier(
            msgspec.convert(
                {"id": supplier, "tier": tier, "created_at": now, "updated_at": now}, type=Supplier
            )
        )
        storage.catalog.add_endpoint(
            Endpoint(
                id=ids.endpoint(),
                supplier_id=supplier,
                url=f"http://127.0.0.1:{ports[number % len(ports)]}/hook/{number}",
                created_at=now,
                updated_at=now,
            ),
            generate_secret("hmac"),
        )


@contextmanager
def _receiving(count: int) -> Iterator[list[Receiver]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Receiver(free_port())) for _ in range(count)]


def _write(season: Season, backend: str, facts: dict[str, object], *, quick: bool) -> list[Path]:
    """Keep the figures and the page; their paths."""
    stamp = datetime.now(UTC)
    stem = f"{stamp:%Y-%m-%d}-season-{backend}{'-quick' if quick else ''}"
    document = {
        "at": stamp.isoformat(timespec="seconds"),
        "backend": backend,
        "quick": quick,
        "machine": facts,
        "season": season,
    }
    data, page = report.RESULTS / f"{stem}.json", report.RESULTS / f"{stem}.html"
    data.write_bytes(msgspec.json.encode(document) + b"\n")
    page.write_text(season_page.page(season, backend, facts, stamp))
    return [data, page]


def main() -> int:
    """Rehearse, print their figures beside ours, and keep both as JSON and as a page."""
    parser = argparse.ArgumentParser(prog="python -m bench.season", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small month, to see that it works")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seconds", type=float, default=None, help="how long the month takes (default 240)")
    parser.add_argument("--workers", default="auto", help="so many, or auto as the load needs (default)")
    parser.add_argument("--directory", type=Path, default=None, help="on the disk that is to be used")
    arguments = parser.parse_args()
    console = Console()
    quick: bool = arguments.quick
    seconds = arguments.seconds or (_QUICK_SECONDS if quick else _FULL_SECONDS)
    deliveries = DELIVERIES // _QUICK_SHARE if quick else DELIVERIES
    suppliers = SUPPLIERS // _QUICK_SHARE if quick else SUPPLIERS
    with contextlib.ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="season-", dir=arguments.directory))
        )
        facts = report.machine(directory)
        url = None
        if arguments.database == "postgresql":
            url = stack.enter_context(postgres(directory / "postgres", **POSTGRES))
        receivers = stack.enter_context(_receiving(2))
        service = stack.enter_context(
            Service(directory / "system", database_url=url, workers=arguments.workers)
        )
        storage = stack.enter_context(open_store(service.settings()))
        console.print(f"making {suppliers:,} suppliers …")
        _fill(storage, suppliers, [receiver.port for receiver in receivers])
        service.start()
        with service.client() as client:
            client.patch("/v1/scaling", json=_POLICY).raise_for_status()
        wait_for(lambda: storage.nodes.working() > 0, 30, "a worker")
        job = Job(
            port=service.port,
            key=KEY,
            suppliers=suppliers,
            slices=month(deliveries=deliveries, seconds=seconds),
        )
        rehearsal = Rehearsal(service, storage, receivers, seconds_a_day=seconds / DAYS)
        season = rehearsal.run(job, console)
        service.stop()
    console.print(season_report.table(season, quick=quick))
    for path in _write(season, arguments.database, facts, quick=quick):
        console.print(f"written to {path}")
    return 0 if season.arrived >= season.published and not season.bad else 1


if __name__ == "__main__":
    sys.exit(main())
