"""The compose file says what the service understands, and nginx carries publishers over a rolling restart."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from string import Template

import httpx
import pytest
import yaml

from chaos.ports import free_port
from chaos.service import ADMIN_KEY, NO_TLS, plain_get, wait_for
from ringbearer.cli.main import app
from ringbearer.settings import load
from tools import require_tool

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "ops" / "compose"
_READY = 60.0
_MAIN = """
daemon off;
user root;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include default.conf;
}
"""


def test_compose_starts_what_there_is_with_settings_there_are() -> None:
    content = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    ours = {name: s for name, s in content["services"].items() if s.get("image") == "ringbearer"}
    assert set(ours) == {"migrate", "api-1", "api-2", "worker"}
    for service in ours.values():
        assert service["command"][0] in list(app)
        values = {
            name: re.sub(r"\$\{RINGBEARER_SECRET_KEY[^}]*\}", "A" * 43 + "=", value)
            for name, value in service["environment"].items()
        }
        values["RINGBEARER_ALLOW_NETWORKS"] = ""
        settings = load(environ=values)
        assert settings.database_url is not None
        assert len(settings.vault_keys()) == 1
    for needed in re.findall(r"\$\{([A-Z_]+)", (COMPOSE / "compose.yaml").read_text()):
        assert f"\n{needed}=" in (COMPOSE / "example.env").read_text()


def test_the_image_is_built_of_what_there_is() -> None:
    text = (COMPOSE / "Dockerfile").read_text()
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source


class Api:
    """One API process on a port of its own."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RINGBEARER_")}
        settings = {
            "DATA_DIR": str(self._directory / "data"),
            "PORT": str(self.port),
            "ADMIN_KEY": ADMIN_KEY,
            "LOG_FORMAT": "json",
            "CONFIG": "",
        }
        with (self._directory / "api.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ringbearer", "serve"],
                env=clean | {f"RINGBEARER_{name}": value for name, value in settings.items()},
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for(self._ready, _READY, "the API to be ready")

    def _ready(self) -> bool:
        try:
            answer = plain_get(f"http://127.0.0.1:{self.port}/health/ready", timeout=5)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(60) == 0


@contextmanager
def _nginx(directory: Path, first: Api, second: Api) -> Iterator[str]:
    program = require_tool("nginx")
    port = free_port()
    template = Template((COMPOSE / "nginx.conf.template").read_text())
    values = {
        "LISTEN": f"127.0.0.1:{port}",
        "API_1": f"127.0.0.1:{first.port}",
        "API_2": f"127.0.0.1:{second.port}",
    }
    directory.mkdir()
    (directory / "nginx.conf").write_text(_MAIN)
    (directory / "default.conf").write_text(template.safe_substitute(values))
    command = [program, "-p", str(directory), "-c", "nginx.conf"]
    with (directory / "nginx.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: _answers(url), _READY, "nginx to answer")
        yield url
    finally:
        server.terminate()
        server.wait(30)


def _answers(url: str) -> bool:
    try:
        return plain_get(f"{url}/health/live", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def directory() -> Iterator[Path]:
    """Below /tmp: nginx's workers cannot enter the directories that pytest makes."""
    path = Path(f"/tmp/ringbearer-nginx-{os.getpid()}")
    path.mkdir()
    yield path
    shutil.rmtree(path)


class Publishing:
    """Publishes one event after the other, until told to stop."""

    def __init__(self, url: str, number: int) -> None:
        self.statuses: list[int] = []
        self._number = number
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Publishing":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        with httpx.Client(
            base_url=self._url, headers=headers, timeout=60, trust_env=False, verify=NO_TLS
        ) as client:
            while not self._stop.is_set():
                event = {
                    "supplier_id": "lumen",
                    "type": "booking.confirmed",
                    "data": {"n": len(self.statuses)},
                    "idempotency_key": f"{self._number}-{len(self.statuses)}",
                }
                self.statuses.append(client.post("/v1/events", json=event).status_code)


def test_a_rolling_restart_behind_nginx_refuses_no_publisher(directory: Path) -> None:
    require_tool("nginx")
    first, second = Api(directory), Api(directory)
    with ExitStack() as stack:
        first.start()
        stack.callback(first.stop)
        second.start()
        stack.callback(second.stop)
        url = stack.enter_context(_nginx(directory / "nginx", first, second))
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        assert httpx.put(f"{url}/v1/suppliers/lumen", headers=headers).status_code == 201
        assert httpx.get(f"{url}/metrics").status_code == 404
        with Publishing(url, 1) as one, Publishing(url, 2) as two:
            for restarted in (first, second):
                before = len(one.statuses)
                restarted.stop()
                wait_for(lambda before=before: len(one.statuses) > before + 20, _READY, "events meanwhile")  # type: ignore[misc]
                restarted.start()
                before = len(one.statuses)
                wait_for(lambda before=before: len(one.statuses) > before + 20, _READY, "events afterwards")  # type: ignore[misc]
        assert set(one.statuses) == set(two.statuses) == {202}
