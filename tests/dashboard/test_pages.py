"""What the pages show and do, to whom; the rules behind it are the API's, and tested there."""

import hmac
import json
import logging
import re
import threading
from base64 import b64decode, b64encode
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from html import unescape
from itertools import islice

import pytest
from prometheus_client import CollectorRegistry

from chaos.service import wait_for
from dashboard.harness import Browser, Pages
from ringbearer import clock
from ringbearer.dashboard.inspector import spans
from ringbearer.dashboard.rendering import condition, duration, moment, number, percent, pretty_json, query
from ringbearer.dashboard.vitals import Vitals
from ringbearer.domain.deliveries import Attempt, State
from ringbearer.domain.suppliers import Supplier
from ringbearer.errors import StoreUnavailable
from ringbearer.monitor.prometheus import PrometheusMetrics
from ringbearer.monitor.rules import DEFAULT_RULES
from ringbearer.storage.forecasts import Foretold
from ringbearer.storage.rollups import Level, Rollup
from ringbearer.telemetry import Telemetry

PLAIN = ("/deliveries", "/dead-letters", "/suppliers", "/endpoints")
FIGURES = ("/season", "/service-levels", "/alerts")


def _shown_now(visitor: Browser, text: str) -> str:
    """The first page, once it says so: its figures are those of the last look, which is a moment old."""
    wait_for(lambda: text in visitor.get("/").text, 30, f"{text!r} on the first page")
    return visitor.get("/").text


@pytest.mark.parametrize("scope", ["admin", "read"])
def test_the_first_page_tells_that_there_is_nothing_yet(pages: Pages, scope: str) -> None:
    assert "Nothing has been delivered yet" in _shown_now(pages.browser(scope), 'class="empty"')


@pytest.mark.parametrize("path", PLAIN)
@pytest.mark.parametrize("scope", ["admin", "read"])
def test_every_page_opens_and_says_what_to_do_while_there_is_nothing(
    pages: Pages, path: str, scope: str
) -> None:
    answer = pages.browser(scope).get(path)
    assert answer.status_code == 200
    assert 'class="empty"' in answer.text
    assert re.search(r"<h1>\w", answer.text)


def test_a_list_goes_to_older_ones_and_back(pages: Pages) -> None:
    endpoint = pages.endpoint(pages.supplier())
    made = [pages.event("lumen", [str(endpoint["id"])])[0] for _ in range(60)][::-1]
    visitor = pages.browser()
    first = visitor.get("/deliveries")
    assert _ids(first.text) == made[:50]
    assert "Newer" not in first.text
    older = re.search(r'href="([^"]+)" rel="next"', first.text)
    assert older
    second = visitor.get(older[1])
    assert _ids(second.text) == made[50:]
    newer = re.search(r'href="([^"]+)" rel="prev"', second.text)
    assert newer
    assert _ids(visitor.get(newer[1]).text) == made[:50]


def test_filters_mean_the_same_as_in_the_api(pages: Pages) -> None:
    one, two = pages.endpoint(pages.supplier()), pages.endpoint(pages.supplier("other"))
    (mine,) = pages.event("lumen", [str(one["id"])], kind="photo.ready")
    pages.settle(State.DEAD, "given up")
    (theirs,) = pages.event("other", [str(two["id"])])
    visitor = pages.browser()
    for query_string, ids in {
        "": [theirs, mine],
        "?supplier_id=other": [theirs],
        "?state=dead": [mine],
        "?event_type=photo.ready": [mine],
        f"?endpoint_id={two['id']}": [theirs],
        "?after=2099-01-01T00:00&zone=Europe/Vienna": [],
        "?before=2099-01-01T00:00&zone=No/Where": [theirs, mine],
    }.items():
        assert _ids(visitor.get("/deliveries" + query_string).text) == ids, query_string
    assert _ids(visitor.get("/dead-letters").text) == [mine]
    assert _ids(visitor.get("/dead-letters?state=delivered").text) == [mine]


@pytest.mark.parametrize("query_string", ["?state=lost", "?after=yesterday", "?before=2027-13-01"])
def test_a_filter_that_makes_no_sense_is_a_page_that_says_so(pages: Pages, query_string: str) -> None:
    answer = pages.browser().get("/deliveries" + query_string)
    assert answer.status_code == 422
    assert "expected" in answer.text
    assert 'aria-label="Pages"' in answer.text


def test_a_delivery_is_shown_with_its_attempts_and_nothing_it_brought_is_believed(pages: Pages) -> None:
    endpoint = pages.endpoint(pages.supplier())
    (delivery,) = pages.event("lumen", [str(endpoint["id"])])
    pages.settle(State.DEAD, "<script>alert(1)</script>")
    text = pages.browser().get(f"/deliveries/{delivery}").text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "status: 500" in text
    assert "thanks" in text
    assert "&#34;n&#34;: 1.5" in text


def test_the_request_is_shown_to_the_letter_and_its_signature_verifies(pages: Pages) -> None:
    endpoint = pages.endpoint(pages.supplier(), headers={"x-crm-key": "hush"})
    (delivery,) = pages.event("lumen", [str(endpoint["id"])])
    pages.settle(State.DEAD)
    text = pages.browser().get(f"/deliveries/{delivery}").text
    headers = {
        name: unescape(value)
        for name, value in re.findall(r'<tr><th scope="row">(.+?)</th><td><code>(.+?)</code>', text)
    }
    body = unescape(re.findall(r'aria-label="Body of the request">(.+?)</pre>', text, re.DOTALL)[0])
    assert f"POST {endpoint['url']}" in text
    assert headers["ringbearer-attempt"] == "1"
    assert headers["x-crm-key"] == "hush"
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body}".encode()
    secret = b64decode(str(endpoint["secret"]).removeprefix("whsec_"))
    expected = b64encode(hmac.digest(secret, content, "sha256")).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    seen = pages.browser("read").get(f"/deliveries/{delivery}").text
    assert "hush" not in seen
    assert expected not in seen
    assert "the endpoint was changed since" not in text.lower()
    assert pages.as_("admin").delete(f"/v1/suppliers/lumen/endpoints/{endpoint['id']}").status_code == 204
    assert "Body of the request" not in pages.browser().get(f"/deliveries/{delivery}").text


def test_a_dead_letter_is_retried(pages: Pages, caplog: pytest.LogCaptureFixture) -> None:
    endpoint = pages.endpoint(pages.supplier())
    (delivery,) = pages.event("lumen", [str(endpoint["id"])])
    pages.settle(State.DEAD)
    visitor = pages.browser()
    visitor.get(f"/deliveries/{delivery}")
    with caplog.at_level(logging.INFO, "ringbearer.audit"):
        answer = visitor.post(f"/deliveries/{delivery}/retry")
    assert answer.status_code == 303
    assert pages.storage.history.get_delivery(delivery).state is State.READY
    assert pages.woken == 1
    (noted,) = caplog.records
    assert (noted.message, noted.__dict__["delivery"]) == ("retry", delivery)
    assert noted.__dict__["key"].startswith("key_")


def test_a_replay_is_counted_then_confirmed_then_followed(pages: Pages) -> None:
    endpoint = pages.endpoint(pages.supplier())
    for _ in range(3):
        pages.event("lumen", [str(endpoint["id"])])
    pages.settle(State.DEAD)
    visitor = pages.browser()
    assert "/replay?supplier_id=lumen&amp;state=dead" in visitor.get("/dead-letters?supplier_id=lumen").text
    proposed = visitor.get("/replay?supplier_id=lumen&state=dead")
    assert 'hx-get="/replay/count?supplier_id=lumen&amp;state=dead"' in proposed.text
    assert "3 deliveries" in visitor.get("/replay/count?supplier_id=lumen&state=dead").text
    assert pages.storage.history.open_replays() == []
    answer = visitor.post("/replay", supplier_id="lumen", state="dead")
    assert answer.status_code == 303
    (replay,) = pages.storage.history.open_replays()
    assert replay.matched == 3
    followed = visitor.get(answer.headers["location"])
    assert "0 of 3" in followed.text
    assert 'hx-trigger="every 1s"' in followed.text
    pages.storage.history.advance_replay(replay, cursor="dlv_0", finished=True, move=lambda _: 3)
    done = visitor.get(answer.headers["location"])
    assert "3 of 3" in done.text
    assert "hx-trigger" not in done.text


def test_an_endpoint_is_tested_disabled_enabled_and_its_secret_rotated(pages: Pages) -> None:
    endpoint = pages.endpoint(pages.supplier())
    here = f"/suppliers/lumen/endpoints/{endpoint['id']}"
    visitor = pages.browser()
    assert visitor.get(here).status_code == 200
    assert "answered with 204" in visitor.post(f"{here}/test").text
    assert len(pages.tested) == 1
    assert visitor.post(f"{here}/disable").status_code == 303
    assert "Enable" in visitor.get(here).text
    assert not pages.storage.catalog.get_endpoint("lumen", str(endpoint["id"])).enabled
    assert visitor.post(f"{here}/enable").status_code == 303
    assert pages.storage.catalog.get_endpoint("lumen", str(endpoint["id"])).enabled
    rotated = visitor.post(f"{here}/rotate", hours="1.5")
    (secret,) = re.findall(r"whsec_[^<]+", rotated.text)
    assert secret != endpoint["secret"]
    assert secret not in visitor.get(here).text
    assert visitor.post(f"{here}/rotate", hours="many").status_code == 422
    assert visitor.post(f"{here}/explode").status_code == 422


def test_changes_are_limited_as_by_the_api(pages: Pages) -> None:
    endpoint = pages.endpoint(pages.supplier())
    here = f"/suppliers/lumen/endpoints/{endpoint['id']}"
    visitor = pages.browser()
    visitor.get(here)
    pages.services.changes._per_minute = 1
    assert visitor.post(f"{here}/disable").status_code == 303
    answer = visitor.post(f"{here}/enable")
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 1
    assert "Wait a moment" in answer.text


def test_a_read_key_looks_and_cannot_touch(pages: Pages) -> None:
    endpoint = pages.endpoint(pages.supplier(), headers={"x-crm-key": "hush"})
    (delivery,) = pages.event("lumen", [str(endpoint["id"])])
    pages.settle(State.DEAD)
    visitor = pages.browser("read")
    here = f"/suppliers/lumen/endpoints/{endpoint['id']}"
    assert "Retry now" not in visitor.get(f"/deliveries/{delivery}").text
    shown = visitor.get(here).text
    assert "Disable" not in shown
    assert "hush" not in shown
    assert "Replay" not in visitor.get("/dead-letters").text
    for path in (f"/deliveries/{delivery}/retry", "/replay", f"{here}/disable", f"{here}/test"):
        assert visitor.post(path).status_code == 403, path
    assert visitor.get("/replay").status_code == 403
    assert visitor.get("/replay/count").status_code == 403


def test_lists_tell_how_each_did_in_the_last_day(pages: Pages) -> None:
    made = pages.endpoint(pages.supplier())
    pages.endpoint(pages.supplier("other"))
    now = clock.now()
    hour, minute = Level.HOUR.span, Level.MINUTE.span

    def rows(at: int) -> list[Rollup]:
        return [
            Rollup(dimension, at, key, "p", 100, 97, 3, 0, 100, 2, "")
            for dimension, key in (("supplier", "lumen"), ("endpoint", str(made["id"])))
        ]

    mark = now // hour * hour - 2 * hour
    for at in (mark - 30 * hour, mark - hour):  # the first of them lies too far back
        pages.storage.rollups.sum_up(Level.HOUR, rows(at), until=mark)
    pages.storage.rollups.write(rows(now // minute * minute - 5 * minute))
    visitor = pages.browser()
    for path in ("/suppliers", "/endpoints"):
        page = visitor.get(path).text
        assert re.findall(r'data-label="Attempts, 24 h" class="num(?: minor)?">([^<]+)', page) == ["200", "0"]
        assert re.findall(r'data-label="Success, 24 h" class="num"><div>([^<]+)<', page) == ["97.00 %", "–"]
        assert "4 given up" in page


def test_a_suppliers_key_sees_its_own_and_nothing_else(pages: Pages) -> None:
    one, two = pages.endpoint(pages.supplier()), pages.endpoint(pages.supplier("other"))
    (mine,) = pages.event("lumen", [str(one["id"])])
    (theirs,) = pages.event("other", [str(two["id"])])
    visitor = pages.browser("supplier:lumen")
    for path in ("/", "/suppliers", "/endpoints"):
        answer = visitor.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/suppliers/lumen")
    assert visitor.get("/suppliers/lumen").status_code == 200
    assert _ids(visitor.get("/deliveries").text) == [mine]
    assert _ids(visitor.get("/deliveries?supplier_id=other").text) == [mine]
    assert "other" not in visitor.get("/deliveries?supplier_id=other").text.replace('value="other"', "")
    pages.settle(State.DEAD)  # both of them
    assert "1 delivery" in visitor.get("/replay/count?supplier_id=other").text
    for path in (f"/deliveries/{theirs}", "/suppliers/other", f"/suppliers/other/endpoints/{two['id']}"):
        assert visitor.get(path).status_code == 404, path
    assert visitor.post(f"/deliveries/{theirs}/retry").status_code == 404
    assert visitor.get("/live").status_code == 403


def test_lists_of_suppliers_and_endpoints_are_searched_and_paged(pages: Pages) -> None:
    for n in range(55):
        pages.storage.catalog.put_supplier(_supplier(f"s{n:02d}", f"Studio 100%_{n}"))
    endpoint = pages.endpoint("s03", url="https://93.184.215.14/crm", description="Old CRM")
    visitor = pages.browser()
    first = visitor.get("/suppliers")
    names = re.findall(r'<a href="/suppliers/(s\d\d)">', first.text)
    assert names == [f"s{n:02d}" for n in range(50)]
    after = re.search(r'href="([^"]+)" rel="next"', first.text)
    assert after
    second = visitor.get(after[1])
    assert re.findall(r'<a href="/suppliers/(s\d\d)">', second.text) == [f"s{n}" for n in range(50, 55)]
    before = re.search(r'href="([^"]+)" rel="prev"', second.text)
    assert before
    assert re.findall(r'<a href="/suppliers/(s\d\d)">', visitor.get(before[1]).text) == names
    assert re.findall(r'<a href="/suppliers/(s\d\d)">', visitor.get("/suppliers?text=100%25_7").text) == [
        "s07"
    ]
    assert "No supplier has" in visitor.get("/suppliers?text=nobody").text
    assert str(endpoint["id"]) in visitor.get("/endpoints?text=CRM").text
    assert "No endpoint is like that" in visitor.get("/endpoints?state=disabled").text


def test_the_search_field_leads_to_what_was_typed(pages: Pages) -> None:
    visitor = pages.browser()
    for typed, path in {
        "dlv_1": "/deliveries/dlv_1",
        "evt_1": "/deliveries?event_id=evt_1",
        "ep_1": "/deliveries?endpoint_id=ep_1",
        "rpl_1": "/replay/rpl_1",
        "lumen%26x": "/suppliers?text=lumen%26x",
        "": "/suppliers?text=",
    }.items():
        assert visitor.get(f"/find?id={typed}").headers["location"] == path


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/deliveries/dlv_x", 404),
        ("/suppliers/none", 404),
        ("/deliveries/a/b/c", 404),
        ("/replay/rpl_x", 404),
    ],
)
def test_what_is_not_there_is_a_page_with_a_way_back(pages: Pages, path: str, status: int) -> None:
    answer = pages.browser().get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert 'href="/"' in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_paths_of_the_api_are_still_answered_as_json(pages: Pages) -> None:
    assert pages.as_(None).get("/nothing").headers["content-type"] == "application/problem+json"
    assert pages.as_("admin").get("/v1/suppliers").status_code == 200


def test_a_session_is_no_key_to_the_api(pages: Pages) -> None:
    assert pages.browser("admin").client.get("/v1/suppliers").status_code == 401


def test_the_live_page_streams_figures_and_deliveries(pages: Pages) -> None:
    endpoint = pages.endpoint(pages.supplier())
    visitor = pages.browser("read")
    with visitor.client.stream("GET", "/live") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        seen: dict[str, str] = {}
        made = None
        for line in stream.iter_lines():
            if line.startswith("event: "):
                name = line[7:]
                seen[name] = ""
            elif line.startswith("data: "):
                seen[name] += line[6:]
            if name == "sample" and made is None:
                (made,) = pages.event("lumen", [str(endpoint["id"])])
            if made is not None and made in seen.get("newest", ""):
                break
    assert set(seen) == {"figures", "system", "newest", "sample"}
    assert len(json.loads(seen["sample"])) == 4


def test_the_live_page_ends_with_its_key(pages: Pages) -> None:
    visitor = pages.browser("read")
    admin = pages.as_("admin")
    with visitor.client.stream("GET", "/live") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: figures"
        (key,) = [k for k in admin.get("/v1/keys").json()["items"] if k["scope"] == "read"]
        assert admin.delete(f"/v1/keys/{key['id']}").status_code == 204
        assert "event: gone" in list(lines)


def test_a_store_that_hangs_delays_no_first_paint_and_one_that_fails_is_told(pages: Pages) -> None:
    """A page whose look takes too long comes without figures; the stream brings them, or says that there are none."""
    look, hanging, failing = pages.pulse._look, threading.Event(), threading.Event()
    failing.set()

    def hang() -> Vitals:
        hanging.wait(30)
        if failing.is_set():
            raise StoreUnavailable("away")
        return look()

    pages.pulse._look = hang
    visitor = pages.browser("read")
    shown = visitor.get("/").text
    assert 'aria-busy="true"' in shown
    assert "Dead letters" in shown
    assert "Nothing has been delivered yet" not in shown
    with visitor.client.stream("GET", "/live") as stream:
        events = (line for line in stream.iter_lines() if line.startswith("event: "))
        hanging.set()
        assert next(events) == "event: blind"
        failing.clear()
        assert "event: figures" in events
    assert "Nothing has been delivered yet" in _shown_now(visitor, 'class="empty"')


def test_however_many_watch_a_look_is_made_and_painted_once(pages: Pages) -> None:
    painted: list[float] = []
    paint = pages.pulse._paint

    def count(found: Vitals) -> bytes:
        painted.append(found.point[0])
        return paint(found)

    pages.pulse._paint = count
    seen = []
    with ExitStack() as stack:
        viewers = [pages.browser("read") for _ in range(3)]
        streams = [stack.enter_context(viewer.client.stream("GET", "/live")) for viewer in viewers]
        for stream in streams:
            samples = (json.loads(line[6:])[0] for line in stream.iter_lines() if line.startswith("data: ["))
            seen.append(set(islice(samples, 30)))
    assert [len(each) for each in seen] == [30] * 3
    assert set.intersection(*seen)
    assert set.union(*seen) <= set(painted)


def test_the_cache_is_seen_by_what_it_answered(pages: Pages) -> None:
    visitor = pages.browser("read")
    assert "answered from memory" not in _shown_now(visitor, "no worker")
    telemetry = Telemetry()
    metrics = PrometheusMetrics(telemetry, registry=CollectorRegistry())
    pages.totals = metrics.totals
    metrics._cache.labels("l1", "hit").inc(99)
    metrics._cache.labels("l1", "miss").inc(1)
    metrics._cache.labels("l2", "miss").inc(1_000)
    _shown_now(visitor, "99.00 % of look-ups answered from memory")


@pytest.mark.parametrize(
    ("rule_id", "words"),
    [
        ("queue_waits", "the oldest delivery has waited for more than 120 s"),
        ("no_worker", "fewer than 1 workers are alive, and nothing is delivered without one"),
        (
            "budget_burns",
            "the error budget of one of them burns more than 1 times as fast as it may for this alert",
        ),
    ],
)
def test_a_rule_is_told_in_the_words_of_its_alerts(rule_id: str, words: str) -> None:
    (rule,) = (rule for rule in DEFAULT_RULES if rule.id == rule_id)
    assert condition(rule) == words


def test_time_is_split_into_waiting_and_exchanges() -> None:
    at = datetime(2027, 6, 19, 14, tzinfo=UTC)
    attempts = [
        Attempt(number=1, started_at=at + timedelta(seconds=2), duration=1.0),
        Attempt(number=2, started_at=at + timedelta(seconds=8), duration=0.5),
    ]
    assert [(s.kind, s.number, s.start, s.length) for s in spans(at, attempts)] == [
        ("waited", 1, 0.0, 2.0),
        ("sent", 1, 2.0, 1.0),
        ("waited", 2, 3.0, 5.0),
        ("sent", 2, 8.0, 0.5),
    ]
    assert spans(at, []) == []


def test_figures_are_said_as_people_say_them() -> None:
    assert [duration(s) for s in (None, 0.0005, 0.0042, 0.25, 1.44, 59.6, 200, 7_200, 200_000)] == (
        ["–", "500 µs", "4.2 ms", "250 ms", "1.4 s", "60 s", "3 min", "2 h", "2 d"]
    )
    assert [number(n) for n in (None, 0, 1.25, 12_345, 1_234.5)] == [
        "–",
        "0",
        "1.2",
        "12\u202f345",
        "1\u202f234",
    ]
    assert [percent(p) for p in (None, 1, 0.99999, 0.5)] == ["–", "100 %", "99.99 %", "50.00 %"]
    assert pretty_json("no json") == "no json"
    assert pretty_json('{"a":"ü"}') == '{\n  "a": "ü"\n}'
    assert query({"a": "x&y", "b": ""}, c=None, d=1) == "?a=x%26y&d=1"
    assert 'datetime="2027-06-19T12:00:00.000+00:00"' in moment(datetime(2027, 6, 19, 12, tzinfo=UTC))


def _ids(text: str) -> list[str]:
    return re.findall(r'href="/deliveries/(dlv_[0-9a-f]+)"', text)


def _supplier(supplier_id: str, name: str) -> Supplier:
    now = datetime.now(UTC)
    return Supplier(id=supplier_id, name=name, created_at=now, updated_at=now)


@pytest.mark.parametrize("path", FIGURES)
def test_pages_about_everybody_are_not_for_a_suppliers_key(pages: Pages, path: str) -> None:
    pages.supplier()
    visitor = pages.browser("supplier:lumen")
    assert visitor.get(path).status_code == 403
    assert f'href="{path}"' not in visitor.get("/suppliers/lumen").text
    assert pages.browser("read").get(path).status_code == 200


def test_a_circuit_breaker_is_seen_and_forced_by_an_administrator_only(pages: Pages) -> None:
    endpoint = pages.endpoint(pages.supplier())
    here = f"/suppliers/lumen/endpoints/{endpoint['id']}"
    visitor = pages.browser("admin")
    assert "Keep open" in visitor.get(here).text
    assert visitor.post(f"{here}/breaker", state="open").status_code == 303
    assert "Left alone by its circuit breaker" in visitor.get(here).text
    _shown_now(visitor, "1 endpoint left alone")
    assert "left alone" in visitor.get("/endpoints").text
    owner = pages.browser("supplier:lumen")
    assert "Leave it to its answers" not in owner.get(here).text
    assert owner.post(f"{here}/breaker", state="auto").status_code == 403
    assert visitor.post(f"{here}/breaker", state="ajar").status_code == 422
    assert visitor.post(f"{here}/breaker", state="auto").status_code == 303
    _shown_now(visitor, "no breaker open")


def test_an_endpoint_tells_what_went_wrong_last(pages: Pages) -> None:
    endpoint = pages.endpoint(pages.supplier())
    pages.event("lumen", [str(endpoint["id"])])
    pages.settle(State.DEAD, "given up after 1 attempt")
    for scope in ("admin", "supplier:lumen"):
        shown = pages.browser(scope).get(f"/suppliers/lumen/endpoints/{endpoint['id']}").text
        assert "status: 500<br>" in shown
        assert "given up after 1 attempt" in shown


def test_an_alert_is_seen_acknowledged_and_silenced_by_an_administrator_only(pages: Pages) -> None:
    alert = pages.alert().id
    visitor = pages.browser("admin")
    assert "Acknowledge" in visitor.get("/alerts").text
    _shown_now(visitor, "1 alert fires")
    looker = pages.browser("read")
    assert "Acknowledge" not in looker.get("/alerts").text
    looker.get("/")
    for path in (f"/alerts/{alert}/acknowledge", "/alerts/silences"):
        assert looker.post(path, hours="1").status_code == 403
    visitor.get("/alerts")
    assert visitor.post(f"/alerts/{alert}/acknowledge").status_code == 303
    shown = visitor.get("/alerts").text
    assert "Acknowledge<" not in shown
    assert "taken care of by" in shown
    assert visitor.post("/alerts/silences", rule="queue_waits", hours="2", reason="works").status_code == 303
    (silence,) = pages.storage.alerts.silences(now=clock.now())
    assert (silence.rule, silence.reason) == ("queue_waits", "works")
    assert "works" in visitor.get("/alerts").text
    assert visitor.post(f"/alerts/silences/{silence.id}/end").status_code == 303
    assert pages.storage.alerts.silences(now=clock.now()) == []
    assert visitor.post("/alerts/silences", hours="soon").status_code == 422
    assert visitor.post("/alerts/alt_none/acknowledge").status_code == 404


def test_a_channel_is_tried_and_its_address_never_shown(pages: Pages) -> None:
    made = pages.as_("admin").post(
        "/v1/alert-channels",
        json={"name": "night watch", "kind": "slack", "address": "http://127.0.0.1:9/hush"},
    )
    assert made.status_code == 201, made.text
    visitor = pages.browser("admin")
    shown = visitor.get("/alerts").text
    assert "night watch" in shown
    assert "hush" not in shown
    answer = visitor.post(f"/alerts/channels/{made.json()['id']}/test")
    assert answer.status_code == 409
    assert "did not take the message" in answer.text
    assert "hush" not in answer.text


def test_without_history_there_is_no_forecast(pages: Pages) -> None:
    visitor = pages.browser("read")
    assert 'hx-get="/season/forecast"' in visitor.get("/season").text
    assert "Nothing to go by yet" in visitor.get("/season/forecast").text
    assert pages.browser("supplier:lumen").get("/season/forecast").status_code == 403


def test_what_is_to_come_is_forecast_from_history(pages: Pages) -> None:
    hour = Level.HOUR.span
    last = clock.now() // hour * hour
    counts = [
        Rollup("flow", last - n * hour, "deliveries", "", 100 + n % 24, 0, 0, 0, 0, 0, "")
        for n in range(24 * 60)
    ]
    pages.storage.rollups.sum_up(Level.HOUR, counts, until=last)
    shown = pages.browser("read").get("/season/forecast").text
    assert shown.count("<tr><td data-value") == 14 * 24
    assert "was written down" not in shown


def test_what_was_expected_a_day_before_is_shown_beside_what_came_true(pages: Pages) -> None:
    hour = Level.HOUR.span
    last = clock.now() // hour * hour
    counts = [
        Rollup("flow", last - n * hour, "deliveries", "", 200, 0, 0, 0, 0, 0, "") for n in range(1, 400)
    ]
    pages.storage.rollups.sum_up(Level.HOUR, counts, until=last)
    pages.storage.forecasts.keep([Foretold(last - n * hour, last - 30 * hour, 150.0, 300.0) for n in (2, 1)])
    shown = pages.browser("read").get("/season/forecast").text
    assert shown.count("<tr><td data-value") == 14 * 24 + 2
    assert shown.count('data-value="200.0">200</td><td class="num" data-value="150.0">150<') == 2
    assert "What was written down a day before was 25" in shown


def test_service_levels_are_shown_over_several_times(pages: Pages) -> None:
    visitor = pages.browser("read")
    for window in ("hour", "day", "week", "month", "eternity"):
        answer = visitor.get(f"/service-levels?window={window}")
        assert answer.status_code == 200
        assert "latency/urgent" in answer.text
    assert "Nothing was measured" in answer.text
