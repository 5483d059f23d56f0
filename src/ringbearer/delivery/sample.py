"""The sample: one signed test event, sent at once to one endpoint, outside the queue."""

from collections.abc import Callable

import msgspec

from ringbearer import clock, ids
from ringbearer.delivery.courier import Courier
from ringbearer.delivery.outcome import record
from ringbearer.delivery.routes import Routes
from ringbearer.domain.deliveries import Attempt, Lease
from ringbearer.domain.endpoints import Target

SAMPLE_TYPE = "ringbearer.test"
_POLL_SECONDS = 0.5


def send_sample(target: Target, *, refuse: Callable[[str], str | None], ca_file: str | None) -> Attempt:
    """Send a sample event and wait for the end of the exchange; blocks for at most the endpoint's timeout."""
    now = clock.now()
    event_id = ids.event()
    lease = Lease(
        delivery_id=ids.delivery(event_id, 0),
        event_id=event_id,
        endpoint_id=target.endpoint.id,
        supplier_id=target.endpoint.supplier_id,
        lane=0,
        attempt=1,
        attempt_base=0,
        ordering_key=None,
        accepted_at=now,
        event_type=SAMPLE_TYPE,
        timestamp=clock.to_datetime(now).isoformat().replace("+00:00", "Z"),
        data='{"message":"This is a test event from Ringbearer."}',
    )
    courier = Courier(slots=1, refuse=refuse, ca_file=ca_file)
    try:
        courier.submit(Routes().of(target).order(lease, now))
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
    )
