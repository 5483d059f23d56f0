"""Crowded endpoints: who is parked, and at what distances."""

from itertools import count

from contract.making import lease_of
from ringbearer.domain.deliveries import Outcome, State
from ringbearer.queue.crowded import MANY, Crowded, park_like

_serial = count()


def put_back(due_at: int, spacing: int | None = None, endpoint_id: str = "ep_1") -> Outcome:
    held = lease_of(next(_serial), endpoint_id=endpoint_id)
    return Outcome(lease=held, state=State.SCHEDULED, due_at=due_at, reason="no", spacing=spacing)


def test_those_behind_come_at_the_pace_that_was_measured_not_that_of_shaken_times() -> None:
    park = park_like("ep_1", [put_back(500_000 - 1_000 * n, 20_000) for n in range(MANY)])
    assert park is not None
    assert (park.until, park.spacing, park.brief) == (500_000, 20_000, True)


def test_without_a_pace_the_distances_are_those_of_the_ones_before() -> None:
    park = park_like("ep_1", [put_back(5_000 * n) for n in range(11)])
    assert park is not None
    assert (park.until, park.spacing) == (50_000, 5_000)


def test_an_endpoint_that_is_quick_is_not_parked() -> None:
    assert park_like("ep_1", [put_back(500_000, 400)]) is None
    crowded = Crowded()
    crowded.note([put_back(500_000, 400) for _ in range(2 * MANY)])
    assert crowded.take() == []
    crowded.note([put_back(500_000, 40_000) for _ in range(MANY)])
    assert [park.endpoint_id for park in crowded.take()] == ["ep_1"]
    assert crowded.take() == []


def test_few_are_no_crowd() -> None:
    crowded = Crowded()
    crowded.note([put_back(500_000, 40_000) for _ in range(MANY - 1)])
    assert crowded.take() == []
