"""The watch at work: a real store, and real receivers of chat, text messages and signed webhooks."""

import asyncio
import contextlib
import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import msgspec
import psutil
import psycopg
import pytest
from standardwebhooks import Webhook

from contract.making import admission
from ringbearer import clock, ids
from ringbearer.domain.alerts import Alert, Channel, Rule, Severity
from ringbearer.errors import InvalidInput
from ringbearer.monitor import sending
from ringbearer.monitor.alerting import AlertWatch, StoreWatch, tell, trial
from ringbearer.monitor.alerts import RECLAIM, due
from ringbearer.monitor.channels import ChannelFailed, SignedAddress, check_address, send
from ringbearer.monitor.monitor import WebhookPerformanceMonitor
from ringbearer.monitor.results import DegradationThreshold
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.vault import Vault, generate_key
from ringbearer.telemetry import Telemetry

PATIENCE = 40.0
SECRET = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
OWN_TOKEN = "T0KEN-OF-THE-CHANNEL"


class Gateway:
    """Takes messages over HTTP as Slack's incoming webhooks and SMSEagle's text message gateway do."""

    def __init__(self) -> None:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"] or 0))
                gateway.take(self.path, dict(self.headers), body)
                answer = b'{"result":[{"message_id":1,"status":"ok"}]}'
                self.send_response(gateway.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.status = 200
        self.taken: list[tuple[float, str, dict[str, str], bytes]] = []
        self._news = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.address = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        with self._news:
            self.taken.append((clock.monotonic(), path, {k.lower(): v for k, v in headers.items()}, body))
            self._news.notify_all()

    async def until(self, count: int) -> None:
        """Wait until so many messages were taken."""
        await asyncio.to_thread(self._wait, count)

    def _wait(self, count: int) -> None:
        with self._news:
            assert self._news.wait_for(lambda: len(self.taken) >= count, PATIENCE), [t[1] for t in self.taken]

    @property
    def paths(self) -> list[str]:
        return [path for _, path, _, _ in self.taken]


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as running:
        yield running


def add_channel(storage: Storage, kind: Any, address: str, *, after: float = 0.0, **given: Any) -> Channel:
    now = clock.to_datetime(clock.now())
    channel = Channel(id=ids.channel(), name=kind, kind=kind, after=after, created_at=now, **given)
    storage.alerts.add_channel(channel, address)
    return channel


def only_workers(storage: Storage) -> None:
    """Let the missing worker be found at the first look."""
    rule = Rule(
        id="no_worker", summary="{value} workers", metric="workers", above=False, threshold=1, clear=1,
        clear_seconds=0, severity="critical",
    )  # fmt: skip
    storage.alerts.put_rule(rule, now=clock.now())


def watch(storage: Storage, **given: Any) -> AlertWatch:
    monitor = WebhookPerformanceMonitor(storage=storage, telemetry=Telemetry(), process="one")
    return AlertWatch(storage=storage, look=monitor.alert_on_performance_degradation, **given)


@asynccontextmanager
async def at_work(*watches: AlertWatch | StoreWatch) -> AsyncIterator[None]:
    for each in watches:
        each.start()
    try:
        yield
    finally:
        for each in watches:
            await each.stop()


def test_the_ladder_is_climbed_in_its_time_and_its_end_is_told(storage: Storage, gateway: Gateway) -> None:
    only_workers(storage)
    add_channel(storage, "slack", f"http://{gateway.address}/services/{OWN_TOKEN}")
    add_channel(storage, "apprise", f"smseagle://{OWN_TOKEN}@{gateway.address}/123456789", after=3)
    add_channel(
        storage,
        "webhook",
        json.dumps({"url": f"http://{gateway.address}/phone", "secret": SECRET}),
        after=9,  # also where it takes long to start the process that sends what is due after 3
    )

    async def scenario() -> None:
        async with at_work(
            watch(storage), watch(storage)
        ):  # two that believe to lead: each thing once all the same
            await gateway.until(3)
            storage.nodes.beat("node_1", kind="work", host="h", pid=1, version="1", signals={})
            await gateway.until(6)

    asyncio.run(scenario())
    assert sorted(gateway.paths[3:]) == sorted(gateway.paths[:3])
    assert [path.split("/")[1] for path in gateway.paths[:3]] == ["services", "jsonrpc", "phone"]
    moments = [moment for moment, *_ in gateway.taken]
    assert moments[1] - moments[0] > 1  # a look at least lies between, whatever the machine does
    assert moments[2] > moments[1]
    (alert,) = storage.alerts.list_alerts(state="resolved", limit=5, cursor=None)
    assert (alert.rule, alert.severity) == ("no_worker", "critical")
    slack = json.loads(gateway.taken[0][3])["text"]
    assert "no_worker" in slack
    assert f"ringbearer alerts ack {alert.id}" in slack
    assert "0 workers" in gateway.taken[1][3].decode()
    _, _, headers, body = gateway.taken[2]
    verified = Webhook(SECRET).verify(body, headers)
    assert verified["data"]["alerts"] == [alert.id]
    assert {notice.state for notice in storage.alerts.notices([alert.id])} == {"sent"}
    assert len(storage.alerts.notices([alert.id])) == 6


def test_an_acknowledgement_reaches_a_running_watch(storage: Storage, gateway: Gateway) -> None:
    only_workers(storage)
    add_channel(storage, "slack", f"http://{gateway.address}/chat")
    add_channel(storage, "slack", f"http://{gateway.address}/sms", after=3)

    async def scenario() -> None:
        async with at_work(watch(storage)):
            await gateway.until(1)
            (alert,) = storage.alerts.live()
            storage.alerts.acknowledge(alert.id, by="me", now=clock.to_datetime(clock.now()))
            storage.nodes.beat("node_1", kind="work", host="h", pid=1, version="1", signals={})
            await gateway.until(2)

    asyncio.run(scenario())
    assert gateway.paths == ["/chat", "/chat"]
    (alert,) = storage.alerts.list_alerts(state=None, limit=5, cursor=None)
    assert alert.acknowledged_by == "me"
    assert alert.state == "resolved"


def _fired(severity: Severity = "critical", group: str = "") -> Alert:
    now = clock.to_datetime(clock.now())
    values: dict[str, Any] = {"rule": "r", "group": group, "summary": "s", "value": 1.0, "since": now}
    return Alert(id=ids.alert(), severity=severity, state="firing", fired_at=now, **values)


def test_a_sender_that_died_after_its_claim_loses_nothing(storage: Storage, gateway: Gateway) -> None:
    channel = add_channel(storage, "slack", f"http://{gateway.address}/chat")
    alert = _fired()
    storage.alerts.write([alert], [], now=clock.now())
    assert storage.alerts.claim_notice(alert.id, channel.id, "fired", tries=0, now=clock.now())
    assert not storage.alerts.claim_notice(alert.id, channel.id, "fired", tries=0, now=clock.now())
    now = clock.to_datetime(clock.now())
    notices = storage.alerts.notices([alert.id])
    assert due([alert], [channel], [], notices, now=now) == []
    later = due([alert], [channel], [], notices, now=now + RECLAIM + timedelta(seconds=1))
    asyncio.run(tell(storage, channel, later))
    asyncio.run(tell(storage, channel, later))  # another leader that decided the same
    assert len(gateway.taken) == 1
    assert "perhaps for the second time" in gateway.taken[0][3].decode()


def test_of_two_who_find_the_same_at_once_one_begins_it(storage: Storage) -> None:
    first, second = _fired(), _fired()
    storage.alerts.write([first], [], now=clock.now())
    storage.alerts.write([second], [], now=clock.now())
    assert storage.alerts.live() == [first]
    over = msgspec.structs.replace(first, state="resolved", resolved_at=first.fired_at)
    storage.alerts.write([over], [], now=clock.now())
    storage.alerts.write([first], [], now=clock.now())  # by one who looked before that
    assert storage.alerts.live() == []
    storage.alerts.write([second], [], now=clock.now())
    assert storage.alerts.live() == [second]


def test_what_a_channel_refuses_is_tried_again_and_never_shows_its_address(
    storage: Storage, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    addresses = {
        "slack": f"http://{gateway.address}/{OWN_TOKEN}",
        "apprise": f"smseagle://{OWN_TOKEN}@{gateway.address}/123456789",
    }
    ways = [add_channel(storage, kind, address) for kind, address in addresses.items()]
    ways.append(add_channel(storage, "slack", f"http://127.0.0.1:9/{OWN_TOKEN}"))  # nobody is there
    gateway.status = 503
    alert = _fired()
    storage.alerts.write([alert], [], now=clock.now())
    now = clock.to_datetime(clock.now())
    for each in due([alert], ways, [], [], now=now):
        asyncio.run(tell(storage, each.channel, [each]))
    notices = storage.alerts.notices([alert.id])
    assert {(notice.state, notice.tries) for notice in notices} == {("failed", 1)}
    gateway.status = 200
    for each in due([alert], ways, [], notices, now=now + timedelta(seconds=60)):
        asyncio.run(tell(storage, each.channel, [each]))
    states = {notice.channel_id: notice.state for notice in storage.alerts.notices([alert.id])}
    assert [states[way.id] for way in ways] == ["sent", "sent", "failed"]
    assert OWN_TOKEN not in caplog.text
    assert OWN_TOKEN not in str(notices) + str(storage.alerts.channels())
    with storage.database.read() as connection:
        stored = connection.exec_driver_sql("SELECT body, sealed FROM alert_channels").all()
    assert OWN_TOKEN.encode() not in b"".join(row[0].encode() + bytes(row[1]) for row in stored)


@pytest.mark.parametrize("address", [f"pigeon://{OWN_TOKEN}@loft", f"tgram://{OWN_TOKEN}"])
def test_an_address_that_nobody_knows_is_not_logged(address: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("apprise").setLevel(logging.NOTSET)  # as before anything was sent
    with pytest.raises(InvalidInput) as refused:
        check_address("apprise", address)
    assert OWN_TOKEN not in caplog.text + str(refused.value)


def _senders() -> list[psutil.Process]:
    """Processes of this one that send, or did and were not seen off."""
    return [each for each in psutil.Process().children() if sending.__name__ in each.cmdline()]


@contextmanager
def trickling() -> Iterator[str]:
    """A gateway that answers a byte a second, each within every timeout between two bytes, and never ends."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with contextlib.suppress(OSError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nx-slowly: ")
                while not ended.wait(0.25):
                    self.wfile.write(b".")

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("kind", ["apprise", "slack"])
def test_a_channel_that_never_comes_to_an_end_is_left(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "SECONDS", 4.0)
    channel = Channel(id="c", name="c", kind=kind, created_at=clock.to_datetime(0))
    with trickling() as address:
        way = (
            f"http://{address}/{OWN_TOKEN}"
            if kind == "slack"
            else f"smseagle://{OWN_TOKEN}@{address}/1234567"
        )
        with pytest.raises(ChannelFailed, match="did not take the message within 4 s"):
            asyncio.run(sending.send(channel, way, trial(clock.to_datetime(0))))
    assert _senders() == []


def test_the_process_of_a_message_ends_though_whoever_started_it_is_gone() -> None:
    channel = Channel(id="c", name="c", kind="slack", created_at=clock.to_datetime(0))
    with trickling() as address:
        order = sending._Order(channel, f"http://{address}/", trial(clock.to_datetime(0)), 0.5)
        process = subprocess.run(
            [sys.executable, "-P", "-m", "ringbearer.monitor.sending"],
            input=msgspec.json.encode(order),
            timeout=PATIENCE,
            check=False,
        )
    assert process.returncode == -signal.SIGALRM


def test_channels_that_hang_keep_no_message_from_the_others(
    storage: Storage, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than may be on their way at a time, and told first."""
    monkeypatch.setattr(sending, "AT_A_TIME", 2)
    monkeypatch.setattr(sending, "SECONDS", 3.0)
    only_workers(storage)
    with trickling() as address:
        hanging = [
            add_channel(storage, "apprise", f"smseagle://{OWN_TOKEN}@{address}/123456{n}") for n in range(3)
        ]
        add_channel(storage, "slack", f"http://{gateway.address}/chat")

        async def scenario() -> None:
            async with at_work(watch(storage)):
                await gateway.until(1)

        asyncio.run(scenario())
    (alert,) = storage.alerts.live()
    states = {notice.channel_id: notice.state for notice in storage.alerts.notices([alert.id])}
    assert [states[channel.id] for channel in hanging] == ["failed"] * 3
    assert _senders() == []


def test_a_storm_is_one_message(storage: Storage, gateway: Gateway) -> None:
    channel = add_channel(storage, "slack", f"http://{gateway.address}/chat")
    storm = [_fired("warning", f"g{n}") for n in range(25)]
    storage.alerts.write(storm, [], now=clock.now())
    asyncio.run(tell(storage, channel, due(storm, [channel], [], [], now=clock.to_datetime(clock.now()))))
    (message,) = gateway.taken
    assert "25 alerts" in message[3].decode()
    assert "and 15 more" in message[3].decode()
    assert len(storage.alerts.notices([alert.id for alert in storm])) == 25


def test_the_dead_mans_switch_is_held_while_the_watch_works(storage: Storage, gateway: Gateway) -> None:
    async def scenario() -> None:
        async with at_work(watch(storage, heartbeat_url=f"http://{gateway.address}/alive")):
            await gateway.until(1)

    gateway.status = 200
    asyncio.run(scenario())
    assert gateway.paths == ["/alive"]


def test_a_degradation_raises_its_alert_at_once_and_goes_when_nobody_minds(storage: Storage) -> None:
    monitor = WebhookPerformanceMonitor(storage=storage, telemetry=Telemetry(), process="one")
    storage.ledger.accept([admission(lane=1, at=clock.now() - 90 * clock.SECOND)])
    found = asyncio.run(
        monitor.alert_on_performance_degradation(DegradationThreshold(queue_age=60, error_rate=0.1))
    )
    assert [rule.id for rule in found.after] == ["degraded_success", "degraded_queue"]
    assert [(a.rule, a.group) for a in found.began] == [("degraded_queue", "high")]
    again = asyncio.run(monitor.alert_on_performance_degradation(DegradationThreshold(queue_age=60)))
    assert ("degraded_queue", "high") in {(a.rule, a.group) for a in again.firing}
    assert {rule.id for rule in again.before} == {"degraded_success", "degraded_queue"}
    looked = asyncio.run(monitor.alert_on_performance_degradation())  # as the leader's watch does
    assert looked.before == looked.after == again.after
    assert looked.began == []
    assert looked.firing == again.firing
    none = asyncio.run(monitor.alert_on_performance_degradation(DegradationThreshold()))
    assert none.after == []
    assert not [a for a in none.firing if a.rule.startswith("degraded_")]


def test_a_store_that_is_away_is_told_and_its_return_too(
    postgres_server: str, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StoreWatch, "AWAY_SECONDS", 1.0)
    name = "away_" + ids.event()[-16:]
    url = postgres_server.replace("/postgres?", f"/{name}?", 1)
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE migrated".encode())
        with open_storage(url, Vault([generate_key()])) as storage:
            add_channel(storage, "slack", f"http://{gateway.address}/chat")

            async def scenario() -> None:
                async with at_work(guard := StoreWatch(storage=storage)):
                    await guard.ready.wait()
                    connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
                    connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
                    )
                    await gateway.until(1)
                    connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
                    await gateway.until(2)

            asyncio.run(scenario())
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
    assert "does not answer" in gateway.taken[0][3].decode()
    assert "answers again" in gateway.taken[1][3].decode()


def test_a_signed_message_says_the_same_under_the_same_id(gateway: Gateway) -> None:
    channel = Channel(id="c", name="c", kind="webhook", created_at=clock.to_datetime(0))
    address = SignedAddress(f"http://{gateway.address}/hook", SECRET)
    message = trial(clock.to_datetime(0))
    send(channel, json.dumps({"url": address.url, "secret": address.secret}), message)
    gateway.status = 302
    with pytest.raises(ChannelFailed, match="answered 302"):
        send(channel, json.dumps({"url": address.url, "secret": address.secret}), message)
    assert {headers["webhook-id"] for _, _, headers, _ in gateway.taken} == {message.id}
