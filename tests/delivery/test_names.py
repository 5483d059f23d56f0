"""Names are looked up without one holding up another, remembered for their time to live, and longer when we are to blame."""

import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from ringbearer import clock
from ringbearer.delivery.handle import Order
from ringbearer.delivery.names import DEADLINE, Found, Names

_LONG = 60.0


class Server:
    """A name server on a free port: `good…` is 192.0.2.7 for now, `long…` for a day, `none…` does not exist, all else hangs."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.asked: Counter[str] = Counter()
        self.silent = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stopper:
            stopper.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(4_096)
            if not query:
                return
            name = query[13 : 13 + query[12]].decode()
            self.asked[name] += 1
            if self.silent:
                continue
            if name.startswith(("good", "long")):
                seconds = 0 if name.startswith("good") else 86_400
                self._socket.sendto(_answer(query, _is_a(query), seconds=seconds), sender)
            elif name.startswith("none") or not name:
                self._socket.sendto(_answer(query, False, code=3), sender)


def _question(query: bytes) -> bytes:
    end = query.index(b"\0", 12) + 5
    return query[12:end]


def _is_a(query: bytes) -> bool:
    return _question(query)[-4:-2] == b"\0\1"


def _answer(query: bytes, with_address: bool, *, code: int = 0, seconds: int = 0) -> bytes:
    head = query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, 1 if with_address else 0, 0, 0)
    record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, seconds, 4) + bytes([192, 0, 2, 7])
    return head + _question(query) + (record if with_address else b"")


@pytest.fixture
def server() -> Iterator[Server]:
    """A fresh one."""
    made = Server()
    yield made
    made.close()


@pytest.fixture
def names(server: Server) -> Iterator[Names]:
    """Names that ask it."""
    made = Names(servers=[server.address])
    yield made
    made.close()


def _wait_for(names: Names, *hosts: str, timeout: float = _LONG) -> dict[str, Found]:
    for host in hosts:
        assert names.find(host) is None
        names.wait(host, Order(token=host, url="", headers=[], body=b"", timeout=timeout), clock.now())
    ended: dict[str, Found] = {}
    while names.busy:
        select.select([names.descriptor], [], [], 0.05)
        ended |= {str(waiting.order.token): found for waiting, found in names.collect()}
    return ended


def test_a_name_is_asked_for_once_and_remembered(server: Server, names: Names) -> None:
    ended = _wait_for(names, "long.example")["long.example"]
    assert ended.addresses == ("192.0.2.7",)
    asked = server.asked["long"]
    for _ in range(5):
        assert names.find("long.example") is ended
    assert server.asked["long"] == asked
    # However long it says that it is good for, it is asked for again after five minutes.
    assert ended.good_until <= clock.monotonic() + 300.0


def test_a_name_that_does_not_exist_is_its_owners_affair(names: Names) -> None:
    found = _wait_for(names, "none.example")["none.example"]
    assert (found.addresses, found.ours, found.late) == ((), False, False)
    assert found.failure == "Could not resolve host: none.example"


def test_many_names_that_hang_hold_up_nobody(server: Server, names: Names) -> None:
    hanging = [f"hang{n}.example" for n in range(300)]
    for host in hanging:
        assert names.find(host) is None
        names.wait(host, Order(token=host, url="", headers=[], body=b"", timeout=_LONG), clock.now())
    assert names.find("good1.example") is None
    names.wait("good1.example", Order(token="good", url="", headers=[], body=b"", timeout=_LONG), clock.now())
    order = []
    while names.busy:
        select.select([names.descriptor], [], [], 0.05)
        order += [(str(waiting.order.token), found) for waiting, found in names.collect()]
    assert order[0][0] == "good"
    assert len(order) == 301
    assert all(not found.ours and found.late for _, found in order[1:])


def test_a_silent_name_server_is_our_own_affair(server: Server, names: Names) -> None:
    server.silent = True
    found = _wait_for(names, "good.example")["good.example"]
    assert (found.addresses, found.ours) == ((), True)
    server.silent = False
    assert _wait_for(names, "good.example")["good.example"].addresses == ("192.0.2.7",)


def test_what_is_known_is_used_while_our_name_server_is_away(server: Server, names: Names) -> None:
    known = _wait_for(names, "good.example")["good.example"]
    server.silent = True
    known.good_until = clock.monotonic() - 60.0  # a minute ago
    assert _wait_for(names, "good.example")["good.example"].addresses == ("192.0.2.7",)
    known.good_until = known.stale_until = clock.monotonic() - 60.0
    assert _wait_for(names, "good.example")["good.example"].ours


def test_an_answer_just_over_its_time_is_used_while_it_is_asked_for_anew(
    server: Server, names: Names
) -> None:
    known = _wait_for(names, "good.example")["good.example"]
    asked = server.asked["good"]
    known.good_until = clock.monotonic() - 1.0
    assert names.find("good.example") is known
    until = clock.monotonic() + _LONG
    while (found := names.find("good.example")) is known and clock.monotonic() < until:
        select.select([names.descriptor], [], [], 0.05)
        names.collect()
    assert found is not None
    assert found.number == known.number  # the same addresses: libcurl need not be told again
    assert server.asked["good"] > asked


def test_nobody_waits_longer_than_the_order_allows(server: Server, names: Names) -> None:
    began = clock.monotonic()
    found = _wait_for(names, "hang.example", timeout=0.2)["hang.example"]
    assert found.late
    assert clock.monotonic() - began < DEADLINE + _LONG


@pytest.mark.parametrize(
    ("url", "host", "port", "named"),
    [
        ("https://lumen.example/hook", "lumen.example", 443, True),
        ("http://lumen.example:8080/", "lumen.example", 8080, True),
        ("http://192.0.2.7/", "192.0.2.7", 80, False),
        ("https://[2001:db8::7]:8443/", "2001:db8::7", 8443, False),
    ],
)
def test_where_a_url_leads(url: str, host: str, port: int, named: bool, names: Names) -> None:
    place = names.place(url)
    assert (place.host, place.port, place.named) == (host, port, named)
