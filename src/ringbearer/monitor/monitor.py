"""The monitor: what telemetry feeds; what alerts, reports and pages read."""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Literal, Self

import msgspec

from ringbearer import clock
from ringbearer.calendar import Calendar
from ringbearer.domain.deliveries import State
from ringbearer.domain.events import LANES
from ringbearer.errors import InvalidInput, StoreUnavailable
from ringbearer.looper import Looper
from ringbearer.monitor.alerting import look, rules_of
from ringbearer.monitor.burning import BurnBook
from ringbearer.monitor.figures import DAYS_KEPT, Figures, Reader, Totals, percentiles
from ringbearer.monitor.objectives import objectives_of
from ringbearer.monitor.recorder import DIMENSIONS, STAGES, Recorder
from ringbearer.monitor.report import Report, build
from ringbearer.monitor.results import (
    CommitTimes,
    Dashboard,
    DegradationAlerts,
    DegradationThreshold,
    DeliveryTimes,
    ErrorRates,
    FailureCount,
    LaneTimes,
    Measured,
    ProcessingTimeMetrics,
    SlaCompliance,
    ThroughputMetrics,
    ThroughputPoint,
    degradation_rules,
    measured,
)
from ringbearer.monitor.seasonal import Hour, SeasonalPatterns, patterns
from ringbearer.monitor.slo import Burn, compliance, tally
from ringbearer.storage.base import Storage
from ringbearer.storage.rollups import Level
from ringbearer.telemetry import AttemptMade, AttemptsMade, Telemetry

_log = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0
"""Between two writes of what was measured: how old the store's figures of lanes, types and errors can be."""
DEFAULT_WINDOW = 300.0
_WORST = 10
_MINUTE = 60 * clock.SECOND

GroupBy = Literal["lane", "tier", "outcome", "path", "type", "supplier", "endpoint", "error"]
_PARTS = {"lane": 0, "tier": 1, "outcome": 2}


class WebhookPerformanceMonitor:
    """Measures this process, and reads the figures of all processes together.

    What is reported to `telemetry` is counted by the minute and written to the store every two seconds (of
    suppliers and endpoints when the minute is over) while the monitor runs: between `start` and `stop`, or in an
    `async with` block. Reading needs no running. All methods raise StoreUnavailable when the store is away.
    """

    def __init__(
        self,
        *,
        storage: Storage,
        telemetry: Telemetry,
        process: str,
        peak: Callable[[datetime], bool] = lambda moment: Calendar().is_peak(moment, "UTC"),
    ) -> None:
        self._storage = storage
        self.book = BurnBook(storage.rollups, peak=peak, objectives=lambda: objectives_of(storage.plans))
        self._recorder = Recorder(telemetry, process=process)
        self._reader = Reader(storage.rollups)
        self._writing = threading.Lock()
        self._looper = Looper("monitor", self._flush, interval=FLUSH_SECONDS)

    def __repr__(self) -> str:
        return f"<WebhookPerformanceMonitor with {self._recorder!r}>"

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def start(self) -> None:
        """Begin to write what is measured, in the running event loop."""
        self._looper.start()

    async def stop(self) -> None:
        """End; what was measured until now is written first, if the store takes it."""
        await self._looper.stop()
        try:
            await asyncio.to_thread(self._write, everything=True)
        except StoreUnavailable as error:
            _log.warning("the last measurements could not be written: %s", error)

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────

    def window(
        self,
        since: int,
        until: int,
        *,
        group_by: GroupBy = "lane",
        key: str | None = None,
        where: Mapping[str, str] | None = None,
    ) -> dict[str, Figures]:
        """The figures of all processes in [since, until), stored times, by group; blocks.

        `group_by` lane, tier or outcome may be narrowed by the two others (`where={"tier": "premium"}`); `key`
        asks for one supplier, endpoint, type or error only.
        """
        dimension = "path" if group_by in _PARTS else group_by
        if dimension not in DIMENSIONS:
            raise InvalidInput(
                f"there is no group {group_by!r}; there are: lane, tier, outcome, path, type, …"
            )
        return self._reader.grouped(
            dimension,
            since=since,
            until=until,
            now=clock.now(),
            key=key,
            by=_grouping(group_by, where or {}),
        )

    def series(
        self,
        since: int,
        until: int,
        step: int,
        *,
        dimension: str = "path",
        key: str | None = None,
        where: Mapping[str, str] | None = None,
    ) -> dict[int, Figures]:
        """The figures by spans of `step` microseconds; blocks. `where` narrows paths as in `window`."""
        by = _grouping("path", where or {})
        return self._reader.series(
            dimension,
            since=since,
            until=until,
            step=step,
            now=clock.now(),
            key=key,
            wanted=(lambda name: by(name) is not None) if dimension == "path" else (lambda name: True),
        )

    def totals(self, dimension: str, keys: Sequence[str], since: int, until: int) -> dict[str, Totals]:
        """What became of the attempts of each of these suppliers or endpoints in [since, until); blocks."""
        return self._reader.totals(dimension, keys, since=since, until=until, now=clock.now())

    def counts(self, since: int, until: int, step: int, *, flow: str) -> dict[int, int]:
        """How many of a flow (accepted, deliveries, settled, …) by spans of `step` microseconds; blocks."""
        return self._reader.counts("flow", since=since, until=until, step=step, now=clock.now(), key=flow)

    def flows(self, since: int, until: int) -> dict[str, Figures]:
        """Events accepted, refused, … and deliveries claimed, settled, … in a window, by name; blocks."""
        return self._reader.grouped("flow", since=since, until=until, now=clock.now())

    async def measured(
        self, since: int, until: int, *, group_by: GroupBy = "lane", key: str | None = None
    ) -> list[Measured]:
        """`window` as what is shown: counts, rates and the percentiles of each stage, the busiest first."""
        found = await asyncio.to_thread(self.window, since, until, group_by=group_by, key=key)
        rows = [measured(name, figures, until - since) for name, figures in found.items()]
        return sorted(rows, key=lambda row: -row.attempts)

    def burns(self, now: int) -> list[Burn]:
        """How fast each error budget burns, by objective and burning rule; blocks."""
        return self.book.burns(now)

    def report(self, month: str, *, now: int, supplier_id: str | None = None) -> Report:
        """The report of a month; of one that was over when it was made, the stored one. Blocks."""
        stored = self._storage.alerts.report(month) if supplier_id is None else None
        if stored is not None:
            return msgspec.json.decode(stored, type=Report)
        return build(self._storage, self.book, month, now=now, supplier_id=supplier_id)

    # ── the methods that were asked for ─────────────────────────────────────────────────────────────────

    async def track_webhook_delivery_times(self, times: Sequence[AttemptMade] = ()) -> DeliveryTimes:
        """Count these attempts in, and tell how long each stage of deliveries took in the last five minutes.

        In the running system telemetry hands every batch of attempts to the same recorder, and the overview asks
        this what came of them; an application that sends by itself hands its own attempts over here.
        """
        if times:
            self._recorder.take(AttemptsMade(times, clock.now()))
        await asyncio.to_thread(self._write)
        now = clock.now()
        found = await asyncio.to_thread(
            self.window, now - int(DEFAULT_WINDOW) * clock.SECOND, now + 1, group_by="path"
        )
        together = _together(found)
        return DeliveryTimes(
            taken=len(times),
            window=DEFAULT_WINDOW,
            attempts=together.attempts,
            stages={name: together.distribution(name) for name in STAGES},
        )

    async def monitor_queue_processing_times(self, window: float = DEFAULT_WINDOW) -> ProcessingTimeMetrics:
        """How long deliveries wait in each lane, how many do, and how long commits, claims and settles take."""
        return await asyncio.to_thread(self._processing_times, window)

    async def track_throughput_metrics(self, window: float = 3_600.0) -> ThroughputMetrics:
        """Events accepted, attempts made and deliveries done, a second and minute by minute, with the peak."""
        return await asyncio.to_thread(self._throughput, window)

    async def monitor_error_rates(self, window: float = DEFAULT_WINDOW) -> ErrorRates:
        """The share of attempts that failed, by whose fault, by lane, by code, and where it is worst."""
        return await asyncio.to_thread(self._error_rates, window)

    async def monitor_sla_compliance(self, window: float = 86_400.0) -> SlaCompliance:
        """How each objective was kept in the window, what is left of its budget, and how fast that burns now."""
        return await asyncio.to_thread(self._compliance, window)

    async def alert_on_performance_degradation(
        self, threshold: DegradationThreshold | None = None
    ) -> DegradationAlerts:
        """Look at what all rules ask for, and write down which alerts began and ended.

        The leader's watch calls this every two seconds, and tells people. A threshold becomes alert rules in the
        store (`degraded_…`), in place of those set before, for every look from then on; a None in it takes that
        rule away. Without a threshold they stay as they are.
        """
        return await asyncio.to_thread(self._degradation, threshold)

    async def track_seasonal_performance_patterns(self, weeks: int = 8) -> SeasonalPatterns:
        """What is usual for each hour of the week and day of the year, peak days apart, and which hours stand out.

        The week is that of the last `weeks` weeks, the year that of the last 400 days.
        """
        return await asyncio.to_thread(self._seasonal, weeks)

    async def generate_performance_dashboard(self, window: float = DEFAULT_WINDOW) -> Dashboard:
        """All that a person looks at first, as it is now: rates, lanes, errors, levels, alerts, workers, breakers."""
        times, throughput, queue, errors, levels = await asyncio.gather(
            self.track_webhook_delivery_times(),
            self.track_throughput_metrics(window),
            self.monitor_queue_processing_times(window),
            self.monitor_error_rates(window),
            self.monitor_sla_compliance(),
        )
        return await asyncio.to_thread(self._dashboard, times, throughput, queue, errors, levels)

    # ── in a thread ─────────────────────────────────────────────────────────────────────────────────────

    def _processing_times(self, window: float) -> ProcessingTimeMetrics:
        now = clock.now()
        lanes = self.window(now - int(window * clock.SECOND), now + 1)
        flows = self.flows(now - int(window * clock.SECOND), now + 1)
        ledger = self._storage.ledger
        depth, oldest = ledger.depth(), ledger.oldest()
        return ProcessingTimeMetrics(
            window=window,
            lanes=[
                LaneTimes(
                    lane=name,
                    waiting=sum(d.count for d in depth if d.lane == lane and d.state is State.READY),
                    in_flight=sum(d.count for d in depth if d.lane == lane and d.state is State.LEASED),
                    oldest_age=max(0, now - oldest.get(lane, now)) / clock.SECOND,
                    wait=lanes.get(name, Figures()).distribution("claim"),
                    reach=lanes.get(name, Figures()).distribution("reach"),
                    whole=lanes.get(name, Figures()).distribution("whole"),
                )
                for lane, name in enumerate(LANES)
            ],
            commits=CommitTimes(
                **{
                    field: percentiles(flows.get(flow, Figures()).sketches[0])
                    for field, flow in (("accept", "accepted"), ("claim", "claimed"), ("settle", "settled"))
                }
            ),
        )

    def _throughput(self, window: float) -> ThroughputMetrics:
        now = clock.now()
        since = (now - int(window * clock.SECOND)) // _MINUTE * _MINUTE
        points: dict[int, ThroughputPoint] = {}

        def point(at: int) -> ThroughputPoint:
            return points.setdefault(at, ThroughputPoint(at=clock.to_datetime(at)))

        for at, figures in self.series(since, now + 1, _MINUTE).items():
            point(at).attempts, point(at).delivered = figures.attempts, figures.delivered
        accepted = self._reader.series(
            "flow", key="accepted", since=since, until=now + 1, step=_MINUTE, now=now
        )
        for at, figures in accepted.items():
            point(at).accepted = figures.attempts
        series = [points[at] for at in sorted(points)]
        seconds = (now - since) / clock.SECOND
        return ThroughputMetrics(
            window=seconds,
            accepted_per_second=sum(p.accepted for p in series) / seconds,
            attempts_per_second=sum(p.attempts for p in series) / seconds,
            delivered_per_second=sum(p.delivered for p in series) / seconds,
            peak=max(series, key=lambda p: p.delivered, default=None),
            minutes=series,
        )

    def _error_rates(self, window: float) -> ErrorRates:
        now = clock.now()
        since, until = now - int(window * clock.SECOND), now + 1
        lanes = self.window(since, until)
        together = _together(lanes)
        codes = self.window(since, until, group_by="error")
        worst = sorted(
            self.window(since, until, group_by="endpoint").items(),
            key=lambda item: (item[1].delivered - item[1].attempts, item[0]),
        )
        return ErrorRates(
            window=window,
            attempts=together.attempts,
            error_rate=1 - together.success if together.success is not None else None,
            receiver=together.receiver,
            ours=together.ours,
            dead=together.dead,
            by_lane={name: 1 - f.success for name, f in lanes.items() if f.success is not None},
            by_code=sorted(
                (FailureCount(key=code, failed=f.attempts) for code, f in codes.items()),
                key=lambda count: (-count.failed, count.key),
            ),
            worst_endpoints=[
                FailureCount(key=key, failed=f.attempts - f.delivered)
                for key, f in worst[:_WORST]
                if f.attempts > f.delivered
            ],
        )

    def _compliance(self, window: float) -> SlaCompliance:
        now = clock.now()
        since = now - int(window * clock.SECOND)
        paths = self.window(since, now + 1, group_by="path")
        peak = self.book.is_peak(now)
        return SlaCompliance(
            since=clock.to_datetime(since),
            until=clock.to_datetime(now),
            peak=peak,
            objectives=[
                compliance(each, tally(each, paths, peak=peak), peak=peak) for each in self.book.objectives()
            ],
            burns=self.burns(now),
        )

    def _degradation(self, threshold: DegradationThreshold | None) -> DegradationAlerts:
        now, book = clock.now(), self._storage.alerts
        before = [rule for rule in rules_of(self._storage) if rule.id.startswith("degraded_")]
        rules = before
        if threshold is not None:
            rules = degradation_rules(threshold)
            for gone in {rule.id for rule in before} - {rule.id for rule in rules}:
                book.reset_rule(gone)
            for rule in rules:
                book.put_rule(rule, now=now)
        changed = look(self._storage, self.book, now=now)
        moment = clock.to_datetime(now)
        return DegradationAlerts(
            before=before,
            after=rules,
            began=[alert for alert in changed if alert.state == "firing" and alert.fired_at == moment],
            firing=[alert for alert in book.live() if alert.state == "firing"],
            reason="; ".join(f"{r.id}: beyond {r.threshold:g}" for r in rules) or "no threshold is set",
        )

    def _seasonal(self, weeks: int) -> SeasonalPatterns:
        now = clock.now()
        hour, day = Level.HOUR.span, Level.DAY.span
        first = now - DAYS_KEPT
        days = {
            clock.to_datetime(at): figures.delivered
            for at, figures in self.series(first // day * day, now // day * day, day).items()
        }
        since = max(now - weeks * 7 * day, min((clock.from_datetime(at) for at in days), default=now - day))
        hours = {}
        for at, figures in self.series(since // hour * hour, now // hour * hour, hour).items():
            moment = clock.to_datetime(at)
            reach = figures.stage("reach").percentile(0.95)
            hours[moment] = Hour(at=moment, delivered=figures.delivered, reach_p95=reach)
        return patterns(
            hours,
            since=clock.to_datetime(since // hour * hour),
            until=clock.to_datetime(now // hour * hour),
            peak=self.book.peak,
            days=days,
        )

    def _dashboard(
        self,
        times: DeliveryTimes,
        throughput: ThroughputMetrics,
        queue: ProcessingTimeMetrics,
        errors: ErrorRates,
        levels: SlaCompliance,
    ) -> Dashboard:
        storage = self._storage
        return Dashboard(
            at=clock.to_datetime(clock.now()),
            times=times,
            throughput=throughput,
            queue=queue,
            errors=errors,
            levels=levels,
            alerts=[alert for alert in storage.alerts.live() if alert.state == "firing"],
            processes=sorted(Counter(node.kind for node in storage.nodes.alive()).items()),
            breakers_open=storage.breakers.count_open(),
        )

    async def _flush(self) -> float | None:
        await asyncio.to_thread(self._write)
        return None

    def _write(self, *, everything: bool = False) -> None:
        with self._writing:  # of two at a time, the older might be written over the newer
            now = clock.now()
            lost = self._recorder.lost_minutes
            rows = self._recorder.drain(now, everything=everything)
            try:
                self._storage.rollups.write(rows)
            except BaseException:
                self._recorder.give_back(rows)
                raise
            finally:
                self._recorder.forget(now)
                if self._recorder.lost_minutes > lost:
                    _log.error("measurements of a minute were lost: the store did not take them for too long")


def _grouping(group_by: str, where: Mapping[str, str]) -> Callable[[str], str | None]:
    """From a key of a dimension to the name of its group; None for what `where` leaves out."""
    if group_by not in _PARTS and group_by != "path":
        return lambda key: key
    part = _PARTS.get(group_by)

    def by(key: str) -> str | None:
        parts = key.split("/")
        if any(parts[_PARTS[name]] != wanted for name, wanted in where.items()):
            return None
        return key if part is None else parts[part]

    return by


def _together(found: Mapping[str, Figures]) -> Figures:
    together = Figures()
    for figures in found.values():
        together.merge(figures)
    return together
