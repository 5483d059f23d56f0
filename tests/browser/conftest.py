"""One service, one receiver and one browser for a module of tests; each test gets a window of its own.

Not for the whole run: while Playwright is open its event loop counts as running in this thread, and no other test
that runs one could be mixed in.
"""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from browser.stage import Stage
from chaos.service import Service
from ringbearer.testing import Receiver
from tools import require_tool


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    path = require_tool("chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """A receiver on a thread of its own; what it answers may be changed."""
    loop = asyncio.new_event_loop()
    made = Receiver()
    up, end = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with made:
            up.set()
            await end.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert up.wait(10)
    yield made
    loop.call_soon_threadsafe(end.set)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def stage(browser: Browser, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The whole service as processes, with a supplier, endpoints, and deliveries that ended in every way."""
    with Service(tmp_path_factory.mktemp("service"), workers=1) as service:
        service.start()
        with httpx.Client(base_url=service.url, headers=service_key(service), timeout=20) as client:
            made = Stage(service.url, client, receiver)
            made.furnish()
            yield made


def service_key(service: Service) -> dict[str, str]:
    """What the administrator presents."""
    return {"authorization": f"Bearer {service.settings().admin_key}"}


@pytest.fixture
def window(browser: Browser, stage: Stage) -> Iterator[BrowserContext]:
    """A browser window of an ordinary size, without any cookie."""
    context = browser.new_context(base_url=stage.url, viewport={"width": 1280, "height": 900})
    yield context
    context.close()


@pytest.fixture
def page(window: BrowserContext, stage: Stage) -> Iterator[Page]:
    """A page of somebody who is logged in as administrator; nothing may be complained of in its console."""
    complaints: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    opened = window.new_page()
    opened.on("console", listen)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    stage.log_in(opened)
    yield opened
    assert complaints == []


@pytest.fixture(scope="module")
def axe() -> str:
    """The script that looks for barriers."""
    return next((Path(__file__).parents[1] / "vendor").glob("axe-*.min.js")).read_text()
