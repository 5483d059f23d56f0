"""What several workers see of an endpoint is judged together, in the store and in Redis alike."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from chaos.redis_servers import Group, one_server
from contract.making import add_endpoint, at_once
from ringbearer import clock
from ringbearer.limits.breaker import BreakerPolicy, Calls, appended, note
from ringbearer.limits.breakers import Breakers
from ringbearer.limits.calls import SharedCalls
from ringbearer.limits.calls_database import DatabaseCalls
from ringbearer.limits.calls_redis import RedisCalls
from ringbearer.redis_link import open_redis
from ringbearer.storage.base import Storage
from ringbearer.storage.vault import Vault, generate_key
from ringbearer.telemetry import Telemetry

NOW = 1_700_000_000 * clock.SECOND
POLICY = BreakerPolicy()


class Nowhere(SharedCalls):
    """What must not be asked while Redis answers."""

    def add(self, calls: Mapping[str, str], policy: BreakerPolicy, *, now: int) -> dict[str, str]:
        raise AssertionError("Redis was not used")

    def troubled(self) -> frozenset[str]:
        raise AssertionError("Redis was not used")

    def forget(self, endpoint_ids: Sequence[str]) -> None:
        """Asked whatever Redis does."""


@pytest.fixture(params=["database", "redis", "redis_cluster"])
def shared(request: pytest.FixtureRequest, storage: Storage) -> Iterator[SharedCalls]:
    """Each kind in turn, over each database."""
    stored = DatabaseCalls(storage.calls)
    if request.param == "database":
        yield stored
        return
    group: Group | str = request.getfixturevalue("redis_url" if request.param == "redis" else "redis_cluster")
    url = group if isinstance(group, str) else group.url
    with closing(open_redis(url, Vault([generate_key()]))) as link:
        yield RedisCalls(link, otherwise=Nowhere())


def worker(storage: Storage, shared: SharedCalls | None) -> Breakers:
    return Breakers(table=storage.breakers, telemetry=Telemetry(), shared=shared)


def called(breakers: Breakers, endpoint_id: str, *, failed: bool, unreached: bool = False) -> None:
    breakers.called(endpoint_id, "studio", "dlv_1", failed=failed, unreached=unreached, now=NOW)


def standing(breakers: Breakers, endpoint_id: str) -> str:
    circuit = breakers.of(endpoint_id)
    return "closed" if circuit is None else circuit.standing


def test_what_each_of_three_workers_sees_too_little_of_opens_for_all(
    storage: Storage, shared: SharedCalls
) -> None:
    endpoint = add_endpoint(storage).id
    workers = [worker(storage, shared) for _ in range(3)]
    for each in workers:
        for _ in range(3):
            called(each, endpoint, failed=True)
        each.follow()
    assert {standing(each, endpoint) for each in workers} == {"closed"}  # nine calls are too few
    called(workers[0], endpoint, failed=True)
    for each in workers:
        each.follow()
    assert {standing(each, endpoint) for each in workers} == {"open"}
    circuit = workers[2].of(endpoint)
    assert circuit is not None
    assert circuit.reason == "10 of the last 10 attempts failed"
    assert shared.troubled() == frozenset()


def test_the_successes_of_others_count(storage: Storage, shared: SharedCalls) -> None:
    endpoint = add_endpoint(storage).id
    failing, fine = worker(storage, shared), worker(storage, shared)
    for _ in range(4):
        called(failing, endpoint, failed=True)
    failing.follow()
    fine.follow()  # hears that the endpoint is in trouble
    for _ in range(15):
        called(fine, endpoint, failed=False)
    fine.follow()
    for _ in range(5):
        called(failing, endpoint, failed=True)
    failing.follow()  # 5 of the last 20 by now, and 9 of 24 in all
    assert standing(failing, endpoint) == "closed"
    assert shared.troubled() == {endpoint}


def test_five_connect_errors_in_a_row_are_counted_over_all_workers(
    storage: Storage, shared: SharedCalls
) -> None:
    endpoint = add_endpoint(storage).id
    workers = [worker(storage, shared) for _ in range(5)]
    for each in workers:
        called(each, endpoint, failed=True, unreached=True)
        each.follow()
    assert standing(workers[-1], endpoint) == "open"


def test_both_judge_as_the_rule_of_one_worker_does(shared: SharedCalls) -> None:
    chance = random.Random(4)
    policies = [POLICY, BreakerPolicy(window=4, calls=4, failure_ratio=0.75, connect_errors=9)]
    for number in range(60):
        policy, endpoint = policies[number % 2], f"ep_{number}"
        weights = (5, chance.choice([1, 3, 6]), chance.choice([0, 2, 6]))
        line = "".join(chance.choices("012", weights, k=chance.randrange(1, 40)))
        calls, expected = Calls(), None
        for call in line:
            expected = note(calls, policy, failed=call != "0", connect_error=call == "2")
            if expected is not None:
                break
        cut = chance.randrange(len(line) + 1)
        found: dict[str, str] = {}
        for part in (line[:cut], line[cut:]):
            if part and not found:
                found = shared.add({endpoint: part}, policy, now=NOW)
        assert found.get(endpoint) == expected, (line, cut)
        assert appended("", line, policy)[1] == expected


def test_only_endpoints_with_a_failure_are_kept_and_none_is_forgotten_for_another(
    shared: SharedCalls,
) -> None:
    shared.add({"ep_a": "01", "ep_b": "000", "ep_c": "2"}, POLICY, now=NOW)
    assert shared.troubled() == {"ep_a", "ep_c"}
    shared.add({"ep_a": "0" * 20}, POLICY, now=NOW)
    assert shared.troubled() == {"ep_c"}
    shared.forget(["ep_c", "ep_a"])
    assert shared.troubled() == frozenset()


def test_workers_that_add_at_once_lose_no_call(shared: SharedCalls) -> None:
    policy = BreakerPolicy(window=1_000, calls=1_000, failure_ratio=1.0, connect_errors=1_000)

    def add(number: int) -> list[str]:
        keys = ["ep_a", "ep_b"][:: 1 if number % 2 else -1]
        return [
            reason
            for _ in range(10)
            for reason in shared.add(dict.fromkeys(keys, "1" * 25), policy, now=NOW).values()
        ]

    assert [r for part in at_once(4, add) for r in part] == ["1000 of the last 1000 attempts failed"] * 2


def test_while_redis_is_away_the_store_puts_calls_together(storage: Storage, tmp_path: Path) -> None:
    stored = DatabaseCalls(storage.calls)
    with one_server(tmp_path) as server, closing(open_redis(server.url, Vault([generate_key()]))) as link:
        shared = RedisCalls(link, otherwise=stored)
        shared.add({"ep_a": "1"}, POLICY, now=NOW)
        assert shared.troubled() == {"ep_a"}
        assert not stored.troubled()
        server.kill()
        assert shared.add({"ep_b": "2222"}, POLICY, now=NOW) == {}
        assert shared.troubled() == stored.troubled() == {"ep_b"}
        assert shared.add({"ep_b": "2"}, POLICY, now=NOW) != {}


def test_redis_sees_no_endpoint(storage: Storage, redis_url: str) -> None:
    with closing(open_redis(redis_url, Vault([generate_key()]))) as link:
        RedisCalls(link, otherwise=DatabaseCalls(storage.calls)).add({"ep_secret": "1"}, POLICY, now=NOW)
        (key,) = link.client.keys()
        found = link.client.hgetall(key)
        assert found
        assert "ep_secret" not in repr((key, found))
