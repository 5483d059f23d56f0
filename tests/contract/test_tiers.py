"""Every tier of the cache: what it knows is never staler than asked for, and newer is never overwritten by older."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.redis_servers import Group, Server
from ringbearer.cache.base import Entry, Since, Tier
from ringbearer.cache.lru import LruTier
from ringbearer.cache.null import NullTier
from ringbearer.cache.redis import RedisTier
from ringbearer.cache.store import StoreTier
from ringbearer.domain.endpoints import Endpoint, Target
from ringbearer.domain.suppliers import Supplier
from ringbearer.errors import StoreUnavailable
from ringbearer.redis_link import open_redis
from ringbearer.storage.base import open_storage
from ringbearer.storage.catalog import Subscriptions
from ringbearer.storage.vault import Vault, generate_key

VAULT = Vault([generate_key()])
NOW = datetime.now(UTC)
SECRET = "whsec_bm90IGluIGEgZHVtcA=="


@dataclass
class Truth:
    """What the store would say: the version, and what changed when."""

    version: int = 0
    changed: dict[str, int] = field(default_factory=dict)

    def change(self, *supplier_ids: str) -> int:
        self.version += 1
        self.changed |= dict.fromkeys(supplier_ids, self.version)
        return self.version

    def since(self, version: int) -> Collection[str]:
        return {key for key, at in self.changed.items() if at > version}


def entry(supplier_id: str, version: int, *, name: str | None = None, exists: bool = True) -> Entry:
    """An entry with one endpoint, of a name that tells which it is."""
    if not exists:
        return Entry(None, version)
    supplier = Supplier(
        id=supplier_id, name=name or f"at {version}", metadata={"a": [1]}, created_at=NOW, updated_at=NOW
    )
    endpoint = Endpoint(
        id=f"ep_{supplier_id}",
        supplier_id=supplier_id,
        url="https://h.example/x",
        created_at=NOW,
        updated_at=NOW,
    )
    target = Target(endpoint=endpoint, secrets=((SECRET, None),), version=version)
    return Entry(Subscriptions(supplier, {endpoint.id: target}, version), version, weight=1_000)


def name_of(found: Entry) -> str | None:
    assert found.value is not None
    return found.value.supplier.name


@pytest.fixture(params=["lru", "redis", "cluster"])
def tier(request: pytest.FixtureRequest) -> Iterator[Tier]:
    """Each tier that keeps what it is given."""
    if request.param == "lru":
        yield LruTier(max_bytes=1 << 20, max_entries=1_000)
        return
    if request.param == "redis":
        url: str = request.getfixturevalue("redis_url")
    else:
        group: Group = request.getfixturevalue("redis_cluster")
        url = group.url
    made = RedisTier(
        open_redis(url, Vault([generate_key()]))
    )  # other keys, so other names than in other tests
    yield made
    made.close()


def never(version: int) -> Collection[str]:
    raise AssertionError(f"nobody had to ask for changes since {version}")


def test_what_is_written_is_read_with_all_that_belongs_to_it(tier: Tier) -> None:
    tier.follow(7, never)
    given = {"a": entry("a", 7), "b": entry("b", 9), "gone": entry("gone", 7, exists=False)}
    assert tier.write(given) == 3
    found = tier.read(["a", "unheard", "gone", "b"], version=7)
    assert {key: each.value for key, each in found.items()} == {
        key: each.value for key, each in given.items()
    }
    assert found["a"].version == 7
    assert found["b"].version == 9
    assert tier.read([], version=7) == {}


def test_an_older_entry_never_takes_the_place_of_a_newer_one(tier: Tier) -> None:
    tier.follow(3, never)
    assert tier.write({"a": entry("a", 5)}) == 1
    assert tier.write({"a": entry("a", 4), "b": entry("b", 4)}) == 1
    assert tier.write({"a": entry("a", 3, exists=False)}) == 0
    found = tier.read(["a", "b"], version=3)
    assert name_of(found["a"]) == "at 5"
    assert tier.write({"a": entry("a", 6)}) == 1
    assert name_of(tier.read(["a"], version=3)["a"]) == "at 6"


def test_following_drops_what_changed_and_keeps_the_rest(tier: Tier) -> None:
    truth = Truth(version=10)
    tier.follow(10, truth.since)
    tier.write({key: entry(key, 10) for key in "abc"})
    truth.change("a")
    truth.change("b", "unheard")
    tier.write({"b": entry("b", 12)})
    tier.follow(12, truth.since)
    found = tier.read(["a", "b", "c"], version=12)
    assert {key: name_of(each) for key, each in found.items()} == {"b": "at 12", "c": "at 10"}
    tier.follow(12, never)
    assert tier.read(["c"], version=12)


def test_a_store_that_was_replaced_by_an_older_one_empties_the_tier(tier: Tier) -> None:
    tier.follow(10, never)
    tier.write({"a": entry("a", 10)})
    tier.follow(4, never)
    assert tier.read(["a"], version=4) == {}
    assert tier.write({"a": entry("a", 4)}) == 1
    assert name_of(tier.read(["a"], version=4)["a"]) == "at 4"


# ── what only some of them do ───────────────────────────────────────────────────────────────────────────


def test_the_null_tier_knows_nothing_and_keeps_nothing() -> None:
    tier = NullTier()
    tier.follow(1, never)
    assert tier.write({"a": entry("a", 1)}) == 0
    assert tier.read(["a"], version=0) == {}


def test_the_store_knows_everything_and_is_not_written_to(store_url: str) -> None:
    with open_storage(store_url, VAULT) as storage:
        storage.migrate()
        supplier = Supplier(id="a", name="true", created_at=NOW, updated_at=NOW)
        storage.catalog.put_supplier(supplier)
        tier = StoreTier(storage.catalog)
        assert tier.write({"a": entry("a", 99), "b": entry("b", 99)}) == 0
        version = storage.catalog.version()
        found = tier.read(["a", "b"], version=version)
        assert name_of(found["a"]) == "true"
        assert found["b"].value is None
        assert {each.version for each in found.values()} == {version}
        assert found["a"].weight > found["b"].weight > 0
        with pytest.raises(StoreUnavailable, match=f"as of version {version}, before {version + 1}"):
            tier.read(["a"], version=version + 1)


def test_memory_is_bounded_by_bytes_and_by_number() -> None:
    tier = LruTier(max_bytes=3_500, max_entries=100)
    tier.write({key: entry(key, 1) for key in "abcd"})
    assert sorted(tier.read(list("abcd"), version=0)) == ["b", "c", "d"]
    tier.peek("b")
    tier.write({"e": entry("e", 1)})
    assert sorted(tier.read(list("abcde"), version=0)) == ["b", "d", "e"]
    assert tier.evictions == 2
    state = tier.state()
    assert (state.entries, state.bytes) == (3, 3_000)
    tier.resize(max_bytes=1 << 20, max_entries=1)
    assert len(tier) == 1
    assert tier.write({"huge": Entry(None, 1, weight=1 << 21)}) == 0


def test_suppliers_that_do_not_exist_drive_out_nobody_who_does() -> None:
    tier = LruTier(max_bytes=1 << 20, max_entries=16)
    tier.write({key: entry(key, 1) for key in "abcdefgh"})
    tier.write({f"none{n}": entry(f"none{n}", 1, exists=False) for n in range(1_000)})
    assert sorted(tier.read(list("abcdefgh"), version=0)) == list("abcdefgh")
    assert len(tier) == 10


class Sharing:
    """Two processes' second tiers on one Redis, and the truth behind them."""

    def __init__(self, url: str) -> None:
        vault = Vault([generate_key()])
        self.truth = Truth(version=1)
        self.one, self.two = (RedisTier(open_redis(url, vault)) for _ in range(2))

    def both_follow(self) -> None:
        for tier in (self.one, self.two):
            tier.follow(self.truth.version, self.truth.since)


@pytest.fixture
def sharing(redis_url: str) -> Iterator[Sharing]:
    made = Sharing(redis_url)
    made.both_follow()
    yield made
    made.one.close()
    made.two.close()


def test_what_one_process_writes_another_reads_until_either_sees_the_change(sharing: Sharing) -> None:
    one, two, truth = sharing.one, sharing.two, sharing.truth
    one.write({"a": entry("a", 1), "b": entry("b", 1)})
    assert name_of(two.read(["a"], version=1)["a"]) == "at 1"
    truth.change("a")
    assert two.read(["a", "b"], version=2) == {}, "nobody vouches for version 2 yet"
    one.follow(2, truth.since)
    assert set(two.read(["a", "b"], version=2)) == {"b"}
    assert set(two.read(["a", "b"], version=1)) == {"b"}


def test_a_load_that_was_overtaken_is_refused_whoever_wrote_it(sharing: Sharing) -> None:
    read_before = {"a": entry("a", 1)}
    sharing.truth.change("a")
    sharing.one.follow(2, sharing.truth.since)
    assert sharing.two.write(read_before) == 0
    assert sharing.one.read(["a"], version=2) == {}


def test_a_process_that_slept_through_changes_catches_up_from_where_the_mark_is(sharing: Sharing) -> None:
    one, two, truth = sharing.one, sharing.two, sharing.truth
    truth.change("a")
    truth.change("b")
    one.follow(3, truth.since)
    one.write({key: entry(key, 3) for key in "cd"})
    truth.change("c")
    two.follow(4, truth.since)
    assert set(one.read(["c", "d"], version=4)) == {"d"}


def test_what_redis_kept_of_a_store_that_went_back_to_a_backup_is_not_believed(sharing: Sharing) -> None:
    one, two, truth = sharing.one, sharing.two, sharing.truth
    truth.change("a")
    one.follow(2, truth.since)
    one.write({"a": entry("a", 2)})
    two._marks.clear()
    two.follow(1, truth.since)  # as a process does first that starts after the backup was put back
    assert two.read(["a"], version=1) == {}
    two.follow(1, truth.since)
    two.write({"a": entry("a", 1)})
    assert name_of(two.read(["a"], version=1)["a"]) == "at 1"


def test_a_process_that_finds_others_ahead_reads_again_when_it_has_seen_what_they_saw(
    sharing: Sharing,
) -> None:
    one, two, truth = sharing.one, sharing.two, sharing.truth
    one.write({"b": entry("b", 1)})
    truth.change("a")
    one.follow(2, truth.since)
    two._marks.clear()  # as in one that starts
    two.follow(1, truth.since)
    assert two.read(["b"], version=1) == {}
    two.follow(2, truth.since)
    assert set(two.read(["b"], version=2)) == {"b"}


def test_after_a_flush_nothing_is_believed_until_the_mark_is_set_anew(
    sharing: Sharing, redis_server: Server
) -> None:
    one, two, truth = sharing.one, sharing.two, sharing.truth
    one.write({"a": entry("a", 1)})
    with redis_server.client() as client:
        client.flushall()
    assert one.write({"a": entry("a", 1)}) == 0
    assert one.read(["a"], version=1) == {}
    one.follow(1, never)
    assert one.write({"a": entry("a", 1)}) == 1
    assert set(two.read(["a"], version=1)) == {"a"}
    truth.change("a")
    two.follow(2, truth.since)
    assert one.read(["a"], version=2) == {}


def test_entries_that_outlived_their_mark_are_not_believed(sharing: Sharing, redis_server: Server) -> None:
    sharing.one.write({"a": entry("a", 1)})
    with redis_server.client() as client:
        (mark,) = client.keys("*mark")
        client.delete(mark)
    assert sharing.two.read(["a"], version=1) == {}
    sharing.truth.change("a")
    sharing.both_follow()
    assert sharing.two.read(["a"], version=2) == {}
    sharing.truth.change("b")
    sharing.both_follow()
    assert sharing.two.read(["a"], version=3) == {}


def test_an_old_snapshot_of_redis_is_caught_up_with(sharing: Sharing, redis_server: Server) -> None:
    sharing.one.write({"a": entry("a", 1), "b": entry("b", 1)})
    with redis_server.client() as client:
        snapshot = {key: client.dump(key) for key in client.keys("*")}
        sharing.truth.change("a")
        sharing.both_follow()
        sharing.one.write({"a": entry("a", 2)})
        for key, value in snapshot.items():
            client.restore(key, 0, value, replace=True)
    assert sharing.one.read(["a", "b"], version=2) == {}
    sharing.both_follow()
    assert set(sharing.two.read(["a", "b"], version=2)) == {"b"}


def test_a_dump_shows_neither_names_nor_addresses_nor_secrets(sharing: Sharing, redis_server: Server) -> None:
    sharing.one.write({"lumen-photo": entry("lumen-photo", 1)})
    with redis_server.client() as client:
        keys = client.keys("*")
        assert len(keys) == 2
        dumped = b"".join(key + bytes(client.get(key) or b"") for key in keys)
    for word in ("lumen", "ep_", "h.example", "whsec", SECRET[6:], "at 1"):
        assert word.encode() not in dumped


def test_what_was_moved_or_altered_in_redis_is_not_believed(sharing: Sharing, redis_server: Server) -> None:
    sharing.one.write({"a": entry("a", 1)})
    with redis_server.client() as client:
        (key,) = (key for key in client.keys("*") if not key.endswith(b"mark"))
        value = bytes(client.get(key) or b"")
        (mark,) = client.keys("*mark")
        for altered in (
            value[:-1] + b"?",
            value[:16] + b"%016d" % 9 + value[32:],
            value[:20],
            b"junk",
            value[:16] + b"x" * 60,
        ):
            client.set(key, altered)
            assert sharing.two.read(["a"], version=1) == {}
        client.set(mark, b"junk")
        assert sharing.two.read(["a"], version=1) == {}


def test_a_redis_that_is_away_costs_one_failure_and_then_nothing(tmp_path: Path) -> None:
    asked: list[int] = []

    class Watched(RedisTier):
        def _failed(self, error: Exception) -> None:
            asked.append(1)
            super()._failed(error)  # type: ignore[arg-type]

    tier = Watched(open_redis("redis://127.0.0.1:1/0", VAULT))
    for _ in range(3):
        assert tier.read(["a"], version=0) == {}
        assert tier.write({"a": entry("a", 1)}) == 0
        tier.follow(1, never)
    assert len(asked) == 1
    assert "away" in repr(tier)
    tier.close()


# ── any order of events ─────────────────────────────────────────────────────────────────────────────────

_Steps = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.sampled_from("abc")),
        st.tuples(st.just("load"), st.sampled_from("abc")),
        st.tuples(st.just("write"), st.integers(0, 5)),
        st.tuples(st.just("follow"), st.integers(0, 1)),
        st.tuples(st.just("flush"), st.just(0)),
        st.tuples(st.just("read"), st.sampled_from("abc")),
    ),
    max_size=40,
)


def check_history(tiers: list[Tier], steps: list[tuple[str, str | int]], flush: Callable[[], object]) -> None:
    """Whatever a process reads reflects every change that this process has followed; loads may be written late."""
    truth = Truth(version=1)
    followed = [0, 0]
    loads: list[tuple[str, Entry]] = []
    since: Since = truth.since

    def follow(index: int) -> None:
        tiers[index].follow(truth.version, since)
        followed[index] = truth.version

    for index in (0, 1):
        follow(index)
    for number, (kind, what) in enumerate(steps):
        if kind == "change":
            truth.change(str(what))
        elif kind == "load":
            loads.append(
                (str(what), entry(str(what), truth.version, name=str(truth.changed.get(str(what), 0))))
            )
        elif kind == "write" and loads:
            supplier_id, loaded = loads[int(what) % len(loads)]
            tiers[number % 2].write({supplier_id: loaded})
        elif kind == "follow":
            follow(int(what))
        elif kind == "flush":
            flush()
        elif kind == "read":
            for index, tier in enumerate(tiers):
                found = tier.read([str(what)], version=followed[index])
                if str(what) in found:
                    seen = int(name_of(found[str(what)]) or "0")
                    missed = truth.changed.get(str(what), 0)
                    assert seen == missed or missed > followed[index], (
                        "a change that was followed is not in it"
                    )


@given(steps=_Steps)
def test_nothing_that_was_followed_is_ever_missing_from_memory(steps: list[tuple[str, str | int]]) -> None:
    memories: list[Tier] = [LruTier(max_bytes=1 << 20, max_entries=100) for _ in range(2)]
    check_history(memories, steps, lambda: memories[0].forget(list("abc")))


@given(steps=_Steps)
def test_nothing_that_was_followed_is_ever_missing_from_what_processes_share(
    redis_server: Server, steps: list[tuple[str, str | int]]
) -> None:
    vault = Vault([generate_key()])
    tiers: list[Tier] = [RedisTier(open_redis(redis_server.url, vault)) for _ in range(2)]
    with redis_server.client() as client:
        check_history(tiers, steps, client.flushall)
    for tier in tiers:
        tier.close()
