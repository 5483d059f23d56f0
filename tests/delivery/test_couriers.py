"""Couriers beside the driving thread: they share the work, come and go at any time, and lose nothing."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from delivery.stage import LONG, Stage
from ringbearer import clock
from ringbearer.delivery.couriers import Couriers
from ringbearer.delivery.handle import Order
from ringbearer.delivery.returns import Return
from ringbearer.delivery.throttle import BURST_SECONDS, LONGEST_PAUSE, Throttle
from ringbearer.delivery.tokens import TokenCourier
from ringbearer.delivery.tuning import ParallelismConfig
from ringbearer.domain.deliveries import State
from ringbearer.misbehaving import OK, Peer, Rogue, Rogues, answers
from ringbearer.storage.base import Storage
from tools import migrated_sqlite

_RECEIVERS = 8  # on as many ports: the odds that all fall to one courier are those of one seed in 128


@pytest.fixture(params=["sqlite"])
def store_url(tmp_path: Path) -> str:
    """One database: nothing here depends on its kind."""
    return migrated_sqlite(tmp_path / "store.db")


class Threads:
    """Which threads dialled."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def refuse(self, _address: str) -> None:
        """Refuse nothing, and remember who asks."""
        self.seen.add(threading.current_thread().name)


@pytest.fixture
def threads() -> Threads:
    """What the couriers of a test dial by."""
    return Threads()


@pytest.fixture
def couriers(threads: Threads) -> Iterator[Couriers]:
    """Two of them."""
    made = Couriers(lambda: TokenCourier(slots=64, refuse=threads.refuse))
    made.resize(2, cpu_share=1.0)
    yield made
    made.close()


def _order(url: str, number: int) -> Order:
    return Order(token=number, url=url, headers=["expect:"], body=b"{}", timeout=LONG)


def _all_back(couriers: Couriers) -> list[Return]:
    found: list[Return] = []
    deadline = clock.monotonic() + LONG
    while couriers.in_flight:
        assert clock.monotonic() < deadline
        found += couriers.poll(1.0)[0]
    return found


def _shared(couriers: Couriers, rogues: list[Rogue]) -> bool:
    """Whether these receivers fall to more than one courier."""
    return len({couriers._chosen(rogue.url) for rogue in rogues}) > 1


def _receivers(rogues: Rogues, couriers: Couriers) -> list[Rogue]:
    found = [rogues.serve(answers) for _ in range(_RECEIVERS)]
    while not _shared(couriers, found):
        found.append(rogues.serve(answers))
    return found


def test_all_come_back_to_the_driving_thread(couriers: Couriers, threads: Threads, rogues: Rogues) -> None:
    receivers = _receivers(rogues, couriers)
    for number in range(40):
        couriers.submit(_order(receivers[number % len(receivers)].url, number))
    assert couriers.in_flight == 40
    returns = _all_back(couriers)
    assert sorted(int(str(r.order.token)) for r in returns) == list(range(40))
    assert {r.exchange.status for r in returns} == {200}
    assert threads.seen == {threading.current_thread().name, "courier beside"}
    uses = couriers.take_uses()
    assert sum(use.exchanges for use in uses.values()) == 40
    assert set(uses) == {receiver.url for receiver in receivers}


def test_a_host_keeps_its_courier_and_its_connections(couriers: Couriers, rogues: Rogues) -> None:
    receivers = _receivers(rogues, couriers)
    for number in range(5):
        for receiver in receivers:
            couriers.submit(_order(f"{receiver.url}{number}", number))
        assert len(_all_back(couriers)) == len(receivers)
    assert [receiver.connections for receiver in receivers] == [1] * len(receivers)


def test_one_that_goes_finishes_what_it_has(couriers: Couriers, rogues: Rogues) -> None:
    gate = threading.Event()

    async def waits(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.to_thread(gate.wait, LONG)
            await peer.send(OK)

    held = [rogues.serve(waits) for _ in range(_RECEIVERS)]
    while not _shared(couriers, held):
        held.append(rogues.serve(waits))
    for number, receiver in enumerate(held):
        couriers.submit(_order(receiver.url, number))
    couriers.resize(1, cpu_share=1.0)
    assert couriers.count == 1
    receiver = rogues.serve(answers)
    couriers.submit(_order(receiver.url, 99))
    found: list[Return] = []
    while not found:
        found += couriers.poll(1.0)[0]
    assert [r.order.token for r in found] == [99]
    gate.set()
    returns = _all_back(couriers)
    assert {r.exchange.status for r in returns} == {200}
    assert len(returns) == len(held)


def test_what_libcurl_does_not_take_comes_back_with_a_reason(couriers: Couriers, rogues: Rogues) -> None:
    receivers = _receivers(rogues, couriers)
    beside = next(r for r in receivers if couriers._chosen(r.url) is not None)
    couriers.submit(_order(beside.url + "\u2603", 1))
    couriers.submit(_order(beside.url, 2))
    returns = {r.order.token: r.exchange for r in _all_back(couriers)}
    assert str(returns[1].failure).startswith("internal_error")
    assert returns[2].status == 200


def test_what_is_broken_off_is_given_back(couriers: Couriers, rogues: Rogues) -> None:
    async def never(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    silent = [rogues.serve(never) for _ in range(_RECEIVERS)]
    for number, receiver in enumerate(silent):
        couriers.submit(_order(receiver.url, number))
    assert sorted(int(str(o.token)) for o in couriers.abandon()) == list(range(_RECEIVERS))
    assert couriers.in_flight == 0


def test_a_worker_changes_their_number_at_work_and_loses_no_lease(storage: Storage, rogues: Rogues) -> None:
    receivers = [rogues.serve(answers) for _ in range(_RECEIVERS)]
    with Stage(storage) as stage:
        endpoints = [stage.endpoint(receiver.url) for receiver in receivers]
        deliveries: list[str] = []
        for couriers in (3, 1, 2, 1):
            deliveries += [each for endpoint in endpoints for each in stage.publish(endpoint, 5)]
            config = ParallelismConfig(couriers=couriers)
            changed = asyncio.run(stage.processor.implement_parallel_processing(config))
            assert changed.after.couriers == couriers
        stage.until_state(deliveries, State.DELIVERED)
        details = [stage.detail(each) for each in deliveries]
    assert {detail.attempt_count for detail in details} == {1}
    assert sum(len(receiver.requests) for receiver in receivers) == len(deliveries)


def test_stopping_a_worker_with_several_gives_back_what_does_not_finish(
    storage: Storage, rogues: Rogues
) -> None:
    async def never(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    silent = [rogues.serve(never) for _ in range(_RECEIVERS)]
    with Stage(storage, grace=0.2) as stage:
        asyncio.run(stage.processor.implement_parallel_processing(ParallelismConfig(couriers=2)))
        deliveries = [d for receiver in silent for d in stage.publish(stage.endpoint(receiver.url))]
        stage.until(lambda: stage.processor.in_flight == len(silent))
        stage.stop()
        assert {stage.detail(each).state for each in deliveries} == {"ready"}


# ── the throttle ────────────────────────────────────────────────────────────────────────────────────────────


def test_whoever_uses_no_more_than_its_share_never_rests() -> None:
    throttle = Throttle(0.5)
    assert [throttle.rest(n * 0.1, n * 0.04) for n in range(20)] == [0.0] * 20


def test_what_was_used_beyond_the_share_is_rested() -> None:
    throttle = Throttle(0.25)
    throttle.rest(0.0, 0.0)
    assert throttle.rest(0.0, BURST_SECONDS + 0.01) == pytest.approx(0.04)
    assert throttle.rest(0.04, BURST_SECONDS + 0.01) == pytest.approx(0.0, abs=1e-9)
    assert throttle.rest(0.04, 100.0) == LONGEST_PAUSE
    assert Throttle(1.0).rest(0.0, 100.0) == 0.0


def test_a_throttled_worker_keeps_to_its_share(storage: Storage, rogues: Rogues) -> None:
    """However quick the machine: its own clock of CPU against the time that went by, with work beyond its share."""
    share, each, times = 0.25, 0.02, 20
    allowance = 0.1  # CPU of one turn, which is looked at only after it
    rogue = rogues.serve(answers)
    used: list[tuple[float, float]] = []

    def work() -> None:
        used.append((clock.monotonic(), clock.cpu()))
        while clock.cpu() < used[-1][1] + each:
            pass

    async def ask() -> None:
        await stage.processor.implement_parallel_processing(ParallelismConfig(cpu_share=share))
        for _ in range(times):
            await stage.processor._there(work)

    with Stage(storage) as stage:
        endpoint = stage.endpoint(rogue.url)
        asyncio.run(ask())
        stage.until_state(stage.publish(endpoint, 5), State.DELIVERED)
    (began, before), (ended, after) = used[0], used[-1]
    assert after - before >= (times - 1) * each
    assert after - before <= share * (ended - began) + BURST_SECONDS + allowance
