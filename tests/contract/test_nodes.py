"""Nodes see each other, and of those that want to lead, one does: whatever the hosts' clocks say."""

import pytest
from sqlalchemy import text

from contract.making import in_processes, opened
from ringbearer import clock
from ringbearer.storage.base import Storage
from ringbearer.storage.vault import generate_key


def beat(storage: Storage, node_id: str, **signals: float) -> None:
    storage.nodes.beat(node_id, kind="work", host="church", pid=7, version="1.0", signals=signals)


def shift(storage: Storage, table: str, column: str, seconds: float) -> None:
    """Let time have passed for all rows of a table; negative: let the database's clock have gone back."""
    with storage.database.write() as connection:
        connection.execute(
            text(f"UPDATE {table} SET {column} = {column} - :by"), {"by": int(seconds * clock.SECOND)}
        )


def test_the_database_tells_the_time(storage: Storage) -> None:
    with storage.database.read() as connection:
        before = clock.now()
        found = connection.execute(text(f"SELECT {storage.database.now}")).scalar_one()
        assert isinstance(found, int)
        # The database is on this machine; SQLite's clock has milliseconds, PostgreSQL's stands at the statement.
        assert before - clock.SECOND <= found <= clock.now()


def test_who_beats_is_alive_with_what_it_told_last(storage: Storage) -> None:
    beat(storage, "node_a", busy=0.5)
    beat(storage, "node_b")
    beat(storage, "node_a", busy=0.75, held=3.0)
    first, second = storage.nodes.alive()
    assert (first.id, first.kind, first.host, first.pid, first.version) == (
        "node_a",
        "work",
        "church",
        7,
        "1.0",
    )
    assert first.signals == {"busy": 0.75, "held": 3.0}
    assert first.started_at <= first.beat_at
    assert second.signals == {}


def test_who_does_not_beat_is_gone_and_buried_later(storage: Storage) -> None:
    beat(storage, "node_a")
    shift(storage, "nodes", "beat_at", 6)
    assert storage.nodes.alive() == []
    assert [node.id for node in storage.nodes.alive(within=60)] == ["node_a"]
    assert storage.nodes.bury(after=3600) == 0
    beat(storage, "node_b")
    shift(storage, "nodes", "beat_at", 3600)
    beat(storage, "node_b")
    assert storage.nodes.bury(after=3600) == 1
    assert [node.id for node in storage.nodes.alive()] == ["node_b"]


def test_one_leads_until_its_lease_ends(storage: Storage) -> None:
    nodes = storage.nodes
    assert nodes.leader("chores") is None
    assert nodes.lead("chores", "a", seconds=6) == 1
    assert nodes.lead("chores", "b", seconds=6) is None
    assert nodes.lead("other", "b", seconds=6) == 1
    shift(storage, "leaders", "until", 5)
    assert nodes.lead("chores", "a", seconds=6) == 1  # renewed: the same term
    shift(storage, "leaders", "until", 5)
    assert nodes.lead("chores", "b", seconds=6) is None
    assert nodes.leader("chores") == "a"
    shift(storage, "leaders", "until", 2)
    assert nodes.leader("chores") is None
    assert nodes.lead("chores", "b", seconds=6) == 2
    assert nodes.lead("chores", "a", seconds=6) is None


def test_who_signs_off_leads_no_more(storage: Storage) -> None:
    beat(storage, "a")
    storage.nodes.lead("chores", "a", seconds=6)
    storage.nodes.lead("other", "b", seconds=6)
    storage.nodes.forget("a")
    assert storage.nodes.alive() == []
    assert storage.nodes.lead("chores", "b", seconds=6) == 2
    assert storage.nodes.lead("other", "a", seconds=6) is None


@pytest.mark.parametrize("back", [3600, 30 * 86_400])
def test_a_clock_that_goes_back_lets_nobody_lead_for_ever(storage: Storage, back: int) -> None:
    storage.nodes.lead("chores", "a", seconds=6)
    beat(storage, "node_a")
    for table, column in (("leaders", "until"), ("nodes", "beat_at")):
        shift(storage, table, column, -back)
    assert storage.nodes.alive() == []
    assert storage.nodes.leader("chores") is None
    assert storage.nodes.lead("chores", "b", seconds=6) == 2
    beat(storage, "node_a")
    assert [node.id for node in storage.nodes.alive()] == ["node_a"]


def _campaign(url: str, secret_key: str, holder: str) -> list[int | None]:
    with opened(url, secret_key) as storage:
        return [storage.nodes.lead("chores", holder, seconds=60) for _ in range(20)]


def test_of_many_that_ask_at_once_one_leads(store_url: str, storage: Storage) -> None:
    assert storage.nodes.leader("chores") is None
    key = generate_key()
    found = in_processes(_campaign, [(store_url, key, holder) for holder in ("a", "b", "c")])
    winners = [terms for terms in found if set(terms) == {1}]
    losers = [terms for terms in found if set(terms) == {None}]
    assert (len(winners), len(losers)) == (1, 2)
