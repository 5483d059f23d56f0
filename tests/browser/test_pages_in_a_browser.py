"""The pages as people use them, in a real browser against the whole service."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page, expect

from browser.stage import SUPPLIER, Stage

PAGES = (
    "/",
    "/deliveries",
    "/dead-letters",
    "/suppliers",
    f"/suppliers/{SUPPLIER}",
    "/endpoints",
    "/season",
    "/service-levels",
    "/alerts",
)


def test_a_delivery_appears_without_a_reload_and_can_be_inspected(page: Page, stage: Stage) -> None:
    expect(page.locator("#pulse")).to_have_text("live")
    page.evaluate("window.stayed = true")
    delivery = stage.publish("booking.confirmed")
    link = page.locator(f'a[href="/deliveries/{delivery}"]')
    expect(link).to_be_visible()
    row = page.get_by_role("row").filter(has=link)
    expect(row).to_contain_text("delivered")
    assert page.evaluate("window.stayed") is True
    link.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("booking.confirmed")
    attempt = page.get_by_role("article", name="Attempt 1")
    expect(attempt).to_contain_text("200")
    expect(page.locator("#event-data")).to_contain_text("Ada & Grace")
    attempt.get_by_text("Headers of the answer").click()
    expect(attempt).to_contain_text("content-length")


def test_times_are_in_the_viewers_zone_and_in_utc_on_hovering(browser: Browser, stage: Stage) -> None:
    shown = {}
    for zone in ("UTC", "Asia/Tokyo"):
        context = browser.new_context(base_url=stage.url, timezone_id=zone, locale="en-GB")
        page = context.new_page()
        stage.log_in(page)
        page.goto("/dead-letters")
        time = page.locator("td time").first
        expect(time).to_have_attribute("data-done", "")
        shown[zone] = time.inner_text(), time.get_attribute("title")
        context.close()
    assert shown["UTC"][1] == shown["Asia/Tokyo"][1]
    assert (shown["UTC"][1] or "").endswith(" UTC")
    assert shown["UTC"][0] != shown["Asia/Tokyo"][0]


def test_filtering_needs_no_reload_and_can_be_gone_back_from(page: Page, stage: Stage) -> None:
    dead = stage.failing_payment()
    good = stage.publish("booking.confirmed", state="delivered")
    page.goto("/deliveries")
    page.evaluate("window.stayed = true")
    listed = page.locator("#list")
    expect(listed.locator(f'a[href="/deliveries/{good}"]')).to_be_visible()
    page.get_by_label("State").select_option("dead")
    expect(listed.locator(f'a[href="/deliveries/{good}"]')).to_have_count(0)
    expect(listed.locator(f'a[href="/deliveries/{dead}"]')).to_be_visible()
    assert "state=dead" in page.url
    page.get_by_label("Event type").fill("nothing.like.it")
    page.get_by_role("button", name="Filter").click()
    expect(listed).to_contain_text("No delivery is like that")
    assert page.evaluate("window.stayed") is True
    page.go_back()
    expect(page.locator(f'#list a[href="/deliveries/{dead}"]')).to_be_visible()


def test_a_dead_letter_is_retried_and_the_page_follows(page: Page, stage: Stage) -> None:
    delivery = stage.failing_payment()
    page.goto(f"/deliveries/{delivery}")
    expect(page.get_by_role("article", name="Attempt 1")).to_contain_text("404")
    page.get_by_role("button", name="Retry now").click()
    expect(page.get_by_role("article", name="Attempt 2")).to_contain_text("200")
    assert stage.state(delivery) == "delivered"


def test_many_are_replayed_after_a_count_and_with_progress(page: Page, stage: Stage) -> None:
    dead = [stage.failing_payment() for _ in range(2)]
    page.goto("/dead-letters")
    page.get_by_role("link", name="Replay all of these").click()
    expect(page.locator("#count")).to_contain_text(re.compile(r"\d+ deliveries"))
    page.get_by_role("button", name="Replay them").click()
    expect(page.locator("#progress")).to_contain_text("done")
    page.goto("/dead-letters")
    expect(page.locator("#list")).to_contain_text("No dead letters")
    for delivery in dead:
        page.goto(f"/deliveries/{delivery}")
        expect(page.get_by_role("article", name="Attempt 2")).to_contain_text("200")


def test_an_endpoint_is_tested_paused_and_its_secret_rotated(page: Page, stage: Stage) -> None:
    page.goto(f"/suppliers/{SUPPLIER}/endpoints/{stage.endpoint}")
    page.get_by_role("button", name="Send a test").click()
    expect(page.get_by_role("status").filter(has_text="answered with 200")).to_be_visible()
    page.get_by_role("button", name="Disable").click()
    expect(page.get_by_text("its deliveries are held until it is enabled")).to_be_visible()
    page.get_by_role("button", name="Enable").click()
    expect(page.get_by_text("held deliveries are released")).to_be_visible()
    page.get_by_text("Rotate the secret").click()
    page.get_by_role("button", name="Make a new secret").click()
    expect(page.locator("#secret")).to_contain_text("whsec_")
    page.goto(f"/suppliers/{SUPPLIER}/endpoints/{stage.endpoint}")
    expect(page.get_by_role("heading", name="Facts")).to_be_visible()
    assert "whsec_" not in page.content()


def test_an_alert_appears_without_a_reload_and_is_acknowledged(page: Page, stage: Stage) -> None:
    page.goto("/alerts")
    stage.failing_payment()
    stage.alert_on_any_dead_letter()
    alert = page.get_by_role("article", name="dead_letters")
    expect(alert).to_be_visible(timeout=20_000)
    alert.get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_text("nobody else is told of it")).to_be_visible()
    expect(alert).to_contain_text("taken care of by")
    expect(alert.get_by_role("button", name="Acknowledge")).to_have_count(0)


def test_everything_is_reached_by_keyboard(browser: Browser, stage: Stage) -> None:
    delivery = stage.failing_payment()
    context = browser.new_context(base_url=stage.url)
    page = context.new_page()
    page.goto("/dead-letters")
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type("rb_only-for-tests-0123456789abcdef")
    expect(page.get_by_label("API key")).to_have_value("rb_only-for-tests-0123456789abcdef")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/dead-letters$"))
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    _tab_until(
        page,
        lambda: page.evaluate("document.activeElement.getAttribute('href')") == f"/deliveries/{delivery}",
    )
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("payment.received")
    _tab_until(page, lambda: page.evaluate("document.activeElement.innerText") == "Retry now")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("article", name="Attempt 2")).to_contain_text("200")
    context.close()


def _tab_until(page: Page, there: Callable[[], bool]) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if there():
            return
    raise AssertionError("the keyboard does not get there")


@pytest.mark.parametrize("width", [375, 768, 1920])
def test_no_page_is_wider_than_the_window(browser: Browser, stage: Stage, width: int) -> None:
    context = browser.new_context(base_url=stage.url, viewport={"width": width, "height": 812})
    page = context.new_page()
    stage.log_in(page)
    for path in (*PAGES, *_details(stage)):
        page.goto(path)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{path} is {wide} px wide"
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_there_are_no_serious_barriers(browser: Browser, stage: Stage, axe: str, scheme: str) -> None:
    context = browser.new_context(
        base_url=stage.url,
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
        bypass_csp=True,  # for the script that looks
    )
    page = context.new_page()
    page.goto("/login")
    found = {"/login": _barriers(page, axe)}
    stage.log_in(page)
    for path in (*PAGES, *_details(stage), "/deliveries/dlv_none", "/deliveries?event_type=nothing"):
        page.goto(path)
        found[path] = _barriers(page, axe)
    context.close()
    assert {path: barriers for path, barriers in found.items() if barriers} == {}


def _details(stage: Stage) -> tuple[str, ...]:
    delivery = stage.failing_payment()
    endpoint = f"/suppliers/{SUPPLIER}/endpoints/{stage.endpoint}"
    return f"/deliveries/{delivery}", endpoint, "/replay?state=dead"


def _barriers(page: Page, axe: str) -> list[str]:
    page.evaluate(axe)
    results = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{v['id']}: {v['help']} ({', '.join(str(n['target']) for n in v['nodes'][:3])})"
        for v in results["violations"]
        if v["impact"] in ("serious", "critical")
    ]


def test_a_suppliers_window_shows_its_own_only(browser: Browser, stage: Stage) -> None:
    context = browser.new_context(base_url=stage.url)
    page = context.new_page()
    stage.log_in(page, stage.key(f"supplier:{SUPPLIER}"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Lumen Photo")
    rooms = page.get_by_role("navigation", name="Pages").get_by_role("link")
    expect(rooms).to_have_text(["Overview", "Deliveries", "Dead letters"])
    context.close()
