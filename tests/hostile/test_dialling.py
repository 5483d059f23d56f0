"""What names, networks and redirects can do to a delivery; only allowed addresses are ever dialled."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hostile.driving import Sender
from ringbearer import misbehaving
from ringbearer.delivery.guard import Guard
from ringbearer.domain.deliveries import State
from ringbearer.misbehaving import Behaviour, Peer, Rogues, answers_once, blackhole, says

_TESTS = Path(__file__).parent.parent
Told = dict[str, dict[str, object]]


# ── names, in a network of their own ────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def told() -> Told:
    """What became of deliveries to names whose name server lies; skipped where no network can be made."""
    unshare = _unshare()
    if unshare is None:
        pytest.skip("a network of its own needs unshare, and the right to use it")
    program = [*unshare, sys.executable, str(_TESTS / "hostile" / "own_network.py")]
    path = os.pathsep.join([str(_TESTS), *filter(None, sys.path)])
    run = subprocess.run(
        program, env={**os.environ, "PYTHONPATH": path}, capture_output=True, timeout=100, check=False
    )
    assert run.returncode == 0, run.stderr.decode()
    found: Told = json.loads(run.stdout)
    return found


def _unshare() -> list[str] | None:
    program = shutil.which("unshare")
    if program is not None:
        for options in ("-Urmn", "-mn"):
            tried = subprocess.run([program, options, "true"], capture_output=True, check=False)
            if tried.returncode == 0:
                return [program, options]
    return None


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("private", id="case-37-private-addresses"),
        pytest.param("metadata", id="case-37-metadata-service"),
        pytest.param("mapped", id="case-37-mapped-address"),
        pytest.param("translated", id="case-37-nat64-address"),
        pytest.param("rebound", id="case-37-allowed-before-private-now"),
        pytest.param("many", id="case-39-500-addresses"),
        pytest.param("most", id="case-39-answer-of-64-kb"),
    ],
)
def test_forbidden_addresses_are_not_dialled(name: str, told: Told) -> None:
    assert told[name]["code"] == "blocked_address"
    assert told[name]["state"] == "dead"  # a matter of configuration: not retried
    assert told[name]["dialled"] == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("good", id="case-37-allowed"),
        pytest.param("mixed", id="case-38-mixed"),
        pytest.param("haystack", id="case-39-one-allowed-among-500"),
    ],
)
def test_only_the_allowed_address_is_dialled(name: str, told: Told) -> None:
    assert told[name]["state"] == "delivered"
    assert told[name]["dialled"] == ["127.0.0.1"]
    assert told[name].get("forbidden_connections", 0) == 0


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        pytest.param("chain0", {"dns_failed"}, id="case-40-endless-chain"),
        pytest.param("loop1", {"dns_failed"}, id="case-40-loop"),
        pytest.param("hang", {"dns_timeout"}, id="case-41-hangs"),
        pytest.param("garbage", {"dns_failed", "dns_timeout"}, id="case-41-garbage"),
        pytest.param("nothing", {"dns_failed"}, id="case-42-nxdomain"),
        pytest.param("failure", {"dns_failed"}, id="case-42-servfail"),
    ],
)
def test_names_that_do_not_resolve(name: str, codes: set[str], told: Told) -> None:
    assert told[name]["code"] in codes
    assert told[name]["state"] == "scheduled"
    assert told[name]["dialled"] == []


def test_case_41_names_that_hang_do_not_hold_up_another(told: Told) -> None:
    assert told["beside-hanging"]["hanging"] == "dns_timeout"
    assert told["beside-hanging"]["state"] == "delivered"


def test_fault_15_our_own_name_server_is_away(told: Told) -> None:
    assert (told["own-failure"]["state"], told["own-failure"]["spent"]) == ("scheduled", False)
    assert (told["own-failure-over"]["state"], told["own-failure-over"]["spent"]) == ("delivered", True)
    assert told["hang"]["spent"] is True  # one name that hangs is its owner's affair


def test_case_43_a_kept_connection_is_not_dialled_anew(told: Told) -> None:
    assert told["rebinding"]["state"] == told["rebound-kept"]["state"] == "delivered"
    assert told["rebound-kept"]["reused"] is True
    assert told["rebound-kept"]["dialled"] == ["127.0.0.1"]  # once, for both deliveries


# ── addresses ───────────────────────────────────────────────────────────────────────────────────────────────


class Gate:
    """Refuses addresses that a test closes, and remembers what was asked."""

    def __init__(self, *closed: str) -> None:
        self.closed = set(closed)
        self.asked: list[str] = []

    def refuse(self, address: str) -> str | None:
        self.asked.append(address)
        return f"{address} is closed" if address in self.closed else None


def test_case_37_a_forbidden_address_is_not_dialled(rogues: Rogues) -> None:
    rogue = rogues.serve(misbehaving.answers)
    with Sender(refuse=Guard().check_address) as sender:
        ended = sender.send(rogue.url)
    assert ended.code == "blocked_address"
    assert ended.verdict.state is State.DEAD
    assert rogue.connections == 0


def test_case_38_of_two_addresses_the_allowed_one_is_used(rogues: Rogues) -> None:
    rogue = rogues.serve(misbehaving.answers)
    try:
        forbidden = rogues.serve(misbehaving.answers, host="::1", port=rogue.port)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    gate = Gate("::1")
    with Sender(refuse=gate.refuse) as sender:
        ended = sender.send(f"http://localhost:{rogue.port}/")
    assert ended.verdict.state is State.DELIVERED
    assert set(gate.asked) == {"::1", "127.0.0.1"}
    assert forbidden.connections == 0


def test_case_43_each_connection_is_examined_when_it_is_made(rogues: Rogues) -> None:
    kept = rogues.serve(misbehaving.answers)
    closed = rogues.serve(answers_once())
    gate = Gate()
    with Sender(refuse=gate.refuse) as sender:
        assert sender.send(kept.url).code is None
        assert sender.send(closed.url).code is None
        assert closed.done.wait(10)
        gate.closed.add("127.0.0.1")
        assert sender.send(kept.url).code is None
        assert sender.send(closed.url).code == "blocked_address"
    assert (kept.connections, closed.connections) == (1, 1)


def test_a_guard_that_fails_lets_nothing_pass(rogues: Rogues, capfd: pytest.CaptureFixture[str]) -> None:
    rogue = rogues.serve(misbehaving.answers)

    def refuse(address: str) -> str | None:
        raise RuntimeError(address)

    with Sender(refuse=refuse) as sender:
        assert sender.send(rogue.url).verdict.state is State.SCHEDULED
    assert rogue.connections == 0
    assert "RuntimeError" in capfd.readouterr().err


def test_case_44_nobody_takes_the_connection(sender: Sender) -> None:
    with blackhole() as url:
        ended = sender.send(url, timeout=1)
    ended.check_bounds(1)
    assert ended.code == "connect_timeout"
    assert ended.verdict.state is State.SCHEDULED


def test_case_44_nobody_listens(sender: Sender) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    ended = sender.send(f"http://127.0.0.1:{port}/")
    assert ended.code == "connection_refused"
    assert ended.verdict.state is State.SCHEDULED


# ── redirects ───────────────────────────────────────────────────────────────────────────────────────────────


def _redirecting(location: Callable[[Peer], str], status: int) -> Behaviour:
    async def behave(peer: Peer) -> None:
        while True:
            await peer.request()
            head = f"HTTP/1.1 {status} Elsewhere\r\nlocation: {location(peer)}\r\ncontent-length: 0\r\n\r\n"
            await peer.send(head.encode())

    return behave


@pytest.mark.parametrize(
    "status", [pytest.param(status, id=f"case-46-{status}") for status in (301, 302, 303, 307, 308)]
)
def test_redirects_are_not_followed(status: int, rogues: Rogues) -> None:
    target = rogues.serve(misbehaving.answers)
    rogue = rogues.serve(_redirecting(lambda _: target.url, status))
    gate = Gate()
    with Sender(refuse=gate.refuse) as sender:
        ended = sender.send(rogue.url)
    assert ended.code == f"http_{status}"
    assert ended.record.status_code == status
    assert ended.verdict.state is State.SCHEDULED
    assert target.connections == 0
    assert len(gate.asked) == 1


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "//169.254.169.254/",
        "",
    ],
)
def test_case_46_whatever_the_redirect_says(location: str, rogues: Rogues) -> None:
    rogue = rogues.serve(_redirecting(lambda _: location, 302))
    gate = Gate()
    with Sender(refuse=gate.refuse) as sender:
        assert sender.send(rogue.url).code == "http_302"
    assert gate.asked == ["127.0.0.1"]


def test_case_47_a_loop_is_one_request(rogues: Rogues, sender: Sender) -> None:
    rogue = rogues.serve(_redirecting(lambda peer: peer.rogue.url, 307))
    assert sender.send(rogue.url).code == "http_307"
    assert len(rogue.requests) == 1


# ── the environment ─────────────────────────────────────────────────────────────────────────────────────────


def test_case_48_proxies_and_netrc_are_ignored(
    rogues: Rogues, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = rogues.serve(says(misbehaving.OK))
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, proxy.url)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "example.com")
    (tmp_path / ".netrc").write_text("default login someone password secret\n")
    (tmp_path / ".curlrc").write_text(f'proxy = "{proxy.url}"\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    rogue = rogues.serve(misbehaving.answers)
    with Sender() as sender:
        assert sender.send(rogue.url).verdict.state is State.DELIVERED
    assert proxy.connections == 0
    assert b"authorization" not in rogue.requests[0].lower()
    assert rogue.requests[0].startswith(b"POST / HTTP/1.1\r\n")
