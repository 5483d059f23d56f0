"""What the queue follows can be seen and replaced, and what makes no sense is refused with its place."""

from datetime import UTC, datetime, timedelta

from api.harness import Api, pointers

TODAY = datetime.now(UTC).date()


def test_the_built_in_rules_are_shown_until_others_are_put(api: Api) -> None:
    found = api.as_("read").get("/v1/priorities").json()
    assert found["version"] == 0
    assert [rule["lane"] for rule in found["configuration"]["rules"]] == ["asked", "urgent"]
    body = {
        "rules": [{"name": "photos", "lane": "bulk", "event_types": ["photo.*"]}],
        "default": "high",
        "tier_weights": {"enterprise": 10},
    }
    put = api.as_("admin").put("/v1/priorities", json=body)
    assert put.status_code == 200, put.text
    found = api.as_("read").get("/v1/priorities").json()
    assert (found["version"], found["configuration"]["default"]) == (1, "high")
    assert found["configuration"]["rules"][0]["event_types"] == ["photo.*"]


def test_rules_that_cannot_be_followed_are_refused_with_the_place(api: Api) -> None:
    admin = api.as_("admin")
    for body, place in (
        ({"rules": [{"name": "r", "lane": "fast"}]}, "/rules/0/lane"),
        ({"rules": [{"name": "r", "lane": "high", "event_types": ["a b"]}]}, "/rules/0/event_types/0"),
        ({"rulez": []}, "/rulez"),
        ({"default": "asked"}, "/default"),
        ({"tier_weights": {"gold": 2}}, "/tier_weights"),
    ):
        answer = admin.put("/v1/priorities", json=body)
        assert answer.status_code == 422, body
        assert [where for where in pointers(answer) if where.startswith(place)], (body, answer.text)
    assert api.as_("read").get("/v1/priorities").json()["version"] == 0


def test_a_season_is_put_shown_and_rehearsed(api: Api) -> None:
    assert api.as_("read").get("/v1/season").json()["plan"] is None
    body = {
        "name": "summer",
        "starts_on": "2027-05-01",
        "ends_on": "2027-10-31",
        "timezones": ["Europe/Paris"],
        "peak_worker_floor": 6,
    }
    put = api.as_("admin").put("/v1/season", json=body)
    assert put.status_code == 200, put.text
    found = api.as_("read").get("/v1/season").json()
    assert (found["version"], found["plan"]["peak_worker_floor"]) == (1, 6)
    assert found["state"]["phase"] == (
        "ordinary" if datetime(2027, 5, 1, tzinfo=UTC).date() > TODAY else found["state"]["phase"]
    )
    hours = api.as_("read").get("/v1/season/rehearsal", params={"date": "2027-06-19"}).json()["hours"]
    assert len(hours) == 24
    assert hours[0]["changes"][0] == "phase: season → peak"
    assert hours[0]["state"]["worker_floor"] == 6
    assert {hour["local"][11:]: hour["warm"] for hour in hours}["05:00"] == ["05:00"]


def test_a_season_that_makes_no_sense_is_refused(api: Api) -> None:
    body = {"starts_on": "2027-05-02", "ends_on": "2027-05-01", "timezones": ["UTC", "Mars/Base"]}
    answer = api.as_("admin").put("/v1/season", json=body)
    assert answer.status_code == 422
    assert pointers(answer) == ["/ends_on", "/timezones/1"]


def test_the_coming_peaks_are_those_of_the_seasons_calendar(api: Api) -> None:
    reader = api.as_("read")
    found = reader.get("/v1/calendar", params={"days": 14, "timezone": "Europe/Paris"}).json()
    assert found["preset"] == "wedding"
    assert len(found["peaks"]) == 2
    tomorrow = (TODAY + timedelta(days=1)).isoformat()
    calendar = {"preset": "none", "dates": [{"date": tomorrow, "multiplier": 4, "name": "the fair"}]}
    assert api.as_("admin").put("/v1/season", json={"calendar": calendar}).status_code == 200
    (peak,) = reader.get("/v1/calendar", params={"days": 3}).json()["peaks"]
    assert (peak["date"], peak["reasons"]) == (tomorrow, ["the fair"])
    answer = reader.get("/v1/calendar", params={"timezone": "Nowhere/Land", "days": 3})
    assert answer.status_code == 422


def test_the_queue_is_shown_and_its_plan_replaced(api: Api) -> None:
    api.supplier("lumen")
    endpoint_id = str(api.endpoint()["id"])
    api.event("lumen", [endpoint_id])
    found = api.as_("read").get("/v1/queue").json()
    assert [lane["lane"] for lane in found["lanes"]] == ["urgent", "high", "normal", "bulk"]
    assert sum(lane["ready"] for lane in found["lanes"]) == 1
    assert found["plan"]["weights"] == [8, 4, 2, 1]
    put = api.as_("admin").put("/v1/queue", json={"weights": [4, 3, 2, 1], "automatic": False})
    assert put.json()["plan"]["weights"] == [4, 3, 2, 1]
    answer = api.as_("admin").put("/v1/queue", json={"weights": [4, 3, 2, 0]})
    assert answer.status_code == 422
    assert pointers(answer)[0].startswith("/weights")


def test_an_event_shows_its_lane_and_why(api: Api) -> None:
    api.supplier("lumen")
    endpoint_id = str(api.endpoint()["id"])
    (delivery_id,) = api.event("lumen", [endpoint_id])
    event = api.as_("read").get(f"/v1/events/evt_{delivery_id[4:-4]}").json()
    assert event["priority_reason"] is None
