"""The wanted number of workers as orchestrators read it, and the policy as its owners change it."""

import asyncio
import math

import pytest

from api.harness import Api, pointers
from ringbearer.domain.scaling import LoadMetrics, ScalingPolicy
from ringbearer.scaling.manager import WebhookScalingManager


def decide(api: Api, load: LoadMetrics) -> int:
    """Let the scaler decide by this load; the number."""
    manager = WebhookScalingManager(storage=api.storage)
    return asyncio.run(manager.scale_webhook_infrastructure(load)).after


def test_before_the_first_decision_nobody_is_told_to_shrink(api: Api) -> None:
    for name in "abc":
        api.storage.nodes.beat(name, kind="work", host="h", pid=1, version="1", signals={"warm": 1.0})
    api.storage.nodes.beat("d", kind="work", host="h", pid=1, version="1", signals={"draining": 1.0})
    api.storage.nodes.beat("e", kind="work", host="h", pid=1, version="1", signals={"warm": 0.0})
    found = api.as_("read").get("/v1/scaling").json()
    assert (found["desired_workers"], found["current_workers"]) == (3, 3)
    assert found["decided_at"] is None
    assert "nothing was decided" in found["reason"]


def test_the_latest_decision_is_told_with_what_it_was_made_from(api: Api) -> None:
    decided = decide(api, LoadMetrics(workers=2, slots=100, hold_seconds=1.0, arrivals=200.0))
    assert decided == 3  # 200/s for a second each are 200 slots, of 100 at 70 %
    found = api.as_("scaling").get("/v1/scaling").json()
    assert found["desired_workers"] == 3
    assert found["rule"] == "load"
    assert "200 deliveries/s ask for 3" in found["reason"]
    assert found["signals"]["arrivals"] == 200.0
    assert found["policy"]["maximum"] == ScalingPolicy().maximum
    (record,) = api.as_("read").get("/v1/scaling/decisions").json()["items"]
    assert (record["desired"], record["rule"], record["actor"]) == (3, "load", "scaler")
    assert record["inputs"]["arrivals"] == 200.0


@pytest.mark.parametrize("wanted", [1, 7, 40])
def test_orchestrators_that_compute_as_keda_and_the_autoscaler_do_get_the_wanted_number(
    api: Api, wanted: int
) -> None:
    """KEDA hands the value on as an external metric of type AverageValue, by which the autoscaler computes
    ceil(value / target), whatever runs; it does nothing within its tolerance of 10 % (Kubernetes 1.32,
    `replica_calculator.go`: GetExternalPerPodMetricReplicas)."""
    decide(api, LoadMetrics(workers=wanted, slots=100, hold_seconds=1.0, arrivals=wanted * 70.0))
    value = api.as_("scaling").get("/v1/scaling").json()["desired_workers"]
    assert value == wanted
    for running in (1, 2, wanted, 3 * wanted):
        ratio = value / (1.0 * running)
        assert _autoscaler(value, running=running, target=1.0) == (
            wanted if abs(ratio - 1.0) > 0.1 else running
        )
    assert abs(_autoscaler(value, running=wanted + 4, target=1.0) - wanted) <= (0 if wanted < 40 else 4)


def _autoscaler(value: float, *, running: int, target: float, tolerance: float = 0.1) -> int:
    usage = value / (target * running)
    return running if abs(1.0 - usage) <= tolerance else math.ceil(value / target)


def test_the_policy_is_changed_in_parts_and_the_change_is_on_record(api: Api) -> None:
    client = api.as_("scaling")
    changed = client.patch("/v1/scaling", json={"minimum": 3, "drain_seconds": [1, 2, 3, 4]})
    assert changed.status_code == 200
    policy = changed.json()["policy"]
    assert (policy["minimum"], policy["drain_seconds"], policy["growth"]) == (3, [1, 2, 3, 4], 2.0)
    assert api.storage.scaling.policy().minimum == 3
    (record,) = client.get("/v1/scaling/decisions").json()["items"]
    assert record["rule"] == "policy"
    assert record["actor"].startswith("key_")
    assert "minimum: 1 becomes 3" in record["reason"]
    assert record["inputs"]["before"]["minimum"] == 1
    assert decide(api, LoadMetrics(workers=1)) == 3
    assert client.patch("/v1/scaling", json={"minimum": 3}).status_code == 200
    assert len(client.get("/v1/scaling/decisions").json()["items"]) == 2  # the same again is no change


def test_a_fixed_number_stands_whatever_the_load_is(api: Api) -> None:
    client = api.as_("admin")
    client.patch("/v1/scaling", json={"fixed": 5}).raise_for_status()
    assert decide(api, LoadMetrics(workers=1, arrivals=1e6, hold_seconds=10.0)) == 5
    client.patch("/v1/scaling", json={"fixed": None}).raise_for_status()
    assert decide(api, LoadMetrics(workers=1, arrivals=1e6, hold_seconds=10.0)) == 10


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"minimum": 9, "maximum": 8}, "/minimum"),
        ({"utilisation": 0.9}, "/utilisation"),
        ({"fixed": -1}, "/fixed"),
        ({"drain_seconds": [1, 2, 3]}, "/drain_seconds"),
        ({"growht": 2}, "/growht"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(api: Api, body: dict[str, object], where: str) -> None:
    assert where in pointers(api.as_("scaling").patch("/v1/scaling", json=body))
    assert api.storage.scaling.policy() == ScalingPolicy()


def test_a_leader_of_an_earlier_term_decides_nothing_more(api: Api) -> None:
    new = WebhookScalingManager(storage=api.storage, term=lambda: 7)
    old = WebhookScalingManager(storage=api.storage, term=lambda: 6)
    asyncio.run(new.scale_webhook_infrastructure(LoadMetrics(workers=4)))
    found = asyncio.run(old.scale_webhook_infrastructure(LoadMetrics(workers=9)))
    assert not found.applied
    latest = api.storage.scaling.latest()
    assert latest is not None
    assert latest.desired == 4


def test_what_processes_take_is_told_one_by_one_and_together(api: Api) -> None:
    for name, memory in (("a", 7e7), ("b", 5e7)):
        signals = {"memory": memory, "slots": 100.0, "held": 30.0, "warm": 1.0}
        api.storage.nodes.beat(name, kind="work", host="h", pid=1, version="1", signals=signals)
    found = api.as_("scaling").get("/v1/scaling/resources").json()
    assert sorted(each["signals"]["memory"] for each in found["processes"]) == [5e7, 7e7]
    assert (found["memory"], found["slots"], found["held"], found["utilisation"]) == (12e7, 200, 60, 0.3)
    assert found["load"]["workers"] == 2
    assert api.as_("publish").get("/v1/scaling/resources").status_code == 403


def test_the_report_counts_what_is_on_record(api: Api) -> None:
    async def run() -> None:
        manager = WebhookScalingManager(storage=api.storage)
        for arrivals in (50.0, 130.0):
            load = LoadMetrics(workers=1, slots=100, hold_seconds=1.0, arrivals=arrivals)
            await manager.scale_webhook_infrastructure(load)

    asyncio.run(run())
    found = api.as_("read").get("/v1/scaling/report?days=1").json()
    assert (found["scaled_up"], found["scaled_down"], found["most"]) == (1, 0, 2)
    assert found["connections"]["healthy"] is True
    assert pointers(api.as_("read").get("/v1/scaling/report?days=0")) == ["/days"]
