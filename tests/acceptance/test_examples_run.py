"""The examples do what they say, against a service that runs: what they publish arrives and verifies."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from chaos.ports import free_port
from chaos.service import ADMIN_KEY, Service, wait_for
from ringbearer.misbehaving import Rogues, answers

_EXAMPLES = Path(__file__).parents[2] / "examples"
_SECONDS = 60.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service")) as running:
        running.start()
        yield running


def test_what_the_publisher_publishes_the_receiver_verifies(service: Service, tmp_path: Path) -> None:
    port = free_port()
    secret = _endpoint(service, "lumen", port)
    with _receiver(port, secret, tmp_path / "receiver.log") as log:
        published = _run(
            "publish.py", "lumen", "booking.confirmed", '{"couple": "Ada & Blaise"}', at=service.url
        )
        assert published.returncode == 0, published.stderr
        assert '"duplicate": false' in published.stdout
        wait_for(lambda: "verified: evt_" in log.read_text(), _SECONDS, "the webhook")
        assert "booking.confirmed {'couple': 'Ada & Blaise'}" in log.read_text()


def test_the_receiver_refuses_what_another_secret_signed(service: Service, tmp_path: Path) -> None:
    port = free_port()
    _endpoint(service, "casa", port)
    with _receiver(port, "whsec_" + "A" * 43 + "=", tmp_path / "receiver.log") as log:
        _run("publish.py", "casa", "booking.confirmed", "1", at=service.url)
        wait_for(lambda: "refused: " in log.read_text(), _SECONDS, "the webhook")
        assert "verified" not in log.read_text()


def test_the_publisher_comes_again_with_the_same_key() -> None:
    keys: list[str | None] = []

    class Busy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            keys.append(self.headers["idempotency-key"])
            body = b'{"id":"evt_1","deliveries":1,"duplicate":false}'
            self.send_response(503 if len(keys) < 3 else 202)
            self.send_header("retry-after", "0")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  the base class names it
            pass

    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            published = _run("publish.py", "lumen", "a.b", "1", at=f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
    assert published.returncode == 0, published.stderr
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert keys[0]


def test_the_first_webhook_arrives_and_verifies(service: Service) -> None:
    done = _run(
        "first_webhook.sh", at=service.url, PORT=str(free_port()), BIN=str(Path(sys.executable).parent)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "  booking.confirmed  attempt 1  verified  → 200" in done.stdout
    assert "dlv_" in done.stdout


def test_an_application_sends_its_own_without_a_service(rogues: Rogues) -> None:
    rogue = rogues.serve(answers)
    done = _run("embed.py", rogue.url, "120", at="")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "120 delivered, 0 to be tried later\n"
    assert len(rogue.requests) == 120


def _endpoint(service: Service, supplier: str, port: int) -> str:
    """Create a supplier with an endpoint at that port; returns the endpoint's secret."""
    with service.client() as client:
        client.put(f"/v1/suppliers/{supplier}", json={}).raise_for_status()
        made = client.post(
            f"/v1/suppliers/{supplier}/endpoints", json={"url": f"http://127.0.0.1:{port}/hooks"}
        ).raise_for_status()
    secret: str = made.json()["secret"]
    return secret


@contextmanager
def _receiver(port: int, secret: str, log: Path) -> Iterator[Path]:
    """The receiver of the examples as a process; yields the file that it writes to."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(_EXAMPLES / "verify_receiver.py"), str(port)],
            env=_environment() | {"WEBHOOK_SECRET": secret},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        wait_for(lambda: "listening" in log.read_text(), _SECONDS, "the receiver")
        yield log
    finally:
        process.terminate()
        process.wait()


def _run(name: str, *arguments: str, at: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [str(_EXAMPLES / name), *arguments]
    return subprocess.run(
        command if name.endswith(".sh") else [sys.executable, *command],
        env=_environment() | {"RINGBEARER_URL": at, "RINGBEARER_KEY": ADMIN_KEY} | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


def _environment() -> dict[str, str]:
    """Of this process, without what would reach the service's settings or send local requests to a proxy."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RINGBEARER_")}
    return clean | {"NO_PROXY": "127.0.0.1"}
