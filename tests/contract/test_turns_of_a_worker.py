"""Who is new among a crowd is begun after a few of it, not after as many as a worker could take at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from contract.making import admission
from ringbearer import clock
from ringbearer.cache.manager import WebhookCacheManager
from ringbearer.domain.deliveries import Lease, Outcome, Record, State
from ringbearer.queue.bell import SocketBell
from ringbearer.queue.database import DatabaseQueue
from ringbearer.queue.loop import WorkLoop
from ringbearer.storage.base import Storage
from ringbearer.telemetry import Telemetry

SLOTS = 1_000
HOUR = 3_600 * clock.SECOND


class Sender:
    """Keeps what is begun until the test lets so many of it come to an end, the first first."""

    def __init__(self) -> None:
        self.begun: list[Lease] = []
        self.under_way: list[Lease] = []
        self.ends = 0
        self.rings = False
        self.gone: dict[str, str] = {}
        self.slots = self.batch = SLOTS
        self.appetite = 1.0

    @property
    def in_flight(self) -> int:
        return len(self.under_way)

    def watch(self, descriptor: int) -> None: ...

    def unwatch(self, descriptor: int) -> None: ...

    def begin(self, leases: Sequence[Lease]) -> list[Outcome]:
        self.begun += leases
        self.under_way += leases
        return []

    def poll(self, timeout: float) -> tuple[list[Outcome], bool]:
        ended, self.under_way = self.under_way[: self.ends], self.under_way[self.ends :]
        return [Outcome(lease=lease, state=State.DELIVERED, record=_record()) for lease in ended], self.rings

    def put_down(self) -> list[Outcome]:
        return []

    def report(self) -> None: ...

    def abandon(self) -> list[Outcome]:
        return []

    def close(self) -> None: ...


def _record() -> Record:
    return Record(
        started_at=clock.now(),
        duration=1_000,
        status_code=200,
        error=None,
        response_body=None,
        response_headers=None,
    )


@pytest.fixture
def bell(tmp_path: Path) -> Iterator[SocketBell]:
    made = SocketBell(tmp_path / "run", listen=True)
    yield made
    made.close()


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
def loop(storage: Storage, bell: SocketBell, sender: Sender) -> WorkLoop:
    telemetry = Telemetry()
    made = WorkLoop(
        queue=DatabaseQueue(storage.ledger, bell),
        processor=sender,
        cache=WebhookCacheManager(catalog=storage.catalog, telemetry=telemetry),
        catalog=storage.catalog,
        bell=bell,
        telemetry=telemetry,
        lease_seconds=60,
        grace=1,
    )
    made._brisk_pace = 0  # however long a claim takes on this machine
    return made


def crowd(storage: Storage, count: int) -> None:
    then = clock.now() - HOUR
    storage.ledger.accept([admission("ep_crowd", supplier_id="crowd", at=then) for _ in range(count)])


def late(storage: Storage) -> str:
    made = admission("ep_late", supplier_id="late", at=clock.now())
    storage.ledger.accept([made])
    return made.event_id


def turn(loop: WorkLoop) -> None:
    """One turn, whenever the next claim is due."""
    loop._next_claim = loop._fresh_at = 0.0
    loop._turn()


def before(sender: Sender, event_id: str, since: int) -> int:
    """How many were begun from there on before that event's delivery."""
    return [lease.event_id for lease in sender.begun[since:]].index(event_id)


def test_a_backlog_alone_is_taken_in_large_batches(storage: Storage, loop: WorkLoop, sender: Sender) -> None:
    crowd(storage, 2_000)
    turn(loop)
    assert len(sender.begun) == 500


def test_of_a_backlog_alone_half_has_to_end_before_more_is_worth_a_claim(
    storage: Storage, loop: WorkLoop, sender: Sender
) -> None:
    crowd(storage, 2_000)
    sender.ends = 200
    turn(loop)  # claims 500, of which 200 end
    loop._next_claim, loop._fresh_at = 0.0, float("inf")
    loop._turn()
    assert len(sender.begun) == 500
    loop._next_claim = 0.0
    loop._turn()  # 400 have ended
    assert len(sender.begun) == 900


def test_who_comes_after_a_crowd_is_begun_with_the_next_few(
    storage: Storage, loop: WorkLoop, sender: Sender
) -> None:
    crowd(storage, 3_000)
    sender.ends = 40
    turn(loop)
    for _ in range(10):
        since, event_id = len(sender.begun), late(storage)
        while all(lease.event_id != event_id for lease in sender.begun[since:]):
            turn(loop)
        assert before(sender, event_id, since) <= 128
        assert len(sender.begun) - since <= 128 + 40


def ring(loop: WorkLoop, sender: Sender) -> None:
    """A turn in which the bell rings, and one after it, while too little has ended for a batch."""
    loop._fresh_at = float("inf")
    sender.rings = True
    loop._turn()
    sender.rings = False
    loop._next_claim = loop._guests_at = 0.0
    loop._turn()


def test_who_the_bell_rings_for_is_begun_though_too_little_of_a_crowd_has_ended(
    storage: Storage, loop: WorkLoop, sender: Sender
) -> None:
    crowd(storage, 2_000)
    sender.ends = 100
    turn(loop)  # claims 500, of which 100 end
    sender.ends = 0
    for number in range(1, 6):
        event_id = late(storage)
        ring(loop, sender)
        assert event_id in {lease.event_id for lease in sender.begun[-16:]}
        assert len(sender.begun) == 500 + 16 * number


def test_guests_take_no_more_than_is_held_ahead(storage: Storage, loop: WorkLoop, sender: Sender) -> None:
    crowd(storage, 2_000)
    sender.ends = 10
    turn(loop)
    sender.ends = 0
    for _ in range(3):
        late(storage)
        ring(loop, sender)
    assert len(sender.begun) == 510


def test_without_a_ring_too_little_room_for_a_batch_is_left(
    storage: Storage, loop: WorkLoop, sender: Sender
) -> None:
    crowd(storage, 2_000)
    sender.ends = 100
    turn(loop)
    sender.ends = 0
    loop._next_claim, loop._guests_at, loop._fresh_at = 0.0, 0.0, float("inf")
    loop._turn()
    assert len(sender.begun) == 500


def test_a_ring_so_soon_after_a_claim_waits(storage: Storage, loop: WorkLoop, sender: Sender) -> None:
    crowd(storage, 2_000)
    sender.ends = 100
    sender.rings = True
    turn(loop)
    sender.ends = 0
    loop._next_claim, loop._guests_at, loop._fresh_at = 0.0, clock.monotonic() + 60, float("inf")
    loop._turn()
    assert len(sender.begun) == 500
    assert loop._patience(loop._guests_at - 0.5) <= 0.5  # but not for longer than that


def test_who_rings_and_is_not_new_calls_for_fewer_and_fewer_claims(
    storage: Storage, loop: WorkLoop, sender: Sender
) -> None:
    crowd(storage, 2_000)
    sender.ends = 200
    turn(loop)
    sender.ends = 0
    gaps = []
    for _ in range(6):
        ring(loop, sender)
        gaps.append(round(loop._guest_gap, 3))
    assert gaps == [0.01, 0.02, 0.04, 0.08, 0.16, 0.16]
    late(storage)
    ring(loop, sender)
    assert loop._guest_gap == 0.005
    for _ in range(16):  # they are no guests among a crowd any more, but a crowd themselves
        late(storage)
    ring(loop, sender)
    assert loop._guest_gap == 0.01


def test_claims_stay_small_for_a_while_after_somebody_new_was_seen(
    storage: Storage, loop: WorkLoop, sender: Sender
) -> None:
    crowd(storage, 3_000)
    sender.ends = 500
    turn(loop)
    late(storage)
    turn(loop)
    for _ in range(2):  # nobody new is in these
        loop._brisk_until = float("inf")
        since = len(sender.begun)
        turn(loop)
        assert len(sender.begun) - since == 128
    loop._brisk_until = 0.0
    turn(loop)
    since = len(sender.begun)
    turn(loop)
    assert len(sender.begun) - since == 500


def test_claims_beside_a_backlog_bring_more_when_they_take_long(
    storage: Storage, loop: WorkLoop, sender: Sender
) -> None:
    crowd(storage, 3_000)
    sender.ends = 500
    turn(loop)
    late(storage)
    loop._brisk_pace = 1e9  # as if the store were slow
    turn(loop)
    loop._brisk_until = float("inf")
    since = len(sender.begun)
    turn(loop)
    assert 128 < len(sender.begun) - since < 500  # room for guests is left


def test_what_has_ended_makes_room_before_it_is_written_down(
    storage: Storage, loop: WorkLoop, sender: Sender
) -> None:
    crowd(storage, 2_000)
    loop._settle_when_due = lambda: None  # type: ignore[method-assign]  # the store is slow
    loop._settle_and_claim = lambda demand: None  # type: ignore[method-assign]
    sender.ends = 130
    turn(loop)  # claims 500, of which 130 end
    turn(loop)
    assert len(sender.begun) == 500 + 130
    for _ in range(9):
        turn(loop)
    assert len(sender.begun) == SLOTS  # what is not written down is held still


def test_the_next_claim_is_made_while_most_of_the_last_is_under_way(
    storage: Storage, loop: WorkLoop, sender: Sender
) -> None:
    crowd(storage, 3_000)
    sender.ends = 40
    least = SLOTS
    turn(loop)
    while len(sender.begun) < 2_500:
        since, under_way = len(sender.begun), sender.in_flight
        turn(loop)
        if len(sender.begun) > since:
            least = min(least, under_way)
    assert least >= 350  # of the 500 that are held ahead: no receiver waits for the store
