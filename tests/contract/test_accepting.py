"""An accepted event is in the store whole, once, and in the state that its endpoint and its time call for."""

import pytest
from sqlalchemy.exc import SQLAlchemyError

from contract.making import (
    ENDPOINT,
    NORMAL,
    admission,
    at_once,
    counted,
    delivery_of,
    in_processes,
    job_states,
    nobody,
    one,
    opened,
    query,
    rows,
    shown,
)
from ringbearer import clock, ids
from ringbearer.domain.deliveries import State
from ringbearer.storage.base import Storage
from ringbearer.storage.ledger import Admission
from ringbearer.storage.vault import generate_key


def test_an_event_fans_out_to_every_endpoint_that_wants_it(storage: Storage) -> None:
    made = admission(*(f"ep_{n:032x}" for n in range(3)))
    (answer,) = storage.ledger.accept([made])
    assert (answer.event_id, answer.deliveries, answer.duplicate) == (made.event_id, 3, False)
    event, deliveries = storage.history.get_event(made.event_id)
    assert bytes(event.data) == b'{"n":1}'
    assert [d.endpoint_id for d in deliveries] == [f"ep_{n:032x}" for n in range(3)]
    assert {d.state for d in deliveries} == {State.READY}
    assert counted(storage) == rows(storage) == {(NORMAL, State.READY): 3}


def test_an_event_that_nobody_wants_is_kept_without_a_delivery(storage: Storage) -> None:
    made = nobody()
    (answer,) = storage.ledger.accept([made])
    assert answer.deliveries == 0
    assert storage.history.get_event(made.event_id)[1] == []
    assert counted(storage) == rows(storage) == {}


def test_nothing_at_all_is_accepted_too(storage: Storage) -> None:
    assert storage.ledger.accept([]) == []


def test_the_first_state_follows_the_time_and_the_endpoint(storage: Storage) -> None:
    later = clock.now() + clock.SECOND
    made = {
        State.READY: admission(),
        State.SCHEDULED: admission(deliver_at=later),
        State.HELD: admission(enabled=False),
    }
    storage.ledger.accept(list(made.values()))
    assert {state: shown(storage, delivery_of(a)) for state, a in made.items()} == {s: s for s in made}
    assert storage.ledger.next_due() == later
    assert counted(storage) == rows(storage)


def test_answers_stand_in_the_order_of_what_was_asked(storage: Storage) -> None:
    made = [admission(idempotency_key=f"k{n % 7}" if n % 2 else None, fingerprint="x") for n in range(40)]
    answers = storage.ledger.accept(made)
    for asked, answer in zip(made, answers, strict=True):
        if answer.duplicate:
            assert asked.idempotency_key is not None
        else:
            assert answer.event_id == asked.event_id
    assert sum(not a.duplicate for a in answers) == 20 + 7 == one(storage, "SELECT count(*) FROM events")


def test_a_repetition_is_answered_with_the_first_event_and_its_count(storage: Storage) -> None:
    first = admission("ep_1", "ep_2", idempotency_key="booking-7")
    again = admission("ep_1", "ep_2", "ep_3", idempotency_key="booking-7")
    storage.ledger.accept([first])
    (answer,) = storage.ledger.accept([again])
    assert (answer.event_id, answer.deliveries) == (first.event_id, 2)
    assert answer.duplicate
    assert not answer.contradiction
    assert query(storage, "SELECT id FROM events") == [(first.event_id,)]
    assert counted(storage) == rows(storage) == {(NORMAL, State.READY): 2}


def test_a_key_with_another_body_is_a_contradiction_and_stores_nothing(storage: Storage) -> None:
    first = admission(idempotency_key="booking-7")
    storage.ledger.accept([first])
    (answer,) = storage.ledger.accept([admission(idempotency_key="booking-7", fingerprint="other")])
    assert answer.duplicate
    assert answer.contradiction
    assert answer.event_id == first.event_id
    assert query(storage, "SELECT id FROM events") == [(first.event_id,)]


def test_a_key_belongs_to_its_supplier(storage: Storage) -> None:
    answers = storage.ledger.accept(
        [admission(supplier_id=s, idempotency_key="same") for s in ("studio", "venue")]
    )
    assert not any(a.duplicate for a in answers)


def test_repetitions_inside_one_batch_make_one_event(storage: Storage) -> None:
    made = [admission(idempotency_key="k", fingerprint=f) for f in ("a", "a", "b")]
    answers = storage.ledger.accept(made)
    assert [(a.event_id, a.duplicate, a.contradiction) for a in answers] == [
        (made[0].event_id, False, False),
        (made[0].event_id, True, False),
        (made[0].event_id, True, True),
    ]
    assert one(storage, "SELECT count(*) FROM events") == 1


def test_a_batch_that_cannot_be_stored_leaves_nothing_behind(storage: Storage) -> None:
    good = admission(idempotency_key="good")
    bad = admission(idempotency_key="bad")
    bad.data = None  # type: ignore[assignment]  # what the database will not take
    with pytest.raises(SQLAlchemyError):
        storage.ledger.accept([good, bad])
    for table in ("events", "deliveries", "jobs", "idempotency", "queue_depth"):
        assert one(storage, f"SELECT count(*) FROM {table}") == 0
    assert not storage.ledger.accept([good])[0].duplicate


def test_odd_characters_come_back_as_they_went_in(storage: Storage) -> None:
    data = '{"name":"Zoë \\u0000 \\ud83d\\udc8d 💍","quote":"\\"\\\\","n":1e400}'
    made = admission(data=data, idempotency_key="Schlüssel ' ; -- 💍", ordering_key='"]["')
    storage.ledger.accept([made])
    (lease,) = storage.ledger.claim([1] * 4, worker="w", until=clock.now())
    assert lease.data == data
    assert bytes(storage.history.get_event(made.event_id)[0].data).decode() == data
    assert storage.ledger.accept([admission(idempotency_key=made.idempotency_key)])[0].duplicate


def _same_keys(prefix: str, count: int = 60) -> list[Admission]:
    return [admission(idempotency_key=f"{prefix}{n}") for n in range(count)]


def _check_one_event_each(storage: Storage, answers: list[list[tuple[str, bool]]]) -> None:
    for same in zip(*answers, strict=True):
        assert len({event_id for event_id, _ in same}) == 1
        assert [duplicate for _, duplicate in same].count(False) == 1
    assert one(storage, "SELECT count(*) FROM events") == len(answers[0])
    assert counted(storage) == rows(storage)


def test_one_key_from_many_threads_is_one_event(storage: Storage) -> None:
    def publish(number: int) -> list[tuple[str, bool]]:
        made = _same_keys("k")
        # Everybody in an order of their own: nobody may wait in a circle.
        turned = made[number * 13 :] + made[: number * 13]
        answers = [storage.ledger.accept(turned[i : i + 20]) for i in range(0, len(turned), 20)]
        flat = [(a.event_id, a.duplicate) for part in answers for a in part]
        back = (len(made) - number * 13) % len(made)
        return flat[back:] + flat[:back]

    _check_one_event_each(storage, at_once(4, publish))


def _publish_keys(url: str, key: str) -> list[tuple[str, bool]]:
    with opened(url, key) as storage:
        made = _same_keys("k")
        answers = [storage.ledger.accept(made[i : i + 10]) for i in range(0, len(made), 10)]
        return [(a.event_id, a.duplicate) for part in answers for a in part]


def test_one_key_from_several_processes_is_one_event(storage: Storage, store_url: str) -> None:
    _check_one_event_each(storage, in_processes(_publish_keys, [(store_url, generate_key())] * 2))


# ── ordering keys ───────────────────────────────────────────────────────────────────────────────────────────


def test_only_the_first_of_an_ordering_key_is_ready(storage: Storage) -> None:
    made = [admission(ordering_key="couple-1") for _ in range(3)]
    other_key = admission(ordering_key="couple-2")
    other_endpoint = admission("ep_other", ordering_key="couple-1")
    storage.ledger.accept([*made, other_key, other_endpoint])
    states = job_states(storage)
    assert [states[delivery_of(a)] for a in made] == [State.READY, State.WAITING, State.WAITING]
    assert states[delivery_of(other_key)] == states[delivery_of(other_endpoint)] == State.READY
    assert counted(storage) == rows(storage)


def test_one_that_comes_later_with_an_earlier_id_does_not_overtake(storage: Storage) -> None:
    """Two API processes number their events by themselves: the order of commits need not be that of ids."""
    early = admission(ordering_key="k", at=clock.now() - clock.SECOND)
    late = admission(ordering_key="k")
    storage.ledger.accept([late])
    storage.ledger.accept([early])
    assert job_states(storage) == {delivery_of(late): State.READY, delivery_of(early): State.WAITING}


def test_one_ordering_key_from_many_threads_has_one_under_way(storage: Storage) -> None:
    def publish(number: int) -> None:
        for _ in range(8):
            storage.ledger.accept([admission(ordering_key=f"k{n}") for n in range(3)])

    at_once(4, publish)
    per_key = query(
        storage,
        "SELECT ordering_key, sum(CASE WHEN state = 'ready' THEN 1 ELSE 0 END), count(*) FROM jobs "
        "GROUP BY ordering_key ORDER BY 1",
    )
    assert [(key, int(ready), n) for key, ready, n in per_key] == [
        ("k0", 1, 32),
        ("k1", 1, 32),
        ("k2", 1, 32),
    ]
    assert counted(storage) == rows(storage)


def test_a_first_that_is_to_come_later_makes_the_others_wait(storage: Storage) -> None:
    first = admission(ordering_key="k", deliver_at=clock.now() + clock.SECOND)
    second = admission(ordering_key="k")
    storage.ledger.accept([first, second])
    assert job_states(storage) == {delivery_of(first): State.SCHEDULED, delivery_of(second): State.WAITING}


def test_the_deliveries_of_an_event_are_one_range_of_ids(storage: Storage) -> None:
    made = admission(ENDPOINT, "ep_2")
    storage.ledger.accept([made])
    assert sorted(job_states(storage)) == [ids.delivery(made.event_id, 0), ids.delivery(made.event_id, 1)]
