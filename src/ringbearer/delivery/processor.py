"""The processor: a batch of leases goes in, each is loaded, admitted, signed, sent and judged; outcomes come out."""

import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import cast

import msgspec

from ringbearer import clock
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.delivery.courier import Courier, Return
from ringbearer.delivery.outcome import record
from ringbearer.delivery.retry import judge
from ringbearer.delivery.routes import Route, Routes
from ringbearer.domain.deliveries import Lease, Outcome, Record, State
from ringbearer.domain.endpoints import DEFAULT_RETRY_SCHEDULE
from ringbearer.errors import StoreUnavailable
from ringbearer.limits.base import RateLimiter
from ringbearer.storage.catalog import Subscriptions
from ringbearer.telemetry import AttemptMade, AttemptsMade, Telemetry

_log = logging.getLogger(__name__)
_SHARE = (
    0.1  # of the slots, for one endpoint, while half of them are taken: a hanging one must not hold them all
)
_FULL_PAUSE = 0.5  # seconds until a delivery of an endpoint that uses all its share is looked at again
_LONGEST_LINE = 30 * clock.SECOND  # how far those pauses are spread when many deliveries stand in line
_FIRST_GUESS = clock.SECOND // 10  # how long an exchange takes, before one has shown it


class _Line(msgspec.Struct, gc=False):
    """What stands in line for an endpoint that uses all its share: when its last one is looked at again."""

    last: int = 0
    exchange: int = _FIRST_GUESS
    """Microseconds that the endpoint's latest exchange took."""


class HighPerformanceWebhookProcessor:
    """Sends deliveries by libcurl with bounded concurrency. Not thread-safe: one thread owns it.

    `disable` is called, with an endpoint's id and the reason, when a receiver says that it is gone.
    """

    def __init__(
        self,
        *,
        cache: WebhookCacheManager,
        limiter: RateLimiter,
        telemetry: Telemetry,
        refuse: Callable[[str], str | None],
        slots: int,
        ca_file: str | None = None,
    ) -> None:
        self._cache = cache
        self._limiter = limiter
        self._telemetry = telemetry
        self._courier = Courier(slots=slots, refuse=refuse, ca_file=ca_file)
        self._routes = Routes()
        self._slots = slots
        self._share = max(1, int(slots * _SHARE))
        self._busy: Counter[str] = Counter()
        self._occupied = 0
        self._attempts: list[AttemptMade] = []
        self._paused: dict[str, int] = {}
        self._lines: dict[str, _Line] = {}
        self._random = random.Random()  # noqa: S311  jitter, not a secret
        self.gone: dict[str, str] = {}
        """Endpoints whose receiver said that they are gone, with the reason; whoever reads it empties it."""

    def __repr__(self) -> str:
        return f"<HighPerformanceWebhookProcessor with {self._courier!r}>"

    @property
    def in_flight(self) -> int:
        """How many exchanges are under way."""
        return self._courier.in_flight

    def watch(self, descriptor: int) -> None:
        """Let `poll` end early when this descriptor becomes readable."""
        self._courier.watch(descriptor)

    def unwatch(self, descriptor: int) -> None:
        """The opposite of `watch`."""
        self._courier.unwatch(descriptor)

    def begin(self, leases: Sequence[Lease]) -> list[Outcome]:
        """Load, admit, sign and send a batch; returns the outcomes of those that are not sent.

        Raises StoreUnavailable when endpoints had to be loaded and could not be: then none was sent. One
        that cannot be prepared at all spends an attempt, and does not stop the others.
        """
        try:
            return self._begin(leases)
        except StoreUnavailable:
            raise
        except Exception as error:  # raised before anything was sent: what comes after is caught one by one
            if len(leases) == 1:
                _log.exception("delivery %s could not be prepared", leases[0].delivery_id)
                return [_unsendable(leases[0], DEFAULT_RETRY_SCHEDULE, error)]
        return [outcome for lease in leases for outcome in self._begin_alone(lease)]

    def _begin_alone(self, lease: Lease) -> list[Outcome]:
        try:
            return self.begin([lease])
        except StoreUnavailable:  # others of its batch are on their way already
            return [Outcome(lease=lease, state=State.READY)]

    def _begin(self, leases: Sequence[Lease]) -> list[Outcome]:
        known = self._subscriptions(leases)
        now = clock.now()
        outcomes: list[Outcome] = []
        admitted: list[tuple[Lease, Route]] = []
        try:
            for lease in leases:
                verdict = self._admit(lease, known[lease.supplier_id], now)
                if isinstance(verdict, Route):
                    admitted.append((lease, verdict))
                else:
                    outcomes.append(verdict)
            fitting = self._within_rate(admitted, outcomes, now)
        except BaseException:
            for lease, _ in admitted:
                self._vacate(lease.endpoint_id)
            raise
        for lease, route in fitting:
            try:
                self._courier.submit(route.order(lease, clock.now()))
            except Exception as error:  # one delivery that cannot be put together must not stop the others
                _log.exception("delivery %s could not be put together", lease.delivery_id)
                self._vacate(lease.endpoint_id)
                outcomes.append(_unsendable(lease, route.endpoint.retry_schedule, error))
        return outcomes

    def poll(self, timeout: float) -> tuple[list[Outcome], bool]:
        """Drive what is in flight for at most `timeout` seconds: what became of it, and whether a bell rang."""
        returns, rang = self._courier.poll(timeout)
        return [self._outcome(returned, self._attempts) for returned in returns], rang

    def report(self) -> None:
        """Tell telemetry of the tries that came to an end since the last time."""
        if self._attempts:
            self._telemetry.emit(AttemptsMade(self._attempts))
            self._attempts = []

    def abandon(self) -> list[Lease]:
        """Break off what is in flight; returns the leases, whose receivers may or may not have seen them."""
        orders = self._courier.abandon()
        self._busy.clear()
        self._occupied = 0
        return [cast(tuple[Lease, Route], order.token)[0] for order in orders]

    def close(self) -> None:
        """Break off everything and close all connections."""
        self._courier.close()

    # ── the steps ───────────────────────────────────────────────────────────────────────────────────────

    def _subscriptions(self, leases: Sequence[Lease]) -> dict[str, Subscriptions | None]:
        """What is known of the batch's suppliers; nobody is turned away on the word of a cache.

        An endpoint that is not there, or disabled, may have been made or enabled a moment ago.
        """
        known = self._cache.lookup({lease.supplier_id for lease in leases})
        doubtful = {
            lease.supplier_id for lease in leases if not _enabled(known[lease.supplier_id], lease.endpoint_id)
        }
        if doubtful:
            known |= self._cache.lookup(doubtful, fresh=True)
        return known

    def _admit(self, lease: Lease, subscriptions: Subscriptions | None, now: int) -> Route | Outcome:
        target = subscriptions.targets.get(lease.endpoint_id) if subscriptions is not None else None
        if target is None:
            return Outcome(lease=lease, state=State.CANCELLED, reason="its endpoint was deleted")
        endpoint = target.endpoint
        if not endpoint.enabled or endpoint.id in self.gone:
            reason = endpoint.disabled_reason or self.gone.get(endpoint.id)
            return Outcome(lease=lease, state=State.HELD, reason=reason)
        if lease.attempt - lease.attempt_base > len(endpoint.retry_schedule) + 1:
            return Outcome(lease=lease, state=State.DEAD, reason="its worker was lost on every attempt")
        until = self._paused.get(endpoint.id, 0)
        if until > now:
            return _later(lease, until, "the receiver asked for a pause")
        if until:
            del self._paused[endpoint.id]
        route = self._routes.of(target)
        limit = endpoint.max_concurrency
        if limit is None:  # its share binds only when less than half of the slots is left to the others
            limit = self._slots if self._occupied < self._slots // 2 else self._share
        if not self._occupy(endpoint.id, limit, now):
            return _later(
                lease, self._in_line(endpoint.id, limit, now), "its endpoint has its share in flight"
            )
        return route

    def _occupy(self, endpoint_id: str, limit: int, now: int) -> bool:
        """Take one of the exchanges that an endpoint may have in flight, if one is free."""
        busy = self._busy[endpoint_id]
        if busy >= limit:
            return False
        self._busy[endpoint_id] = busy + 1
        self._occupied += 1
        line = self._lines.get(endpoint_id)
        if line is not None and line.last <= now:
            del self._lines[endpoint_id]
        return True

    def _vacate(self, endpoint_id: str) -> None:
        self._occupied -= 1
        busy = self._busy[endpoint_id]
        if busy > 1:
            self._busy[endpoint_id] = busy - 1
        else:
            del self._busy[endpoint_id]

    def _in_line(self, endpoint_id: str, limit: int, now: int) -> int:
        """When a delivery that found no free exchange is to come again.

        Twice as many come as can be served, so that none stays free; were they all to come at once, a long
        line would be claimed and put back over and over, at the cost of everybody else.
        """
        line = self._lines.get(endpoint_id)
        if line is None:
            line = self._lines[endpoint_id] = _Line()
        line.last = min(max(line.last, now) + line.exchange // (2 * limit), now + _LONGEST_LINE)
        return line.last + int(_FULL_PAUSE * (0.5 + self._random.random()) * clock.SECOND)

    def _within_rate(
        self, admitted: list[tuple[Lease, Route]], outcomes: list[Outcome], now: int
    ) -> list[tuple[Lease, Route]]:
        limits = {
            r.endpoint.id: r.endpoint.rate_limit for _, r in admitted if r.endpoint.rate_limit is not None
        }
        if not limits:
            return admitted
        wanted = Counter(lease.endpoint_id for lease, _ in admitted if lease.endpoint_id in limits)
        times = self._limiter.take({key: (limits[key], wanted[key]) for key in wanted}, now=now)
        fitting = []
        for lease, route in admitted:
            allowed_at = times[lease.endpoint_id].pop(0) if lease.endpoint_id in times else now
            if allowed_at <= now:
                fitting.append((lease, route))
            else:
                self._vacate(lease.endpoint_id)
                outcomes.append(_later(lease, allowed_at, "its endpoint's rate limit"))
        return fitting

    def _outcome(self, returned: Return, attempts: list[AttemptMade]) -> Outcome:
        lease, route = cast(tuple[Lease, Route], returned.order.token)
        self._vacate(lease.endpoint_id)
        if self._lines:
            line = self._lines.get(lease.endpoint_id)
            if line is not None:
                line.exchange = returned.exchange.duration
        try:
            return self._judge(lease, route, returned, attempts)
        except Exception as error:  # an answer that we fail to understand must not stop the others
            _log.exception("the answer to delivery %s could not be judged", lease.delivery_id)
            return _unsendable(lease, route.endpoint.retry_schedule, error)

    def _judge(self, lease: Lease, route: Route, returned: Return, attempts: list[AttemptMade]) -> Outcome:
        exchange = returned.exchange
        endpoint = route.endpoint
        verdict = judge(
            exchange,
            attempt=lease.attempt - lease.attempt_base,
            schedule=endpoint.retry_schedule,
            now=clock.now(),
            random=self._random.random(),
        )
        if verdict.disable:
            self.gone[endpoint.id] = verdict.reason or "the receiver says that it is gone"
        if verdict.slow_until is not None:
            self._paused[endpoint.id] = verdict.slow_until
        first_byte = returned.first_byte_at
        attempts.append(
            AttemptMade(
                outcome="delivered" if verdict.state is State.DELIVERED else "failed",
                send_seconds=exchange.duration / clock.SECOND,
                accept_to_send=(
                    max(0, first_byte - lease.accepted_at) / clock.SECOND
                    if first_byte is not None and lease.attempt == 1
                    else None
                ),
                reused_connection=returned.reused,
            )
        )
        return Outcome(
            lease=lease,
            state=verdict.state,
            due_at=verdict.due_at,
            record=record(exchange),
            reason=verdict.reason,
        )


def _unsendable(lease: Lease, schedule: Sequence[float], error: Exception) -> Outcome:
    number = lease.attempt - lease.attempt_base
    now = clock.now()
    made = Record(
        started_at=now,
        duration=0,
        status_code=None,
        error=f"internal_error: the request or its answer could not be handled ({type(error).__name__})",
        response_body=None,
        response_headers=None,
    )
    if number > len(schedule):
        return Outcome(lease=lease, state=State.DEAD, record=made, reason="internal error")
    due = now + int(schedule[number - 1] * clock.SECOND)
    return Outcome(lease=lease, state=State.SCHEDULED, due_at=due, record=made, reason="internal error")


def _enabled(subscriptions: Subscriptions | None, endpoint_id: str) -> bool:
    target = subscriptions.targets.get(endpoint_id) if subscriptions is not None else None
    return target is not None and target.endpoint.enabled


def _later(lease: Lease, due_at: int, reason: str) -> Outcome:
    """Not now, and without spending an attempt."""
    return Outcome(lease=lease, state=State.SCHEDULED, due_at=due_at, reason=reason)
