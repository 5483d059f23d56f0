"""Prometheus metrics: listeners that count what the telemetry spine reports, and gauges read from the store.

With PROMETHEUS_MULTIPROC_DIR set (as `ringbearer up` does), the figures are those of all processes together.
"""

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ringbearer import clock
from ringbearer.domain.events import LANES
from ringbearer.errors import ConfigurationError, StoreUnavailable
from ringbearer.storage.base import Storage
from ringbearer.telemetry import (
    AttemptsMade,
    BreakerMoved,
    CacheWorked,
    DeliveriesClaimed,
    DeliveriesMoved,
    DeliveriesSettled,
    EventsAccepted,
    EventsRefused,
    HistoryPruned,
    IndexRebuilt,
    IndexUsed,
    OwnTrouble,
    RedisFailed,
    ReliefChanged,
    ScalingDecided,
    SpansSent,
    StoreFailed,
    Telemetry,
)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody reads
_CACHE_LATENCY = (1e-6, 2e-6, 5e-6, 1e-5, 1e-4, 5e-4, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1, 5)
_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_SHARED_KINDS = ("counter", "histogram", "gauge_livesum", "gauge_livemax")
_SHARED_BYTES = 1 << 18  # several times what all names with all their labels take


def _reserve(directory: Path) -> None:
    """Have the files that this process shares its figures by written in full, before they are mapped to memory.

    The client library makes them with holes; a hole that finds its file system full ends the process by SIGBUS.
    """
    for kind in _SHARED_KINDS:
        path = directory / f"{kind}_{os.getpid()}.db"
        try:
            with path.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, _SHARED_BYTES)
        except OSError as error:
            raise ConfigurationError(
                f"the metrics of this process have no place in {directory}: {error.strerror}; "
                f"it needs {len(_SHARED_KINDS) * _SHARED_BYTES >> 20} MiB there, make room for them"
            ) from error


class PrometheusMetrics:
    """Counts what telemetry reports. One per process; metric names are stable."""

    def __init__(self, telemetry: Telemetry, *, registry: CollectorRegistry | None = None) -> None:
        # Several processes share their figures by files, which the client library keys by its own registry.
        self._shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        if self._shared:
            _reserve(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
        self.registry = registry or CollectorRegistry()
        where = self.registry

        def counter(name: str, what: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(name, what, labels, registry=where)

        def histogram(name: str, what: str) -> Histogram:
            return Histogram(name, what, buckets=_LATENCY, registry=where)

        def per_tier(name: str, what: str) -> Gauge:
            return Gauge(name, what, ["tier"], registry=where, multiprocess_mode="livesum")

        self._accepted = counter("ringbearer_events_accepted_total", "Events committed.")
        self._duplicates = counter("ringbearer_events_duplicate_total", "Events answered by idempotency key.")
        self._refused = counter("ringbearer_events_refused_total", "Events not taken.", ["reason"])
        self._claimed = counter("ringbearer_deliveries_claimed_total", "Deliveries leased by workers.")
        self._attempts = counter("ringbearer_attempts_total", "Tries to deliver.", ["outcome"])
        self._failures = counter(
            "ringbearer_failures_total", "Failed tries, by whose fault it was.", ["cause"]
        )
        self._deliveries = counter("ringbearer_deliveries_total", "What deliveries became.", ["state"])
        self._fenced = counter("ringbearer_outcomes_fenced_total", "Outcomes whose lease had been lost.")
        self._moved = counter("ringbearer_deliveries_moved_total", "Moves by background work.", ["how"])
        self._pruned = counter("ringbearer_history_pruned_total", "Rows or tables removed by retention.")
        self._store_errors = counter("ringbearer_store_errors_total", "Failures of the store.", ["during"])
        self._cache = counter("ringbearer_cache_requests_total", "Cache look-ups.", ["tier", "result"])
        self._cache_writes = counter("ringbearer_cache_loads_total", "Entries put into a tier.", ["tier"])
        self._cache_evictions = counter(
            "ringbearer_cache_evictions_total", "Entries that made room.", ["tier"]
        )
        self._cache_failures = counter("ringbearer_cache_failures_total", "Failed round trips.", ["tier"])
        self._relief = counter(
            "ringbearer_relief_steps_total", "Steps taken for a service level that burnt.", ["step"]
        )
        self._scalings = counter(
            "ringbearer_scaling_changes_total", "Changes of the wanted number of workers.", ["rule"]
        )
        self._redis_errors = counter("ringbearer_redis_errors_total", "Failures of Redis.", ["during"])
        self._index = counter(
            "ringbearer_index_deliveries_total", "Deliveries on their way through Redis.", ["how"]
        )
        self._rebuilds = counter("ringbearer_index_rebuilds_total", "Times the index was made anew.")
        self._rebuild_seconds = histogram(
            "ringbearer_index_rebuild_seconds", "Time to make the index in Redis anew from the store."
        )
        self._connections = counter("ringbearer_connections_total", "Connections used by tries.", ["kind"])
        self._spans = counter(
            "ringbearer_trace_spans_total", "Spans of traces, by what became of them.", ["result"]
        )
        self._own_troubles = counter(
            "ringbearer_own_failures_total", "Deliveries stopped by our own name server or proxy.", ["what"]
        )
        self._circuits = counter("ringbearer_breaker_moves_total", "Circuits that moved.", ["to"])
        self._accept_seconds = histogram("ringbearer_accept_seconds", "Time to commit a group of events.")
        self._claim_seconds = histogram("ringbearer_claim_seconds", "Time to lease a batch.")
        self._settle_seconds = histogram("ringbearer_settle_seconds", "Time to settle a batch.")
        self._accept_to_send = histogram(
            "ringbearer_accept_to_send_seconds",
            "From acceptance to the first byte sent, first attempts only.",
        )
        self._send_seconds = histogram("ringbearer_send_seconds", "Whole exchanges with receivers.")
        self._workers = Gauge(
            "ringbearer_workers", "Worker processes.", registry=where, multiprocess_mode="livesum"
        )
        self._cache_seconds = Histogram(
            "ringbearer_cache_seconds",
            "Reads of a tier: from memory a sample, else round trips.",
            ["tier"],
            buckets=_CACHE_LATENCY,
            registry=where,
        )
        self._cache_entries = per_tier("ringbearer_cache_entries", "Suppliers in memory, all processes.")
        self._cache_bytes = per_tier("ringbearer_cache_bytes", "Bytes that they take.")
        self._cache_age = Gauge(
            "ringbearer_cache_age_seconds",
            "Mean age of what is in memory, of the process where it is highest.",
            ["tier"],
            registry=where,
            multiprocess_mode="livemax",
        )
        telemetry.listen(EventsAccepted, self._on_accepted)
        telemetry.listen(EventsRefused, lambda r: self._refused.labels(r.reason).inc(r.events))
        telemetry.listen(DeliveriesClaimed, self._on_claimed)
        telemetry.listen(AttemptsMade, self._on_attempts)
        telemetry.listen(DeliveriesSettled, self._on_settled)
        telemetry.listen(DeliveriesMoved, lambda r: self._moved.labels(r.how).inc(r.count))
        telemetry.listen(HistoryPruned, lambda r: self._pruned.inc(r.count))
        telemetry.listen(CacheWorked, self._on_cache)
        telemetry.listen(SpansSent, lambda r: self._spans.labels(r.how).inc(r.count))
        telemetry.listen(OwnTrouble, lambda r: self._own_troubles.labels(r.what).inc(r.deliveries))
        telemetry.listen(BreakerMoved, lambda r: self._circuits.labels(r.after).inc())
        telemetry.listen(ScalingDecided, self._on_scaling)
        telemetry.listen(ReliefChanged, lambda r: self._relief.labels(r.step).inc(1 if r.taken else 0))
        telemetry.listen(RedisFailed, lambda r: self._redis_errors.labels(r.during).inc())
        telemetry.listen(IndexUsed, lambda r: self._index.labels(r.how).inc(r.count))
        telemetry.listen(IndexRebuilt, self._on_rebuilt)
        telemetry.listen(StoreFailed, lambda r: self._store_errors.labels(r.during).inc())

    def worker_started(self) -> None:
        """Count this process as a worker."""
        self._workers.set(1)

    def totals(self) -> dict[str, float]:
        """Every counter's value, with the values of its labels by their names' order, such as
        `ringbearer_cache_requests_total{hit,l1}`; blocks."""
        return {
            sample.name + _braced([value for _, value in sorted(sample.labels.items())]): sample.value
            for metric in self._merged().collect()
            if metric.type == "counter"
            for sample in metric.samples
        }

    def _merged(self) -> CollectorRegistry:
        """The figures of all processes that share theirs."""
        if not self._shared:
            return self.registry
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry

    def render(self, storage: Storage) -> bytes:
        """The text that a scrape gets; blocks, as it reads gauges from the store."""
        registry = self._merged()
        gauges = CollectorRegistry()
        gauges.register(_StoreGauges(storage))
        return generate_latest(registry) + generate_latest(gauges)

    def _on_accepted(self, report: EventsAccepted) -> None:
        self._accepted.inc(report.events)
        self._duplicates.inc(report.duplicates)
        self._accept_seconds.observe(report.duration)

    def _on_claimed(self, report: DeliveriesClaimed) -> None:
        self._claimed.inc(report.count)
        self._claim_seconds.observe(report.duration)

    def _on_attempts(self, report: AttemptsMade) -> None:
        attempts = report.attempts
        delivered = sum(attempt.outcome == "delivered" for attempt in attempts)
        reused = sum(attempt.reused_connection for attempt in attempts)
        _observe_all(self._send_seconds, [attempt.send_seconds for attempt in attempts])
        waits = [attempt.accept_to_send for attempt in attempts if attempt.accept_to_send is not None]
        _observe_all(self._accept_to_send, waits)
        count = len(report.attempts)
        ours = sum(attempt.outcome == "ours" for attempt in attempts)
        for labelled, n in (
            (self._attempts.labels("delivered"), delivered),
            (self._attempts.labels("failed"), count - delivered),
            (self._failures.labels("ours"), ours),
            (self._failures.labels("receiver"), count - delivered - ours),
            (self._connections.labels("reused"), reused),
            (self._connections.labels("new"), count - reused),
        ):
            if n:
                labelled.inc(n)

    def _on_rebuilt(self, report: IndexRebuilt) -> None:
        self._rebuilds.inc()
        self._rebuild_seconds.observe(report.duration)

    def _on_settled(self, report: DeliveriesSettled) -> None:
        for state, count in report.states.items():
            self._deliveries.labels(state).inc(count)
        if report.lost:
            self._fenced.inc(report.lost)
        self._settle_seconds.observe(report.duration)

    def _on_scaling(self, report: ScalingDecided) -> None:
        if report.desired != report.before:
            self._scalings.labels(report.rule).inc()

    def _on_cache(self, report: CacheWorked) -> None:
        for work in report.tiers:
            for labelled, n in (
                (self._cache.labels(work.tier, "hit"), work.hits),
                (self._cache.labels(work.tier, "miss"), work.misses),
                (self._cache_writes.labels(work.tier), work.writes),
                (self._cache_evictions.labels(work.tier), work.evictions),
                (self._cache_failures.labels(work.tier), work.failures),
            ):
                if n:
                    labelled.inc(n)
            if work.latencies:
                _observe_all(self._cache_seconds.labels(work.tier), work.latencies)
            for gauge, value in (
                (self._cache_entries, work.entries),
                (self._cache_bytes, work.bytes),
                (self._cache_age, work.mean_age),
            ):
                if value is not None:
                    gauge.labels(work.tier).set(value)


def _braced(values: Sequence[str]) -> str:
    return "{" + ",".join(values) + "}" if values else ""


def _observe_all(histogram: Histogram, values: Sequence[float]) -> None:
    """Observe a batch at once.

    One by one it costs 5.6 µs a value where processes share their figures by files, and so 0.6 µs. The client
    library has no public way to add to a bucket.
    """
    counts = [0] * len(histogram._upper_bounds)
    for value in values:
        counts[bisect_left(histogram._upper_bounds, value)] += 1
    for bucket, count in zip(histogram._buckets, counts, strict=True):
        if count:
            bucket.inc(count)
    histogram._sum.inc(sum(values))


class _StoreGauges(Collector):
    """How deep the queue is and how old its heads are, at a cost that does not grow with its depth."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("ringbearer_store_up", "Whether the store answers.")
        try:
            depth, oldest = self._storage.ledger.depth(), self._storage.ledger.oldest()
            opened = self._storage.breakers.count_open()
            decision = self._storage.scaling.latest()
        except StoreUnavailable:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        circuits = GaugeMetricFamily(
            "ringbearer_breakers_open", "Endpoints whose circuit lets nothing through, or a probe only."
        )
        circuits.add_metric([], opened)
        yield circuits
        depths = GaugeMetricFamily(
            "ringbearer_queue_depth", "Deliveries in the queue.", labels=["lane", "state"]
        )
        for entry in depth:
            depths.add_metric([LANES[entry.lane], entry.state], entry.count)
        yield depths
        ages = GaugeMetricFamily(
            "ringbearer_queue_oldest_age_seconds", "Age of the oldest ready delivery.", labels=["lane"]
        )
        now = clock.now()
        for lane, name in enumerate(LANES):
            ages.add_metric([name], max(0, now - oldest[lane]) / clock.SECOND if lane in oldest else 0)
        yield ages
        wanted = GaugeMetricFamily("ringbearer_workers_wanted", "Workers that there shall be.")
        if decision is not None:
            wanted.add_metric([], decision.desired)
        yield wanted
