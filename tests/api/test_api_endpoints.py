"""Endpoints over HTTP: their whole life, their limits, and their secrets that no read shows."""

import base64
import hashlib
from pathlib import Path
from typing import cast

import httpx
import pytest
from msgspec.structs import replace

from api.harness import URL, Api, Serving, pointers, problem
from ringbearer import clock
from ringbearer.domain.endpoints import Endpoint
from ringbearer.storage.parking import RATE_LIMIT, Park

ENDPOINTS = "/v1/suppliers/lumen/endpoints"


@pytest.fixture
def endpoint_id(api: Api) -> str:
    """An endpoint of the supplier lumen."""
    api.supplier()
    return str(api.endpoint()["id"])


@pytest.fixture
def supplier(api: Api) -> str:
    """The supplier lumen."""
    return api.supplier()


def test_create_shows_everything_and_the_secret_once(admin: httpx.Client, supplier: str) -> None:
    body = {
        "url": URL,
        "event_types": ["booking.confirmed", "invoice.*"],
        "description": "main",
        "headers": {"Authorization": "Bearer abc", "X-Team": "a\tb"},
        "rate_limit": {"requests": 10, "period": 1.0},
        "max_concurrency": 3,
        "timeout": 5.0,
        "retry_schedule": [5.0, 60.0],
        "enabled": False,
    }
    answer = admin.post(ENDPOINTS, json=body)
    assert answer.status_code == 201
    made = answer.json()
    assert made | body == made
    assert made["id"].startswith("ep_")
    assert made["supplier_id"] == supplier
    assert made["disabled_reason"]
    secret = made.pop("secret")
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) >= 24
    assert answer.headers["location"] == f"{ENDPOINTS}/{made['id']}"
    assert answer.headers["cache-control"] == "no-store"
    assert admin.get(f"{ENDPOINTS}/{made['id']}").json() == made
    assert admin.get(ENDPOINTS).json() == {"items": [made], "next": None}


def test_what_is_left_out_has_its_default(admin: httpx.Client, supplier: str) -> None:
    made = admin.post(ENDPOINTS, json={"url": URL}).json()
    assert made["event_types"] == ["*"]
    assert made["timeout"] == 10
    assert made["retry_schedule"] == [5, 300, 1800, 7200, 18000, 36000, 36000]
    assert (made["enabled"], made["headers"], made["rate_limit"]) == (True, {}, None)


def test_a_secret_may_be_brought_along(api: Api, admin: httpx.Client, supplier: str) -> None:
    secret = "whsec_" + base64.b64encode(b"k" * 32).decode()
    made = admin.post(ENDPOINTS, json={"url": URL, "secret": secret}).json()
    assert made["secret"] == secret
    assert api.storage.catalog.subscriptions(["lumen"])["lumen"].targets[made["id"]].secrets == (
        (secret, None),
    )


@pytest.mark.parametrize("secret", ["", "hunter2", "whsec_", "whsec_AAAA", "whsk_AAAA", "x" * 500, 5])
def test_a_poor_secret_is_refused_and_not_repeated(
    admin: httpx.Client, supplier: str, secret: object
) -> None:
    answer = admin.post(ENDPOINTS, json={"url": URL, "secret": secret})
    assert pointers(answer) == ["/secret"]
    assert not isinstance(secret, str) or len(secret) < 8 or secret not in answer.text


def test_ed25519_shows_its_public_key_on_every_read(admin: httpx.Client, supplier: str) -> None:
    made = admin.post(ENDPOINTS, json={"url": URL, "signing": "ed25519"}).json()
    assert made["secret"].startswith("whsk_")
    assert made["public_key"].startswith("whpk_")
    one = f"{ENDPOINTS}/{made['id']}"
    assert admin.get(one).json()["public_key"] == made["public_key"]
    rotated = admin.post(f"{one}/rotate-secret").json()
    assert rotated["secret"].startswith("whsk_")
    assert rotated["public_key"] != made["public_key"]
    assert admin.get(one).json()["public_key"] == rotated["public_key"]


TIMEOUTS: list[object] = [0, -1, 1e9, 30.001, 0.999, "10", None, True, []]
CONCURRENCIES: list[object] = [0, -1, 10_001, 1.5, "3", 2**70]
EVENT_TYPES: list[object] = [[], None, "*", ["*"] * 51, [1]]
UNFIT: list[tuple[str, object]] = [
    *(("timeout", value) for value in TIMEOUTS),
    *(("max_concurrency", value) for value in CONCURRENCIES),
    *(("event_types", value) for value in EVENT_TYPES),
    ("retry_schedule", [5] * 21),
    ("retry_schedule", None),
    ("retry_schedule", 1_000_000),
    ("description", "x" * 501),
    ("description", "a\x07b"),
    ("description", 5),
    ("enabled", "yes"),
    ("enabled", None),
    ("url", None),
    ("url", 5),
    ("url", "ftp://example.com/"),
    ("url", "http://127.0.0.1/"),
    ("url", "http://[::1]/"),
    ("url", "http://localhost/"),
    ("url", "http://169.254.169.254/latest/meta-data"),
    ("url", "http://user:pw@example.com/"),
    ("url", ""),
    ("url", "https://93.184.215.14/" + "a" * 3_000),
    ("headers", None),
    ("headers", []),
    ("rate_limit", 5),
    ("signing", "rot13"),
]


@pytest.mark.parametrize(("field", "value"), UNFIT)
def test_unfit_values_are_refused_where_they_stand(
    admin: httpx.Client, supplier: str, field: str, value: object
) -> None:
    assert pointers(admin.post(ENDPOINTS, json={"url": URL, field: value}))[0].split("/")[1] == field


@pytest.mark.parametrize(
    ("field", "value", "place"),
    [
        ("retry_schedule", [5, 0], "/retry_schedule/1"),
        ("retry_schedule", [604_801], "/retry_schedule/0"),
        ("retry_schedule", ["5"], "/retry_schedule/0"),
        ("rate_limit", {"requests": 0, "period": 1}, "/rate_limit/requests"),
        ("rate_limit", {"requests": 1_000_001, "period": 1}, "/rate_limit/requests"),
        ("rate_limit", {"requests": 1, "period": 0}, "/rate_limit/period"),
        ("rate_limit", {"requests": 1, "period": 2_678_401}, "/rate_limit/period"),
        ("rate_limit", {"requests": 1}, "/rate_limit"),
        ("rate_limit", {"requests": 1, "period": 1, "burst": 2}, "/rate_limit"),
        ("event_types", ["*", "a..b"], "/event_types/1"),
        ("event_types", ["*.a"], "/event_types/0"),
        ("event_types", [".*"], "/event_types/0"),
        ("event_types", ["a.*.b"], "/event_types/0"),
        ("event_types", ["a" * 129], "/event_types/0"),
        ("event_types", ["a\n"], "/event_types/0"),
        ("headers", {"Host": "x"}, "/headers/Host"),
        ("headers", {"content-LENGTH": "0"}, "/headers/content-LENGTH"),
        ("headers", {"Transfer-Encoding": "chunked"}, "/headers/Transfer-Encoding"),
        ("headers", {"Connection": "close"}, "/headers/Connection"),
        ("headers", {"Expect": "100-continue"}, "/headers/Expect"),
        ("headers", {"Cookie": "a=b"}, "/headers/Cookie"),
        ("headers", {"User-Agent": "x"}, "/headers/User-Agent"),
        ("headers", {"Accept-Encoding": "gzip"}, "/headers/Accept-Encoding"),
        ("headers", {"Webhook-Signature": "v1,x"}, "/headers/Webhook-Signature"),
        ("headers", {"ringbearer-attempt": "1"}, "/headers/ringbearer-attempt"),
        ("headers", {"X-Forwarded-For": "1.2.3.4"}, "/headers/X-Forwarded-For"),
        ("headers", {"X: Y": "1"}, "/headers/X: Y"),
        ("headers", {"": "1"}, "/headers/"),
        ("headers", {"X-Ü": "1"}, "/headers/X-Ü"),
        ("headers", {"X-A": "a\r\nX-B: c"}, "/headers/X-A"),
        ("headers", {"X-A": "a\nb"}, "/headers/X-A"),
        ("headers", {"X-A": "ü"}, "/headers/X-A"),
        ("headers", {"X-A": ""}, "/headers/X-A"),
        ("headers", {"X-A": " a"}, "/headers/X-A"),
        ("headers", {"X-A": "x" * 4_097}, "/headers/X-A"),
        ("headers", {"X-A": "***"}, "/headers/X-A"),
        ("headers", {"X-A": 1}, "/headers"),
        ("headers", {"X-A": "1", "x-a": "2"}, "/headers/x-a"),
        ("headers", {f"X-{n}": "1" for n in range(31)}, "/headers"),
        ("headers", {f"X-{n}": "1" for n in range(10_000)}, "/headers"),
    ],
)
def test_problems_point_into_lists_and_objects(
    admin: httpx.Client, supplier: str, field: str, value: object, place: str
) -> None:
    assert place in pointers(admin.post(ENDPOINTS, json={"url": URL, field: value}))


def test_a_refused_range_is_said(admin: httpx.Client, supplier: str) -> None:
    errors = admin.post(ENDPOINTS, json={"url": URL, "timeout": 0}).json()["errors"]
    assert "from 1 to 30" in errors[0]["message"]


def test_every_problem_is_named_at_once(admin: httpx.Client, supplier: str) -> None:
    body = {"timeout": 0, "headers": {"Host": "x"}, "event_types": ["?"], "bogus": 1, "secret": "x"}
    found = pointers(admin.post(ENDPOINTS, json=body))
    assert found == ["/bogus", "/event_types/0", "/headers/Host", "/secret", "/timeout", "/url"]


def test_an_unknown_nested_field_is_named(admin: httpx.Client, supplier: str) -> None:
    body = {"url": URL, "rate_limit": {"requests": 1, "period": 1, "burst": 2}}
    assert "burst" in admin.post(ENDPOINTS, json=body).json()["errors"][0]["message"]


def test_an_unknown_supplier_is_404(admin: httpx.Client) -> None:
    problem(admin.post(ENDPOINTS, json={"url": URL}), 404)
    problem(admin.get(ENDPOINTS), 404)


def test_patch_changes_only_what_is_sent(api: Api, admin: httpx.Client, supplier: str) -> None:
    made = api.endpoint(
        description="a", max_concurrency=3, rate_limit={"requests": 1, "period": 1}, headers={"X-A": "1"}
    )
    one = f"{ENDPOINTS}/{made['id']}"
    before = admin.get(one).json()
    after = admin.patch(one, json={"timeout": 7}).json()
    assert after.pop("updated_at") > before.pop("updated_at")
    assert after == before | {"timeout": 7}
    cleared = admin.patch(one, json={"description": None, "max_concurrency": None, "rate_limit": None}).json()
    assert (cleared["description"], cleared["max_concurrency"], cleared["rate_limit"]) == (None, None, None)
    assert cleared["headers"] == {"X-A": "1"}
    moved = admin.patch(one, json={"url": "https://93.184.215.14/other", "headers": {}}).json()
    assert (moved["url"], moved["headers"]) == ("https://93.184.215.14/other", {})
    assert admin.get(one).json() == moved


@pytest.mark.parametrize(
    "body", [{"id": "ep_1"}, {"signing": "hmac"}, {"secret": "whsec_x"}, {"timeout": None}, {"url": None}]
)
def test_patch_refuses_what_cannot_change(
    admin: httpx.Client, endpoint_id: str, body: dict[str, object]
) -> None:
    (field,) = body
    assert pointers(admin.patch(f"{ENDPOINTS}/{endpoint_id}", json=body)) == [f"/{field}"]


def test_patch_of_enabled_says_why_and_settles_deliveries(
    api: Api, admin: httpx.Client, endpoint_id: str
) -> None:
    one = f"{ENDPOINTS}/{endpoint_id}"
    off = admin.patch(one, json={"enabled": False}).json()
    assert (off["enabled"], off["disabled_reason"]) == (False, "disabled by request")
    on = admin.patch(one, json={"enabled": True}).json()
    assert (on["enabled"], on["disabled_reason"]) == (True, None)
    assert api.reconciled == 2


def enabled_in_memory(api: Api, endpoint_id: str) -> bool:
    """Whether whoever publishes here now would have it sent to."""
    lumen = api.cache.lookup(["lumen"])["lumen"]
    assert lumen is not None
    return lumen.targets[endpoint_id].endpoint.enabled


def test_disable_and_enable(api: Api, admin: httpx.Client, endpoint_id: str) -> None:
    one = f"{ENDPOINTS}/{endpoint_id}"
    assert enabled_in_memory(api, endpoint_id)
    off = admin.post(f"{one}/disable")
    assert (off.status_code, off.json()["enabled"]) == (200, False)
    assert not enabled_in_memory(api, endpoint_id)
    on = admin.post(f"{one}/enable", json={})
    assert (on.status_code, on.json()["enabled"], on.json()["disabled_reason"]) == (200, True, None)
    assert api.reconciled == 2
    assert enabled_in_memory(api, endpoint_id)
    assert pointers(admin.post(f"{one}/enable", json={"force": True})) == ["/force"]


def test_a_reason_that_stands_is_kept(api: Api, admin: httpx.Client, endpoint_id: str) -> None:
    api.storage.catalog.set_enabled([endpoint_id], enabled=False, reason="the receiver answered 410")
    changed = admin.patch(f"{ENDPOINTS}/{endpoint_id}", json={"enabled": False}).json()
    assert changed["disabled_reason"] == "the receiver answered 410"


def test_the_test_answers_with_the_attempt(api: Api, admin: httpx.Client, endpoint_id: str) -> None:
    answer = admin.post(f"{ENDPOINTS}/{endpoint_id}/test")
    assert answer.status_code == 200
    assert answer.json()["status_code"] == 204
    assert set(answer.json()) == {
        "number",
        "started_at",
        "status_code",
        "duration",
        "error",
        "response_body",
        "response_headers",
        "timing",
    }
    assert [target.endpoint.id for target in api.tested] == [endpoint_id]
    assert api.tested[0].secrets


def test_what_is_tried_is_what_workers_have_and_never_behind_the_store(
    api: Api, admin: httpx.Client, endpoint_id: str
) -> None:
    one = f"{ENDPOINTS}/{endpoint_id}/test"
    admin.post(one)
    reads = api.cache.figures()[-1].hits
    admin.post(one)
    assert api.cache.figures()[-1].hits == reads, "its secrets were in memory already"

    def slower(endpoint: Endpoint) -> Endpoint:
        return replace(endpoint, timeout=7.0)

    api.storage.catalog.change_endpoint("lumen", endpoint_id, slower)  # as another process does
    admin.post(one)
    assert [target.endpoint.timeout for target in api.tested] == [api.tested[0].endpoint.timeout] * 2 + [7.0]
    assert api.cache.lookup(["lumen"])["lumen"] is not None
    assert api.cache.figures()[-1].hits == reads + 1
    problem(admin.post(f"{ENDPOINTS}/ep_{'0' * 32}/test"), 404)


def test_rotation_lets_both_sign_until_the_grace_ends(api: Api, admin: httpx.Client, supplier: str) -> None:
    made = api.endpoint()
    one = f"{ENDPOINTS}/{made['id']}"
    answer = admin.post(f"{one}/rotate-secret", json={"grace": 60})
    assert answer.status_code == 200
    rotated = answer.json()
    assert set(rotated) == {"secret", "public_key", "previous_valid_until"}
    assert rotated["secret"] != made["secret"]
    secrets = api.storage.catalog.subscriptions(["lumen"])["lumen"].targets[str(made["id"])].secrets
    assert [text for text, _ in secrets] == [rotated["secret"], made["secret"]]
    assert secrets[0][1] is None
    assert secrets[1][1] is not None


@pytest.mark.parametrize("grace", [-1, 30 * 86_400 + 1, "1", None, 1e300])
def test_a_grace_out_of_bounds_is_refused(admin: httpx.Client, endpoint_id: str, grace: object) -> None:
    assert pointers(admin.post(f"{ENDPOINTS}/{endpoint_id}/rotate-secret", json={"grace": grace})) == [
        "/grace"
    ]


def test_only_so_many_secrets_sign_at_a_time(admin: httpx.Client, endpoint_id: str) -> None:
    rotate = f"{ENDPOINTS}/{endpoint_id}/rotate-secret"
    for _ in range(4):
        assert admin.post(rotate).status_code == 200
    problem(admin.post(rotate), 409)
    assert admin.post(rotate, json={"grace": 0}).status_code == 200
    assert admin.post(rotate).status_code == 200


def test_delete(api: Api, admin: httpx.Client, endpoint_id: str) -> None:
    one = f"{ENDPOINTS}/{endpoint_id}"
    assert admin.delete(one).status_code == 204
    problem(admin.get(one), 404)
    problem(admin.delete(one), 404)
    problem(admin.patch(one, json={}), 404)
    problem(admin.post(f"{one}/test"), 404)
    assert api.reconciled == 1


def test_header_values_are_masked_for_readers(api: Api, supplier: str) -> None:
    made = api.endpoint(headers={"Authorization": "Bearer abc"})
    one = f"{ENDPOINTS}/{made['id']}"
    reader, own = api.as_("read"), api.as_("supplier:lumen")
    assert reader.get(one).json()["headers"] == {"Authorization": "***"}
    assert reader.get(ENDPOINTS).json()["items"][0]["headers"] == {"Authorization": "***"}
    assert own.get(one).json()["headers"] == {"Authorization": "Bearer abc"}


def test_no_read_shows_a_secret(api: Api, admin: httpx.Client, supplier: str) -> None:
    made = [api.endpoint(), api.endpoint(signing="ed25519")]
    secrets = [str(endpoint["secret"]) for endpoint in made]
    one = f"{ENDPOINTS}/{made[0]['id']}"
    secrets.append(admin.post(f"{one}/rotate-secret").json()["secret"])
    created = admin.post("/v1/keys", json={"scope": "read"}).json()
    secrets.append(created["key"])
    deliveries = api.event("lumen", [str(endpoint["id"]) for endpoint in made])
    paths = [
        "/v1/suppliers",
        "/v1/suppliers/lumen",
        ENDPOINTS,
        one,
        f"{ENDPOINTS}/{made[1]['id']}",
        "/v1/keys",
        "/v1/deliveries",
        f"/v1/deliveries/{deliveries[0]}",
        "/openapi.json",
        "/docs",
    ]
    shown = [admin.get(path) for path in paths]
    shown += [admin.patch(one, json={"timeout": 3}), admin.post(f"{one}/test"), admin.post(f"{one}/disable")]
    for answer in shown:
        assert answer.status_code == 200
        for secret in secrets:
            assert secret not in answer.text
            assert hashlib.sha256(secret.encode()).hexdigest() not in answer.text


def test_endpoint_lists_go_page_by_page(api: Api, admin: httpx.Client, supplier: str) -> None:
    made = [str(api.endpoint()["id"]) for _ in range(3)]
    first = admin.get(ENDPOINTS, params={"limit": "2"}).json()
    rest = admin.get(ENDPOINTS, params={"limit": "2", "cursor": first["next"]}).json()
    assert [item["id"] for item in first["items"] + rest["items"]] == made
    assert rest["next"] is None


def test_changes_of_one_endpoint_are_limited(serving: Serving, tmp_path: Path) -> None:
    with Api(serving, tmp_path, changes_per_minute=5) as api:
        api.supplier()
        admin = api.as_("admin")
        first, second = (f"{ENDPOINTS}/{api.endpoint()['id']}" for _ in range(2))
        for _ in range(7):
            assert pointers(admin.patch(first, json={"timeout": 0})) == ["/timeout"]
        answers = [
            admin.patch(first, json={"timeout": 4}),
            admin.post(f"{first}/rotate-secret"),
            admin.post(f"{first}/disable"),
            admin.post(f"{first}/enable"),
            admin.post(f"{first}/test"),
        ]
        assert [answer.status_code for answer in answers] == [200] * 5
        refused = [
            admin.patch(first, json={"timeout": 5}),
            admin.post(f"{first}/rotate-secret"),
            admin.post(f"{first}/disable"),
            admin.post(f"{first}/enable"),
            admin.post(f"{first}/test"),
            admin.delete(first),
        ]
        for answer in refused:
            problem(answer, 429)
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert admin.get(first).json()["timeout"] == 4
        assert admin.patch(second, json={"timeout": 5}).status_code == 200
        assert cast(str, api.endpoint()["id"]).startswith("ep_")


def test_a_changed_rate_limit_brings_back_what_waits_for_the_old_one(api: Api, admin: httpx.Client) -> None:
    api.supplier("lumen")
    endpoint_id = str(api.endpoint("lumen", rate_limit={"requests": 1, "period": 3_600})["id"])
    api.event("lumen", [endpoint_id])
    now = clock.now()
    parking = api.storage.ledger.parking
    parking.park([Park(endpoint_id, now + 3_600 * clock.SECOND, clock.SECOND, RATE_LIMIT)], now=now)
    where = f"/v1/suppliers/lumen/endpoints/{endpoint_id}"
    assert admin.patch(where, json={"description": "as it was"}).status_code == 200
    assert (api.storage.ledger.next_due() or 0) > now + 3_000 * clock.SECOND
    assert admin.patch(where, json={"rate_limit": None}).status_code == 200
    assert (api.storage.ledger.next_due() or 0) < clock.now() + 10 * clock.SECOND
