"""The sample: one signed test event, sent at once to one endpoint, or only shown; both outside the queue."""

from collections.abc import Callable

import msgspec

from ringbearer import clock, ids
from ringbearer.delivery.outcome import record
from ringbearer.delivery.routes import Routes
from ringbearer.delivery.tokens import TokenCourier
from ringbearer.domain.deliveries import Attempt, Lease, Timing
from ringbearer.domain.endpoints import Target

SAMPLE_TYPE = "ringbearer.test"
SAMPLE_DATA = '{"message":"This is a test event from Ringbearer."}'
_POLL_SECONDS = 0.5


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver would get. `body` is what is signed; `size` is that of what is sent, in bytes."""

    url: str
    headers: dict[str, str]
    body: str
    size: int


def preview(target: Target, *, event_type: str, data: str, public_url: str) -> Preview:
    """The request that an event would make, now and on its first attempt; raises PayloadFailed."""
    now = clock.now()
    lease = _lease(target, now, event_type, data)
    route = Routes(public_url=public_url).of(target)
    order = route.order(lease, now)
    lines = [line.partition(":") for line in order.headers]
    return Preview(
        url=order.url,
        headers={name: value.strip() for name, colon, value in lines if colon and value.strip()},
        body=route.content(lease).decode(),
        size=len(order.body),
    )


def send_sample(
    target: Target,
    *,
    refuse: Callable[[str], str | None],
    ca_file: str | None,
    public_url: str,
    proxy: str | None,
) -> Attempt:
    """Send a sample event and wait for the end of the exchange; blocks for at most the endpoint's timeout,
    and 10 s for its token. It leaves by the same `proxy` as deliveries.

    Raises PayloadFailed.
    """
    now = clock.now()
    lease = _lease(target, now, SAMPLE_TYPE, SAMPLE_DATA)
    courier = TokenCourier(slots=1, refuse=refuse, ca_file=ca_file, proxy=proxy)
    try:
        courier.submit(Routes(public_url=public_url).of(target).order(lease, now))
        returns, _ = courier.poll(_POLL_SECONDS)
        while not returns:
            returns, _ = courier.poll(_POLL_SECONDS)
    finally:
        courier.close()
    made = record(returns[0].exchange)
    return Attempt(
        number=1,
        started_at=clock.to_datetime(made.started_at),
        status_code=made.status_code,
        duration=made.duration / clock.SECOND,
        error=made.error,
        response_body=made.response_body,
        response_headers=msgspec.json.decode(made.response_headers) if made.response_headers else {},
        timing=msgspec.json.decode(made.timing, type=Timing) if made.timing else None,
    )


def _lease(target: Target, now: int, event_type: str, data: str) -> Lease:
    event_id = ids.event()
    return Lease(
        delivery_id=ids.delivery(event_id, 0),
        event_id=event_id,
        endpoint_id=target.endpoint.id,
        supplier_id=target.endpoint.supplier_id,
        lane=0,
        attempt=1,
        attempt_base=0,
        ordering_key=None,
        accepted_at=now,
        event_type=event_type,
        timestamp=clock.to_rfc3339(now),
        data=data,
    )
