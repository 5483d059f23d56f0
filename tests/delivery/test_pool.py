"""Connections fit the traffic: what nobody needs is closed, and what will be needed is there before the request."""

import asyncio
import threading

import pytest

from hostile.certificates import Authority
from hostile.driving import Sender
from ringbearer import clock, misbehaving, misbehaving_h2
from ringbearer.delivery import tuning
from ringbearer.delivery.pool import LONGEST_IDLE, Idle, to_close
from ringbearer.misbehaving import OK, Peer, Rogue, Rogues

_LONG = 60.0


def _idle(*given: tuple[int, str, float]) -> list[Idle]:
    return [Idle(descriptor, host, since) for descriptor, host, since in given]


def test_a_host_with_traffic_keeps_what_it_needs_and_others_until_they_are_too_old() -> None:
    idle = _idle((1, "busy", 0.0), (2, "busy", 1.0), (3, "busy", 2.0), (4, "quiet", 3.0))
    opened = {"busy": 4, "quiet": 1}  # one of the busy one's is at work
    assert to_close(idle, opened, {"busy": 2}, 10.0) == [1, 2]
    assert to_close(idle, opened, {"busy": 9}, 10.0) == []
    assert to_close(idle, opened, {"busy": 9}, 3.0 + LONGEST_IDLE + 1) == [1, 2, 3, 4]
    assert to_close([], {}, {"busy": 1}, 0.0) == []


def test_there_may_be_more_connections_than_slots_when_there_are_more_hosts() -> None:
    hosts = {str(n): 1 for n in range(3_000)}
    assert tuning.connections_to_keep(hosts, 1_024, 65_536) == 3_000
    assert tuning.connections_to_keep(hosts, 1_024, 2_224) == 1_024
    assert tuning.connections_to_keep({"one": 2}, 1_024, 65_536) == 64
    assert tuning.most_connections(10_000, 65_536) == 10_000


def _burst(sender: Sender, url: str, number: int) -> None:
    """So many exchanges at once, all of them to their end."""
    assert {e.code for e in sender.send_all({str(n): url for n in range(number)}).values()} == {None}


def test_idle_connections_beyond_the_need_are_closed(rogues: Rogues) -> None:
    inside = threading.Barrier(6)  # so that six connections are made

    async def together(peer: Peer) -> None:
        while True:
            await peer.request()
            if peer.rogue.connections <= 6 and not peer.rogue.done.is_set():
                await asyncio.to_thread(inside.wait, _LONG)
                peer.rogue.done.set()
            await peer.send(OK)

    rogue, other = rogues.serve(together), rogues.serve(misbehaving.answers)
    with Sender() as sender:
        _burst(sender, rogue.url, 6)
        sender.send(other.url)
        courier = sender.courier
        here, there = (f"127.0.0.1:{each.port}" for each in (rogue, other))
        assert courier.open() == {here: 6, there: 1}
        assert courier.fit({here: 2}) == 4
        assert courier.open() == {here: 2, there: 1}
        _burst(sender, rogue.url, 1)
        _burst(sender, other.url, 1)
        assert (rogue.connections, other.connections) == (6, 1)


def test_connections_that_receivers_closed_are_not_counted(rogues: Rogues) -> None:
    rogue = rogues.serve(misbehaving.answers_once())
    with Sender() as sender:
        sender.send(rogue.url)
        deadline = clock.monotonic() + _LONG
        while sender.courier.open() and clock.monotonic() < deadline:
            sender.courier.poll(0.2)
        assert sender.courier.open() == {}


@pytest.fixture(scope="module")
def multiplexing(rogues: Rogues, tmp_path_factory: pytest.TempPathFactory) -> tuple[Rogue, str]:
    """A receiver that speaks HTTP/2, and the file with whom its certificate is from."""
    directory = tmp_path_factory.mktemp("certificates")
    authority = Authority("trusted")
    ca_file = directory / "authority.pem"
    ca_file.write_bytes(authority.pem())
    context = authority.issue("127.0.0.1").context(directory, alpn=["h2"])
    return rogues.serve(misbehaving_h2.answers, tls=context), str(ca_file)


def test_over_http_2_a_connection_is_made_ahead_without_a_request(multiplexing: tuple[Rogue, str]) -> None:
    rogue, ca_file = multiplexing
    with Sender(ca_file=ca_file) as sender:
        courier = sender.courier
        assert not courier.connect_ahead(rogue.url, None)  # nobody knows yet what it speaks
        assert sender.send(rogue.url).code is None
        assert not courier.connect_ahead(rogue.url, None)  # there is one
        known = courier._speaking_http2
    with Sender(ca_file=ca_file) as sender:  # as if that one had gone
        courier = sender.courier
        courier._speaking_http2 |= known
        before, asked = rogue.connections, len(rogue.requests)
        assert courier.connect_ahead(rogue.url, None)
        assert courier.in_flight == 0
        deadline = clock.monotonic() + _LONG
        while len(courier._all) and clock.monotonic() < deadline:
            assert courier.poll(0.2) == ([], False)
        ended = sender.send(rogue.url)
        assert (ended.code, ended.reused) == (None, True)
        assert (rogue.connections, len(rogue.requests)) == (before + 1, asked + 1)


def test_what_is_made_ahead_and_not_reached_is_nobodys_failure(multiplexing: tuple[Rogue, str]) -> None:
    rogue, ca_file = multiplexing
    away = True

    def refuse(_address: str) -> str | None:
        return "it is closed now" if away else None

    with Sender(ca_file=ca_file, refuse=refuse) as sender:
        courier = sender.courier
        courier._speaking_http2.add(rogue.url)
        for _ in range(2):
            assert courier.connect_ahead(rogue.url, None)
        assert courier.abandon() == []
        assert courier.connect_ahead(rogue.url, None)
        deadline = clock.monotonic() + _LONG
        while len(courier._all) and clock.monotonic() < deadline:
            assert courier.poll(0.2) == ([], False)
        away = False
        assert sender.send(rogue.url).code is None
