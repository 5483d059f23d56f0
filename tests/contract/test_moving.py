"""A delivery moves only as the state machine says, keeps its order, and is counted where it stands."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from contract.making import (
    NORMAL,
    add_endpoint,
    admission,
    at_once,
    claim,
    counted,
    delivery_of,
    job_states,
    one,
    outcome,
    query,
    rows,
    settle,
    shown,
)
from ringbearer import clock
from ringbearer.domain.deliveries import MOVES, State
from ringbearer.domain.events import LANES
from ringbearer.storage.base import Storage
from ringbearer.storage.ledger import Accepted, Admission

FAR = clock.now() + 3_600 * clock.SECOND


def accept(storage: Storage, *made: Admission) -> list[Accepted]:
    return storage.ledger.accept(list(made))


def states(storage: Storage, *made: Admission) -> list[State]:
    return [shown(storage, delivery_of(a)) for a in made]


# ── retry, give up, finish ──────────────────────────────────────────────────────────────────────────────────


def test_a_retry_is_scheduled_then_staged_then_claimed_as_the_next_attempt(storage: Storage) -> None:
    accept(storage, made := admission())
    (lease,) = claim(storage)
    storage.ledger.settle([outcome(lease, State.SCHEDULED, due_at=1_000)], now=clock.now())
    assert states(storage, made) == [State.SCHEDULED]
    assert storage.ledger.next_due() == 1_000
    assert storage.ledger.stage(now=999, limit=10) == 0
    assert storage.ledger.stage(now=1_000, limit=10) == 1
    assert storage.ledger.next_due() is None
    assert storage.ledger.oldest() == {NORMAL: 1_000}
    (again,) = claim(storage)
    assert (again.attempt, again.attempt_base) == (2, 0)
    assert counted(storage) == rows(storage)


def test_what_was_not_sent_gives_its_attempt_back(storage: Storage) -> None:
    accept(storage, admission())
    (lease,) = claim(storage)
    unsent = outcome(lease, State.SCHEDULED, due_at=1)
    unsent.record = None
    storage.ledger.settle([unsent], now=clock.now())
    storage.ledger.stage(now=1, limit=1)
    (again,) = claim(storage)
    assert again.attempt == 1
    assert storage.history.get_delivery(lease.delivery_id).attempts == []


def test_staging_keeps_to_its_limit_and_takes_the_first_due(storage: Storage) -> None:
    made = [admission(deliver_at=due) for due in (30, 10, 20)]
    accept(storage, *made)
    assert storage.ledger.stage(now=100, limit=2) == 2
    assert states(storage, *made) == [State.SCHEDULED, State.READY, State.READY]
    assert storage.ledger.next_due() == 30


def test_threads_that_stage_at_once_stage_each_delivery_once(storage: Storage) -> None:
    accept(storage, *(admission(deliver_at=1) for _ in range(60)))

    def stage(_: int) -> int:
        total = 0
        while moved := storage.ledger.stage(now=1, limit=7):
            total += moved
        return total

    at_once(3, stage)
    assert storage.ledger.stage(now=1, limit=100) == 0
    assert counted(storage) == rows(storage) == {(NORMAL, State.READY): 60}


@pytest.mark.parametrize("state", [State.DELIVERED, State.CANCELLED, State.DEAD])
def test_an_end_is_written_down_with_its_reason_time_and_attempts(storage: Storage, state: State) -> None:
    accept(storage, made := admission())
    (lease,) = claim(storage)
    now = clock.now()
    assert storage.ledger.settle([outcome(lease, state)], now=now) == {lease.delivery_id}
    detail = storage.history.get_delivery(delivery_of(made))
    assert (detail.state, detail.reason) == (state, "for a reason")
    assert detail.finished_at == clock.to_datetime(now)
    assert detail.attempt_count == len(detail.attempts) == (0 if state is State.CANCELLED else 1)
    assert counted(storage) == rows(storage) == ({(NORMAL, State.DEAD): 1} if state is State.DEAD else {})


# ── replay ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", [State.DEAD, State.DELIVERED])
def test_a_replay_starts_a_fresh_schedule_and_keeps_the_attempts(storage: Storage, state: State) -> None:
    accept(storage, made := admission())
    settle(storage, claim(storage), state)
    now = clock.now()
    assert storage.ledger.replay([delivery_of(made)], now=now) == 1
    assert storage.ledger.replay([delivery_of(made)], now=now) == 0  # it is on its way already
    detail = storage.history.get_delivery(delivery_of(made))
    assert (detail.state, detail.finished_at, detail.reason) == (State.READY, None, None)
    (lease,) = claim(storage)
    assert (lease.attempt, lease.attempt_base) == (2, 1)
    settle(storage, [lease])
    assert [a.number for a in storage.history.get_delivery(delivery_of(made)).attempts] == [1, 2]
    assert counted(storage) == rows(storage) == {}


def test_a_replay_into_another_lane_moves_its_count_along(storage: Storage) -> None:
    dead, delivered, scheduled = admission(), admission(), admission(deliver_at=FAR)
    accept(storage, dead, delivered, scheduled)
    first, second = claim(storage)
    settle(storage, [first], State.DEAD)
    settle(storage, [second])
    ids = [delivery_of(a) for a in (dead, delivered, scheduled)]
    bulk = LANES.index("bulk")
    assert storage.ledger.replay(ids, now=clock.now(), lane=bulk) == 3
    assert counted(storage) == rows(storage) == {(bulk, State.READY): 3}
    assert {x.lane for x in claim(storage)} == {bulk}


def test_a_replay_leaves_alone_what_is_under_way(storage: Storage) -> None:
    ready, leased, held, cancelled = (
        admission(),
        admission(lane=0),
        admission(enabled=False),
        admission(lane=0),
    )
    accept(storage, ready, leased, held, cancelled)
    leases = storage.ledger.claim([2, 0, 0, 0], worker="w", until=FAR)
    settle(storage, [x for x in leases if x.event_id == cancelled.event_id], State.CANCELLED)
    everything = [delivery_of(a) for a in (ready, leased, held, cancelled)]
    assert storage.ledger.replay([*everything, "dlv_unknown"], now=clock.now()) == 0
    assert storage.ledger.replay([], now=clock.now()) == 0
    assert states(storage, ready, leased, held, cancelled) == [
        State.READY,
        State.LEASED,
        State.HELD,
        State.CANCELLED,
    ]
    assert counted(storage) == rows(storage)


def test_replays_of_the_same_deliveries_at_once_queue_each_one_once(storage: Storage) -> None:
    accept(storage, *(admission() for _ in range(40)))
    leases = claim(storage)
    settle(storage, leases[:20], State.DEAD)
    settle(storage, leases[20:])
    ids = [x.delivery_id for x in leases]
    assert sum(at_once(3, lambda _: storage.ledger.replay(ids, now=clock.now()))) == 40
    assert storage.ledger.replay(ids, now=clock.now()) == 0
    assert counted(storage) == rows(storage) == {(NORMAL, State.READY): 40}


def test_a_dead_letter_that_left_the_queue_stays_dead(storage: Storage) -> None:
    """Between the end of its retention and its removal a dead letter has no job that could be revived."""
    accept(storage, made := admission())
    settle(storage, claim(storage), State.DEAD)
    with storage.database.write() as connection:
        storage.retention._forget_dead(connection, FAR)
    assert storage.ledger.replay([delivery_of(made)], now=clock.now()) == 0
    assert states(storage, made) == [State.DEAD]
    assert counted(storage) == rows(storage) == {}


def test_a_dead_letter_that_is_just_revived_is_not_removed_with_the_old(storage: Storage) -> None:
    """On SQLite there is one writer at a time."""
    if not storage.database.skip_locked:
        return
    accept(storage, admission())
    settle(storage, claim(storage), State.DEAD)
    with storage.database.write() as replaying, storage.database.write() as pruning:
        replaying.execute(text("UPDATE jobs SET state = 'ready'"))
        pruning.execute(text("SET LOCAL lock_timeout = '5s'"))
        assert storage.retention._forget_dead(pruning, FAR) == 0
    assert rows(storage) == {(NORMAL, State.READY): 1}


# ── disabled and deleted endpoints ──────────────────────────────────────────────────────────────────────────


def test_disabling_holds_and_enabling_lets_go(storage: Storage) -> None:
    target = add_endpoint(storage).id
    ready, scheduled, other = admission(target), admission(target, deliver_at=FAR), admission()
    accept(storage, ready, scheduled, other)
    since = clock.now()
    assert not storage.ledger.lately_closed(since=since)
    storage.catalog.set_enabled([target], enabled=False, reason="maintenance")
    assert storage.ledger.lately_closed(since=since)
    assert storage.ledger.unhold(limit=10) == 0
    assert storage.ledger.hold(since=since, limit=10) == 2
    assert states(storage, ready, scheduled, other) == [State.HELD, State.HELD, State.READY]
    assert counted(storage) == rows(storage)
    storage.catalog.set_enabled([target], enabled=True)
    assert storage.ledger.hold(since=since, limit=10) == 0
    assert storage.ledger.unhold(limit=10) == 2
    assert states(storage, ready, scheduled, other) == [State.READY, State.SCHEDULED, State.READY]
    assert storage.ledger.next_due() == FAR  # holding is no reason to be early
    assert counted(storage) == rows(storage)


def test_what_was_accepted_for_a_disabled_endpoint_keeps_its_time(storage: Storage) -> None:
    target = add_endpoint(storage).id
    accept(storage, made := admission(target, enabled=False, deliver_at=FAR))
    assert states(storage, made) == [State.HELD]
    assert storage.ledger.unhold(limit=10) == 1
    assert storage.ledger.stage(now=FAR - 1, limit=10) == 0
    assert storage.ledger.stage(now=FAR, limit=10) == 1


def test_holding_and_letting_go_keep_to_their_limits(storage: Storage) -> None:
    target = add_endpoint(storage).id
    accept(storage, *(admission(target) for _ in range(5)))
    storage.catalog.set_enabled([target], enabled=False)
    assert [storage.ledger.hold(since=0, limit=2) for _ in range(4)] == [2, 2, 1, 0]
    storage.catalog.set_enabled([target], enabled=True)
    assert [storage.ledger.unhold(limit=2) for _ in range(4)] == [2, 2, 1, 0]


def test_a_worker_may_hold_what_it_claimed(storage: Storage) -> None:
    target = add_endpoint(storage, enabled=False).id
    accept(storage, made := admission(target))
    settle(storage, claim(storage), State.HELD)
    assert states(storage, made) == [State.HELD]
    storage.catalog.set_enabled([target], enabled=True)
    storage.ledger.unhold(limit=10)
    assert [x.attempt for x in claim(storage)] == [1]


def test_deleting_cancels_what_is_unfinished_and_not_leased(storage: Storage) -> None:
    target = add_endpoint(storage)
    leased = admission(target.id, lane=0)
    others = [
        admission(target.id),
        admission(target.id, deliver_at=FAR),
        admission(target.id, ordering_key="k"),
        admission(target.id, ordering_key="k"),
    ]
    held = admission(target.id, enabled=False)
    elsewhere = admission()
    accept(storage, leased, *others, held, elsewhere)
    storage.ledger.claim([1, 0, 0, 0], worker="w", until=FAR)
    since = clock.now()
    storage.catalog.delete_endpoint("studio", target.id)
    now = clock.now()
    assert storage.ledger.cancel(since=since, now=now, limit=3) == 3
    assert storage.ledger.cancel(since=since, now=now, limit=3) == 1
    assert storage.ledger.cancel(since=since, now=now, limit=3) == 0
    assert states(storage, leased, held, elsewhere) == [State.LEASED, State.HELD, State.READY]
    assert storage.ledger.cancel_orphans(now=now, limit=10) == 1
    assert states(storage, held, *others) == [State.CANCELLED] * 5
    detail = storage.history.get_delivery(delivery_of(held))
    assert (detail.reason, detail.finished_at) == ("its endpoint was deleted", clock.to_datetime(now))
    assert counted(storage) == rows(storage)


# ── ordering keys ───────────────────────────────────────────────────────────────────────────────────────────


def ordered(count: int, *endpoints: str, **given: Any) -> list[Admission]:
    return [admission(*endpoints, ordering_key="couple-1", **given) for _ in range(count)]


@pytest.mark.parametrize("end", [State.DELIVERED, State.DEAD, State.CANCELLED])
def test_the_next_of_a_key_goes_when_the_one_before_has_ended(storage: Storage, end: State) -> None:
    made = ordered(3)
    accept(storage, *made)
    for current in range(3):
        (lease,) = claim(storage)
        assert lease.event_id == made[current].event_id
        settle(storage, [lease], end)
    assert states(storage, *made) == [end] * 3
    assert counted(storage) == rows(storage)


@pytest.mark.parametrize("pause", [State.SCHEDULED, State.READY, State.HELD])
def test_the_next_of_a_key_waits_while_the_one_before_pauses(storage: Storage, pause: State) -> None:
    accept(storage, *(made := ordered(2)))
    settle(storage, claim(storage), pause)
    assert states(storage, *made) == [pause, State.WAITING]
    assert storage.ledger.promote_waiting(limit=10) == 0
    assert counted(storage) == rows(storage)


def test_the_next_of_a_key_keeps_the_time_it_is_due_at(storage: Storage) -> None:
    first, second = admission(ordering_key="k"), admission(ordering_key="k", deliver_at=FAR)
    accept(storage, first, second)
    settle(storage, claim(storage))
    assert states(storage, second) == [State.SCHEDULED]
    assert storage.ledger.next_due() == FAR


def test_a_rescued_first_still_goes_before_the_second(storage: Storage) -> None:
    accept(storage, *(made := ordered(2)))
    claim(storage, until=0)
    storage.ledger.rescue(now=1, limit=10)
    assert states(storage, *made) == [State.READY, State.WAITING]


def test_a_key_keeps_its_order_across_disabling_and_enabling(storage: Storage) -> None:
    target = add_endpoint(storage).id
    made = ordered(2, target)
    accept(storage, *made)
    storage.catalog.set_enabled([target], enabled=False)
    storage.ledger.hold(since=0, limit=10)
    accept(storage, *(more := ordered(1, target, enabled=False)))
    assert states(storage, *made, *more) == [State.HELD, State.WAITING, State.WAITING]
    storage.catalog.set_enabled([target], enabled=True)
    storage.ledger.unhold(limit=10)
    assert states(storage, *made, *more) == [State.READY, State.WAITING, State.WAITING]
    for expected in (*made, *more):
        (lease,) = claim(storage)
        assert lease.event_id == expected.event_id
        settle(storage, [lease])
    assert counted(storage) == rows(storage) == {}


def test_a_dead_letter_that_is_replayed_waits_for_its_successor(storage: Storage) -> None:
    accept(storage, *(made := ordered(3)))
    settle(storage, claim(storage), State.DEAD)
    (second,) = claim(storage)
    assert storage.ledger.replay([delivery_of(made[0])], now=clock.now()) == 1
    assert states(storage, *made) == [State.WAITING, State.LEASED, State.WAITING]
    settle(storage, [second])
    assert states(storage, *made) == [State.READY, State.DELIVERED, State.WAITING]
    assert counted(storage) == rows(storage)


def test_dead_letters_of_a_key_are_replayed_one_after_the_other(storage: Storage) -> None:
    accept(storage, *(made := ordered(3)))
    for _ in made:
        settle(storage, claim(storage), State.DEAD)
    assert storage.ledger.replay([delivery_of(a) for a in reversed(made)], now=clock.now()) == 3
    assert states(storage, *made) == [State.READY, State.WAITING, State.WAITING]
    assert counted(storage) == rows(storage)


def test_waiting_deliveries_that_nobody_let_go_are_found(storage: Storage) -> None:
    accept(storage, *(made := ordered(2)), *(admission(ordering_key="other") for _ in range(2)))
    with storage.database.write() as connection:
        connection.exec_driver_sql("UPDATE jobs SET state = 'waiting'")
        connection.exec_driver_sql("DELETE FROM queue_depth")
        connection.exec_driver_sql(
            f"INSERT INTO queue_depth (shard, lane, state, n) VALUES (0, {NORMAL}, 'waiting', 4)"
        )
    assert storage.ledger.promote_waiting(limit=10) == 2
    assert storage.ledger.promote_waiting(limit=10) == 0
    assert states(storage, *made) == [State.READY, State.WAITING]
    assert counted(storage) == rows(storage)


def test_threads_that_accept_and_settle_one_key_never_have_two_under_way(storage: Storage) -> None:
    """Every thread both publishes and works; what is claimed of a key at a time is never more than one."""
    under_way: set[str] = set()
    seen: list[str] = []

    def work(number: int) -> None:
        for n in range(15):
            accept(storage, admission(ordering_key=f"k{n % 2}", lane=number))
            leases = claim(storage, 5)
            for lease in leases:
                assert lease.ordering_key is not None
                assert lease.ordering_key not in under_way
                under_way.add(lease.ordering_key)
                seen.append(lease.delivery_id)
            under_way.difference_update(x.ordering_key for x in leases if x.ordering_key)
            settle(storage, leases)

    at_once(4, work)
    while leases := claim(storage, 5):
        assert len({x.ordering_key for x in leases}) == len(leases)
        seen += [x.delivery_id for x in leases]
        settle(storage, leases)
    assert len(seen) == len(set(seen)) == 60
    assert counted(storage) == rows(storage) == {}


# ── any sequence of moves ───────────────────────────────────────────────────────────────────────────────────


class Walk:
    """Moves deliveries at random, and remembers where each of them was seen."""

    def __init__(self, storage: Storage, seed: int) -> None:
        self.storage, self.random = storage, random.Random(seed)
        self.endpoints = [add_endpoint(storage).id for _ in range(3)]
        self.leases = [*claim(storage)]
        self.made: list[str] = []
        self.seen: dict[str, State] = {}
        self.moves: list[Callable[[], object]] = [
            self.accept,
            self.accept,
            self.claim,
            self.claim,
            self.settle,
            self.settle,
            self.toggle,
            self.replay,
            lambda: storage.ledger.stage(now=clock.now(), limit=self.limit()),
            lambda: storage.ledger.rescue(now=clock.now(), limit=self.limit()),
            lambda: storage.ledger.hold(since=0, limit=self.limit()),
            lambda: storage.ledger.unhold(limit=self.limit()),
            lambda: storage.ledger.cancel(since=0, now=clock.now(), limit=self.limit()),
            lambda: storage.ledger.cancel_orphans(now=clock.now(), limit=self.limit()),
            lambda: storage.ledger.promote_waiting(limit=self.limit()),
            lambda: storage.ledger.release(self.some_leases()),
        ]

    def limit(self) -> int:
        return self.random.choice([1, 2, 5, 50])

    def due(self) -> int:
        return clock.now() + self.random.choice([-clock.SECOND, FAR])

    def accept(self) -> None:
        batch = []
        for _ in range(self.random.randint(1, 5)):
            targets = self.random.sample(self.endpoints, self.random.randint(0, len(self.endpoints)))
            made = admission(
                lane=self.random.randrange(4),
                enabled=self.random.random() < 0.8,
                ordering_key=self.random.choice([None, "a", "b"]),
                idempotency_key=self.random.choice([None, str(self.random.randrange(9))]),
                deliver_at=self.random.choice([None, self.due()]),
            )
            made.endpoints = tuple((target, self.random.random() < 0.8) for target in targets)
            batch.append(made)
        for made, answer in zip(batch, self.storage.ledger.accept(batch), strict=True):
            if not answer.duplicate:
                self.made += [delivery_of(made, n) for n in range(answer.deliveries)]

    def claim(self) -> None:
        until = clock.now() + self.random.choice([-clock.SECOND, FAR])
        quotas = [self.random.randrange(4) for _ in range(4)]
        self.leases += self.storage.ledger.claim(quotas, worker="w", until=until)

    def some_leases(self) -> list[Any]:
        """Some that may have been lost or settled already."""
        return self.random.sample(self.leases, min(len(self.leases), self.random.randrange(4)))

    def settle(self) -> None:
        batch = []
        for lease in self.some_leases():
            state = self.random.choice(
                [State.DELIVERED, State.SCHEDULED, State.DEAD, State.HELD, State.READY]
            )
            made = outcome(lease, state, due_at=self.due() if state is State.SCHEDULED else None)
            if state is State.SCHEDULED and self.random.random() < 0.3:
                made.record = None
            batch.append(made)
        self.storage.ledger.settle(batch, now=clock.now())

    def toggle(self) -> None:
        chosen = self.random.choice(self.endpoints)
        if self.random.random() < 0.1:
            self.storage.catalog.delete_endpoint("studio", chosen)
            self.endpoints[self.endpoints.index(chosen)] = add_endpoint(self.storage).id
        else:
            self.storage.catalog.set_enabled([chosen], enabled=self.random.random() < 0.7)

    def replay(self) -> None:
        if self.made:
            some = self.random.sample(self.made, min(len(self.made), 3))
            self.storage.ledger.replay(some, now=clock.now(), lane=self.random.choice([None, 0, 3]))

    def step(self) -> None:
        move = self.random.choice(self.moves)
        move()
        self.check(getattr(move, "__name__", str(move)))

    def check(self, move: str) -> None:
        found = query(
            self.storage,
            "SELECT d.id, COALESCE(j.state, d.state), j.due_at, j.ordering_key, j.endpoint_id FROM deliveries AS d "
            "LEFT JOIN jobs AS j ON j.delivery_id = d.id",
        )
        busy = set()
        for delivery_id, word, due_at, key, endpoint_id in found:
            state = State(word)
            before = self.seen.get(delivery_id, state)
            assert state == before or any(state == step or state in MOVES[step] for step in MOVES[before]), (
                f"{move} moved {before} to {state}"
            )
            self.seen[delivery_id] = state
            if state is State.SCHEDULED or state is State.LEASED:
                assert due_at is not None
            if state is State.READY:
                assert due_at is None
            if key is not None and state not in {State.WAITING, State.DEAD}:
                assert (endpoint_id, key) not in busy, f"two of one key are under way after {move}"
                busy.add((endpoint_id, key))
        assert sorted(self.made) == sorted(self.seen)
        assert counted(self.storage) == rows(self.storage), move


@pytest.mark.parametrize("seed", range(3))
def test_any_sequence_of_moves_is_legal_and_counted(storage: Storage, seed: int) -> None:
    walk = Walk(storage, seed)
    for _ in range(120):
        walk.step()
    dead = one(storage, "SELECT count(*) FROM deliveries WHERE state = 'dead'")
    assert dead == sum(state is State.DEAD for state in job_states(storage).values())


def test_moves_at_once_are_counted_too(storage: Storage) -> None:
    walks = [Walk(storage, seed) for seed in range(3)]

    def wander(number: int) -> None:
        walk = walks[number]
        for _ in range(60):
            walk.random.choice(walk.moves)()

    at_once(3, wander)
    assert counted(storage) == rows(storage)


# ── how it stands ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_oldest_is_known_for_each_lane_with_ready_work(storage: Storage) -> None:
    now = clock.now()
    assert storage.ledger.oldest() == {}
    accept(storage, *(admission(lane=lane, at=now - n) for lane in (0, 2) for n in range(3)))
    accept(storage, admission(lane=1, deliver_at=FAR))
    assert storage.ledger.oldest() == {0: now - 2, 2: now - 2}


def test_next_due_is_the_earliest_of_all_scheduled(storage: Storage) -> None:
    assert storage.ledger.next_due() is None
    accept(storage, *(admission(deliver_at=FAR + n) for n in (5, 2, 9)))
    assert storage.ledger.next_due() == FAR + 2
