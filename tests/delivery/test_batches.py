"""The optimizer's batch is the worker's loop: what it claims it sees through, in the running worker and alone."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from contract.making import counted
from delivery.stage import LONG, Stage
from ringbearer import clock
from ringbearer.domain.deliveries import Lease, Outcome, State
from ringbearer.domain.endpoints import RateLimit
from ringbearer.misbehaving import OK, Rogue, Rogues, never_answers, says
from ringbearer.queue.base import Demand, Queue
from ringbearer.queue.database import DatabaseQueue
from ringbearer.queue.optimizer import WebhookQueueOptimizer
from ringbearer.queue.plan import QueuePlan
from ringbearer.queue.results import BatchProcessingResult
from ringbearer.queue.steering import QUEUE, Steering
from ringbearer.queue.tuning import QueueConfiguration
from ringbearer.storage.base import Storage
from ringbearer.storage.search import Filter
from tools import turn


@pytest.fixture
def receiver() -> Iterator[Rogue]:
    """Answers 200 to everything."""
    with Rogues() as running:
        yield running.serve(says(OK, close=False))


def optimizer_of(stage: Stage) -> WebhookQueueOptimizer:
    storage = stage.storage
    return WebhookQueueOptimizer(
        queue=stage.queue,
        ledger=storage.ledger,
        nodes=storage.nodes,
        steering=Steering(plans=storage.plans, ledger=storage.ledger, telemetry=stage.telemetry),
        telemetry=stage.telemetry,
        loop=stage.worker,
    )


def test_alone_a_batch_is_claimed_up_to_its_size_and_seen_through(storage: Storage, receiver: Rogue) -> None:
    stage = Stage(storage)
    ids = stage.publish(stage.endpoint(receiver.url), 30)

    async def work() -> None:
        async with optimizer_of(stage) as optimizer:
            first = await optimizer.batch_process_webhooks(20, LONG)
            assert (first.claimed, first.settled, first.filled) == (20, 20, True)
            assert first.states == {"delivered": 20}
            assert counted(storage) == {(2, State.READY): 10}
            rest = await optimizer.batch_process_webhooks(20, 0.3)
            assert (rest.claimed, rest.settled, rest.filled) == (10, 10, False)
            assert rest.measure.service is not None
            nothing = await optimizer.batch_process_webhooks(20, 0.05)
            assert (nothing.claimed, nothing.settled, nothing.filled) == (0, 0, False)

    asyncio.run(work())
    stage.close()
    assert storage.history.count(Filter(state=State.DELIVERED)) == len(ids) == 30


def test_in_a_running_worker_a_batch_is_what_the_worker_settles(storage: Storage, receiver: Rogue) -> None:
    with Stage(storage) as stage:
        optimizer = optimizer_of(stage)
        optimizer._running = True  # as `run` says, on whose thread the stage's worker is
        endpoint = stage.endpoint(receiver.url)

        async def watch() -> BatchProcessingResult:
            watching = asyncio.create_task(optimizer.batch_process_webhooks(25, LONG))
            await turn()
            await asyncio.to_thread(stage.publish, endpoint, 25)
            return await watching

        result = asyncio.run(watch())
        assert (result.settled, result.filled) == (25, True)


def test_who_watches_for_a_batch_is_let_go_when_the_worker_ends(storage: Storage, receiver: Rogue) -> None:
    with Stage(storage) as stage:
        optimizer = optimizer_of(stage)
        optimizer._running = True

        async def watch() -> BatchProcessingResult:
            watching = asyncio.create_task(optimizer.batch_process_webhooks(25, 10 * LONG))
            await turn()
            await asyncio.to_thread(stage.stop)
            return await watching

        result = asyncio.run(watch())
        assert (result.settled, result.filled) == (0, False)


def test_the_optimizer_fits_the_plan_to_what_its_worker_measured(storage: Storage, receiver: Rogue) -> None:
    with Stage(storage) as stage:
        optimizer = optimizer_of(stage)
        endpoint = stage.endpoint(receiver.url)
        silent = asyncio.run(optimizer.optimize_queue_processing())
        assert (silent.changed, silent.situation) == (False, None)
        stage.until_state(stage.publish(endpoint, 100), State.DELIVERED)
        larger = QueuePlan(batch_size=2_000, prefetch=0.9)
        optimizer.steering.store(QUEUE, larger, now=clock.now(), reason="there was more to do")
        fitted = asyncio.run(optimizer.optimize_queue_processing(QueueConfiguration(utilisation=0.5)))
        assert fitted.situation is not None
        assert fitted.situation.arrival_rate > 1
        assert fitted.changed
        assert fitted.after.batch_size < 2_000
        assert fitted.reasons.keys() <= {"batch_size", "prefetch", "max_wait", "weights"}
        assert optimizer.steering.base == fitted.after
        again = asyncio.run(optimizer.optimize_queue_processing(damped=True))
        assert not again.changed  # once is not often enough


class Recording(DatabaseQueue):
    """Remembers how many deliveries each claim asked for, and for which lanes."""

    asked: list[list[int]]

    @classmethod
    def around(cls, queue: Queue) -> "Recording":
        assert isinstance(queue, DatabaseQueue)
        made = cls(queue._ledger, queue._bell)
        made.asked = []
        return made

    def claim(self, demand: Demand) -> list[Lease]:
        self.asked.append(list(demand.quotas))
        return super().claim(demand)

    def settle_and_claim(
        self, outcomes: Sequence[Outcome], demand: Demand, *, now: int
    ) -> tuple[set[str], list[Lease]]:
        self.asked.append(list(demand.quotas))
        return super().settle_and_claim(outcomes, demand, now=now)


def test_a_worker_follows_the_plan_while_it_runs(storage: Storage, receiver: Rogue) -> None:
    plans = [QueuePlan()]
    with Stage(storage, slots=400, plan=lambda: plans[-1], queue=Recording.around) as stage:
        assert isinstance(stage.queue, Recording)
        endpoint = stage.endpoint(receiver.url)
        stage.until_state(stage.publish(endpoint, 10), State.DELIVERED)
        assert stage.queue.asked[0] == [107, 53, 27, 13]  # half of the slots, 8 : 4 : 2 : 1
        plans.append(QueuePlan(weights=(1, 1, 1, 1), batch_size=60, prefetch=1.0))
        stage.until_state(stage.publish(endpoint, 10), State.DELIVERED)
        assert stage.queue.asked[-1] == [15, 15, 15, 15]


@pytest.mark.parametrize("limit", ["rate", "concurrency"])
def test_what_stands_behind_a_full_endpoint_leaves_the_way(
    storage: Storage, receiver: Rogue, limit: str
) -> None:
    given: dict[str, object] = {"rate_limit": RateLimit(requests=1, period=60)}
    if limit == "concurrency":
        given = {"max_concurrency": 1}
    with Rogues() as rogues, Stage(storage, slots=400, grace=0.1) as stage:
        slow = rogues.serve(never_answers)
        full = stage.endpoint(slow.url if limit == "concurrency" else receiver.url, **given)
        stage.publish(full, 600)
        stage.until(lambda: len(stage.worker.crowded._parks) > 0)
        optimizer = optimizer_of(stage)

        def parked() -> bool:
            optimizer.park_crowded(now=clock.now())
            ready = storage.ledger.depth()
            return sum(d.count for d in ready if d.state is State.READY) == 0

        stage.until(parked)
        free = stage.endpoint(receiver.url)
        stage.until_state(stage.publish(free, 5), State.DELIVERED)
        assert "ep_" not in repr(stage.worker.crowded)
        stage.until(lambda: storage.history.count(Filter(state=State.SCHEDULED)) > 500)


def test_while_nothing_finds_room_little_is_claimed_and_then_all_again(
    storage: Storage, receiver: Rogue
) -> None:
    plan = QueuePlan()
    with (
        Rogues() as rogues,
        Stage(storage, slots=400, grace=0.1, plan=lambda: plan, queue=Recording.around) as stage,
    ):
        assert isinstance(stage.queue, Recording)
        asked = stage.queue.asked
        stage.publish(stage.endpoint(rogues.serve(never_answers).url, max_concurrency=1), 600)
        stage.until(lambda: sum(asked[-1]) == 32)
        little = len(asked)
        stage.until_state(stage.publish(stage.endpoint(receiver.url), 300), State.DELIVERED)
        assert max(sum(quotas) for quotas in asked[little:]) > 32
