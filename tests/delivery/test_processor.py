"""What can be asked of a processor: each method acts, and tells what it found, decided and changed."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from contract.making import add_endpoint, admission
from delivery.stage import LONG, Holding, Stage
from ringbearer import clock
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.delivery import tuning
from ringbearer.delivery.processor import HighPerformanceWebhookProcessor, Processes
from ringbearer.delivery.tuning import BatchPoint, HostUse, ParallelismConfig
from ringbearer.domain.deliveries import Lease, Outcome, State
from ringbearer.domain.endpoints import RateLimit
from ringbearer.errors import ConfigurationError, InvalidInput, StoreUnavailable
from ringbearer.limits.base import Limit, RateLimiter
from ringbearer.limits.breakers import Breakers
from ringbearer.limits.database import DatabaseRateLimiter
from ringbearer.misbehaving import OK, Peer, Rogues, answers
from ringbearer.storage.base import Storage
from ringbearer.telemetry import Telemetry
from tools import migrated_sqlite

T = TypeVar("T")


@pytest.fixture(params=["sqlite"])
def store_url(tmp_path: Path) -> str:
    """One database: nothing here depends on its kind."""
    return migrated_sqlite(tmp_path / "store.db")


def _run(work: Coroutine[None, None, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, LONG))


def _processor(
    storage: Storage,
    *,
    slots: int = 64,
    breakers: Breakers | None = None,
    limiter: RateLimiter | None = None,
    processes: Processes | None = None,
) -> HighPerformanceWebhookProcessor:
    telemetry = Telemetry()
    return HighPerformanceWebhookProcessor(
        cache=WebhookCacheManager(catalog=storage.catalog, telemetry=telemetry),
        limiter=limiter or DatabaseRateLimiter(storage.database),
        breakers=breakers or Breakers(table=storage.breakers, telemetry=telemetry),
        telemetry=telemetry,
        refuse=lambda _address: None,
        slots=slots,
        processes=processes,
    )


def _leases(storage: Storage, endpoints: list[str], each: int) -> list[Lease]:
    storage.ledger.accept([admission(endpoint) for endpoint in endpoints for _ in range(each)])
    quotas = [len(endpoints) * each] * 4
    return storage.ledger.claim(quotas, worker="w", until=clock.now() + 60 * clock.SECOND)


def test_a_batch_is_sent_and_its_outcomes_come_as_they_are(storage: Storage, rogues: Rogues) -> None:
    good, gone = rogues.serve(answers), rogues.serve(_refuses)
    ids = [add_endpoint(storage, "studio", url=url).id for url in (good.url, gone.url)]
    leases = _leases(storage, ids, 8)
    heard: list[str] = []

    async def work() -> tuning.BatchProcessingResult:
        async with _processor(storage, slots=4) as processor:
            return await processor.process_batch_deliveries(
                leases, heard=lambda outcome: heard.append(outcome.lease.delivery_id)
            )

    result = _run(work())
    assert sorted(heard) == sorted(lease.delivery_id for lease in leases)
    assert (result.delivered, result.retried + result.put_back, result.dead) == (8, 8, 0)
    assert 1 <= result.most_in_flight <= 4
    assert len(result.outcomes) == 16


def test_a_batch_waits_for_nobody_who_hangs_but_those_for_whom_it_is(
    storage: Storage, rogues: Rogues
) -> None:
    """I7: of the slots, one endpoint holds half at most, and a tenth while others need them; nobody else waits for it."""
    hanging = Holding()
    hung, good = rogues.serve(hanging.behave), rogues.serve(answers)
    stuck, *quick = (
        add_endpoint(storage, "studio", url=url, timeout=LONG).id
        for url in (hung.url, *(f"{good.url}{n}" for n in range(4)))
    )
    leases = _leases(storage, [stuck] * 4 + quick, 10)
    came: list[str] = []

    def heard(outcome: Outcome) -> None:
        came.append(outcome.lease.endpoint_id)
        if len(came) == 40:  # all of the others'
            assert hanging.answered == 0
            hanging.release()

    async def work() -> tuning.BatchProcessingResult:
        async with _processor(storage, slots=20) as processor:
            return await processor.process_batch_deliveries(leases, heard=heard)

    result = _run(work())
    assert result.delivered == 80
    assert set(came[:40]) == set(quick)
    assert 1 <= hanging.most <= 10


async def _refuses(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(b"HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n")


def test_nobody_waits_for_a_processor_that_nobody_drives(storage: Storage) -> None:
    with (
        contextlib.closing(_processor(storage)) as processor,
        pytest.raises(ConfigurationError, match="nobody drives"),
    ):
        asyncio.run(processor.process_batch_deliveries([]))


def test_it_takes_another_shape_while_a_worker_drives_it(storage: Storage, rogues: Rogues) -> None:
    gate = threading.Event()

    async def waits(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.to_thread(gate.wait, LONG)
            await peer.send(OK)

    rogue = rogues.serve(waits)
    with Stage(storage, slots=64) as stage:
        endpoint = stage.endpoint(rogue.url)
        changed = _run(
            stage.processor.implement_parallel_processing(ParallelismConfig(slots=4, batch=2, cpu_share=0.5))
        )
        assert (changed.before.slots, changed.after.slots, changed.after.cpu_share) == (64, 4, 0.5)
        deliveries = stage.publish(endpoint, 12)
        stage.until(lambda: stage.worker.held >= 2)
        assert stage.worker.held <= 4
        gate.set()
        stage.until_state(deliveries, State.DELIVERED)


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        (ParallelismConfig(slots=0), "/slots"),
        (ParallelismConfig(batch=-1), "/batch"),
        (ParallelismConfig(cpu_share=2.0), "/cpu_share"),
    ],
)
def test_an_impossible_shape_is_refused(config: ParallelismConfig, pointer: str, storage: Storage) -> None:
    with contextlib.closing(_processor(storage)) as processor, pytest.raises(InvalidInput) as refused:
        asyncio.run(processor.implement_parallel_processing(config))
    assert [place for place, _ in refused.value.problems] == [pointer]


def test_how_many_processes_there_are_is_for_who_starts_them(storage: Storage) -> None:
    asked: list[int | None] = []

    async def run(count: int | None) -> tuple[int | None, int | None]:
        asked.append(count)
        return 1, count

    alone = _processor(storage)
    with contextlib.closing(alone), pytest.raises(InvalidInput, match="cannot work like that") as refused:
        asyncio.run(alone.implement_parallel_processing(ParallelismConfig(processes=2)))
    assert [place for place, _ in refused.value.problems] == ["/processes"]
    with contextlib.closing(_processor(storage, processes=run)) as processor:
        done = asyncio.run(processor.implement_parallel_processing(ParallelismConfig(processes=2)))
        assert (done.processes_before, done.processes_after) == (1, 2)
        with pytest.raises(InvalidInput):
            asyncio.run(processor.implement_parallel_processing(ParallelismConfig(processes=-1)))
    assert asked == [2]


def test_the_smallest_batch_that_reaches_the_target(storage: Storage, rogues: Rogues) -> None:
    rogue = rogues.serve(answers)
    with Stage(storage) as stage:
        endpoints = [stage.endpoint(f"{rogue.url}{n}") for n in range(8)]
        stop = threading.Event()

        def publish() -> None:
            while not stop.is_set():
                for endpoint in endpoints:
                    stage.publish(endpoint, 5)
                stop.wait(0.05)

        traffic = threading.Thread(target=publish)
        traffic.start()
        try:
            easy = _run(stage.processor.optimize_batch_size(0.5, sizes=(8, 64), seconds=0.5))
            hard = _run(stage.processor.optimize_batch_size(1e9, sizes=(8, 64), seconds=0.3))
        finally:
            stop.set()
            traffic.join()
        assert (easy.after, easy.reached, len(easy.curve)) == (8, True, 1)
        assert (hard.reached, [point.size for point in hard.curve]) == (False, [8, 64])
        assert stage.processor.batch == hard.after
        assert easy.curve[0].deliveries > 0


def test_connections_follow_the_traffic(storage: Storage, rogues: Rogues) -> None:
    rogue = rogues.serve(answers)
    with Stage(storage) as stage:
        endpoint = stage.endpoint(rogue.url)
        for _ in range(5):
            stage.until_state(stage.publish(endpoint, 4), State.DELIVERED)
        found = _run(stage.processor.optimize_http_connections())
        again = _run(stage.processor.optimize_http_connections())
    assert found.exchanges == 20
    assert found.handshakes_saved == 20 - rogue.connections
    assert found.reuse_ratio == pytest.approx(1 - rogue.connections / 20)
    assert [host.host for host in found.busiest] == [f"127.0.0.1:{rogue.port}"]
    assert again.exchanges == 0


def test_a_circuits_first_pause_follows_how_long_endpoints_are_away(storage: Storage) -> None:
    breakers = Breakers(table=storage.breakers, telemetry=Telemetry())
    with contextlib.closing(_processor(storage, breakers=breakers)) as processor:
        too_few = asyncio.run(processor.optimize_retry_backoff_strategies())
        assert (too_few.pause_before, too_few.pause_after) == (30.0, 30.0)
        breakers.recoveries.extend([8.0, 9.0, 10.0, 11.0, 90.0])
        learnt = asyncio.run(processor.optimize_retry_backoff_strategies())
    assert (learnt.pause_after, learnt.median_recovery) == (10.0, 10.0)
    assert breakers.policy.pause == 10.0


def test_near_the_memory_cap_nothing_is_claimed(storage: Storage, rogues: Rogues) -> None:
    rogue = rogues.serve(answers)
    with Stage(storage, memory_limit=1024 * 1024) as stage:  # far less than any process has
        endpoint = stage.endpoint(rogue.url)
        full = _run(stage.processor.optimize_memory_usage())
        assert (full.appetite, full.limit) == (0.0, 1024 * 1024)
        waiting = stage.publish(endpoint, 5)
        with Stage(storage) as other:
            other.queue.push(5)
            other.until_state(waiting, State.DELIVERED)
        assert stage.worker.held == 0


def test_what_is_not_in_use_is_let_go(storage: Storage, rogues: Rogues) -> None:
    rogue = rogues.serve(answers)
    with Stage(storage) as stage:
        endpoint = stage.endpoint(rogue.url)
        stage.until_state(stage.publish(endpoint, 3), State.DELIVERED)
        found = _run(stage.processor.optimize_memory_usage())
        assert found.before > 0
        assert found.entries_dropped == 1
        stage.until_state(stage.publish(endpoint, 3), State.DELIVERED)


def test_a_profile_of_the_sending_thread(storage: Storage, rogues: Rogues) -> None:
    rogue = rogues.serve(answers)
    with Stage(storage) as stage:
        endpoint = stage.endpoint(rogue.url)
        stage.until_state(stage.publish(endpoint, 3), State.DELIVERED)
        found = _run(stage.processor.profile_cpu_usage(0.3))
    assert found.samples > 0
    assert sum(found.by_module.values()) == pytest.approx(1.0)
    assert any("ringbearer.delivery" in spot.function for spot in found.hottest)
    assert 0.0 <= found.idle <= 1.0


# ── rules ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("memory", "limit", "expected"),
    [(10, 0, 1.0), (79, 100, 1.0), (80, 100, 1.0), (95, 100, 0.0), (200, 100, 0.0)],
)
def test_appetite(memory: int, limit: int, expected: float) -> None:
    assert tuning.appetite(memory, limit) == pytest.approx(expected)


def test_appetite_falls_between_its_ends() -> None:
    falling = [tuning.appetite(n, 1_000) for n in range(800, 951, 10)]
    assert falling == sorted(falling, reverse=True)
    assert 0.0 < tuning.appetite(900, 1_000) < 1.0


def test_slots_are_no_more_than_files() -> None:
    assert tuning.affordable_slots(10_000, 65_536) == 10_000
    assert tuning.affordable_slots(10_000, 1_024) == 824
    assert tuning.affordable_slots(10_000, 100) == 1


def test_connections_are_rate_times_time_with_headroom() -> None:
    assert tuning.connections_needed(HostUse(exchanges=100, busy=20.0), 10.0) == 3
    assert tuning.connections_needed(HostUse(exchanges=100, http2=100, busy=20.0), 10.0) == 1
    assert tuning.connections_needed(HostUse(), 10.0) == 0


def _points(*given: tuple[int, float]) -> list[BatchPoint]:
    return [BatchPoint(size=size, throughput=rate, deliveries=1) for size, rate in given]


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (_points((32, 50.0), (64, 120.0), (128, 200.0)), (64, True)),
        (_points((32, 50.0), (64, 90.0), (128, 91.0)), (64, False)),
        (_points((32, 10.0)), (32, False)),
    ],
)
def test_the_smallest_batch(curve: list[BatchPoint], expected: tuple[int, bool]) -> None:
    assert tuning.smallest_batch(curve, 100.0) == expected


class Away(RateLimiter):
    """A limiter whose store does not answer."""

    def take(self, wanted: Sequence[Sequence[Limit]], *, now: int) -> list[int]:
        raise StoreUnavailable("away")


def test_what_is_given_back_with_its_batch_waits_for_no_window_any_more(storage: Storage) -> None:
    """Else it would go out once more when the window has room, while another worker has it."""
    limited = add_endpoint(
        storage, "studio", max_concurrency=1, rate_limit=RateLimit(requests=100, period=1.0)
    )
    leases = _leases(storage, [limited.id], 4)

    processor = _processor(storage, limiter=Away())
    try:
        with pytest.raises(StoreUnavailable):
            processor.begin(leases)
        assert processor.put_down() == []
    finally:
        processor.close()
