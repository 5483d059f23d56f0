"""The pages over the API's own harness, and a browser's manners without a browser."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, cast

import httpx

from api.harness import Api, Serving
from ringbearer.dashboard.app import create_dashboard, is_page
from ringbearer.dashboard.inside import Inside
from ringbearer.dashboard.live import Pulse
from ringbearer.dashboard.now import paint
from ringbearer.dashboard.services import PageServices
from ringbearer.dashboard.vitals import Looker
from ringbearer.season import Season
from ringbearer.testing import Application

_TOKEN = re.compile(r'name="token" value="([^"]+)"')


class Pages(Api):
    """Serves pages and API for the time of a `with` block."""

    def __init__(self, serving: Serving, directory: Path, *, changes_per_minute: int = 0) -> None:
        super().__init__(serving, directory, changes_per_minute=changes_per_minute)
        self.season = Season()
        self.totals: Callable[[], dict[str, float]] = dict
        self.pulse = Pulse(
            Looker(self.storage, figures=self.services.monitor.window, totals=lambda: self.totals()),
            paint=paint,
            interval=0.05,
        )

    def __enter__(self) -> Self:
        api = self._serving.management(self.services)
        pages = create_dashboard(
            PageServices(
                api=Inside(api),
                storage=self.storage,
                authenticator=self.services.authenticator,
                pulse=self.pulse,
                monitor=self.services.monitor,
                season=lambda: self.season,
            )
        )

        async def both(scope: Any, receive: Any, send: Any) -> None:
            await (pages if is_page(scope["path"]) else api)(scope, receive, send)

        self._serving.application = cast(Application, both)
        return self

    def __exit__(self, *error: object) -> None:
        self._serving.call(self.pulse.stop)
        super().__exit__(*error)

    def browser(self, scope: str | None = "admin") -> "Browser":
        """Somebody who has logged in with a new key of that scope, or who has not."""
        browser = Browser(self.client({"origin": self.url}))
        if scope is not None:
            answer = browser.log_in(self.key(scope))
            assert answer.status_code == 303, answer.text
        return browser


class Browser:
    """Keeps cookies, says where forms come from, and sends the token that it saw last."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.token = ""

    def log_in(self, key: str, **fields: str) -> httpx.Response:
        """Send the form of the doorway."""
        return self.client.post("/login", data={"key": key, **fields})

    def get(self, path: str, **headers: str) -> httpx.Response:
        """Open a page; remembers the token of its forms."""
        answer = self.client.get(path, headers=headers)
        found = _TOKEN.search(answer.text)
        if found is not None:
            self.token = found[1]
        return answer

    def post(self, path: str, **fields: str) -> httpx.Response:
        """Send a form of the page that was opened last."""
        return self.client.post(path, data={"token": self.token, **fields})
