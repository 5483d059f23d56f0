"""Circuits in the store: followed in order, moved by one, probed by one, forced by an operator."""

import msgspec
import pytest

from contract.making import add_endpoint, admission, at_once, job_states
from ringbearer import clock
from ringbearer.domain.breakers import Circuit
from ringbearer.domain.deliveries import State
from ringbearer.errors import StoreUnavailable
from ringbearer.limits.breaker import BreakerPolicy
from ringbearer.limits.breakers import Breakers
from ringbearer.storage.base import Storage
from ringbearer.telemetry import BreakerMoved, Report, Telemetry

NOW = 1_700_000_000 * clock.SECOND
SECOND = clock.SECOND


def circuit(endpoint_id: str, **given: object) -> Circuit:
    made = Circuit(endpoint_id=endpoint_id, supplier_id="studio", state="open", since=NOW, opened=1)
    return msgspec.structs.replace(made, **({"probe_at": NOW + 30 * SECOND, "reason": "it failed"} | given))


class Member:
    """One worker's breakers, with what it told."""

    def __init__(self, storage: Storage, policy: BreakerPolicy | None = None) -> None:
        telemetry = Telemetry()
        self.told: list[Report] = []
        telemetry.listen(BreakerMoved, self.told.append)
        self.breakers = Breakers(table=storage.breakers, telemetry=telemetry, policy=policy)

    def fails(self, endpoint_id: str, times: int, now: int = NOW, delivery: str = "dlv_1") -> None:
        for _ in range(times):
            self.breakers.called(endpoint_id, "studio", delivery, failed=True, unreached=True, now=now)

    def standing(self, endpoint_id: str) -> str | None:
        known = self.breakers.of(endpoint_id)
        return None if known is None else known.standing


def test_what_changed_is_followed_in_order(storage: Storage) -> None:
    table = storage.breakers
    assert table.change([circuit("ep_b"), circuit("ep_a")]) == {"ep_a", "ep_b"}
    first = table.since(0)
    assert {c.endpoint_id for c in first} == {"ep_a", "ep_b"}
    seen = max(c.version for c in first)
    assert table.since(seen) == []
    assert table.change([msgspec.structs.replace(first[0], state="closed", probe_at=0)]) != set()
    (again,) = table.since(seen)
    assert (again.endpoint_id, again.state, again.version > seen) == (first[0].endpoint_id, "closed", True)


def test_of_two_that_move_a_circuit_one_does(storage: Storage) -> None:
    table = storage.breakers
    table.change([circuit("ep_a")])
    (known,) = table.since(0)
    assert table.change([msgspec.structs.replace(known, opened=2)]) == {"ep_a"}
    assert table.change([msgspec.structs.replace(known, opened=7)]) == set()
    assert table.get("ep_a", "studio").opened == 2


def test_only_one_may_probe_and_only_in_time(storage: Storage) -> None:
    table = storage.breakers
    table.change([circuit("ep_a"), circuit("ep_b", probe_at=NOW + 99 * SECOND)])
    later = NOW + 31 * SECOND

    def probe(_: int) -> int:
        return len(table.take_probes(["ep_a", "ep_b"], now=later, until=later + 40 * SECOND))

    assert table.take_probes(["ep_a"], now=NOW, until=later) == {}
    assert sum(at_once(4, probe)) == 1
    assert table.get("ep_a", "studio").state == "half_open"
    # Whoever was to probe died: another one may.
    assert set(table.take_probes(["ep_a"], now=later + 41 * SECOND, until=later + 99 * SECOND)) == {"ep_a"}


def test_what_an_operator_forces_stands_until_he_takes_it_back(storage: Storage) -> None:
    table = storage.breakers
    forced = table.force("ep_a", "studio", "open", now=NOW)
    assert (forced.standing, forced.reason) == ("open", "forced open by an operator")
    assert table.change([msgspec.structs.replace(forced, state="open")]) == set()
    assert table.take_probes(["ep_a"], now=NOW + 99 * SECOND, until=NOW + 999 * SECOND) == {}
    released = table.force("ep_a", "studio", None, now=NOW + SECOND)
    assert (released.standing, released.forced, released.reason) == ("closed", None, None)
    assert released.version > forced.version


def test_open_ones_are_counted_without_those_of_deleted_endpoints(storage: Storage) -> None:
    table = storage.breakers
    alive, gone, forced = (add_endpoint(storage, "studio", url=f"https://x.example/{n}") for n in range(3))
    table.change([circuit(alive.id), circuit(gone.id), circuit("ep_never", state="closed", since=NOW)])
    table.force(forced.id, "studio", "open", now=NOW)
    assert table.count_open() == 3
    storage.catalog.delete_endpoint("studio", gone.id)
    assert table.count_open() == 2
    assert [c.endpoint_id for c in table.standing_open(limit=9)] == sorted([alive.id, forced.id])
    table.prune(before=NOW + 1)
    assert {c.endpoint_id for c in table.since(0)} == {alive.id, forced.id}


def test_what_one_finds_out_the_others_follow(storage: Storage) -> None:
    one, other = Member(storage), Member(storage)
    one.fails("ep_a", 5)
    assert (one.standing("ep_a"), other.standing("ep_a")) == ("open", None)
    one.breakers.follow()
    other.breakers.follow()
    assert other.standing("ep_a") == "open"
    assert [type(r) for r in one.told] == [BreakerMoved]
    assert other.told == []


def test_a_probe_that_succeeds_closes_it_for_all(storage: Storage) -> None:
    one, other = Member(storage), Member(storage)
    one.fails("ep_a", 5)
    one.breakers.follow()
    other.breakers.follow()
    known = other.breakers.of("ep_a")
    assert known is not None
    due = known.probe_at
    assert other.breakers.take_probes({"ep_a": "dlv_7"}, now=due - 1) == set()
    assert other.breakers.take_probes({"ep_a": "dlv_7"}, now=due) == {"ep_a"}
    assert one.breakers.take_probes({"ep_a": "dlv_8"}, now=due) == set()
    other.breakers.called("ep_a", "studio", "dlv_9", failed=False, unreached=False, now=due)
    assert other.standing("ep_a") != "closed"  # another one's success is no answer to the probe
    other.breakers.called("ep_a", "studio", "dlv_7", failed=False, unreached=False, now=due)
    other.breakers.follow()
    one.breakers.follow()
    assert (one.standing("ep_a"), other.standing("ep_a")) == ("closed", "closed")


def test_a_probe_that_fails_opens_it_for_longer(storage: Storage) -> None:
    one = Member(storage, BreakerPolicy(jitter=0.0))
    one.fails("ep_a", 5)
    one.breakers.follow()
    due = NOW + 30 * SECOND
    assert one.breakers.take_probes({"ep_a": "dlv_7"}, now=due) == {"ep_a"}
    one.fails("ep_a", 1, now=due, delivery="dlv_7")
    one.breakers.follow()
    known = storage.breakers.get("ep_a", "studio")
    assert (known.state, known.opened, known.probe_at) == ("open", 2, due + 60 * SECOND)


def test_a_probe_that_is_not_sent_is_given_back(storage: Storage) -> None:
    one, other = Member(storage), Member(storage)
    one.fails("ep_a", 5)
    one.breakers.follow()
    due = storage.breakers.get("ep_a", "studio").probe_at
    assert one.breakers.take_probes({"ep_a": "dlv_7"}, now=due) == {"ep_a"}
    one.breakers.give_back("ep_a", "dlv_7", now=due)
    one.breakers.follow()
    other.breakers.follow()
    assert other.breakers.take_probes({"ep_a": "dlv_8"}, now=due + 2 * SECOND) == {"ep_a"}


def test_an_operators_word_reaches_all(storage: Storage) -> None:
    one = Member(storage)
    storage.breakers.force("ep_a", "studio", "closed", now=NOW)
    one.breakers.follow()
    one.fails("ep_a", 50)
    assert one.standing("ep_a") == "closed"
    storage.breakers.force("ep_a", "studio", "open", now=NOW)
    one.breakers.follow()
    assert one.standing("ep_a") == "open"
    storage.breakers.force("ep_a", "studio", None, now=NOW)
    one.breakers.follow()
    one.fails("ep_a", 5)
    assert one.standing("ep_a") == "open"
    one.breakers.follow()
    assert storage.breakers.get("ep_a", "studio").state == "open"


def test_a_circuit_that_the_store_forgot_can_open_again(storage: Storage) -> None:
    one = Member(storage)
    one.fails("ep_a", 5)
    one.breakers.follow()
    due = storage.breakers.get("ep_a", "studio").probe_at
    one.breakers.take_probes({"ep_a": "dlv_7"}, now=due)
    one.breakers.called("ep_a", "studio", "dlv_7", failed=False, unreached=False, now=due)
    one.breakers.follow()
    storage.breakers.prune(before=due + 1)
    one.fails("ep_a", 5, now=due + 2)
    one.breakers.follow()
    assert storage.breakers.get("ep_a", "studio").state == "open"


def test_what_could_not_be_parked_is_parked_by_the_next_look(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.ledger.accept([admission("ep_a") for _ in range(3)])
    breakers = Breakers(table=storage.breakers, telemetry=Telemetry(), parking=storage.ledger.parking)
    for _ in range(20):
        breakers.called("ep_a", "studio", "dlv_1", failed=True, unreached=True, now=clock.now())

    def away(*_: object, **__: object) -> int:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(storage.ledger.parking, "park", away)
        with pytest.raises(StoreUnavailable):
            breakers.follow()
    assert set(job_states(storage).values()) == {State.READY}
    breakers.follow()
    assert set(job_states(storage).values()) == {State.SCHEDULED}
