"""A worker delivers, retries, gives up, holds and paces as it promises, over either database."""

import asyncio
import socket
import threading
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from standardwebhooks import Webhook

from contract.making import SECRET, admission, counted, shown
from delivery.stage import LONG, SOON, Stage
from ringbearer import clock
from ringbearer.delivery import engine, retry
from ringbearer.delivery.outcome import Exchange, record
from ringbearer.domain.deliveries import Lease, Outcome, Record, State
from ringbearer.domain.endpoints import RateLimit
from ringbearer.errors import StoreUnavailable
from ringbearer.misbehaving import OK, Behaviour, Peer, Rogue, Rogues, answers, never_answers, says
from ringbearer.queue.base import Demand, Queue
from ringbearer.storage.base import Storage
from ringbearer.storage.ledger import Admission, Depth
from ringbearer.telemetry import AttemptMade, AttemptsMade, DeliveriesSettled, StoreFailed

OTHER_SECRET = "whsec_" + "YW5vdGhlci1zZWNyZXQtYW5vdGhlci1zZWNyZXQ="


# ── receivers ───────────────────────────────────────────────────────────────────────────────────────────────


def _status(status: int, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} So", *headers, "content-length: 0", "", ""]).encode()


def _script(*given: bytes) -> Behaviour:
    """The first answer to the first request, and so on; the last one to all that come later."""
    left = list(given)

    async def behave(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(left.pop(0) if len(left) > 1 else left[0])

    return behave


class Turnstile:
    """A receiver that counts how many requests it has at a time."""

    def __init__(self, *failing: int) -> None:
        self.now = self.peak = self.total = 0
        self._failing = set(failing)

    async def behave(self, peer: Peer) -> None:
        """200, or 500 to the requests with these numbers (from 1)."""
        while True:
            await peer.request()
            self.total += 1
            number = self.total
            self.now += 1
            self.peak = max(self.peak, self.now)
            await asyncio.sleep(0.01)  # long enough for others to come in the meantime, if they may
            self.now -= 1
            await peer.send(_status(500) if number in self._failing else OK)


class Door:
    """A receiver that answers only when the door is opened; `knocked` tells that a request is there."""

    def __init__(self) -> None:
        self.knocked = threading.Event()
        self.opened = threading.Event()

    async def behave(self, peer: Peer) -> None:
        """200, in the end."""
        while True:
            await peer.request()
            self.knocked.set()
            await asyncio.to_thread(self.opened.wait, LONG)
            await peer.send(OK)


class Request(msgspec.Struct):
    """A request in its parts; header names in small letters."""

    headers: dict[str, str]
    body: bytes

    def verify(self, secret: str) -> None:
        """Raises unless the signature is right, as the standard's own library sees it."""
        Webhook(secret).verify(self.body, self.headers)


def _requests(rogue: Rogue) -> list[Request]:
    found = []
    for raw in rogue.requests:
        head, _, body = raw.partition(b"\r\n\r\n")
        pairs = (line.partition(":") for line in head.decode().split("\r\n")[1:])
        found.append(Request({name.lower(): value.strip() for name, _, value in pairs}, body))
    return found


def _nothing_is_leased(storage: Storage) -> bool:
    return not any(state is State.LEASED for _, state in counted(storage))


# ── the outcomes ────────────────────────────────────────────────────────────────────────────────────────────


def test_delivered(storage: Storage, rogues: Rogues) -> None:
    answer = b"HTTP/1.1 202 Fine\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\nthanks"
    rogue = rogues.serve(says(answer, close=False))
    with Stage(storage) as stage:
        endpoint = stage.endpoint(rogue.url, headers={"x-tenant": "studio", "x-empty": ""})
        made = admission(endpoint.id, data='{"ümlaut":"\\u00fc","n":1.0}')
        (delivery_id,) = stage.accept([made])
        stage.until_state([delivery_id], State.DELIVERED)
        found = stage.detail(delivery_id)
    (attempt,) = found.attempts
    assert (attempt.number, attempt.status_code, attempt.error) == (1, 202, None)
    assert attempt.response_body == "thanks"
    assert attempt.response_headers == {"content-type": "text/plain", "content-length": "6"}
    assert attempt.duration > 0
    assert attempt.timing is not None
    assert (attempt.timing.name, attempt.timing.tls) == (0, 0)  # an address, without TLS
    assert 0 < (attempt.timing.connect or 0) <= attempt.duration
    assert found.attempt_count == 1
    assert found.finished_at is not None
    (request,) = _requests(rogue)
    request.verify(SECRET)
    assert request.headers["webhook-id"] == made.event_id
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("Ringbearer/")
    assert (request.headers["x-tenant"], request.headers["x-empty"]) == ("studio", "")
    assert request.headers["ringbearer-attempt"] == "1"
    assert b'"data":{"\xc3\xbcmlaut":"\\u00fc","n":1.0}' in request.body  # as the publisher wrote it
    assert _nothing_is_leased(storage)


def test_what_a_new_connection_cost_is_told_and_nothing_of_one_used_again(
    storage: Storage, rogues: Rogues
) -> None:
    rogue = rogues.serve(answers)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    with Stage(storage) as stage:
        endpoint = stage.endpoint(rogue.url)
        refused = stage.endpoint(f"http://127.0.0.1:{closed}/", retry_schedule=())
        for _ in range(2):
            (delivery,) = stage.publish(endpoint)
            stage.until_state([delivery], State.DELIVERED)
        (dead,) = stage.publish(refused)
        stage.until_state([dead], State.DEAD)
        assert stage.detail(delivery).attempts[0].timing is None
        timing = stage.detail(dead).attempts[0].timing
        assert timing is not None
        assert (timing.connect, timing.tls) == (None, None)


def test_retried_until_it_is_taken(storage: Storage, rogues: Rogues) -> None:
    rogue = rogues.serve(_script(_status(500), _status(302, "location: http://169.254.169.254/"), OK))
    with Stage(storage) as stage:
        (delivery_id,) = stage.publish(stage.endpoint(rogue.url))
        stage.until_state([delivery_id], State.DELIVERED)
        attempts = stage.detail(delivery_id).attempts
    assert [(a.number, a.status_code) for a in attempts] == [(1, 500), (2, 302), (3, 200)]
    assert [(a.error or "").partition(":")[0] for a in attempts] == ["http_500", "http_302", ""]
    first, *others = _requests(rogue)
    assert [r.headers["ringbearer-attempt"] for r in (first, *others)] == ["1", "2", "3"]
    for request in (first, *others):
        request.verify(SECRET)
        assert request.body == first.body
        assert request.headers["webhook-id"] == first.headers["webhook-id"]


def test_dead_after_the_last_try(storage: Storage, rogues: Rogues) -> None:
    rogue = rogues.serve(says(_status(500), close=False))
    with Stage(storage) as stage:
        (delivery_id,) = stage.publish(stage.endpoint(rogue.url))
        stage.until_state([delivery_id], State.DEAD)
        found = stage.detail(delivery_id)
    assert len(rogue.requests) == len(found.attempts) == len(SOON) + 1
    assert "3 attempts" in str(found.reason)


def test_blocked_address_is_dead_at_once(storage: Storage) -> None:
    with Stage(storage) as stage:
        (delivery_id,) = stage.publish(stage.endpoint("http://169.254.169.254/latest/"))
        stage.until_state([delivery_id], State.DEAD)
        (attempt,) = stage.detail(delivery_id).attempts
    assert str(attempt.error).startswith("blocked_address: ")


def test_gone_disables_the_endpoint_and_holds_what_is_left(storage: Storage, rogues: Rogues) -> None:
    rogue = rogues.serve(_script(_status(410), OK))
    with Stage(storage) as stage:
        endpoint = stage.endpoint(rogue.url, max_concurrency=1)
        deliveries = stage.publish(endpoint, 3)
        stage.until_state(deliveries, State.HELD)
        stored = storage.catalog.get_endpoint("studio", endpoint.id)
        assert not stored.enabled
        assert "410" in str(stored.disabled_reason)
        assert len(rogue.requests) == 1
        storage.catalog.set_enabled([endpoint.id], enabled=True)
        stage.cache.refresh()
        stage.queue.push(storage.ledger.unhold(limit=10))
        stage.until_state(deliveries, State.DELIVERED)
    assert len(rogue.requests) == 4


def test_a_receiver_that_asks_for_a_pause_gets_it(storage: Storage, rogues: Rogues) -> None:
    rogue = rogues.serve(_script(_status(429, "retry-after: 1"), OK))
    with Stage(storage) as stage:
        endpoint = stage.endpoint(rogue.url)
        (refused,) = stage.publish(endpoint)
        stage.until_state([refused], State.SCHEDULED)
        (other,) = stage.publish(endpoint)
        stage.until_state([refused, other], State.DELIVERED)
        first, second = stage.detail(refused).attempts
        (only,) = stage.detail(other).attempts
    for attempt in (second, only):
        assert (attempt.started_at - first.started_at).total_seconds() >= 1.0
    assert only.number == 1  # waiting has cost it no attempt


def test_an_answer_that_is_no_text_is_stored(storage: Storage, rogues: Rogues) -> None:
    body = b"\0\xff\xfe\x1b[31m<script>${jndi:ldap://x}\xed\xa0\x80" + b"\xf0\x9f\x92\x8d" * 2000
    answer = b"HTTP/1.1 500 No\r\nx-\xff: \x1b[2J\xfe\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    rogue = rogues.serve(says(answer, close=False))
    with Stage(storage) as stage:
        (delivery_id,) = stage.publish(stage.endpoint(rogue.url, retry_schedule=()))
        stage.until_state([delivery_id], State.DEAD)
        (attempt,) = stage.detail(delivery_id).attempts
    expected = record(Exchange(started_at=0, duration=0, status=500, body=body))
    assert attempt.response_body == expected.response_body
    assert "content-length" in attempt.response_headers


# ── secrets ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_during_a_rotation_both_secrets_sign_and_then_the_new_one(storage: Storage, rogues: Rogues) -> None:
    rogue = rogues.serve(answers)
    with Stage(storage) as stage:
        endpoint = stage.endpoint(rogue.url)
        for until in (clock.now() + 3600 * clock.SECOND, clock.now() - 1):
            storage.catalog.rotate_secret(
                "studio",
                endpoint.id,
                OTHER_SECRET,
                public_key=None,
                old_until=until,
                now=clock.now() - 2 * clock.SECOND,
            )
            stage.cache.refresh()
            stage.until_state(stage.publish(endpoint), State.DELIVERED)
    during, after = _requests(rogue)
    during.verify(SECRET)
    during.verify(OTHER_SECRET)
    after.verify(OTHER_SECRET)
    assert len(during.headers["webhook-signature"].split()) == 2
    assert len(after.headers["webhook-signature"].split()) == 1


# ── endpoints that change ───────────────────────────────────────────────────────────────────────────────────


def test_a_disabled_endpoint_holds(storage: Storage, rogues: Rogues) -> None:
    rogue = rogues.serve(answers)
    with Stage(storage) as stage:
        endpoint = stage.endpoint(rogue.url)
        storage.catalog.set_enabled([endpoint.id], enabled=False, reason="by an operator")
        stage.cache.refresh()
        deliveries = stage.publish(endpoint, 2)
        stage.until_state(deliveries, State.HELD)
        assert [stage.detail(each).reason for each in deliveries] == ["by an operator"] * 2
        assert [stage.detail(each).attempt_count for each in deliveries] == [0, 0]
    assert rogue.connections == 0


def test_a_deleted_endpoint_cancels(storage: Storage, rogues: Rogues) -> None:
    rogue = rogues.serve(answers)
    with Stage(storage) as stage:
        endpoint = stage.endpoint(rogue.url)
        storage.catalog.delete_endpoint("studio", endpoint.id)
        stage.cache.refresh()
        deliveries = stage.publish(endpoint, 2)
        stage.until_state(deliveries, State.CANCELLED)
    assert rogue.connections == 0


# ── pace and order ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_rate_limit_holds_in_every_window(storage: Storage, rogues: Rogues) -> None:
    rogue = rogues.serve(answers)
    limit = RateLimit(requests=4, period=0.3)
    with Stage(storage) as stage:
        endpoint = stage.endpoint(rogue.url, rate_limit=limit)
        deliveries = stage.publish(endpoint, 12)
        stage.until_state(deliveries, State.DELIVERED)
        assert all(stage.detail(each).attempt_count == 1 for each in deliveries)
        allowed = sorted(stage.limiter.allowed)
    assert len(allowed) == len(rogue.requests) == 12
    gaps = [later - earlier for earlier, later in zip(allowed, allowed[limit.requests :], strict=False)]
    assert min(gaps) >= limit.period * clock.SECOND


def test_no_more_at_a_time_than_the_endpoint_allows(storage: Storage, rogues: Rogues) -> None:
    turnstile = Turnstile()
    with Stage(storage) as stage:
        endpoint = stage.endpoint(rogues.serve(turnstile.behave).url, max_concurrency=2)
        deliveries = stage.publish(endpoint, 10)
        stage.until_state(deliveries, State.DELIVERED)
        assert all(stage.detail(each).attempt_count == 1 for each in deliveries)
    assert turnstile.total == 10
    assert turnstile.peak <= 2


def test_an_ordering_key_is_delivered_one_by_one(storage: Storage, rogues: Rogues) -> None:
    turnstile = Turnstile(2, 3)  # the second event fails twice, and the third does not overtake it
    rogue = rogues.serve(turnstile.behave)
    with Stage(storage) as stage:
        endpoint = stage.endpoint(rogue.url)
        events = [admission(endpoint.id, ordering_key="booking-7") for _ in range(5)]
        deliveries = stage.accept(events)
        stage.until_state(deliveries, State.DELIVERED)
    ids = [event.event_id for event in events]
    expected = [ids[0], ids[1], ids[1], *ids[1:]]
    assert [r.headers["webhook-id"] for r in _requests(rogue)] == expected
    assert turnstile.peak == 1


def test_an_endpoint_that_hangs_does_not_stop_the_others(storage: Storage, rogues: Rogues) -> None:
    good = rogues.serve(answers)
    hanging = rogues.serve(never_answers)
    with Stage(storage, slots=8, grace=0.0) as stage:
        stuck = stage.publish(stage.endpoint(hanging.url, timeout=LONG), 30)
        delivered = stage.publish(stage.endpoint(good.url), 30)
        stage.until_state(delivered, State.DELIVERED)
        assert all(shown(storage, each) is not State.DELIVERED for each in stuck)
    assert len(good.requests) == 30
    assert hanging.connections <= 8


# ── what goes wrong on our side ─────────────────────────────────────────────────────────────────────────────


def test_one_that_cannot_be_put_together_does_not_stop_the_others(storage: Storage, rogues: Rogues) -> None:
    rogue = rogues.serve(answers)
    with Stage(storage) as stage:
        told = _told(stage)
        odd = stage.endpoint(rogue.url, headers={"x-name": "Ünsendable"})
        good = stage.endpoint(rogue.url)
        deliveries = stage.accept([admission(e.id) for e in (good, odd, good, odd, good)])
        sent, unsent = deliveries[::2], deliveries[1::2]
        stage.until_state(sent, State.DELIVERED)
        stage.until_state(unsent, State.DEAD)
        attempts = stage.detail(unsent[0]).attempts
    assert len(rogue.requests) == 3
    assert [a.number for a in attempts] == [1, 2, 3]
    assert all(str(a.error).startswith("internal_error: ") for a in attempts)
    ours = [(a.error, a.attempt, a.endpoint_id) for a in told if a.outcome == "ours"]
    assert sorted(ours) == sorted(("internal_error", n, odd.id) for n in (1, 2, 3) for _ in unsent)


def _told(stage: Stage) -> list[AttemptMade]:
    """What telemetry hears of attempts from now on."""
    told: list[AttemptMade] = []
    stage.telemetry.listen(AttemptsMade, lambda report: told.extend(report.attempts))
    return told


def test_an_answer_that_cannot_be_judged_does_not_stop_the_others(
    storage: Storage, rogues: Rogues, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(exchange: Exchange, **given: Any) -> Any:
        if exchange.status == 418:
            raise RuntimeError("never seen such a thing")
        return retry.judge(exchange, **given)

    monkeypatch.setattr(engine, "judge", judge)
    good, odd = rogues.serve(answers), rogues.serve(says(_status(418), close=False))
    with Stage(storage) as stage:
        (unjudged,) = stage.publish(stage.endpoint(odd.url))
        sent = stage.publish(stage.endpoint(good.url), 5)
        stage.until_state(sent, State.DELIVERED)
        stage.until_state([unjudged], State.DEAD)


def test_an_answer_that_cannot_be_stored_does_not_stop_the_others(
    storage: Storage, rogues: Rogues, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unstorable(exchange: Exchange) -> Record:
        made = record(exchange)
        if exchange.status == 203:
            made.response_body = "\ud800"  # UTF-8 has nothing for it
        return made

    monkeypatch.setattr(engine, "record", unstorable)
    rogue = rogues.serve(_script(OK, _status(203), OK))
    with Stage(storage) as stage:
        deliveries = stage.publish(stage.endpoint(rogue.url), 5)
        stage.until_state(deliveries, State.DELIVERED)
        attempts = [stage.detail(each).attempts[0] for each in deliveries]
        assert stage.thread.is_alive()
    assert len(rogue.requests) == 5
    assert sorted(a.status_code or 0 for a in attempts) == [200, 200, 200, 200, 203]
    (odd,) = (a for a in attempts if a.status_code == 203)
    assert odd.response_body is None
    assert odd.error is not None
    assert all(a.response_body == "ok" for a in attempts if a is not odd)


class Breakable(Queue):
    """The real queue, but for what is broken at the time: `settle`, `claim` or `extend`."""

    def __init__(self, inner: Queue) -> None:
        self._inner = inner
        self.broken: dict[str, Exception] = {}

    def _pass(self, name: str) -> None:
        if name in self.broken:
            raise self.broken[name]

    def push(self, count: int, admitted: Sequence[Admission] = ()) -> None:
        self._inner.push(count)

    def claim(self, demand: Demand) -> list[Lease]:
        self._pass("claim")
        return self._inner.claim(demand)

    def settle(self, outcomes: Sequence[Outcome], *, now: int) -> set[str]:
        self._pass("settle")
        return self._inner.settle(outcomes, now=now)

    def extend(self, leases: Sequence[Lease], *, until: int) -> set[str]:
        self._pass("extend")
        return self._inner.extend(leases, until=until)

    def release(self, leases: Sequence[Lease]) -> int:
        return self._inner.release(leases)

    def depth(self) -> list[Depth]:
        return self._inner.depth()


def _breakable(stage: Stage) -> Breakable:
    assert isinstance(stage.queue, Breakable)
    return stage.queue


def test_outcomes_are_kept_while_the_store_is_away(storage: Storage, rogues: Rogues) -> None:
    door = Door()
    rogue = rogues.serve(door.behave)
    with Stage(storage, queue=Breakable) as stage:
        deliveries = stage.publish(stage.endpoint(rogue.url), 3)
        assert door.knocked.wait(LONG)
        _breakable(stage).broken["settle"] = StoreUnavailable("away")
        door.opened.set()
        stage.until(lambda: stage.count(StoreFailed) >= 2)
        assert stage.count(DeliveriesSettled) == 0
        _breakable(stage).broken.clear()
        stage.until_state(deliveries, State.DELIVERED)
    assert len(rogue.requests) == 3
    assert _nothing_is_leased(storage)


@pytest.mark.parametrize("error", [StoreUnavailable("away"), RuntimeError("never seen such a thing")])
def test_the_worker_outlives_a_claim_that_fails(error: Exception, storage: Storage, rogues: Rogues) -> None:
    rogue = rogues.serve(answers)
    with Stage(storage, queue=Breakable) as stage:
        _breakable(stage).broken["claim"] = error
        deliveries = stage.publish(stage.endpoint(rogue.url), 3)
        stage.until(lambda: stage.count(StoreFailed) >= 1)
        _breakable(stage).broken.clear()
        stage.until_state(deliveries, State.DELIVERED)
    assert len(rogue.requests) == 3


def test_an_outcome_that_cannot_be_written_down_at_all_is_left_to_its_lease(
    storage: Storage, rogues: Rogues
) -> None:
    rogue = rogues.serve(answers)
    with Stage(storage, queue=Breakable) as stage:
        _breakable(stage).broken["settle"] = RuntimeError("never seen such a thing")
        endpoint = stage.endpoint(rogue.url)
        (lost,) = stage.publish(endpoint)
        stage.until(lambda: stage.count(DeliveriesSettled) >= 1)
        _breakable(stage).broken.clear()
        (settled,) = stage.publish(endpoint)
        stage.until_state([settled], State.DELIVERED)
        assert shown(storage, lost) is State.LEASED


# ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_stopping_finishes_what_is_in_flight(storage: Storage, rogues: Rogues) -> None:
    door = Door()
    rogue = rogues.serve(door.behave)
    with Stage(storage, grace=LONG) as stage:
        (delivery_id,) = stage.publish(stage.endpoint(rogue.url))
        assert door.knocked.wait(LONG)
        stage.worker.stop()
        door.opened.set()
        stage.stop()
    assert shown(storage, delivery_id) is State.DELIVERED
    assert len(rogue.requests) == 1
    assert _nothing_is_leased(storage)


def test_stopping_gives_back_what_does_not_finish(storage: Storage, rogues: Rogues) -> None:
    door = Door()
    rogue = rogues.serve(door.behave)
    with Stage(storage, grace=0.0) as stage:
        told = _told(stage)
        (delivery_id,) = stage.publish(stage.endpoint(rogue.url, timeout=LONG))
        assert door.knocked.wait(LONG)
        stage.stop()
        assert [(a.outcome, a.error, a.attempt) for a in told] == [("ours", "worker_stopped", 1)]
        found = stage.detail(delivery_id)
        assert found.state is State.READY
        assert [str(a.error).partition(":")[0] for a in found.attempts] == ["worker_stopped"]
        assert _nothing_is_leased(storage)
    door.opened.set()
    with Stage(storage) as stage:  # another worker, which sends it with the next number
        stage.queue.push(1)
        stage.until_state([delivery_id], State.DELIVERED)
        assert [a.number for a in stage.detail(delivery_id).attempts] == [1, 2]
    first, second = _requests(rogue)
    assert first.body == second.body
    assert [r.headers["ringbearer-attempt"] for r in (first, second)] == ["1", "2"]


def test_stopping_waits_for_a_store_that_is_away(storage: Storage, rogues: Rogues) -> None:
    rogue = rogues.serve(answers)
    with Stage(storage, grace=LONG, queue=Breakable) as stage:
        _breakable(stage).broken["settle"] = StoreUnavailable("away")
        deliveries = stage.publish(stage.endpoint(rogue.url), 2)
        stage.until(lambda: stage.count(StoreFailed) >= 1)
        stage.worker.stop()
        failures = stage.count(StoreFailed)
        stage.until(lambda: stage.count(StoreFailed) > failures)
        _breakable(stage).broken.clear()
        stage.stop()
    assert [shown(storage, each) for each in deliveries] == [State.DELIVERED] * 2


def test_stopping_before_anything_was_begun(storage: Storage) -> None:
    with Stage(storage) as stage:
        stage.worker.stop()
        stage.stop()
        stage.worker.stop()
    assert "holding 0 of 64" in repr(stage.worker)
