"""What there is to see: a supplier with endpoints that answer well and badly, and deliveries that ended so."""

import json
from typing import Any

import httpx
from playwright.sync_api import Page, expect

from chaos.service import ADMIN_KEY, wait_for
from ringbearer.testing import Receiver

SUPPLIER = "lumen-photo"


class Stage:
    """The service as the tests find it."""

    def __init__(self, url: str, client: httpx.Client, receiver: Receiver) -> None:
        self.url = url
        self.receiver = receiver
        self.endpoint = ""
        self._client = client

    def furnish(self) -> None:
        """A supplier, an endpoint for bookings that answers, and one for payments that is given up at once."""
        self._call("PUT", f"/v1/suppliers/{SUPPLIER}", {"name": "Lumen Photo", "tier": "premium"})
        self.endpoint = self._endpoint({"event_types": ["booking.*"], "description": "CRM"})
        self._endpoint({"event_types": ["payment.*"], "retry_schedule": [], "description": "Books"})
        self.publish("booking.confirmed", state="delivered")
        self.failing_payment()

    def publish(self, kind: str, *, state: str | None = None) -> str:
        """An event for the supplier, once its delivery is in that state; the id of the delivery."""
        body = {"supplier_id": SUPPLIER, "type": kind, "data": {"couple": "Ada & Grace", "guests": 120}}
        event = self._call("POST", "/v1/events", body)["id"]
        delivery: str = self._call("GET", f"/v1/events/{event}")["deliveries"][0]["id"]
        if state is not None:
            wait_for(lambda: self.state(delivery) == state, 30, f"{delivery} to be {state}")
        return delivery

    def failing_payment(self) -> str:
        """A dead letter; the receiver answers well again afterwards."""
        self.receiver.fail = 404
        try:
            return self.publish("payment.received", state="dead")
        finally:
            self.receiver.fail = None

    def alert_on_any_dead_letter(self) -> None:
        """Have an alert fire as soon as there was one dead letter."""
        self._call("PUT", "/v1/alert-rules/dead_letters", {"threshold": 0, "clear": 0, "for_seconds": 0})

    def state(self, delivery: str) -> str:
        """Where a delivery stands."""
        found: str = self._call("GET", f"/v1/deliveries/{delivery}")["state"]
        return found

    def key(self, scope: str) -> str:
        """A new key of that scope."""
        made: str = self._call("POST", "/v1/keys", {"scope": scope})["key"]
        return made

    def log_in(self, page: Page, key: str = ADMIN_KEY) -> None:
        """Go through the doorway as a person would."""
        page.goto("/login")
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("navigation", name="Pages")).to_be_visible()

    def _endpoint(self, options: dict[str, object]) -> str:
        body = {"url": f"{self.receiver.url}/hooks", **options}
        made: str = self._call("POST", f"/v1/suppliers/{SUPPLIER}/endpoints", body)["id"]
        return made

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer = self._client.request(method, path, content=None if body is None else json.dumps(body))
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found
