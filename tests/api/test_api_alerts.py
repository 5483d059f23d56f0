"""Alerts over HTTP: acknowledged, silenced, rules changed, channels kept with their addresses sealed."""

import json

import httpx
import pytest

from api.harness import Api, pointers, problem
from ringbearer.cli.main import main

ADDRESS = "http://127.0.0.1:9/services/T0KEN"


def test_an_alert_is_taken_care_of_once(api: Api, admin: httpx.Client) -> None:
    alert = api.alert()
    (listed,) = admin.get("/v1/alerts?state=firing").json()["items"]
    assert listed["id"] == alert.id
    taken = admin.post(f"/v1/alerts/{alert.id}/acknowledge").json()
    assert taken["acknowledged_at"] is not None
    assert admin.post(f"/v1/alerts/{alert.id}/acknowledge").json() == taken
    assert admin.get(f"/v1/alerts/{alert.id}").json() == taken
    problem(admin.post("/v1/alerts/alr_none/acknowledge"), 404)


def test_alerts_are_listed_page_by_page_and_pending_ones_when_asked_for(
    api: Api, admin: httpx.Client
) -> None:
    made = [api.alert(rule=f"r{n}") for n in range(3)]
    api.alert(state="pending", fired_at=None)
    first = admin.get("/v1/alerts?limit=2").json()
    rest = admin.get(f"/v1/alerts?limit=2&cursor={first['next']}").json()
    assert [a["rule"] for a in first["items"] + rest["items"]] == [a.rule for a in reversed(made)]
    assert len(admin.get("/v1/alerts?state=pending").json()["items"]) == 1
    assert pointers(admin.get("/v1/alerts?state=loud")) == ["/state"]


def test_a_silence_lasts_as_long_as_it_says(admin: httpx.Client) -> None:
    made = admin.post("/v1/alert-silences", json={"rule": "no_worker", "seconds": 60, "reason": "moving"})
    assert made.status_code == 201
    assert [s["id"] for s in admin.get("/v1/alert-silences").json()["items"]] == [made.json()["id"]]
    assert admin.delete(f"/v1/alert-silences/{made.json()['id']}").status_code == 204
    assert admin.get("/v1/alert-silences").json()["items"] == []
    problem(admin.delete(f"/v1/alert-silences/{made.json()['id']}"), 404)
    assert pointers(admin.post("/v1/alert-silences", json={"seconds": 0})) == ["/seconds"]
    assert pointers(admin.post("/v1/alert-silences", json={"group": "bulk"})) == ["/rule"]


def _rules(client: httpx.Client) -> dict[str, dict[str, object]]:
    return {rule["id"]: rule for rule in client.get("/v1/alert-rules?limit=250").json()["items"]}


def test_a_rule_is_changed_and_put_back(admin: httpx.Client) -> None:
    before = _rules(admin)["queue_waits"]
    changed = admin.put("/v1/alert-rules/queue_waits", json={"threshold": 300, "severity": "critical"})
    assert changed.json() == before | {"threshold": 300, "severity": "critical"}
    assert _rules(admin)["queue_waits"]["threshold"] == 300
    assert admin.delete("/v1/alert-rules/queue_waits").status_code == 204
    assert _rules(admin)["queue_waits"] == before


def test_a_rule_can_be_added_and_must_make_sense(admin: httpx.Client) -> None:
    body = {"summary": "{group}: {value}", "metric": "p95_reach", "threshold": 2}
    assert admin.put("/v1/alert-rules/mine", json=body).json()["clear"] == 2
    assert "mine" in _rules(admin)
    assert pointers(admin.put("/v1/alert-rules/mine", json={"metric": "moon"})) == ["/metric"]
    assert pointers(admin.put("/v1/alert-rules/mine", json={"clear": 3})) == ["/clear"]
    assert pointers(admin.put("/v1/alert-rules/other", json={})) == ["/metric", "/summary", "/threshold"]
    assert admin.delete("/v1/alert-rules/mine").status_code == 204
    problem(admin.delete("/v1/alert-rules/mine"), 404)


def test_an_address_is_never_shown(api: Api, admin: httpx.Client) -> None:
    body = {"name": "team", "kind": "slack", "address": ADDRESS, "after": 30, "severities": ["critical"]}
    made = admin.post("/v1/alert-channels", json=body)
    assert made.status_code == 201
    failed = admin.post(f"/v1/alert-channels/{made.json()['id']}/test")
    listed = admin.get("/v1/alert-channels")
    assert "T0KEN" not in made.text + listed.text + failed.text
    problem(failed, 409)
    (channel,) = listed.json()["items"]
    assert (channel["after"], channel["severities"]) == (30, ["critical"])
    assert api.storage.alerts.address(channel["id"]) == ADDRESS
    assert admin.delete(f"/v1/alert-channels/{channel['id']}").status_code == 204
    problem(admin.post(f"/v1/alert-channels/{channel['id']}/test"), 404)


def test_a_webhook_channel_gets_a_secret_of_its_own(admin: httpx.Client) -> None:
    made = admin.post("/v1/alert-channels", json={"name": "n", "kind": "webhook", "address": ADDRESS}).json()
    assert made["secret"].startswith("whsec_")
    (listed,) = admin.get("/v1/alert-channels").json()["items"]
    assert "secret" not in listed


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"kind": "pigeon"}, "/kind"),
        ({"address": "ftp://example.com/"}, "/address"),
        ({"address": "http://["}, "/address"),
        ({"address": "https:///path"}, "/address"),
        ({"kind": "apprise", "address": "pigeon://loft"}, "/address"),
        ({"after": -1}, "/after"),
        ({"quiet": {"start": "25:00", "end": "07:00"}}, "/quiet/start"),
        ({"quiet": {"start": "22:00", "end": "07:00", "timezone": "Moon/Base"}}, "/quiet/timezone"),
    ],
)
def test_a_channel_must_make_sense(admin: httpx.Client, change: dict[str, object], place: str) -> None:
    body: dict[str, object] = {"name": "n", "kind": "slack", "address": ADDRESS}
    assert pointers(admin.post("/v1/alert-channels", json=body | change)) == [place]


def test_the_command_line_lists_acknowledges_and_silences(
    api: Api, admin: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    alert = api.alert()
    to = ["--server", api.url, "--key", api.key("admin")]
    assert main(["alerts", "list", *to]) == 0
    assert alert.id in capsys.readouterr().out
    assert main(["alerts", "ack", alert.id, *to]) == 0
    assert api.storage.alerts.get(alert.id).acknowledged_at is not None
    assert main(["alerts", "silence", "--rule", "no_worker", "--seconds", "60", "--json", *to]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["rule"] == "no_worker"
    assert main(["alerts", "channels", "add", "team", ADDRESS, "--kind", "slack", "--after", "30", *to]) == 0
    assert main(["alerts", "channels", "list", *to]) == 0
    assert "30 s" in capsys.readouterr().out
    assert main(["alerts", "test", *to]) == 1  # nobody is there to take it
    assert "did not take the message" in capsys.readouterr().err
