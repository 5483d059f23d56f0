"""Nobody sees a page without a key, and nothing changes by a form that is not ours."""

import pytest

from dashboard.harness import Browser, Pages
from ringbearer import clock
from ringbearer.dashboard import sessions
from ringbearer.dashboard.doorway import own_path
from ringbearer.dashboard.sessions import COOKIE, MAX_FAILURES, PAUSE, Attempts
from ringbearer.errors import TooManyRequests
from ringbearer.storage.vault import Vault, generate_key


def test_without_a_session_every_page_leads_to_the_doorway_and_back(pages: Pages) -> None:
    stranger = pages.browser(None)
    answer = stranger.get("/deliveries?state=dead")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=/deliveries%3Fstate%3Ddead"
    answer = stranger.log_in(pages.key("admin"), next="/deliveries?state=dead")
    assert (answer.status_code, answer.headers["location"]) == (303, "/deliveries?state=dead")
    assert stranger.get("/deliveries?state=dead").status_code == 200


def test_the_cookie_is_for_this_site_and_no_script(pages: Pages) -> None:
    cookie = pages.browser(None).log_in(pages.key("read")).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Secure" not in cookie  # the browser came by http
    over_tls = Browser(pages.client({"origin": pages.url.replace("http:", "https:")}))
    assert "; Secure" in over_tls.log_in(pages.key("read")).headers["set-cookie"]


@pytest.mark.parametrize("key", ["", "rb_wrong", "publish", "scaling"])
def test_a_wrong_key_is_told_so(pages: Pages, key: str) -> None:
    answer = pages.browser(None).log_in(pages.key(key) if key in ("publish", "scaling") else key)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert 'role="alert"' in answer.text


def test_after_many_wrong_keys_the_address_pauses_for_wrong_keys_only(pages: Pages) -> None:
    stranger = pages.browser(None)
    for _ in range(MAX_FAILURES):
        assert stranger.log_in("rb_guess").status_code == 401
    answer = stranger.log_in("rb_guess")
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert pages.browser(None).log_in(pages.key("admin")).status_code == 303


def test_a_pause_ends_and_memory_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    attempts = Attempts(monotonic=lambda: now)
    for _ in range(MAX_FAILURES):
        attempts.check("a")
        attempts.failed("a")
    with pytest.raises(TooManyRequests):
        attempts.check("a")
    now += PAUSE
    attempts.check("a")
    monkeypatch.setattr(sessions, "MAX_ADDRESSES", 3)
    for n in range(5):
        attempts.failed(str(n))
    assert "3 addresses" in repr(attempts)


def test_a_session_ends_by_time_by_logging_out_and_with_its_key(pages: Pages) -> None:
    visitor = pages.browser("admin")
    visitor.get("/")
    cookie = visitor.client.cookies[COOKIE]
    assert visitor.post("/logout").status_code == 303
    assert visitor.get("/").status_code == 303
    keeper = pages.browser(None)  # who copied the cookie
    keeper.client.cookies.set(COOKIE, cookie)
    assert keeper.get("/").status_code == 303
    assert pages.browser("admin").get("/").status_code == 200  # another session of the same key

    text = pages.key("read")
    other = pages.browser(None)
    other.log_in(text)
    assert other.get("/").status_code == 200
    admin = pages.as_("admin")
    for key in admin.get("/v1/keys").json()["items"]:
        if key["scope"] == "read":
            assert admin.delete(f"/v1/keys/{key['id']}").status_code == 204
    assert other.get("/").status_code == 303

    vault = Vault([generate_key()])
    cookie = sessions.begin(vault, "digest", now=0)
    assert sessions.resume(vault, cookie, now=sessions.LIFETIME * clock.SECOND - 1) is not None
    assert sessions.resume(vault, cookie, now=sessions.LIFETIME * clock.SECOND) is None


@pytest.mark.parametrize("value", ["", "x", "AAAA", "é", "A" * 5_000])
def test_a_cookie_that_we_did_not_make_is_none(value: str) -> None:
    assert sessions.resume(Vault([generate_key()]), value, now=0) is None


def test_an_altered_cookie_opens_nothing(pages: Pages) -> None:
    visitor = pages.browser("admin")
    value = visitor.client.cookies[COOKIE]
    visitor.client.cookies.clear()
    visitor.client.cookies.set(COOKIE, value[:-4] + ("AAAA" if value[-4:] != "AAAA" else "BBBB"))
    assert visitor.get("/").status_code == 303


def test_a_form_from_elsewhere_or_without_its_token_changes_nothing(pages: Pages) -> None:
    visitor = pages.browser("admin")
    visitor.get("/")
    right = visitor.token
    visitor.token = "guessed"
    assert visitor.post("/logout").status_code == 403
    visitor.token = right
    for origin in ("https://evil.example", "null", ""):
        visitor.client.headers["origin"] = origin
        assert visitor.post("/logout").status_code == 403
        assert visitor.log_in(pages.key("admin")).status_code == 403
    visitor.client.headers["origin"] = pages.url
    visitor.client.headers["sec-fetch-site"] = "same-site"
    assert visitor.post("/logout").status_code == 403
    assert visitor.get("/").status_code == 200
    visitor.client.headers.update({"sec-fetch-site": "same-origin", "origin": "https://proxied.example"})
    assert visitor.post("/logout").status_code == 303


def test_whoever_comes_from_elsewhere_is_asked_for_the_cookie_once_more(pages: Pages) -> None:
    answer = pages.browser(None).get("/deliveries", **{"sec-fetch-site": "cross-site"})
    assert answer.status_code == 200
    assert 'http-equiv="refresh"' in answer.text


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("/deliveries?state=dead", "/deliveries?state=dead"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/a\r\nset-cookie: x=1", "/"),
        (None, "/"),
    ],
)
def test_logging_in_leads_to_pages_of_ours_only(given: str | None, path: str) -> None:
    assert own_path(given) == path


def test_pages_load_nothing_from_elsewhere_and_forbid_it(pages: Pages) -> None:
    answer = pages.browser("admin").get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert "https://" not in answer.text
    assert " style=" not in answer.text
    assert "onclick" not in answer.text


def test_files_are_kept_for_good_and_named_by_their_content(pages: Pages) -> None:
    visitor = pages.browser(None)
    path = visitor.get("/login").text.split('rel="stylesheet" href="')[1].split('"')[0]
    answer = visitor.get(path)
    assert "immutable" in answer.headers["cache-control"]
    again = visitor.get(path, **{"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert visitor.get("/assets/style.css").status_code == 404
