"""The courier keeps connections, multiplexes where it may, and never waits for one exchange alone."""

import asyncio
import os
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostile.certificates import Authority
from hostile.driving import BODY, HEADERS, Sender, order
from ringbearer import misbehaving, misbehaving_h2
from ringbearer.delivery.handle import Order
from ringbearer.delivery.returns import Return
from ringbearer.misbehaving import Behaviour, Peer, Rogues, answers_once

_LONG = 60.0
"""Seconds: far longer than anything here takes; what waits so long has gone wrong."""


@pytest.fixture
def sender() -> Iterator[Sender]:
    """A fresh courier."""
    with Sender() as made:
        yield made


def _until_idle(sender: Sender) -> list[Return]:
    found = []
    while sender.courier.in_flight:
        found += sender.courier.poll(_LONG)[0]
    return found


@pytest.fixture(scope="module")
def issue(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Path, str]:
    """An authority, a directory for certificates, and the file with the authority's own."""
    directory = tmp_path_factory.mktemp("certificates")
    authority = Authority("trusted")
    (directory / "authority.pem").write_bytes(authority.pem())
    return authority, directory, str(directory / "authority.pem")


# ── connections ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_connection_is_used_again(rogues: Rogues, sender: Sender) -> None:
    rogue = rogues.serve(misbehaving.answers)
    assert [sender.send(rogue.url).reused for _ in range(5)] == [False, True, True, True, True]
    assert rogue.connections == 1
    assert len(rogue.requests) == 5


def test_a_connection_is_used_for_its_port_only(rogues: Rogues, sender: Sender) -> None:
    one, other = rogues.serve(misbehaving.answers), rogues.serve(misbehaving.answers)
    for rogue in (one, other, one, other):
        sender.send(rogue.url)
    assert (one.connections, other.connections) == (1, 1)


@pytest.mark.parametrize("tls", [pytest.param(False, id="plain"), pytest.param(True, id="tls")])
@pytest.mark.parametrize(
    "noticed", [pytest.param(True, id="noticed"), pytest.param(False, id="not-noticed-before")]
)
def test_a_connection_that_its_server_closed_is_replaced(
    tls: bool, noticed: bool, rogues: Rogues, issue: tuple[Authority, Path, str]
) -> None:
    authority, directory, ca_file = issue
    context = authority.issue("127.0.0.1").context(directory) if tls else None
    rogue = rogues.serve(answers_once(), tls=context)
    with Sender(ca_file=ca_file) as sender:
        for _ in range(20):
            rogue.done.clear()
            assert sender.send(rogue.url, timeout=_LONG).code is None
            assert rogue.done.wait(_LONG)
            if noticed:
                sender.courier.poll(0)
    assert len(rogue.requests) == 20


def test_the_request_is_sent_as_it_was_ordered(rogues: Rogues, sender: Sender) -> None:
    rogue = rogues.serve(misbehaving.answers)
    body = bytes(range(256)) * 1024
    sender.courier.submit(
        Order(token=1, url=rogue.url + "a%20b?c=d", headers=HEADERS, body=body, timeout=_LONG)
    )
    _until_idle(sender)
    head, _, sent = rogue.requests[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first == "POST /a%20b?c=d HTTP/1.1"
    assert sent == body
    names = [line.partition(":")[0].lower() for line in lines]
    assert sorted(names) == sorted(
        ["host", "accept", "content-type", "webhook-id", "ringbearer-attempt", "content-length", "user-agent"]
    )


def test_when_the_first_byte_went_out(rogues: Rogues, sender: Sender) -> None:
    answering, hanging_up = rogues.serve(misbehaving.answers), rogues.serve(misbehaving.hangs_up)
    for url in (answering.url, answering.url, hanging_up.url):
        sender.courier.submit(order("", url, _LONG))
        (returned,) = _until_idle(sender)
        began, took = returned.exchange.started_at, returned.exchange.duration
        assert returned.first_byte_at is not None
        assert began <= returned.first_byte_at <= began + took


def test_no_first_byte_without_a_connection(sender: Sender) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    sender.courier.submit(order("", nobody, _LONG))
    (returned,) = _until_idle(sender)
    assert returned.first_byte_at is None


def test_steady_traffic_finds_its_connections_again(rogues: Rogues, sender: Sender) -> None:
    receivers = [rogues.serve(misbehaving.answers) for _ in range(3)]
    reused = []
    for _ in range(100):
        for receiver in receivers:
            for number in range(4):
                sender.courier.submit(order(str(number), receiver.url, _LONG))
        reused += [returned.reused for returned in _until_idle(sender)]
    assert sum(receiver.connections for receiver in receivers) <= 12
    assert sum(reused) / len(reused) > 0.98
    assert all(reused[100:])


# ── HTTP/2 ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_http2_is_used_where_it_is_offered(rogues: Rogues, issue: tuple[Authority, Path, str]) -> None:
    authority, directory, ca_file = issue
    context = authority.issue("127.0.0.1").context(directory, alpn=["h2", "http/1.1"])
    rogue = rogues.serve(misbehaving_h2.answers, tls=context)
    with Sender(ca_file=ca_file) as sender:
        sender.send(rogue.url, timeout=_LONG)
        ended = sender.send_all({str(n): rogue.url for n in range(100)}, timeout=_LONG)
        assert {e.exchange.head.partition(b"\n")[0] for e in ended.values()} == {b"HTTP/2 200 \r"}
        assert all(e.code is None and e.reused for e in ended.values())
    assert rogue.connections == 1
    assert len(rogue.requests) == 101
    assert b"webhook-id: evt_1\r\n" in rogue.requests[0]


@pytest.mark.parametrize("tls", [pytest.param(False, id="plain"), pytest.param(True, id="tls")])
def test_nobody_waits_for_the_first_answer_of_a_receiver(
    tls: bool, rogues: Rogues, issue: tuple[Authority, Path, str]
) -> None:
    authority, directory, ca_file = issue
    context = authority.issue("127.0.0.1").context(directory) if tls else None
    rogue = rogues.serve(_gathers(10), tls=context)
    with Sender(ca_file=ca_file) as sender:
        ended = sender.send_all({str(n): rogue.url for n in range(10)}, timeout=_LONG)
    assert {e.record.status_code for e in ended.values()} == {200}


def test_http_1_is_used_where_http2_is_not_offered(
    rogues: Rogues, issue: tuple[Authority, Path, str]
) -> None:
    authority, directory, ca_file = issue
    rogue = rogues.serve(misbehaving.answers, tls=authority.issue("127.0.0.1").context(directory))
    with Sender(ca_file=ca_file) as sender:
        for expected in (False, True, True):
            ended = sender.send(rogue.url, timeout=_LONG)
            assert (ended.code, ended.reused) == (None, expected)
            assert ended.exchange.head.partition(b"\n")[0] == b"HTTP/1.1 200 OK\r"


# ── many at once ────────────────────────────────────────────────────────────────────────────────────────────

_FOREVER = 3_600.0
_MANY = 1_100  # descriptors beyond 1,024, which is where select() ends


@pytest.fixture
def many_files() -> Iterator[None]:
    """Leave for both ends of that many connections."""
    needed = 2 * _MANY + 500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"{needed} open files are needed, {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _gathers(count: int) -> Behaviour:
    """Answers nobody before so many have asked."""
    came = 0
    complete = asyncio.Event()

    async def behave(peer: Peer) -> None:
        nonlocal came
        await peer.request()
        came += 1
        if came == count:
            complete.set()
        await complete.wait()
        await peer.send(misbehaving.OK)

    return behave


@pytest.mark.usefixtures("many_files")
def test_more_exchanges_at_once_than_select_could_watch(rogues: Rogues) -> None:
    rogue = rogues.serve(_gathers(_MANY))
    returns: list[Return] = []
    with Sender(slots=_MANY) as sender:
        for number in range(_MANY):
            sender.courier.submit(order(str(number), rogue.url, _FOREVER))  # the last answer is the first
            while number % 50 == 49 and rogue.connections <= number:  # none may have to connect again
                returns += sender.courier.poll(0.1)[0]
        returns += _until_idle(sender)
    assert {r.exchange.status for r in returns} == {200}
    assert {r.order.token for r in returns} == {str(n) for n in range(_MANY)}
    assert rogue.connections == _MANY


def test_without_open_files_left_an_exchange_fails_and_the_next_does_not(
    rogues: Rogues, sender: Sender
) -> None:
    rogue = rogues.serve(misbehaving.answers)
    kept = rogues.serve(misbehaving.answers)
    assert sender.send(kept.url).code is None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        ended = sender.send(rogue.url)
        assert sender.send(kept.url).reused
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert ended.code == "connect_failed"
    assert "open files" in str(ended.record.error)
    assert sender.send(rogue.url).code is None


# ── what else can end a wait ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def bell() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a line: what is written into the first can be heard at the second."""
    ringing, hearing = socket.socketpair()
    with ringing, hearing:
        yield ringing, hearing


def test_poll_ends_when_a_watched_descriptor_rings(
    sender: Sender, bell: tuple[socket.socket, socket.socket]
) -> None:
    ringing, hearing = bell
    sender.courier.watch(hearing.fileno())
    assert sender.courier.poll(0) == ([], False)
    ringing.send(b"!")
    assert sender.courier.poll(_LONG) == ([], True)
    hearing.recv(1)
    assert sender.courier.poll(0) == ([], False)
    ringing.send(b"!")
    sender.courier.unwatch(hearing.fileno())
    assert sender.courier.poll(0) == ([], False)


def test_a_ring_is_heard_while_an_exchange_hangs(
    rogues: Rogues, sender: Sender, bell: tuple[socket.socket, socket.socket]
) -> None:
    ringing, hearing = bell
    sender.courier.watch(hearing.fileno())
    sender.courier.submit(order("", rogues.serve(misbehaving.never_answers).url, _LONG))
    ringing.send(b"!")
    rang = False
    while not rang:
        returns, rang = sender.courier.poll(_LONG)
        assert returns == []


def test_a_descriptor_may_be_watched_again_under_the_same_number(
    sender: Sender, bell: tuple[socket.socket, socket.socket]
) -> None:
    ringing, hearing = bell
    old, closed = socket.socketpair()
    number = closed.fileno()
    sender.courier.watch(number)
    old.close()
    closed.close()
    assert hearing.fileno() != number
    os.dup2(hearing.fileno(), number)
    try:
        sender.courier.watch(number)
        sender.courier.watch(number)
        ringing.send(b"!")
        assert sender.courier.poll(_LONG) == ([], True)
    finally:
        sender.courier.unwatch(number)
        os.close(number)


def test_unwatching_a_number_that_a_connection_has_by_now_leaves_the_connection_alone(
    rogues: Rogues, sender: Sender
) -> None:
    rogue = rogues.serve(_gathers(2))
    pairs = [socket.socketpair() for _ in range(8)]
    numbers = [end.fileno() for pair in pairs for end in pair]
    for number in numbers:
        sender.courier.watch(number)
    for one, other in pairs:
        one.close()
        other.close()
    sender.courier.submit(order("first", rogue.url, _LONG))
    while not rogue.requests:
        sender.courier.poll(0.1)
    for number in numbers:
        sender.courier.unwatch(number)
    sender.courier.submit(order("second", rogue.url, _LONG))
    assert {r.exchange.status for r in _until_idle(sender)} == {200}


# ── breaking off ────────────────────────────────────────────────────────────────────────────────────────────


def _tells_when_gone(tell: Callable[[], None]) -> Behaviour:
    async def behave(peer: Peer) -> None:
        await peer.request()
        peer.rogue.done.set()
        await peer.gone()
        tell()

    return behave


def test_abandoned_orders_come_back_and_their_connections_end(rogues: Rogues, sender: Sender) -> None:
    gone = []
    rogue = rogues.serve(_tells_when_gone(lambda: gone.append(1)))
    for number in range(3):
        sender.courier.submit(order(str(number), rogue.url, _LONG))
    while len(rogue.requests) < 3:
        sender.courier.poll(0.1)
    assert {o.token for o in sender.courier.abandon()} == {"0", "1", "2"}
    assert sender.courier.in_flight == 0
    assert sender.courier.abandon() == []
    assert sender.send(rogues.serve(misbehaving.answers).url).code is None
    while len(gone) < 3:
        sender.courier.poll(0.01)


def test_an_order_that_libcurl_does_not_take_costs_nothing(rogues: Rogues, sender: Sender) -> None:
    rogue = rogues.serve(misbehaving.answers)
    with pytest.raises(UnicodeEncodeError):
        sender.courier.submit(Order(token=1, url=rogue.url, headers=["x: ü"], body=BODY, timeout=1))
    assert sender.courier.in_flight == 0
    assert sender.courier.abandon() == []
    assert sender.send(rogue.url).code is None
    assert rogue.connections == 1


def test_it_tells_how_busy_it_is(rogues: Rogues, sender: Sender) -> None:
    sender.courier.submit(order("", rogues.serve(misbehaving.never_answers).url, _LONG))
    assert repr(sender.courier) == "<Courier with 1 of 128 slots in use>"
