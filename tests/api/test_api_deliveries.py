"""Events and deliveries over HTTP: what happened, filtered and paged; retries and replays."""

from datetime import timedelta

import httpx
import pytest

from api.harness import Api, pointers, problem
from ringbearer import clock, ids
from ringbearer.domain.deliveries import State


@pytest.fixture
def endpoint_id(api: Api) -> str:
    """An endpoint of the supplier lumen."""
    api.supplier()
    return str(api.endpoint()["id"])


def test_an_event_shows_its_deliveries_states(api: Api, admin: httpx.Client, endpoint_id: str) -> None:
    second = str(api.endpoint()["id"])
    deliveries = api.event("lumen", [endpoint_id, second])
    api.settle(State.DELIVERED)
    answer = admin.get(f"/v1/events/{ids.event_of(deliveries[0])}")
    assert answer.status_code == 200
    assert '"data":{"n": 1.50}' in answer.text
    event = answer.json()
    assert (event["type"], event["supplier_id"], event["priority"]) == ("booking.made", "lumen", "normal")
    assert event["timestamp"] == "2027-06-19T14:00:00Z"
    assert [(d["id"], d["endpoint_id"], d["state"]) for d in event["deliveries"]] == [
        (deliveries[0], endpoint_id, "delivered"),
        (deliveries[1], second, "delivered"),
    ]


def test_a_delivery_shows_its_attempts(api: Api, admin: httpx.Client, endpoint_id: str) -> None:
    (delivery_id,) = api.event("lumen", [endpoint_id])
    api.settle(State.SCHEDULED, "status: 500")
    seen = admin.get(f"/v1/deliveries/{delivery_id}").json()
    assert (seen["state"], seen["attempt_count"], seen["reason"]) == ("scheduled", 1, "status: 500")
    assert seen["due_at"] > seen["created_at"]
    (attempt,) = seen["attempts"]
    assert attempt.pop("started_at").endswith("Z")
    assert attempt == {
        "number": 1,
        "status_code": 500,
        "duration": 0.012,
        "error": "status: 500",
        "response_body": "thanks",
        "response_headers": {"server": "x"},
        "timing": None,
    }


@pytest.mark.parametrize(
    "path", ["/v1/events/evt_0", "/v1/events/%00", "/v1/deliveries/dlv_0", "/v1/deliveries/a%0Ab"]
)
def test_what_is_not_there_is_404(admin: httpx.Client, path: str) -> None:
    problem(admin.get(path), 404)


def test_filters(api: Api, admin: httpx.Client, endpoint_id: str) -> None:
    api.supplier("other")
    other = str(api.endpoint("other")["id"])
    (first,) = api.event("lumen", [endpoint_id])
    api.settle(State.DEAD)
    (second,) = api.event("other", [other], kind="invoice.sent")
    moment = admin.get(f"/v1/deliveries/{second}").json()["created_at"]
    before_all = (clock.to_datetime(clock.now()) - timedelta(hours=1)).isoformat()

    def found(**filters: str) -> list[str]:
        answer = admin.get("/v1/deliveries", params=filters)
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["items"]]

    assert found() == [second, first]
    assert found(supplier_id="lumen") == [first]
    assert found(endpoint_id=other) == [second]
    assert found(event_id=ids.event_of(first)) == [first]
    assert found(event_type="invoice.sent") == [second]
    assert found(state="dead") == [first]
    assert found(state="ready") == [second]
    assert found(after=before_all) == [second, first]
    assert found(before=before_all) == []
    assert second in found(after=moment)
    assert found(supplier_id="nobody", state="dead") == []


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("state=dying", "/state"),
        ("state=", "/state"),
        ("after=yesterday", "/after"),
        ("before=2027-06-19T14:00:00", "/before"),
        ("after=2027-06-19T14:00:00+02:00", "/after"),  # an unescaped plus is a blank
        ("supplier_id=a%00", "/supplier_id"),
        ("endpoint_id=" + "x" * 200, "/endpoint_id"),
        ("event_id=%1b", "/event_id"),
        ("status=dead", "/status"),
        ("limit=0", "/limit"),
    ],
)
def test_an_unfit_filter_is_refused(admin: httpx.Client, query: str, place: str) -> None:
    assert pointers(admin.get(f"/v1/deliveries?{query}")) == [place]


def test_lists_go_page_by_page_newest_first(api: Api, admin: httpx.Client, endpoint_id: str) -> None:
    made = [api.event("lumen", [endpoint_id])[0] for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while not seen or cursor:
        page = admin.get(
            "/v1/deliveries",
            params={"limit": "2", "supplier_id": "lumen"} | ({"cursor": cursor} if cursor else {}),
        ).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]
    assert seen == made[::-1]


def test_a_dead_letter_is_tried_again_now(api: Api, admin: httpx.Client, endpoint_id: str) -> None:
    (delivery_id,) = api.event("lumen", [endpoint_id])
    api.settle(State.DEAD)
    answer = admin.post(f"/v1/deliveries/{delivery_id}/retry")
    assert answer.status_code == 202
    assert (answer.json()["id"], answer.json()["state"]) == (delivery_id, "ready")
    assert api.woken == 1


@pytest.mark.parametrize("state", [State.DELIVERED, State.SCHEDULED])
def test_a_delivered_or_scheduled_one_is_sent_again_now(
    api: Api, admin: httpx.Client, endpoint_id: str, state: State
) -> None:
    (delivery_id,) = api.event("lumen", [endpoint_id])
    api.settle(state)
    assert admin.post(f"/v1/deliveries/{delivery_id}/retry", json={}).json()["state"] == "ready"


def test_one_on_its_way_stays_as_it_is(api: Api, admin: httpx.Client, endpoint_id: str) -> None:
    (delivery_id,) = api.event("lumen", [endpoint_id])
    api.storage.ledger.claim([9, 9, 9, 9], worker="w", until=clock.now() + clock.SECOND)
    answer = admin.post(f"/v1/deliveries/{delivery_id}/retry")
    assert (answer.status_code, answer.json()["state"], api.woken) == (202, "leased", 0)


def test_a_held_one_says_what_to_do_first(api: Api, admin: httpx.Client, endpoint_id: str) -> None:
    (delivery_id,) = api.event("lumen", [endpoint_id], enabled=False)
    assert "enable" in str(problem(admin.post(f"/v1/deliveries/{delivery_id}/retry"), 409)["detail"])


def test_a_cancelled_one_stays_cancelled(api: Api, admin: httpx.Client, endpoint_id: str) -> None:
    (delivery_id,) = api.event("lumen", [endpoint_id])
    assert admin.delete(f"/v1/suppliers/lumen/endpoints/{endpoint_id}").status_code == 204
    assert api.storage.ledger.cancel(since=0, now=clock.now(), limit=9) == 1
    assert admin.get(f"/v1/deliveries/{delivery_id}").json()["state"] == "cancelled"
    problem(admin.post(f"/v1/deliveries/{delivery_id}/retry"), 409)


def test_a_retry_takes_no_fields(api: Api, admin: httpx.Client, endpoint_id: str) -> None:
    (delivery_id,) = api.event("lumen", [endpoint_id])
    assert pointers(admin.post(f"/v1/deliveries/{delivery_id}/retry", json={"at": 1})) == ["/at"]


def test_a_replay_means_dead_letters_unless_told(api: Api, admin: httpx.Client, endpoint_id: str) -> None:
    for _ in range(2):
        api.event("lumen", [endpoint_id])
    api.settle(State.DEAD)
    api.event("lumen", [endpoint_id])
    api.settle(State.DELIVERED)
    answer = admin.post("/v1/deliveries/replay")
    assert answer.status_code == 202
    assert set(answer.json()) == {"matched", "replay_id"}
    assert answer.json()["matched"] == 2
    assert admin.post("/v1/deliveries/replay", json={"state": "delivered"}).json()["matched"] == 1
    assert admin.post("/v1/deliveries/replay", json={"supplier_id": "nobody"}).json()["matched"] == 0
    progress = admin.get(answer.headers["location"])
    assert progress.status_code == 200
    assert progress.json() | {"matched": 2, "moved": 0, "finished_at": None} == progress.json()
    assert progress.json()["filter"] == {"state": "dead"}
    assert [replay.filter.state for replay in api.storage.history.open_replays()] == [
        "dead",
        "delivered",
        "dead",
    ]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"state": "held"}, "/state"),
        ({"state": "cancelled"}, "/state"),
        ({"state": None}, "/state"),
        ({"after": "2027-06-19"}, "/after"),
        ({"before": "2027-06-19T14:00:00"}, "/before"),
        ({"limit": 5}, "/limit"),
        ({"event_type": "a\x00"}, "/event_type"),
    ],
)
def test_an_unfit_replay_is_refused(admin: httpx.Client, body: dict[str, object], place: str) -> None:
    assert pointers(admin.post("/v1/deliveries/replay", json=body)) == [place]


def test_an_unknown_replay_is_404(admin: httpx.Client) -> None:
    problem(admin.get("/v1/deliveries/replay/rpl_0"), 404)
