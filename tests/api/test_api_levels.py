"""Objectives over HTTP and by command: made, changed and taken back, followed at once, written to the audit."""

import json
import logging

import httpx
import pytest

from api.harness import Api, pointers, problem
from ringbearer import clock
from ringbearer.cli.main import main
from ringbearer.domain.deliveries import State
from ringbearer.errors import Conflict
from ringbearer.monitor.objectives import MAX_OBJECTIVES, NAME
from ringbearer.monitor.slo import OBJECTIVES
from ringbearer.telemetry import AttemptMade, AttemptsMade


def slow_attempts(api: Api, count: int) -> None:
    """Deliveries in the urgent lane of an enterprise supplier, each sent 0.7 s after it was ready."""
    now = clock.now()
    one = AttemptMade(
        outcome="delivered",
        send_seconds=0.2,
        accept_to_send=0.7,
        reused_connection=True,
        lane=0,
        tier="enterprise",
        supplier_id="lumen",
        endpoint_id="ep_lumen",
        event_type="booking.confirmed",
        attempt=1,
        state=State.DELIVERED,
        error=None,
        accepted_at=now - 900_000,
        ready_at=now - 900_000,
        claimed_at=now - 800_000,
        first_byte_at=now - 200_000,
        answered_at=now,
    )
    api.telemetry.emit(AttemptsMade([one] * count, now))
    api.write_figures()


def levels(api: Api) -> dict[str, dict[str, object]]:
    return {one["objective"]: one for one in api.as_("read").get("/v1/slos").json()["objectives"]}


def test_a_promise_is_made_changed_and_taken_back(
    api: Api, admin: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    slow_attempts(api, 200)
    assert set(levels(api)) == {each.id for each in OBJECTIVES}
    with caplog.at_level(logging.INFO, "ringbearer.audit"):
        body = {"target": 0.9, "lane": "urgent", "tier": "enterprise", "seconds": 60}
        made = admin.put("/v1/slos/latency/best", json=body)
        assert made.status_code == 201, made.text
        assert made.json()["peak_seconds"] == 60
        assert levels(api)["latency/best"]["kept"] is True
        changed = admin.put("/v1/slos/latency/best", json={**body, "seconds": 0.3, "peak_seconds": 0.2})
        assert changed.status_code == 200, changed.text
        kept = levels(api)["latency/best"]
        assert (kept["kept"], kept["good"], kept["total"]) == (False, 0, 200)
        burns = api.as_("read").get("/v1/slos").json()["burns"]
        rates = [burn["long_rate"] for burn in burns if burn["objective"] == "latency/best"]
        assert rates == pytest.approx([10] * len(rates))
        assert admin.delete("/v1/slos/latency/best").status_code == 204
        assert admin.delete("/v1/slos/success/all").status_code == 204
    assert set(levels(api)) == {each.id for each in OBJECTIVES} - {"success/all"}
    notes = [vars(record) for record in caplog.records if record.name == "ringbearer.audit"]
    assert [(n["before"] is None, n["after"] is None) for n in notes] == [
        (True, False),
        (False, False),
        (False, True),
        (False, True),
    ]
    assert (notes[1]["before"]["seconds"], notes[1]["after"]["seconds"]) == (60, 0.3)
    assert all(note["key"].startswith("key_") for note in notes)


@pytest.mark.parametrize(
    ("path", "body", "wrong"),
    [
        ("latency/x", {"target": 0.9}, ["/seconds"]),
        ("success/x", {"target": 0.9, "seconds": 3}, ["/seconds"]),
        ("latency/x", {"target": 1, "seconds": 3}, ["/target"]),
        ("latency/x", {"target": 0.9, "seconds": 3, "peak_seconds": 4}, ["/peak_seconds"]),
        (
            "latency/x",
            {"target": 0.9, "seconds": 0, "lane": "fast", "more": 1},
            ["/lane", "/more", "/seconds"],
        ),
        ("success/x", {}, ["/target"]),
    ],
)
def test_what_is_no_promise_is_refused(
    admin: httpx.Client, path: str, body: dict[str, object], wrong: list[str]
) -> None:
    answer = admin.put(f"/v1/slos/{path}", json=body)
    problem(answer, 422)
    assert sorted(pointers(answer)) == wrong


def test_who_may_promise_and_what_is_not_there(api: Api, admin: httpx.Client) -> None:
    good = {"target": 0.9}
    for scope in ("read", "publish", "supplier:lumen"):
        problem(api.as_(scope).put("/v1/slos/success/x", json=good), 403)
        problem(api.as_(scope).delete("/v1/slos/success/all"), 403)
    problem(admin.put("/v1/slos/speed/x", json=good), 404)
    problem(admin.delete("/v1/slos/success/x"), 404)
    for number in range(MAX_OBJECTIVES - len(OBJECTIVES)):
        assert admin.put(f"/v1/slos/success/n{number}", json=good).status_code == 201
    problem(admin.put("/v1/slos/success/too-many", json=good), 422)
    assert admin.put("/v1/slos/success/n0", json=good).status_code == 200


def test_of_two_who_change_them_at_once_one_is_told(api: Api, admin: httpx.Client) -> None:
    plans = api.services.storage.plans
    assert admin.put("/v1/slos/success/x", json={"target": 0.9}).status_code == 201
    with pytest.raises(Conflict):
        plans.put(NAME, "[]", now=clock.now(), reason="too late", over=0)
    assert plans.put(NAME, "[]", now=clock.now(), reason="in time", over=1) == 2
    assert levels(api) == {}


def test_the_commands(api: Api, admin: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    to = ["--server", api.url, "--key", api.key("admin")]
    wanted = ["latency/gold", "--tier", "enterprise", "--target", "0.999", "--seconds", "2"]
    assert main(["slos", "set", *wanted, "--json", *to]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] == 2
    assert main(["slos", "list", *to]) == 0
    assert "latency/gold" in capsys.readouterr().out
    assert main(["slos", "delete", "latency/gold", *to]) == 0
    assert main(["slos", "delete", "latency/gold", *to]) == 1
    assert main(["slos", "delete", "gold", *to]) == 1
    assert "latency/urgent" in capsys.readouterr().err
    assert "latency/gold" not in levels(api)
