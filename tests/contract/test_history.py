"""The history answers what happened, exactly what was asked for, page by page."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import combinations

import pytest
from sqlalchemy import Connection

from contract.making import (
    add_endpoint,
    admission,
    claim,
    delivery_of,
    outcome,
    record,
    settle,
)
from ringbearer import clock, ids
from ringbearer.domain.deliveries import Attempt, State
from ringbearer.errors import NotFound, StoreUnavailable
from ringbearer.storage.base import Storage
from ringbearer.storage.history import Filter

NOW = clock.now()
MINUTE = 60 * clock.SECOND


@dataclass
class Past:
    """Some deliveries of each kind, with what is known of each."""

    facts: list[dict[str, object]]

    def meant(self, wanted: Filter) -> list[str]:
        """The ids that a filter should find, newest first; told from the facts alone."""

        def fits(fact: dict[str, object]) -> bool:
            at = fact["at"]
            assert isinstance(at, int)
            return all(
                (
                    wanted.supplier_id in (None, fact["supplier_id"]),
                    wanted.endpoint_id in (None, fact["endpoint_id"]),
                    wanted.event_id in (None, fact["event_id"]),
                    wanted.event_type in (None, fact["event_type"]),
                    wanted.state in (None, fact["state"]),
                    wanted.after is None or at >= clock.from_datetime(wanted.after),
                    wanted.before is None or at < clock.from_datetime(wanted.before),
                )
            )

        return sorted((str(f["id"]) for f in self.facts if fits(f)), reverse=True)


@pytest.fixture
def past(storage: Storage) -> Past:
    targets = {s: [add_endpoint(storage, s).id for _ in range(2)] for s in ("studio", "venue")}
    made = [
        admission(
            *targets[supplier_id],
            supplier_id=supplier_id,
            event_type=event_type,
            at=(NOW // MINUTE - minutes) * MINUTE,
        )
        for minutes in range(4)
        for supplier_id in targets
        for event_type in ("booking.confirmed", "payment.received")
    ]
    storage.ledger.accept(made)
    ends = (State.DELIVERED, State.DEAD, State.SCHEDULED, State.CANCELLED, State.LEASED)
    became = {}
    leases = claim(storage, 24)
    for n, lease in enumerate(leases):
        became[lease.delivery_id] = ends[n % len(ends)]
    for end in ends[:-1]:
        settle(storage, [x for x in leases if became[x.delivery_id] is end], end)
    return Past(
        [
            {
                "id": delivery_of(a, n),
                "at": a.accepted_at,
                "supplier_id": a.supplier_id,
                "endpoint_id": endpoint_id,
                "event_id": a.event_id,
                "event_type": a.type,
                "state": became.get(delivery_of(a, n), State.READY),
            }
            for a in made
            for n, (endpoint_id, _) in enumerate(a.endpoints)
        ]
    )


def test_every_filter_and_every_pair_of_filters_finds_what_it_means(storage: Storage, past: Past) -> None:
    some = past.facts[9]
    middle = clock.to_datetime((NOW // MINUTE - 2) * MINUTE)
    states: list[dict[str, object]] = [{"state": state} for state in State]
    singles: list[dict[str, object]] = [
        {},
        {"supplier_id": "venue"},
        {"supplier_id": "nobody"},
        {"endpoint_id": some["endpoint_id"]},
        {"endpoint_id": "ep_unknown"},
        {"event_id": some["event_id"]},
        {"event_id": "evt_unknown"},
        {"event_type": "payment.received"},
        {"after": middle},
        {"before": middle},
        *states,
    ]
    for first, second in combinations(singles, 2):
        wanted = Filter(**(first | second))  # type: ignore[arg-type]  # pairs of its own fields
        meant = past.meant(wanted)
        assert [d.id for d in storage.history.find(wanted, limit=100).items] == meant, wanted
        for step, few in ((3, 0), (3, 100), (100, 0)):
            assert _paged(storage, wanted, step=step, few=few) == meant, (wanted, step, few)


def _paged(storage: Storage, wanted: Filter, *, step: int, few: int) -> list[str]:
    """All that is found by going from page to page, each of which looks at a few rows only; and back again."""
    find = partial(storage.history.find, wanted, limit=2, step=step, few=few)
    pages = [find()]
    while pages[-1].older is not None:
        pages.append(find(older=pages[-1].older))
        assert len(pages) < 200
    down = [d.id for page in pages for d in page.items]
    if down:
        up = [find(newer=down[-1])]
        while up[-1].newer is not None:
            up.append(find(newer=up[-1].newer))
        assert [*(d.id for page in reversed(up) for d in page.items), down[-1]] == down
    return down


def test_the_boundaries_of_time_are_exact(storage: Storage, past: Past) -> None:
    at = (NOW // MINUTE - 1) * MINUTE
    exactly = Filter(after=clock.to_datetime(at), before=clock.to_datetime(at + MINUTE))
    found = storage.history.find(exactly, limit=100).items
    assert {clock.from_datetime(d.created_at) for d in found} == {at}
    assert [d.id for d in found] == past.meant(exactly) != []


def test_pages_have_no_gaps_and_no_repeats_while_new_rows_arrive(storage: Storage) -> None:
    made = [admission() for _ in range(23)]
    storage.ledger.accept(made)
    found: list[str] = []
    cursor = None
    while not found or cursor is not None:
        page = storage.history.find(Filter(), limit=5, older=cursor)
        cursor = page.older
        found += [d.id for d in page.items]
        storage.ledger.accept([admission() for _ in range(3)])
        settle(storage, claim(storage, 2))
    assert found == [delivery_of(a) for a in reversed(made)]


def test_an_event_is_shown_with_all_that_was_said(storage: Storage) -> None:
    made = admission("ep_1", deliver_at=NOW + MINUTE, ordering_key="couple-1", idempotency_key="k", lane=0)
    made.occasion_date, made.tags = "2027-06-19", '["vip","a b"]'
    storage.ledger.accept([made])
    event, (delivery,) = storage.history.get_event(made.event_id)
    assert (event.id, event.supplier_id, event.type, event.priority) == (
        made.event_id,
        "studio",
        "booking.confirmed",
        "urgent",
    )
    assert event.timestamp == datetime(2027, 6, 19, 14, tzinfo=UTC)
    assert (event.occasion_date, event.tags) == (date(2027, 6, 19), ("vip", "a b"))
    assert (event.ordering_key, event.idempotency_key) == ("couple-1", "k")
    assert event.deliver_at == delivery.due_at == clock.to_datetime(NOW + MINUTE)
    assert event.created_at == delivery.created_at == clock.to_datetime(made.accepted_at)
    assert (delivery.state, delivery.priority, delivery.attempt_count) == (State.SCHEDULED, "urgent", 0)


def test_only_the_deliveries_of_an_event_are_shown_with_it(storage: Storage) -> None:
    made = [admission(*(f"ep_{n}" for n in range(17))) for _ in range(3)]
    storage.ledger.accept(made)
    _, deliveries = storage.history.get_event(made[1].event_id)
    assert [d.id for d in deliveries] == [delivery_of(made[1], n) for n in range(17)]


def test_a_delivery_is_shown_with_its_attempts_oldest_first(storage: Storage) -> None:
    made = admission()
    storage.ledger.accept([made])
    started = NOW
    for number, status in ((1, 503), (2, None)):
        (lease,) = claim(storage)
        tried = outcome(lease, State.SCHEDULED, due_at=0)
        tried.record = record(
            status,
            started_at=started + number,
            duration=250_000,
            error=None if status else "connect: refused",
            response_body="no\n\ufffd" if status else None,
            response_headers='{"x":"\\u0000y"}' if status else None,
        )
        storage.ledger.settle([tried], now=NOW)
        storage.ledger.stage(now=NOW, limit=10)
    detail = storage.history.get_delivery(delivery_of(made))
    assert detail.attempts == [
        Attempt(
            number=1,
            started_at=clock.to_datetime(started + 1),
            status_code=503,
            duration=0.25,
            response_body="no\n\ufffd",
            response_headers={"x": "\0y"},
        ),
        Attempt(number=2, started_at=clock.to_datetime(started + 2), duration=0.25, error="connect: refused"),
    ]
    assert detail.attempt_count == 2


def test_what_does_not_exist_is_not_found(storage: Storage) -> None:
    for look in (storage.history.get_event, storage.history.get_delivery, storage.history.get_replay):
        with pytest.raises(NotFound, match="nothing"):
            look("nothing")


# ── replays ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_replay_means_dead_letters_unless_it_says_otherwise(storage: Storage, past: Past) -> None:
    replay = storage.history.start_replay(Filter(supplier_id="studio"))
    meant = past.meant(Filter(supplier_id="studio", state=State.DEAD))
    assert replay.filter == Filter(supplier_id="studio", state=State.DEAD)
    assert replay.matched == len(meant) > 0
    assert storage.history.replay_page(replay, limit=100) == meant
    delivered = storage.history.start_replay(Filter(state=State.DELIVERED))
    assert storage.history.replay_page(delivered, limit=100) == past.meant(delivered.filter)
    assert [r.id for r in storage.history.open_replays()] == [replay.id, delivered.id]


def test_a_replay_goes_on_where_it_was_and_ends(storage: Storage, past: Past) -> None:
    wanted = Filter(
        state=State.DELIVERED,
        after=clock.to_datetime(NOW) - timedelta(days=1),
        before=clock.to_datetime(NOW) + timedelta(days=1),
    )
    started = storage.history.start_replay(wanted)
    assert storage.history.get_replay(started.id) == started
    seen: list[str] = []
    while True:
        replay = storage.history.get_replay(started.id)
        page = storage.history.replay_page(replay, limit=2)
        finished = len(page) < 2
        storage.history.advance_replay(
            replay,
            cursor=page[-1] if page else replay.cursor,
            finished=finished,
            move=partial(storage.ledger.replay_within, delivery_ids=page, now=clock.now()),
        )
        settle(storage, claim(storage, 24))  # what was replayed is delivered again: it must not come up anew
        seen += page
        if finished:
            break
    assert seen == past.meant(wanted)
    ended = storage.history.get_replay(started.id)
    assert (ended.moved, ended.matched) == (len(seen), len(seen))
    assert ended.finished_at is not None
    assert storage.history.open_replays() == []


def test_a_replay_never_goes_back(storage: Storage) -> None:
    """Two workers may take its next step at the same time: the slower one moves nothing."""
    replay = storage.history.start_replay(Filter())
    middle, end = ids.floor("dlv", NOW - MINUTE), ids.floor("dlv", NOW - 2 * MINUTE)
    assert storage.history.advance_replay(replay, cursor=end, finished=True, move=lambda _: 5) == 5
    assert storage.history.advance_replay(replay, cursor=middle, finished=False, move=lambda _: 1) == 0
    found = storage.history.get_replay(replay.id)
    assert (found.cursor, found.moved) == (end, 5)
    assert found.finished_at is not None


def test_a_step_of_a_replay_that_breaks_off_has_moved_nothing(storage: Storage, past: Past) -> None:
    replay = storage.history.start_replay(Filter(state=State.DELIVERED))
    page = storage.history.replay_page(replay, limit=2)
    before = storage.ledger.depth()

    def move(connection: Connection) -> int:
        assert storage.ledger.replay_within(connection, page, now=clock.now()) == 2
        raise StoreUnavailable("for the test")

    with pytest.raises(StoreUnavailable):
        storage.history.advance_replay(replay, cursor=page[-1], finished=False, move=move)
    assert storage.ledger.depth() == before
    assert storage.history.get_replay(replay.id) == replay
    assert storage.history.replay_page(replay, limit=2) == page
