"""No endpoint can hurt another: circuits open and close at work, windows adapt, retries keep to their share."""

import asyncio

import msgspec

from chaos.ports import free_port
from contract.making import admission
from delivery.stage import LONG, Holding, Stage
from ringbearer import clock
from ringbearer.domain.deliveries import State
from ringbearer.domain.endpoints import RateLimit
from ringbearer.limits.breaker import BreakerPolicy
from ringbearer.misbehaving import Peer, Rogues, answers
from ringbearer.storage.base import Storage
from ringbearer.telemetry import BreakerMoved

_IMPATIENT = BreakerPolicy(pause=0.1, jitter=0.0)


class Patient:
    """A receiver that answers 503 until it is well."""

    def __init__(self, status: int = 500) -> None:
        self.well = False
        self.asked = 0
        self._status = status

    async def behave(self, peer: Peer) -> None:
        """500 or 200."""
        while True:
            await peer.request()
            self.asked += 1
            status = 200 if self.well else self._status
            await peer.send(b"HTTP/1.1 %d So\r\ncontent-length: 0\r\n\r\n" % status)


def _moves(stage: Stage) -> list[str]:
    return [r.after for r in stage.reports if isinstance(r, BreakerMoved)]


def test_an_open_circuit_sends_nothing_and_spends_no_attempt(storage: Storage, rogues: Rogues) -> None:
    patient = Patient()
    rogue = rogues.serve(patient.behave)
    with Stage(storage, policy=BreakerPolicy()) as stage:
        endpoint = stage.endpoint(rogue.url, retry_schedule=(LONG,) * 3)
        stage.publish(endpoint, 10)
        stage.until(lambda: _moves(stage) == ["open"])
        asked = patient.asked
        (parked,) = stage.publish(endpoint)
        stage.until_state([parked], State.SCHEDULED)
        found = stage.detail(parked)
    assert patient.asked == asked
    assert (found.attempt_count, found.attempts) == (0, [])
    # Whether the worker put it back, or it was parked before the worker saw it.
    assert str(found.reason).endswith("its endpoint's circuit is open")
    assert found.due_at is not None


def test_a_receiver_that_is_well_again_gets_everything(storage: Storage, rogues: Rogues) -> None:
    patient = Patient()
    rogue = rogues.serve(patient.behave)
    good = rogues.serve(answers)
    with Stage(storage, policy=_IMPATIENT) as stage:
        endpoint = stage.endpoint(rogue.url, retry_schedule=(0.05,) * 200)
        deliveries = stage.publish(endpoint, 40)
        stage.until(lambda: len(_moves(stage)) >= 2)  # opened, and its probe failed
        others = stage.publish(stage.endpoint(good.url), 20)
        stage.until_state(others, State.DELIVERED)
        patient.well = True
        stage.until_state(deliveries, State.DELIVERED)
        stage.until(lambda: _moves(stage)[-1] == "closed")
    assert storage.breakers.count_open() == 0


class Counting:
    """A receiver that takes its time, and knows how many were with it at once and when each came."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.inside = self.most = 0
        self.came: list[int] = []
        self._seconds = seconds

    async def behave(self, peer: Peer) -> None:
        """200, after a while."""
        while True:
            await peer.request()
            self.came.append(clock.now())
            self.inside += 1
            self.most = max(self.most, self.inside)
            await asyncio.sleep(self._seconds)
            self.inside -= 1
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


def test_a_supplier_has_no_more_under_way_than_it_may(storage: Storage, rogues: Rogues) -> None:
    receiver = Counting(0.02)
    rogue = rogues.serve(receiver.behave)
    with Stage(storage) as stage:
        endpoints = [stage.endpoint(f"{rogue.url}{n}") for n in range(4)]
        known = storage.catalog.get_supplier("studio")
        storage.catalog.put_supplier(msgspec.structs.replace(known, max_concurrency=2))
        stage.cache.refresh()
        deliveries = [each for endpoint in endpoints for each in stage.publish(endpoint, 5)]
        stage.until_state(deliveries, State.DELIVERED)
    assert receiver.most <= 2
    assert len(receiver.came) == 20


def test_two_workers_keep_five_a_period_exactly(storage: Storage, rogues: Rogues) -> None:
    receiver = Counting()
    rogue = rogues.serve(receiver.behave)
    limit = RateLimit(requests=5, period=1.0)
    with Stage(storage) as one, Stage(storage) as other:
        endpoint = one.endpoint(rogue.url, rate_limit=limit)
        other.cache.refresh()
        deliveries = one.publish(endpoint, 14)
        other.queue.push(14)
        one.until_state(deliveries, State.DELIVERED)
        allowed = sorted(one.limiter.allowed + other.limiter.allowed)
    assert len(allowed) == len(receiver.came) == 14
    assert all(later - earlier >= clock.SECOND for earlier, later in zip(allowed, allowed[5:], strict=False))


def test_all_suppliers_together_keep_the_services_limit(storage: Storage, rogues: Rogues) -> None:
    receiver = Counting()
    rogue = rogues.serve(receiver.behave)
    with Stage(storage, sends_per_second=10) as stage:
        endpoints = [stage.endpoint(f"{rogue.url}{n}") for n in range(5)]
        deliveries = [each for endpoint in endpoints for each in stage.publish(endpoint, 5)]
        stage.until_state(deliveries, State.DELIVERED)
        allowed = sorted(stage.limiter.allowed)
    assert len(allowed) == 25
    assert (
        allowed[-1] - allowed[0] >= 1.4 * clock.SECOND
    )  # ten at once, and the others a tenth of a second apart
    assert all(all(a.status_code == 200 for a in stage.detail(each).attempts) for each in deliveries)


def test_receivers_that_come_back_all_at_once_see_no_more_than_their_limits(
    storage: Storage, rogues: Rogues
) -> None:
    """F14 and I8: everything waits for receivers that are down, and goes out when all are up in the same moment."""
    ports = [free_port() for _ in range(3)]
    receivers = [Counting(0.005) for _ in ports]
    limit = RateLimit(requests=20, period=1.0)
    with Stage(storage, policy=_IMPATIENT) as stage:
        endpoints = [
            stage.endpoint(
                f"http://127.0.0.1:{port}/",
                retry_schedule=(0.05,) * 500,
                max_concurrency=2,
                rate_limit=limit if port == ports[0] else None,
            )
            for port in ports
        ]
        deliveries = [each for endpoint in endpoints for each in stage.publish(endpoint, 30)]
        stage.until(lambda: _moves(stage).count("open") >= len(ports))
        for receiver, port in zip(receivers, ports, strict=True):
            rogues.serve(receiver.behave, port=port)
        stage.until_state(deliveries, State.DELIVERED)
        allowed = sorted(stage.limiter.allowed)
    assert [receiver.most <= 2 for receiver in receivers] == [True] * len(ports)
    assert [len(receiver.came) for receiver in receivers] == [30] * len(ports)
    assert all(
        later - earlier >= clock.SECOND
        for earlier, later in zip(allowed, allowed[limit.requests :], strict=False)
    )


def test_a_client_error_opens_no_circuit(storage: Storage, rogues: Rogues) -> None:
    patient = Patient(404)
    rogue = rogues.serve(patient.behave)
    with Stage(storage) as stage:
        endpoint = stage.endpoint(rogue.url, retry_schedule=())
        deliveries = stage.publish(endpoint, 30)
        stage.until_state(deliveries, State.DEAD)
    assert _moves(stage) == []


def test_who_never_answers_takes_no_turn_from_the_others(storage: Storage, rogues: Rogues) -> None:
    """F12 and I7, counted in slots rather than in time: half of all traffic is for one endpoint that hangs.

    The others' deliveries all come through while not one of its exchanges has ended, and half of the slots, at least,
    was theirs at any moment: as many as all of their windows ask for here, so that they wait for nobody.
    """
    slots, others, each = 40, 5, 16
    hanging = Holding()
    hung, good = rogues.serve(hanging.behave), rogues.serve(answers)
    with Stage(storage, slots=slots) as stage:
        stuck = stage.endpoint(hung.url, timeout=LONG)
        quick = [stage.endpoint(f"{good.url}{n}") for n in range(others)]
        mixed = [admission(endpoint.id) for _ in range(each) for q in quick for endpoint in (stuck, q)]
        deliveries = stage.accept(mixed)
        stage.until_state(deliveries[1::2], State.DELIVERED)
        assert hanging.answered == 0
        assert 1 <= hanging.most <= slots // 2
        again = [delivery for endpoint in quick for delivery in stage.publish(endpoint, each)]
        stage.until_state(again, State.DELIVERED)
        assert hanging.answered == 0
        assert hanging.most <= slots // 2
        hanging.release()
        stage.until_state(deliveries[::2], State.DELIVERED)
    assert {stage.detail(delivery).attempt_count for delivery in deliveries + again} == {1}
