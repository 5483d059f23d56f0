"""The index in Redis may be lost, old or wrong at any time: nothing is lost with it, and nothing is sent twice."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.redis_servers import Group, Server, cluster_servers, one_server, sentinel_servers, wait_until
from contract.indexed import Indexed, delivery_ids
from contract.making import add_endpoint, admission, at_once, claim, counted, outcome, rows, settle
from contract.test_queue import RecordingBell
from ringbearer import clock
from ringbearer.domain.deliveries import Lease
from ringbearer.errors import RedisUnavailable, StoreUnavailable
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.vault import Vault, generate_key
from tools import migrated_sqlite


@pytest.fixture
def indexed(storage: Storage, redis_url: str) -> Iterator[Indexed]:
    """A queue with one Redis in front, on each database in turn, known to be whole."""
    with Indexed(storage, RecordingBell(), redis_url) as opened:
        opened.reconciler.reconcile()
        yield opened


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A Redis that may be killed, filled and stopped."""
    with one_server(tmp_path / "redis", ("--maxmemory-policy", "noeviction")) as server:
        yield server


@pytest.fixture
def own(storage: Storage, own_server: Server) -> Iterator[Indexed]:
    """A queue on that Redis, known to be whole."""
    with Indexed(storage, RecordingBell(), own_server.url) as opened:
        opened.reconciler.reconcile()
        yield opened


def flush(indexed: Indexed) -> None:
    indexed.link.client.flushall()


def back(indexed: Indexed) -> None:
    """Wait until the index can be asked again, and is whole."""

    def whole() -> bool:
        try:
            indexed.reconciler.reconcile()
        except RedisUnavailable:
            return False
        return True

    wait_until(whole, "the index is whole")


# ── in and out ──────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_leased_by_the_index_is_kept_when_the_store_fails_after_that(
    indexed: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody would send it before its lease runs out, and an attempt would be spent."""
    made = indexed.accept(3)

    def away(*_: object, **__: object) -> list[Lease]:
        raise StoreUnavailable("away")

    monkeypatch.setattr(indexed.storage.ledger, "claim", away)
    assert {lease.event_id for lease in indexed.claim()} == {each.event_id for each in made}
    with pytest.raises(StoreUnavailable):
        indexed.claim()


def test_what_was_pushed_is_claimed_from_the_index_with_all_it_needs(indexed: Indexed) -> None:
    made = [
        admission("ep_1", "ep_2", data=f'{{"n":{n}}}', event_type="photo.gallery_ready") for n in range(5)
    ]
    indexed.storage.ledger.accept(made)
    indexed.queue.push(10, made)
    indexed.queue.close()
    leases = indexed.claim()
    assert len(leases) == 10
    by_event = {a.event_id: a for a in made}
    for lease in leases:
        event = by_event[lease.event_id]
        assert (lease.event_type, lease.timestamp, lease.data) == (event.type, event.timestamp, event.data)
        assert lease.supplier_id == event.supplier_id
        assert lease.attempt == 1
    assert (indexed.used["claimed"], indexed.used["claimed_from_store"]) == (10, 0)
    assert counted(indexed.storage) == rows(indexed.storage)
    assert indexed.index.held() == 0


def test_rank_is_the_order_in_each_lane(indexed: Indexed) -> None:
    made = [admission(f"ep_{n % 3}", lane=n % 4) for n in range(40)]
    indexed.storage.ledger.accept(made)
    indexed.queue.push(len(made), made)
    indexed.queue.close()
    given = {a.event_id: a.ranks[0] or 0 for a in made}
    ranks: dict[int, list[int]] = {lane: [] for lane in range(4)}
    for _ in range(10):
        for lease in indexed.claim(1, 1, 1, 1):
            ranks[lease.lane].append(given[lease.event_id])
    assert all(found == sorted(found) and len(found) == 10 for found in ranks.values())
    assert indexed.used["claimed_from_store"] == 0


def test_a_long_body_is_read_from_the_store(indexed: Indexed) -> None:
    made = [admission(data='"' + "x" * n + '"') for n in (10, 100_000)]
    indexed.storage.ledger.accept(made)
    indexed.queue.push(2, made)
    indexed.queue.close()
    assert (indexed.link.client.memory_usage(indexed.index.keys[0]) or 0) < 10_000
    assert sorted(len(lease.data) for lease in indexed.claim()) == [12, 100_002]
    assert indexed.used["claimed"] == 2


def test_only_what_is_ready_at_once_goes_in(indexed: Indexed) -> None:
    later = clock.now() + 60 * clock.SECOND
    made = [
        admission("ep_1", deliver_at=later),
        admission("ep_1", enabled=False),
        admission("ep_1", ordering_key="k"),
        admission("ep_1", idempotency_key="i"),
        admission("ep_1", idempotency_key="i"),
    ]
    indexed.storage.ledger.accept(made)
    indexed.queue.push(3, made)
    indexed.queue.close()
    assert indexed.index.held() == 1
    assert len(indexed.claim()) == 2  # the first of the ordering key is found in the store


def test_the_next_of_an_ordering_key_is_claimed_as_soon_as_the_one_before_it_is_settled(
    indexed: Indexed,
) -> None:
    made = [admission("ep_1", ordering_key="k") for _ in range(5)]
    indexed.storage.ledger.accept(made)
    for expected in made:
        (lease,) = indexed.claim()
        assert lease.event_id == expected.event_id
        indexed.queue.settle([outcome(lease)], now=clock.now())


def test_what_moved_otherwise_in_between_is_dropped(indexed: Indexed) -> None:
    storage = indexed.storage
    endpoint = add_endpoint(storage)
    made = [admission(endpoint.id) for _ in range(20)]
    storage.ledger.accept(made)
    indexed.queue.push(20, made)
    indexed.queue.close()
    taken = claim(storage, 5)  # past the index
    settle(storage, taken[:2])
    storage.catalog.set_enabled([endpoint.id], enabled=False, reason="by hand")
    storage.ledger.hold(since=0, limit=100)
    assert indexed.claim() == []
    assert indexed.used["stale"] == 20
    assert counted(storage) == rows(storage)


def test_a_full_lane_leaves_the_rest_to_the_store(storage: Storage, redis_url: str) -> None:
    with Indexed(storage, RecordingBell(), redis_url, lane_most=5) as indexed:
        indexed.reconciler.reconcile()
        for _ in range(4):
            indexed.accept(5)
        assert indexed.index.held() == 5
        assert indexed.used["left_out"] == 15
        assert len(set(indexed.drain())) == 20


def test_more_than_one_script_can_unpack_goes_through_in_one_call(indexed: Indexed) -> None:
    made = indexed.accept(9_500)
    assert indexed.index.held() == 9_500
    assert sorted(indexed.drain(3_000, 3_000, 3_000, 3_000)) == sorted(delivery_ids(made))
    assert indexed.used["claimed_from_store"] == 0


def test_a_user_with_the_rights_that_are_asked_for_can_do_everything(
    storage: Storage, redis_server: Server, redis_url: str
) -> None:
    """The rights are those that docs/operations.md names."""
    rights = [
        "resetchannels",
        "~rb:*",
        "~{rb:*",
        "&rb:*",
        "+@read",
        "+@write",
        "+@connection",
        "+@scripting",
        "+@pubsub",
        "+info",
    ]
    with redis_server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "queue", "reset", "on", ">secret", *rights)
    url = redis_url.replace("redis://", "redis://queue:secret@")
    with Indexed(storage, RecordingBell(), url) as indexed:
        indexed.accept(5, push=False)
        assert indexed.reconciler.reconcile() == 5
        indexed.accept(5)
        assert indexed.reconciler.reconcile() == 0
        assert len(indexed.drain()) == 10
        assert indexed.failures == []


# ── lost and found ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_push_that_never_came_is_found_in_the_store(indexed: Indexed) -> None:
    """F3: the process died between the commit and the push."""
    made = indexed.accept(10, push=False)
    assert sorted(indexed.drain()) == sorted(delivery_ids(made))
    assert indexed.used["claimed_from_store"] == 10


def test_the_head_of_each_lane_is_kept_in_the_index(indexed: Indexed) -> None:
    """What became ready by other ways than a push need not wait until the index runs dry."""
    for lane in range(4):
        indexed.accept(5, lane=lane, push=lane % 2 == 0)
    assert indexed.reconciler.reconcile() == 10
    assert indexed.reconciler.reconcile() == 0
    assert len(set(indexed.drain())) == 20
    assert indexed.used["claimed_from_store"] == 0


def test_a_flush_loses_and_doubles_nothing(indexed: Indexed) -> None:
    """I12."""
    made = indexed.accept(30)
    held = indexed.claim(0, 0, 5, 0)
    flush(indexed)
    from_store = indexed.claim(0, 0, 5, 0)  # nobody waits for the reconciler
    assert len(from_store) == 5
    assert indexed.reconciler.reconcile() == 20
    assert indexed.index.torn() == []
    rest = indexed.drain()
    assert sorted([lease.delivery_id for lease in held + from_store] + rest) == sorted(delivery_ids(made))
    assert indexed.used["claimed_from_store"] == 5
    assert counted(indexed.storage) == rows(indexed.storage)


def test_a_restart_without_data_is_noticed(own: Indexed, own_server: Server) -> None:
    made = own.accept(30)
    own_server.kill()
    assert len(own.claim(0, 0, 5, 0)) == 5
    own_server.start()
    back(own)
    assert own.used["rebuilt"] == 25
    assert len(set(own.drain())) == 25
    assert len(made) == 30


def test_a_restart_with_old_data_is_noticed(own: Indexed, own_server: Server) -> None:
    """What was settled since the snapshot is still in it, and what came since is not."""
    old = own.accept(10)
    with own_server.client() as client:
        client.save()
    done = own.drain()
    new = own.accept(10)
    own_server.kill()
    own_server.start()
    with own_server.client() as client:
        assert client.dbsize() > 0
    assert len(own.claim(0, 0, 3, 0)) == 3  # from the store: this server does not know what was since
    back(own)
    rest = own.drain()
    assert sorted(done) == sorted(delivery_ids(old))
    assert len(rest) == 7
    assert set(rest) < set(delivery_ids(new))


def test_while_redis_is_away_all_goes_on_and_returns_by_itself(own: Indexed, own_server: Server) -> None:
    own_server.kill()
    made = own.accept(10)
    assert own.used["dropped"] == 10
    assert sorted(own.drain()) == sorted(delivery_ids(made))
    own_server.start()
    back(own)
    own.used.clear()
    own.accept(10)
    assert len(own.drain()) == 10
    assert own.used["claimed"] == 10


def test_a_full_redis_is_done_without(own: Indexed, own_server: Server) -> None:
    with own_server.client() as client:
        client.config_set("maxmemory", 1)
    made = own.accept(50)
    assert own.failures
    assert sorted(own.drain()) == sorted(delivery_ids(made))


def test_a_redis_that_stands_still_is_done_without(own: Indexed, own_server: Server) -> None:
    made = own.accept(10)
    assert own_server.process is not None
    os.kill(own_server.process.pid, signal.SIGSTOP)
    try:
        assert sorted(own.drain()) == sorted(delivery_ids(made))
        assert own.failures
    finally:
        os.kill(own_server.process.pid, signal.SIGCONT)
    back(own)


def test_two_reconcilers_at_once_double_nothing(storage: Storage, redis_url: str) -> None:
    key = generate_key()
    with (
        Indexed(storage, RecordingBell(), redis_url, key=key) as one,
        Indexed(storage, RecordingBell(), redis_url, key=key) as two,
    ):
        made = one.accept(500, push=False)
        at_once(2, lambda n: (one, two)[n].reconciler.reconcile())
        parts = at_once(2, lambda n: (one, two)[n].drain(10, 10, 10, 10))
        got = parts[0] + parts[1]
        assert sorted(got) == sorted(delivery_ids(made))


def test_workers_with_and_without_redis_share_one_store(indexed: Indexed) -> None:
    """As during a rolling restart that turns Redis on."""
    made = indexed.accept(300)

    def without() -> list[str]:
        got: list[str] = []
        while leases := claim(indexed.storage, 5):
            got += [lease.delivery_id for lease in leases]
        return got

    parts = at_once(2, lambda n: indexed.drain(5, 5, 5, 5) if n else without())
    assert sorted(parts[0] + parts[1]) == sorted(delivery_ids(made))
    assert counted(indexed.storage) == rows(indexed.storage)


# ── what lies there ─────────────────────────────────────────────────────────────────────────────────────────

PAYLOAD, SUPPLIER, URL = "bride-and-groom", "studio-lumiere", "https://hooks.example/very-private"


def everything_in(server: Server) -> bytes:
    """The whole of Redis: every key's name and content."""
    with server.client() as client:
        parts: list[bytes] = []
        for key in client.scan_iter(count=1_000):
            parts.append(key)
            kind = client.type(key)
            if kind == b"hash":
                parts += [part for item in client.hgetall(key).items() for part in item]
            elif kind == b"zset":
                parts += client.zrange(key, 0, -1)
            else:
                assert kind == b"string"
                parts.append(client.get(key) or b"")
        return b"\0".join(parts)


def test_nothing_in_redis_can_be_read(own: Indexed, own_server: Server) -> None:
    endpoint = add_endpoint(own.storage, SUPPLIER, url=URL)
    given = {"supplier_id": SUPPLIER, "data": f'{{"who":"{PAYLOAD}"}}', "event_type": "booking.confirmed"}
    made = [admission(endpoint.id, **given) for _ in range(20)]  # type: ignore[arg-type]
    own.storage.ledger.accept(made)
    own.queue.push(20, made)
    own.queue.close()
    flushed = own.storage.ledger.accept([admission(endpoint.id, **given)])  # type: ignore[arg-type]
    assert own.reconciler.reconcile() == len(flushed)
    lying = everything_in(own_server)
    with own_server.client() as client:
        client.save()
    (dump,) = own_server.directory.glob("*.rdb")
    for secret in (PAYLOAD, SUPPLIER, URL, "hooks.example", endpoint.id, "booking.confirmed"):
        assert secret.encode() not in lying
        assert secret.encode() not in dump.read_bytes()
    assert made[0].event_id[4:].encode() in lying  # it was really looked at


def test_after_a_change_of_keys_everything_is_claimed(storage: Storage, redis_url: str) -> None:
    old, new = generate_key(), generate_key()
    with Indexed(storage, RecordingBell(), redis_url, key=old) as before:
        before.reconciler.reconcile()
        made = before.accept(10)
    with Indexed(storage, RecordingBell(), redis_url, key=new) as after:
        after.reconciler.reconcile()
        assert sorted(after.drain()) == sorted(delivery_ids(made))
        assert after.used["claimed"] == 10


# ── failover ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_a_failover_under_load_loses_and_doubles_nothing(
    kind: str, own_group: Group, own_sqlite: Storage
) -> None:
    """F6: the primary is killed while some push and others claim."""
    with Indexed(own_sqlite, RecordingBell(), own_group.url) as indexed:
        indexed.reconciler.reconcile()
        accepted: list[str] = []
        got: list[str] = []
        over = threading.Event()

        def publish() -> None:
            while not over.is_set():
                accepted.extend(delivery_ids(indexed.accept(20)))

        def work() -> None:
            while not over.is_set() or indexed.storage.ledger.depth():
                leases = indexed.claim(10, 10, 10, 10)
                got.extend(lease.delivery_id for lease in leases)
                settle(indexed.storage, leases)
                if over.is_set() and not leases:
                    return

        def lead() -> None:
            while not over.wait(0.2):
                try:
                    indexed.reconciler.reconcile()
                except RedisUnavailable:
                    continue

        threads = [threading.Thread(target=each) for each in (publish, work, lead)]
        for thread in threads:
            thread.start()
        victim = own_group.primaries()[0]
        wait_until(lambda: indexed.used["claimed"] > 50, "claims from the index")
        victim.kill()
        wait_until(lambda: bool(indexed.failures), "the loss is noticed")
        wait_until(lambda: len(own_group.primaries()) == (1 if kind == "sentinel" else 3), "another primary")
        before = indexed.used["claimed"]
        wait_until(lambda: indexed.used["claimed"] > before + 50, "claims from the index again")
        over.set()
        for thread in threads:
            thread.join()
        got += indexed.drain()
        assert sorted(got) == sorted(accepted)
        assert len(accepted) > 100


@pytest.fixture
def own_group(kind: str, tmp_path: Path) -> Iterator[Group]:
    """Servers of one kind of which some may be killed."""
    with {"sentinel": sentinel_servers, "cluster": cluster_servers}[kind](tmp_path / "group") as group:
        yield group


@pytest.fixture
def own_sqlite(tmp_path: Path) -> Iterator[Storage]:
    with open_storage(migrated_sqlite(tmp_path / "own.db"), Vault([generate_key()])) as opened:
        yield opened


def test_what_waits_to_be_pushed_is_bounded(
    own: Indexed, own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Redis stands still, publishing goes on and memory does not grow."""
    from ringbearer.queue import redis as module

    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 5_000)
    assert own_server.process is not None
    os.kill(own_server.process.pid, signal.SIGSTOP)
    try:
        made = [admission(data='"' + "x" * 1_000 + '"') for _ in range(30)]
        own.storage.ledger.accept(made)
        for each in made:
            own.queue.push(1, [each])
    finally:
        os.kill(own_server.process.pid, signal.SIGCONT)
    own.queue.close()
    assert own.used["dropped"] >= 20  # at most four are on their way to Redis, and four wait
    assert sorted(own.drain()) == sorted(delivery_ids(made))
