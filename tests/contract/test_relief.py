"""A service level that burns is relieved in the running system: weights, replays, endpoints; and all comes back."""

import asyncio

import msgspec
import pytest

from contract.making import add_endpoint, supplier
from ringbearer import clock
from ringbearer.domain.relief import STEPS, Relief, ServiceLevel, SLAConfiguration
from ringbearer.domain.scaling import LoadMetrics
from ringbearer.queue.steering import Steering
from ringbearer.scaling.enforcement import Enforcer
from ringbearer.scaling.manager import WebhookScalingManager
from ringbearer.scaling.slas import Ladder
from ringbearer.storage.base import Storage
from ringbearer.storage.rollups import Rollup
from ringbearer.telemetry import ReliefChanged, Telemetry

CONFIG = SLAConfiguration(
    levels=(ServiceLevel(lane="high", seconds=1.0, objective=0.9),),
    window=10.0,
    burn_rate=1.0,
    step_seconds=1.0,
    recover_seconds=1.0,
)
LATE = LoadMetrics(workers=2, oldest=(0.0, 9.0, 0.0, 0.0))
WELL = LoadMetrics(workers=2)


class Now:
    """A clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 100.0
        monkeypatch.setattr(clock, "monotonic", lambda: self.seconds)


def test_every_step_reaches_the_running_system_and_is_undone(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = Now(monkeypatch)
    telemetry = Telemetry()
    announced: list[tuple[str, bool]] = []
    telemetry.listen(ReliefChanged, lambda report: announced.append((report.step, report.taken)))
    storage.catalog.put_supplier(supplier())
    worst = add_endpoint(storage).id
    _failing(storage, worst)
    steering = Steering(plans=storage.plans, ledger=storage.ledger, telemetry=telemetry)
    steering.follow(now=clock.now())
    usual = steering.plan.weights
    enforcer = Enforcer(storage, telemetry)
    enforcer.configure(CONFIG)

    for count, step in enumerate(STEPS, start=1):
        found = enforcer.enforce(LATE, desired=2)
        assert (found.taken, found.undone, found.after) == (step, None, STEPS[:count])
        assert "high waits 9.0 s" in found.reason
        now.seconds += 2
    assert enforcer.relief().worker_floor == 3
    steering.follow(now=clock.now())
    assert steering.plan.weights[3] == 1
    assert steering.plan.weights[1] / steering.plan.weights[2] == 4 * usual[1] / usual[2]
    circuit = storage.breakers.get(worst, "studio")
    assert (circuit.forced, circuit.reason) == ("open", "paused, for a service level burns too fast")
    assert enforcer.relief().paused == ((worst, "studio"),)

    second = Enforcer(storage, telemetry)  # another leader takes over in the middle, and knows what to undo
    assert second.enforce(WELL, desired=2).after == STEPS
    for count, step in enumerate(reversed(STEPS), start=1):
        now.seconds += 2
        found = second.enforce(WELL, desired=2)
        assert found.after == STEPS[: len(STEPS) - count]
        assert step in [name for name, taken in announced if not taken]
    assert enforcer.relief() == Relief(reason="every level has been kept for long enough")
    steering.follow(now=clock.now())
    assert steering.plan.weights == usual
    assert storage.breakers.get(worst, "studio").forced is None
    assert announced == [(step, True) for step in STEPS] + [(step, False) for step in reversed(STEPS)]


def test_who_leads_again_undoes_what_another_leader_did(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = Now(monkeypatch)
    first, second = Enforcer(storage, Telemetry()), Enforcer(storage, Telemetry())
    first.configure(CONFIG)
    assert first.enforce(WELL, desired=2).after == ()
    assert second.enforce(LATE, desired=2).after == STEPS[:1]
    now.seconds += 2
    assert first.enforce(WELL, desired=2).before == STEPS[:1]
    now.seconds += 2
    assert first.enforce(WELL, desired=2).undone == STEPS[0]
    assert first.relief().steps == ()


def test_the_manager_keeps_more_workers_while_a_level_burns(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        manager = WebhookScalingManager(storage=storage)
        first = await manager.scale_webhook_infrastructure(LoadMetrics(workers=2))
        found = await manager.enforce_performance_slas(CONFIG)
        assert found.taken is None  # nothing waits
        storage.plans.put(
            "relief",
            msgspec.json.encode(Relief(steps=("workers",), lane=1, worker_floor=first.after + 1)).decode(),
            now=clock.now(),
            reason="test",
        )
        second = await manager.scale_webhook_infrastructure(LoadMetrics(workers=2))
        assert (second.rule, second.after) == ("relief", first.after + 1)

    asyncio.run(run())
    assert Ladder().steps == ()


def _failing(storage: Storage, endpoint_id: str) -> None:
    """Lately, most attempts at that endpoint failed."""
    minute = 60 * clock.SECOND
    storage.rollups.write(
        [
            Rollup(
                dimension="endpoint",
                at=clock.now() // minute * minute,
                key=endpoint_id,
                process="p",
                attempts=100,
                delivered=10,
                receiver=90,
                ours=0,
                first=100,
                dead=0,
                sketches="",
            )
        ]
    )
