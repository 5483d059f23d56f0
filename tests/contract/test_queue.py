"""Every queue gives each delivery to one worker at a time, and a bell tells workers that there is something."""

import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from select import select

import psycopg
import pytest
from sqlalchemy import Engine, event

from contract.indexed import Indexed
from contract.making import admission, at_once, counted, outcome, rows
from ringbearer import clock
from ringbearer.domain.deliveries import Lease, State
from ringbearer.queue.base import Demand, Queue
from ringbearer.queue.bell import Bell, PostgresBell, SocketBell
from ringbearer.queue.database import DatabaseQueue
from ringbearer.storage.base import Storage

SOON = 30.0
"""Seconds after which a test gives up waiting for what has to come at once."""


class RecordingBell(Bell):
    """Counts its rings."""

    def __init__(self) -> None:
        self.rings = 0

    def ring(self) -> None:
        self.rings += 1

    def fileno(self) -> int | None:
        return None

    def hush(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def bell() -> RecordingBell:
    return RecordingBell()


@pytest.fixture(params=["database", "redis", "valkey_server", "redis_sentinel", "redis_cluster"])
def queue(request: pytest.FixtureRequest, storage: Storage, bell: RecordingBell) -> Iterator[Queue]:
    """Each kind of queue in turn, over each database."""
    if request.param == "database":
        yield DatabaseQueue(storage.ledger, bell)
        return
    if request.param == "redis":
        url: str = request.getfixturevalue("redis_url")
    else:
        url = request.getfixturevalue(request.param).url
    with Indexed(storage, bell, url) as indexed:
        assert indexed.reconciler.reconcile() == 0  # an empty index, known to be whole
        yield indexed.queue
        assert not indexed.failures


def accept(storage: Storage, queue: Queue, *lanes: int) -> None:
    """What publishing does: commit, then push; returns when that has got through."""
    made = [admission(f"ep_{n % 7}", lane=lane) for n, lane in enumerate(lanes)]
    storage.ledger.accept(made)
    queue.push(len(made), made)
    queue.close()


def claim(queue: Queue, *quotas: int, worker: str = "w") -> list[Lease]:
    until = clock.now() + 60 * clock.SECOND
    return queue.claim(Demand(quotas=quotas or (100, 100, 100, 100), worker=worker, until=until))


def test_what_is_pushed_is_claimed_in_the_order_of_lanes(storage: Storage, queue: Queue) -> None:
    assert claim(queue) == []
    accept(storage, queue, 3, 1, 2, 0, 1)
    assert [x.lane for x in claim(queue)] == [0, 1, 1, 2, 3]
    assert claim(queue) == []


def test_quotas_are_kept_and_what_is_left_goes_round(storage: Storage, queue: Queue) -> None:
    accept(storage, queue, *(0, 1, 2, 3) * 5)
    assert [x.lane for x in claim(queue, 2, 1, 1, 1)] == [0, 0, 1, 2, 3]
    assert len(claim(queue, 10, 0, 0, 0)) == 10
    assert len(claim(queue, 0, 0, 0, 10)) == 5


def test_a_tiers_reserve_holds_while_others_flood_the_queue(storage: Storage, queue: Queue) -> None:
    """Four suppliers send twice as much as can be done; a premium one, of weight six, is sure of six parts in ten."""
    storage.ledger.flows.weigh({"standard": 1.0, "premium": 6.0, "enterprise": 4.0})
    capacity = 50

    def round_of(premium: int) -> Counter[str]:
        made = [admission(f"ep_crowd{n % 4}", supplier_id=f"crowd{n % 4}") for n in range(2 * capacity)]
        reserved = [admission("ep_studio", supplier_id="studio") for _ in range(premium)]
        for each in reserved:
            each.tier = "premium"
        storage.ledger.accept(made + reserved)
        queue.push(len(made) + premium, made + reserved)
        queue.close()
        # As if a second had passed: the lanes' virtual times are written down and read again.
        storage.ledger.flows._next_raise = storage.ledger.flows._next_read = 0.0
        return Counter(lease.supplier_id for lease in claim(queue, 0, 0, capacity, 0))

    round_of(25)  # shows that there is more than can be done
    within = [round_of(25) for _ in range(8)]
    assert all(got.total() == capacity for got in within)
    assert sum(got["studio"] for got in within) >= 8 * 25 - 8, "what is within its reserve does not wait"
    round_of(100)
    beyond = [round_of(100) for _ in range(8)]
    assert sum(got["studio"] for got in beyond) == pytest.approx(8 * 30, abs=16)
    for number in range(4):
        assert sum(got[f"crowd{number}"] for got in beyond) == pytest.approx(8 * 5, abs=10)


def test_claims_at_once_share_nothing(storage: Storage, queue: Queue) -> None:
    accept(storage, queue, *(0, 1, 2, 3) * 30)

    def work(number: int) -> list[str]:
        got: list[str] = []
        while leases := claim(queue, 3, 3, 3, 3, worker=f"w{number}"):
            got += [x.delivery_id for x in leases]
        return got

    got = [x for part in at_once(4, work) for x in part]
    assert len(got) == len(set(got)) == 120


def test_settling_says_what_was_still_held(storage: Storage, queue: Queue) -> None:
    accept(storage, queue, 0, 0, 0)
    first, second, third = claim(queue)
    now = clock.now()
    assert queue.settle([outcome(first)], now=now) == {first.delivery_id}
    assert queue.settle([outcome(first), outcome(second)], now=now) == {second.delivery_id}
    assert queue.extend([first, third], until=now) == {third.delivery_id}
    assert queue.settle([], now=now) == set()


def test_settling_and_claiming_at_once_lets_go_what_it_claims(storage: Storage, bell: RecordingBell) -> None:
    queue = DatabaseQueue(storage.ledger, bell)
    first, second = (admission("ep_1", ordering_key="wedding") for _ in range(2))
    storage.ledger.accept([first, second])
    storage.ledger.accept([admission("ep_2")])
    lost, held = sorted(claim(queue), key=lambda lease: lease.endpoint_id, reverse=True)
    queue.settle([outcome(lost)], now=clock.now())
    now = clock.now()
    demand = Demand(quotas=(9, 9, 9, 9), worker="w", until=now + 60 * clock.SECOND)
    settled, leases = queue.settle_and_claim([outcome(held), outcome(lost)], demand, now=now)
    assert settled == {held.delivery_id}
    assert [lease.event_id for lease in leases] == [second.event_id]
    assert leases[0].data == second.data
    assert counted(storage) == {(leases[0].lane, State.LEASED): 1}
    assert rows(storage) == {(leases[0].lane, State.LEASED): 1}


def test_settling_and_claiming_at_once_counts_once_and_last(storage: Storage, bell: RecordingBell) -> None:
    """Rows of the depth that are locked early, or twice, meet those of who accepts or parks crosswise: a deadlock."""
    queue = DatabaseQueue(storage.ledger, bell)
    accept(storage, queue, 0, 1)
    held = claim(queue, 1, 0, 0, 0)
    said: list[str] = []

    def note(_c: object, _k: object, statement: str, _p: object, _x: object, _m: object) -> None:
        said.append(statement)

    demand = Demand(quotas=(9, 9, 9, 9), worker="w", until=clock.now() + 60 * clock.SECOND)
    event.listen(Engine, "before_cursor_execute", note)
    try:
        settled, leases = queue.settle_and_claim([outcome(x) for x in held], demand, now=clock.now())
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert len(settled) == len(leases) == 1
    assert [place for place, statement in enumerate(said) if "queue_depth" in statement] == [len(said) - 1]


def test_released_leases_come_again_and_ring(storage: Storage, queue: Queue, bell: RecordingBell) -> None:
    accept(storage, queue, 0, 0)
    leases = claim(queue)
    before = bell.rings
    assert queue.release(leases) == 2
    assert bell.rings == before + 1
    assert queue.release(leases) == 0
    assert bell.rings == before + 1
    assert {x.delivery_id for x in claim(queue)} == {x.delivery_id for x in leases}


def test_pushing_rings_unless_there_is_nothing(queue: Queue, bell: RecordingBell) -> None:
    queue.push(0)
    assert bell.rings == 0
    queue.push(3)
    assert bell.rings == 1


def test_depth_tells_each_lane_and_state(storage: Storage, queue: Queue) -> None:
    accept(storage, queue, 0, 0, 0, 3)
    claim(queue, 1, 0, 0, 0)
    assert {(d.lane, d.state): d.count for d in queue.depth() if d.count} == rows(storage)
    assert counted(storage) == {(0, State.READY): 2, (0, State.LEASED): 1, (3, State.READY): 1}


# ── bells ───────────────────────────────────────────────────────────────────────────────────────────────────


def heard(bell: Bell, *, within: float = SOON) -> bool:
    descriptor = bell.fileno()
    assert descriptor is not None
    return bool(select([descriptor], [], [], within)[0])


@pytest.fixture(params=["socket", "postgresql"])
def bells(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Bell, Bell]]:
    """One that rings and one that listens, of each kind."""
    pair: tuple[Bell, Bell]
    if request.param == "socket":
        pair = SocketBell(tmp_path / "run", listen=False), SocketBell(tmp_path / "run", listen=True)
    else:
        url: str = request.getfixturevalue("postgres_url")
        pair = PostgresBell(url, listen=False), PostgresBell(url, listen=True)
    yield pair
    for bell in pair:
        bell.close()


def test_a_ring_wakes_who_listens(bells: tuple[Bell, Bell]) -> None:
    ringer, listener = bells
    assert not heard(listener, within=0)
    ringer.ring()
    assert heard(listener)


def test_many_rings_are_hushed_at_once_and_the_next_one_is_heard(bells: tuple[Bell, Bell]) -> None:
    ringer, listener = bells
    for _ in range(300):  # more than a socket's buffer holds
        ringer.ring()
    assert heard(listener)
    while heard(listener, within=0.2):  # the last rings may still be on their way
        listener.hush()
    ringer.ring()
    assert heard(listener)


def test_a_ringer_has_nothing_to_watch(bells: tuple[Bell, Bell]) -> None:
    ringer, listener = bells
    ringer.hush()
    assert ringer.fileno() is None
    listener.ring()
    assert heard(listener)  # a worker hears its own rings too


def test_a_closed_bell_is_silent(bells: tuple[Bell, Bell]) -> None:
    ringer, listener = bells
    listener.close()
    ringer.ring()


def test_the_socket_of_a_dead_worker_is_removed(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    program = (
        "import sys, os\nfrom pathlib import Path\nfrom ringbearer.queue.bell import SocketBell\n"
        "bell = SocketBell(Path(sys.argv[1]), listen=True)\nos.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(directory)], check=False, timeout=SOON)
    (left,) = directory.glob("*.bell")
    ringer, listener = SocketBell(directory, listen=False), SocketBell(directory, listen=True)
    ringer.ring()
    assert heard(listener)
    assert not left.exists()
    listener.close()
    assert list(directory.glob("*.bell")) == []
    ringer.close()


def test_a_full_socket_does_not_keep_the_ringer(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "1.bell"))
        ringer = SocketBell(tmp_path, listen=False)
        for _ in range(2_000):
            ringer.ring()
        ringer.close()


def test_a_path_too_long_for_a_socket_leaves_nothing_to_watch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / ("x" * 120)
    bell = SocketBell(directory, listen=True)
    assert bell.fileno() is None
    assert "too long" in caplog.text
    (directory / "1.bell").touch()
    for nothing in (bell.ring, bell.hush, bell.close):
        nothing()


def _kill_backends(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE application_name = 'ringbearer-bell' AND datname = current_database()"
        )


def test_a_postgres_bell_survives_the_loss_of_its_connections(postgres_url: str) -> None:
    with (
        closing(PostgresBell(postgres_url, listen=False)) as ringer,
        closing(PostgresBell(postgres_url, listen=True)) as listener,
    ):
        ringer.ring()
        listener.hush()
        _kill_backends(postgres_url)
        assert heard(listener)  # the end of the connection wakes, too
        for _ in range(2):
            listener.hush()  # a worker does this each time it wakes, and each second
            ringer.ring()
        assert heard(listener)
        listener.hush()
        assert not heard(listener, within=0)


def test_a_bell_without_its_server_is_silent_and_raises_nothing(tmp_path: Path) -> None:
    url = f"postgresql://nobody@/nothing?host={tmp_path}"
    bell = PostgresBell(url, listen=True)
    bell.ring()
    bell.hush()
    assert bell.fileno() is None
    bell.close()


def test_behind_a_pooler_nobody_listens(postgres_url: str) -> None:
    bell = PostgresBell(postgres_url, listen=True, pooled=True)
    bell.ring()
    bell.hush()
    assert bell.fileno() is None
    bell.close()
