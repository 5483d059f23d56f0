"""Publishes one event, and comes again when the service has no room for it now.

    RINGBEARER_URL=http://127.0.0.1:8200 RINGBEARER_KEY=rb_… \
        python examples/publish.py demo booking.confirmed '{"booking": 42}'

The idempotency key is made before the first try and stays the same: however often the request is repeated, the
event is taken once. 202 means that it is on the disk.
"""

import json
import os
import sys
import time
import uuid

import httpx

TRIES = 8
COME_AGAIN = (429, 503)


def publish(client: httpx.Client, event: dict[str, object], *, idempotency_key: str) -> dict[str, object]:
    """Hand the event over; raises httpx.HTTPError when it is refused, or not taken after all tries."""
    for number in range(1, TRIES + 1):
        pause = min(0.25 * 2**number, 10.0)
        try:
            response = client.post("/v1/events", json=event, headers={"idempotency-key": idempotency_key})
        except httpx.TransportError:
            if number == TRIES:
                raise
        else:
            if response.status_code not in COME_AGAIN or number == TRIES:
                response.raise_for_status()
                accepted: dict[str, object] = response.json()
                return accepted
            pause = float(response.headers.get("retry-after", pause))
        time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def main() -> None:
    """Publish what the arguments say."""
    supplier, event_type, data = sys.argv[1:4]
    event: dict[str, object] = {"supplier_id": supplier, "type": event_type, "data": json.loads(data)}
    server = os.environ.get("RINGBEARER_URL", "http://127.0.0.1:8200")
    headers = {"authorization": f"Bearer {os.environ['RINGBEARER_KEY']}"}
    with httpx.Client(base_url=server, headers=headers, timeout=20) as client:
        # Better still is a key that your own data has anyway, such as "booking-42-confirmed".
        accepted = publish(client, event, idempotency_key=f"example-{uuid.uuid4()}")
    print(json.dumps(accepted))


if __name__ == "__main__":
    main()
