"""The shelf: how deliveries to endpoints went lately, kept for seconds for whoever looks at an endpoint's health."""

import threading
from collections import OrderedDict

import msgspec

from ringbearer.domain.times import Moment

FRESH_SECONDS = 15.0
"""How long figures are shown again before they are read anew."""
MAX_ENDPOINTS = 5_000

_Kept = tuple[float, "DeliveryMetrics"]


class DeliveryMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """How deliveries to one endpoint went in a window that ended when they were measured. Durations in seconds."""

    endpoint_id: str
    supplier_id: str
    measured_at: Moment
    window: float
    attempts: int
    delivered: int
    failed: int
    dead: int
    """Attempts after which the delivery was given up."""
    success: float | None
    """The share of attempts that delivered; None without any."""
    answer_p50: float | None
    answer_p99: float | None


class MetricsWrite(msgspec.Struct, frozen=True, kw_only=True):
    """What became of figures that were given to the cache."""

    before: DeliveryMetrics | None
    after: DeliveryMetrics
    reason: str


class Shelf:
    """Bounded by number and age; safe to use from several threads. Moments are seconds on the monotonic clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Shelf with the figures of {len(self._kept)} endpoints>"

    def put(self, metrics: DeliveryMetrics, *, now: float) -> MetricsWrite:
        """Keep figures, unless newer ones are there. The oldest go when there are too many."""
        with self._lock:
            kept = self._kept.get(metrics.endpoint_id)
            before = kept[1] if kept is not None else None
            if before is not None and before.measured_at > metrics.measured_at:
                return MetricsWrite(before=before, after=before, reason="there are newer ones")
            self._kept.pop(metrics.endpoint_id, None)
            self._kept[metrics.endpoint_id] = now, metrics
            while len(self._kept) > MAX_ENDPOINTS:
                self._kept.popitem(last=False)
        return MetricsWrite(before=before, after=metrics, reason=f"shown for {FRESH_SECONDS:g} s")

    def get(self, endpoint_id: str, *, now: float) -> DeliveryMetrics | None:
        """The figures, None when there are none that are fresh."""
        with self._lock:
            kept = self._kept.get(endpoint_id)
            if kept is not None and now - kept[0] > FRESH_SECONDS:
                del self._kept[endpoint_id]
                return None
        return kept[1] if kept is not None else None
