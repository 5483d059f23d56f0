"""The engine: a batch of leases goes in, each is loaded, admitted, signed, sent and judged; outcomes come out."""

import logging
import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from ringbearer import clock
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.delivery.couriers import Couriers
from ringbearer.delivery.gate import Gate, later
from ringbearer.delivery.outcome import Exchange, Health, health, record, taken
from ringbearer.delivery.report import attempt_made, attempt_spent
from ringbearer.delivery.retry import judge
from ringbearer.delivery.returns import Return
from ringbearer.delivery.routes import Parcel, Route, Routes
from ringbearer.delivery.tokens import TokenCourier
from ringbearer.domain.deliveries import Lease, Outcome, Record, State
from ringbearer.domain.endpoints import DEFAULT_RETRY_SCHEDULE, Endpoint, RateLimit
from ringbearer.domain.suppliers import Supplier
from ringbearer.errors import PayloadFailed, StoreUnavailable
from ringbearer.limits.base import Limit, RateLimiter
from ringbearer.limits.breakers import Breakers
from ringbearer.storage.catalog import Subscriptions
from ringbearer.storage.parking import RATE_LIMIT, Park, Parking
from ringbearer.telemetry import AttemptMade, AttemptsMade, OwnTrouble, Telemetry

_log = logging.getLogger(__name__)
_LONGEST_REASON = 200
_WORTH_PARKING = 4  # deliveries of one endpoint that a batch brings in vain
_TROUBLE_SECONDS = 30.0  # longer than deliveries wait that our own trouble stopped
_TELL_SECONDS = 10.0  # between two lines of the log about the same trouble


class Engine:
    """Sends deliveries by libcurl with bounded concurrency. Not thread-safe: one thread owns it.

    `disable` is called, with an endpoint's id and the reason, when a receiver says that it is gone.
    """

    def __init__(
        self,
        *,
        cache: WebhookCacheManager,
        limiter: RateLimiter,
        breakers: Breakers,
        telemetry: Telemetry,
        refuse: Callable[[str], str | None],
        slots: int,
        ca_file: str | None = None,
        proxy: str | None = None,
        public_url: str = "",
        sends_per_second: int = 0,
        parking: Parking | None = None,
    ) -> None:
        self._cache = cache
        self._limiter = limiter
        self._telemetry = telemetry
        self._courier = Couriers(
            lambda: TokenCourier(slots=slots, refuse=refuse, ca_file=ca_file, proxy=proxy)
        )
        self._routes = Routes(public_url=public_url)
        self._breakers = breakers
        self._gate = Gate(slots=slots, breakers=breakers)
        self._attempts: list[AttemptMade] = []
        self._own_troubles: Counter[str] = Counter()
        self._troubled_at: dict[str, float] = {}
        self._last_trouble = ""
        self._tell_trouble_at = 0.0
        self._slots = slots
        self._parking = parking
        self._parks: dict[str, Park] = {}
        self._limits: dict[str, tuple[Limit, ...]] = {}
        self._overall = (
            Limit("everything", RateLimit(requests=sends_per_second, period=1.0), exact=False)
            if sends_per_second
            else None
        )
        self._random = random.Random()  # noqa: S311  jitter, not a secret
        self.gone: dict[str, str] = {}
        """Endpoints whose receiver said that they are gone, with the reason; whoever reads it empties it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {self._courier!r} and {self._gate!r}>"

    @property
    def in_flight(self) -> int:
        """How many exchanges are under way."""
        return self._courier.in_flight

    @property
    def troubles(self) -> frozenset[str]:
        """What of our own (`dns`, `proxy`) stopped a delivery in the last 30 s."""
        since = clock.monotonic() - _TROUBLE_SECONDS
        return frozenset(what for what, at in list(self._troubled_at.items()) if at >= since)

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
                return [self._spent(_unsendable(leases[0], DEFAULT_RETRY_SCHEDULE, error))]
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
                subscriptions = known[lease.supplier_id]
                lease.claimed_at = lease.claimed_at or now
                if subscriptions is not None:
                    lease.tier = subscriptions.supplier.tier
                verdict = self._admit(lease, subscriptions, now)
                if isinstance(verdict, Route):
                    admitted.append((lease, verdict))
                elif verdict is not None:
                    outcomes.append(verdict)
            admitted = self._within_rate(admitted, outcomes, now)
            admitted = self._closed_or_probing(admitted, outcomes, now)
        except BaseException:
            self._limits = {}
            self._gate.take_back(leases)
            for lease, _ in admitted:
                self._gate.withdrawn(lease, now)
            raise
        for lease, route in admitted:
            try:
                self._courier.submit(route.order(lease, now))
            except PayloadFailed as error:
                self._gate.withdrawn(lease, now)
                outcomes.append(self._spent(_unmade(lease, error)))
            except Exception as error:  # one delivery that cannot be put together must not stop the others
                _log.exception("delivery %s could not be put together", lease.delivery_id)
                self._gate.withdrawn(lease, now)
                outcomes.append(self._spent(_unsendable(lease, route.endpoint.retry_schedule, error)))
        return outcomes + self._gate.stranded(now)

    def poll(self, timeout: float) -> tuple[list[Outcome], bool]:
        """Drive what is in flight for at most `timeout` seconds: what became of it, and whether a bell rang."""
        returns, rang = self._courier.poll(timeout)
        now = clock.now()
        outcomes = [self._outcome(returned, now) for returned in returns]
        again: list[Lease] = []
        for outcome in outcomes:
            endpoint_id = outcome.lease.endpoint_id
            if self._gate.waits(endpoint_id):
                again += self._gate.next_of(endpoint_id)
        if again:
            outcomes += self._begin_waiting(again)
        stranded = self._gate.stranded(now)
        return (outcomes + stranded if stranded else outcomes), rang

    def _begin_waiting(self, leases: Sequence[Lease]) -> list[Outcome]:
        """Begin what waited for its endpoint's window; all that was true of it is looked at again."""
        try:
            return self.begin(leases)
        except StoreUnavailable:
            return [Outcome(lease=lease, state=State.READY) for lease in leases]

    def connect_ahead(self, most: int, urls: Collection[str] | None) -> int:
        """Begin connections to the endpoints that were sent to last and have none, where many can share one.

        Those of `urls` only, if given, and `most` at most; returns how many. See `Courier.connect_ahead`.
        """
        begun = 0
        for route in self._routes.latest(most):
            if urls is None or route.endpoint.url in urls:
                begun += self._courier.connect_ahead(route.endpoint.url, route.way)
        return begun

    def put_down(self) -> list[Outcome]:
        """Give up what was not begun yet; returns the outcomes, which spend no attempt."""
        return [Outcome(lease=lease, state=State.READY) for lease in self._gate.take_waiting()]

    def report(self) -> None:
        """Tell telemetry of the tries that came to an end since the last time; call it when they are settled."""
        if self._attempts:
            self._telemetry.emit(AttemptsMade(self._attempts, clock.now()))
            self._attempts = []
        if self._own_troubles and clock.monotonic() >= self._tell_trouble_at:
            self._tell_trouble_at = clock.monotonic() + _TELL_SECONDS
            _log.error("our own name server or proxy fails, not the receivers: %s", self._last_trouble)
        for what, count in self._own_troubles.items():
            self._telemetry.emit(OwnTrouble(what, count, self._last_trouble))
        self._own_troubles.clear()

    def abandon(self) -> list[Outcome]:
        """Break off what is in flight; returns its outcomes: receivers may or may not have seen it.

        Each attempt is spent and written down, so that the next has another number.
        """
        orders = self._courier.abandon()
        self._gate.forget_all()
        leases = [order.lease for order in orders if isinstance(order, Parcel)]
        return [
            self._spent(Outcome(lease=lease, state=State.READY, record=_broken_off())) for lease in leases
        ]

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
            lease.supplier_id
            for lease in leases
            if (subscriptions := known[lease.supplier_id]) is None
            or (target := subscriptions.targets.get(lease.endpoint_id)) is None
            or not target.endpoint.enabled
        }
        if doubtful:
            known |= self._cache.lookup(doubtful, fresh=True)
        return known

    def _admit(self, lease: Lease, subscriptions: Subscriptions | None, now: int) -> Route | Outcome | None:
        """The route to send it by, the outcome when it is not sent, None when it waits for its endpoint's window."""
        target = subscriptions.targets.get(lease.endpoint_id) if subscriptions is not None else None
        if target is None:
            return Outcome(lease=lease, state=State.CANCELLED, reason="its endpoint was deleted")
        endpoint = target.endpoint
        if not endpoint.enabled or endpoint.id in self.gone:
            reason = endpoint.disabled_reason or self.gone.get(endpoint.id)
            return Outcome(lease=lease, state=State.HELD, reason=reason)
        if lease.attempt - lease.attempt_base > len(endpoint.retry_schedule) + 1:
            return Outcome(lease=lease, state=State.DEAD, reason="its worker was lost on every attempt")
        assert subscriptions is not None
        supplier = subscriptions.supplier
        verdict = self._gate.admit(lease, endpoint, supplier.max_concurrency, now)
        if verdict is True:
            if (
                endpoint.rate_limit is not None
                or supplier.rate_limit is not None
                or self._overall is not None
            ):
                self._limits[lease.delivery_id] = self._limits_of(endpoint, supplier)
            return self._routes.of(target)
        return None if verdict is False else verdict

    def _within_rate(
        self, admitted: list[tuple[Lease, Route]], outcomes: list[Outcome], now: int
    ) -> list[tuple[Lease, Route]]:
        if not self._limits:
            return admitted
        limits, self._limits = self._limits, {}
        limited = [lease.delivery_id for lease, _ in admitted if lease.delivery_id in limits]
        times = dict(
            zip(limited, self._limiter.take([limits[each] for each in limited], now=now), strict=True)
        )
        fitting = []
        refused: Counter[str] = Counter()
        for lease, route in admitted:
            allowed_at = times.get(lease.delivery_id, now)
            if allowed_at <= now:
                fitting.append((lease, route))
                continue
            refused[lease.endpoint_id] += 1
            self._gate.withdrawn(lease, now)
            outcomes.append(later(lease, allowed_at, RATE_LIMIT))
            rate = route.endpoint.rate_limit
            if rate is not None and refused[lease.endpoint_id] == _WORTH_PARKING:
                self._park(lease.endpoint_id, rate, allowed_at)
        return fitting

    def _park(self, endpoint_id: str, rate: RateLimit, after: int) -> None:
        """What else waits for the endpoint is to come after those that know their time already."""
        spacing = int(rate.period * clock.SECOND / rate.requests)
        self._parks[endpoint_id] = Park(endpoint_id, after + spacing, spacing, RATE_LIMIT)

    def park(self) -> int:
        """Move what waits for rate limits out of the way; returns how many deliveries. For another thread; blocks."""
        if self._parking is None or not self._parks:
            return 0
        parks, self._parks = self._parks, {}
        return self._parking.park(list(parks.values()), now=clock.now())

    def _limits_of(self, endpoint: Endpoint, supplier: Supplier) -> tuple[Limit, ...]:
        limits = []
        if endpoint.rate_limit is not None:
            limits.append(Limit(endpoint.id, endpoint.rate_limit))
        if supplier.rate_limit is not None:
            limits.append(Limit(f"supplier:{supplier.id}", supplier.rate_limit, exact=False))
        if self._overall is not None:
            limits.append(self._overall)
        return tuple(limits)

    def _closed_or_probing(
        self, admitted: list[tuple[Lease, Route]], outcomes: list[Outcome], now: int
    ) -> list[tuple[Lease, Route]]:
        """Of an endpoint whose circuit is open, let at most one through, and only if no other worker does so."""
        if not self._gate.probing:
            return admitted
        self._gate.probing = False
        probes: dict[str, str] = {}
        for lease, _ in admitted:
            circuit = self._breakers.of(lease.endpoint_id)
            if circuit is not None and circuit.standing != "closed":
                probes.setdefault(lease.endpoint_id, lease.delivery_id)
        if not probes:
            return admitted
        taken = self._breakers.take_probes(probes, now=now)
        fitting = []
        for lease, route in admitted:
            probe = probes.get(lease.endpoint_id)
            if probe is None or (probe == lease.delivery_id and lease.endpoint_id in taken):
                fitting.append((lease, route))
            else:
                self._gate.withdrawn(lease, now)
                until = now + int((1.0 + self._random.random()) * clock.SECOND)
                outcomes.append(later(lease, until, "its endpoint is being probed"))
        return fitting

    def _outcome(self, returned: Return, now: int) -> Outcome:
        order, exchange = returned.order, returned.exchange
        assert isinstance(order, Parcel)
        lease = order.lease
        well = taken(exchange)
        if well:
            self._note_success(lease, exchange, now)
        else:
            self._note(lease, exchange, now)
        try:
            if well:
                return self._made(lease, returned, State.DELIVERED)
            return self._judge(lease, order.route, returned, now)
        except Exception as error:  # an answer that we fail to understand must not stop the others
            _log.exception("the answer to delivery %s could not be judged", lease.delivery_id)
            return self._spent(_unsendable(lease, order.route.endpoint.retry_schedule, error))

    def _made(
        self,
        lease: Lease,
        returned: Return,
        state: State,
        due_at: int | None = None,
        reason: str | None = None,
    ) -> Outcome:
        """The outcome of an attempt that was made, of which telemetry is told."""
        written = record(returned.exchange)
        self._attempts.append(attempt_made(lease, returned, state, written.error))
        return Outcome(lease=lease, state=state, due_at=due_at, record=written, reason=reason)

    def _spent(self, outcome: Outcome) -> Outcome:
        """Let telemetry hear of an attempt that is written down without a whole exchange."""
        self._attempts.append(attempt_spent(outcome))
        return outcome

    def _note_success(self, lease: Lease, exchange: Exchange, now: int) -> None:
        """As `_note`, of what nearly all exchanges are."""
        self._gate.ended(lease, began=exchange.started_at, took=exchange.duration, well=True, now=now)
        self._breakers.called(
            lease.endpoint_id, lease.supplier_id, lease.delivery_id, failed=False, unreached=False, now=now
        )

    def _note(self, lease: Lease, exchange: Exchange, now: int) -> None:
        """Let the endpoint's window and circuit learn from an exchange."""
        state = health(exchange)
        well = True if state is Health.WELL else None if state is Health.INDIFFERENT else False
        self._gate.ended(lease, began=exchange.started_at, took=exchange.duration, well=well, now=now)
        if exchange.ours:
            self._breakers.give_back(lease.endpoint_id, lease.delivery_id, now=now)
            what = exchange.ours.partition(":")[0]
            self._own_troubles[what] += 1
            self._troubled_at[what] = clock.monotonic()
            self._last_trouble = exchange.ours
            return
        self._breakers.called(
            lease.endpoint_id,
            lease.supplier_id,
            lease.delivery_id,
            failed=state is Health.FAILED or state is Health.UNREACHED,
            unreached=state is Health.UNREACHED,
            now=now,
        )

    def _judge(self, lease: Lease, route: Route, returned: Return, now: int) -> Outcome:
        exchange = returned.exchange
        endpoint = route.endpoint
        verdict = judge(
            exchange,
            attempt=lease.attempt - lease.attempt_base,
            schedule=endpoint.retry_schedule,
            now=now,
            random=self._random.random(),
        )
        if verdict.disable:
            self.gone[endpoint.id] = verdict.reason or "the receiver says that it is gone"
        if verdict.slow_until is not None:
            self._gate.pause(endpoint.id, verdict.slow_until)
        if not verdict.spent:
            return later(lease, verdict.due_at or 0, f"{verdict.reason} ({exchange.ours})"[:_LONGEST_REASON])
        return self._made(lease, returned, verdict.state, verdict.due_at, verdict.reason)


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


def _broken_off() -> Record:
    return Record(
        started_at=clock.now(),
        duration=0,
        status_code=None,
        error="worker_stopped: the worker had to stop before the answer came; it is sent again at once",
        response_body=None,
        response_headers=None,
    )


def _unmade(lease: Lease, error: PayloadFailed) -> Outcome:
    """Dead at once, as when the address is refused: no retry mends an endpoint's configuration."""
    made = Record(
        started_at=clock.now(),
        duration=0,
        status_code=None,
        error=f"payload_failed: {error}",
        response_body=None,
        response_headers=None,
    )
    return Outcome(lease=lease, state=State.DEAD, record=made, reason=made.error)
