"""Drives a real courier against rogues, and says what became of each exchange."""

from collections.abc import Callable, Mapping
from typing import Self

import msgspec

from ringbearer import clock
from ringbearer.delivery.courier import Courier
from ringbearer.delivery.handle import MAX_ANSWER, MAX_HEADERS, Order
from ringbearer.delivery.outcome import MAX_KEPT_BODY, Exchange, record
from ringbearer.delivery.retry import Verdict, judge
from ringbearer.delivery.returns import Return
from ringbearer.domain.deliveries import Record

TIMEOUT = 5.0
"""Seconds that an endpoint gives its receiver in these tests, unless they say otherwise."""
SLACK = 10.0
"""Seconds that an exchange may take beyond that before a test calls it endless; machines can be busy."""
HEADERS = ["content-type: application/json", "webhook-id: evt_1", "ringbearer-attempt: 1"]
BODY = b'{"id":"evt_1","type":"booking.confirmed","timestamp":"2026-06-06T12:00:00Z","data":{}}'
SCHEDULE = (5.0, 300.0)


class Ended(msgspec.Struct, frozen=True):
    """An exchange that came to its end, with all that follows from it."""

    exchange: Exchange
    record: Record
    verdict: Verdict
    now: int
    reused: bool

    @property
    def code(self) -> str | None:
        """The error's code."""
        return None if self.record.error is None else self.record.error.partition(":")[0]

    @property
    def pause(self) -> float | None:
        """Seconds for which the endpoint is to be left alone."""
        until = self.verdict.slow_until
        return None if until is None else (until - self.now) / clock.SECOND

    def check_bounds(self, timeout: float = TIMEOUT) -> None:
        """It ended in time, kept no more than it may, and can be stored anywhere."""
        assert self.exchange.duration < (timeout + SLACK) * clock.SECOND
        assert len(self.exchange.body) <= MAX_ANSWER
        assert len(self.exchange.head) <= MAX_HEADERS
        body = self.record.response_body or ""
        assert len(body.encode()) <= MAX_KEPT_BODY
        assert "\0" not in body
        headers = msgspec.json.decode(self.record.response_headers or "{}", type=dict[str, str])
        assert all(text.isprintable() for item in headers.items() for text in item)


class Sender:
    """A courier, and the loop around it."""

    def __init__(
        self,
        *,
        refuse: Callable[[str], str | None] = lambda address: None,
        ca_file: str | None = None,
        slots: int = 128,
        proxy: str | None = None,
    ) -> None:
        self.courier = Courier(slots=slots, refuse=refuse, ca_file=ca_file, proxy=proxy)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.courier.close()

    def send(self, url: str, *, timeout: float = TIMEOUT) -> Ended:
        """One exchange, to its end."""
        return self.send_all({"": url}, timeout=timeout)[""]

    def send_all(
        self, urls: Mapping[str, str], *, timeout: float = TIMEOUT, after_each: str | None = None
    ) -> dict[str, Ended]:
        """All at once; whenever one ends, a good receiver at `after_each` must still be reached.

        The good ones are among the results, as `<token> and then`.
        """
        ended: dict[str, Ended] = {}
        for token, url in urls.items():
            self.courier.submit(order(token, url, timeout))
        latest = clock.monotonic() + timeout + SLACK
        try:
            while self.courier.in_flight:
                assert clock.monotonic() < latest, f"no end of {sorted(set(urls) - set(ended))}"
                returns, _ = self.courier.poll(0.5)
                for returned in returns:
                    token = str(returned.order.token)
                    ended[token] = conclude(returned)
                    if after_each is not None and token in urls:
                        self.courier.submit(order(f"{token} and then", after_each, SLACK))
        finally:
            self.courier.abandon()
        return ended


def order(token: str, url: str, timeout: float) -> Order:
    """An exchange with the usual headers and body."""
    return Order(token=token, url=url, headers=HEADERS, body=BODY, timeout=timeout)


def conclude(returned: Return) -> Ended:
    """What follows from the first attempt of a delivery."""
    now = clock.now()
    verdict = judge(returned.exchange, attempt=1, schedule=SCHEDULE, now=now, random=0.5)
    return Ended(returned.exchange, record(returned.exchange), verdict, now, returned.reused)
