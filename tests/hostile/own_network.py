"""Runs in a network of its own, whose only name server lies: what the courier makes of each lie, as JSON.

Started by the tests through `unshare`, so that name server, resolver and courier are the real ones.
"""

import contextlib
import fcntl
import json
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

from hostile.driving import Ended, Sender
from ringbearer import misbehaving
from ringbearer.delivery.guard import Guard
from ringbearer.misbehaving import Rogue, Rogues, says

_SIOCSIFFLAGS = 0x8914
_UP = 0x1 | 0x40  # IFF_UP | IFF_RUNNING
_A, _CNAME, _AAAA = 1, 5, 28
_SERVFAIL, _NXDOMAIN = 2, 3
_MOST_IN_DATAGRAM = 512
_TRUNCATED = 0x0200
_HANGING = 40  # libcurl by itself stopped at ten

Records = list[tuple[int, bytes]]


def main() -> None:
    """Prepare the network, try everything, print what came of it."""
    _prepare()
    names = NameServer()
    for serve in (names.serve_udp, names.serve_tcp):
        threading.Thread(target=serve, daemon=True).start()
    with Rogues() as rogues:
        json.dump(_try_everything(rogues, names), sys.stdout)


def _prepare() -> None:
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _UP))
    directory = Path(tempfile.mkdtemp())
    for name, text in (
        ("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:2\n"),
        ("nsswitch.conf", "hosts: files dns\n"),
    ):
        place = Path("/etc") / name
        if place.exists():
            (directory / name).write_text(text)
            subprocess.run(["mount", "--bind", directory / name, place.resolve()], check=True)


class NameServer:
    """Answers for `.test` as its table says; a name that hangs gets no answer at all."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.rebound = False
        self.silent = False
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", 53))
        self._tcp = socket.create_server(("127.0.0.1", 53))

    def serve_udp(self) -> None:
        """Answer datagrams; what is too long is answered as truncated, so that TCP is tried."""
        while True:
            query, address = self._udp.recvfrom(4096)
            answer = self._answer(query)
            if answer is not None:
                if len(answer) > _MOST_IN_DATAGRAM:
                    answer = _message(query, 0, [], flags=_TRUNCATED)
                self._udp.sendto(answer, address)

    def serve_tcp(self) -> None:
        """Answer whatever comes over each connection."""
        while True:
            connection, _ = self._tcp.accept()
            threading.Thread(target=self._serve_connection, args=(connection,), daemon=True).start()

    def _serve_connection(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while length := connection.recv(2, socket.MSG_WAITALL):
                query = connection.recv(struct.unpack(">H", length)[0], socket.MSG_WAITALL)
                answer = self._answer(query)
                if answer is not None:
                    connection.sendall(struct.pack(">H", len(answer)) + answer)

    def _answer(self, query: bytes) -> bytes | None:
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        wanted = struct.unpack(">H", query[at + 1 : at + 3])[0]
        name = labels[0] if labels else ""
        self.asked[name] += 1
        if self.silent:
            return None
        if name.startswith("hang"):
            return None
        if name == "garbage":
            return query[:2] + b"\xff" * 40
        if name in {
            "",
            "nothing",
            "failure",
        }:  # the root is asked for by who wants to know whether we are there
            return _message(query, _SERVFAIL if name == "failure" else _NXDOMAIN, [])
        return _message(query, 0, self._records(name, wanted))

    def _records(self, name: str, wanted: int) -> Records:
        if name in {"loop1", "loop2"}:
            return [(_CNAME, _encoded("loop2" if name == "loop1" else "loop1"))]
        if name.startswith("chain"):
            return [(_CNAME, _encoded(f"chain{int(name[5:]) + 1}"))]
        if name == "rebinding":
            return _addresses(wanted, "169.254.169.254" if self.rebound else "127.0.0.1")
        return _addresses(wanted, *_NAMES[name])


_NAMES = {
    "good": ["127.0.0.1"],
    "good2": ["127.0.0.1"],
    "private": ["10.1.2.3", "::1", "fd00::1"],
    "metadata": ["169.254.169.254"],
    "mapped": ["::ffff:169.254.169.254"],
    "translated": ["64:ff9b::a9fe:a9fe"],
    "mixed": ["10.1.2.3", "127.0.0.1", "::1", "fd00::1"],
    "many": [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(500)],
    "most": [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(4_000)],  # 64,000 bytes
    "haystack": [*(f"10.0.{n // 250}.{n % 250 + 1}" for n in range(499)), "127.0.0.1"],
}


def _addresses(wanted: int, *addresses: str) -> Records:
    family = {_A: socket.AF_INET, _AAAA: socket.AF_INET6}.get(wanted)
    fitting = [a for a in addresses if (":" in a) == (family is socket.AF_INET6)]
    return [(wanted, socket.inet_pton(family, a)) for a in fitting] if family is not None else []


def _message(query: bytes, code: int, records: Records, *, flags: int = 0) -> bytes:
    at = query.index(b"\0", 12) + 5  # behind the question
    head = query[:2] + struct.pack(">HHHHH", 0x8180 | flags | code, 1, len(records), 0, 0)
    body = b"".join(
        b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 0, len(data)) + data for kind, data in records
    )
    return head + query[12:at] + body


def _encoded(name: str) -> bytes:
    return bytes([len(name)]) + name.encode() + b"\x04test\0"


# ── what is tried ───────────────────────────────────────────────────────────────────────────────────────────


class _Dialled:
    """Asks the guard, and writes down each address that it lets pass."""

    def __init__(self) -> None:
        self._guard = Guard(allow_networks=["127.0.0.1/32"])
        self.addresses: list[str] = []

    def refuse(self, address: str) -> str | None:
        reason = self._guard.check_address(address)
        if reason is None:
            self.addresses.append(address)
        return reason


def _try_everything(rogues: Rogues, names: NameServer) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for name in ("good", "private", "metadata", "mapped", "translated", "many", "most", "haystack"):
        found[name] = _try_one(rogues, name)
    for name in ("loop1", "chain0", "nothing", "failure", "garbage", "hang"):
        found[name] = _try_one(rogues, name)
    found["mixed"] = _try_mixed(rogues)
    found["rebinding"], found["rebound-kept"], found["rebound"] = _try_rebinding(rogues, names)
    found["beside-hanging"] = _try_beside_hanging(rogues)
    found["own-failure"], found["own-failure-over"] = _try_own_failure(rogues, names)
    return found


def _try_one(rogues: Rogues, name: str) -> dict[str, object]:
    dialled = _Dialled()
    rogue = rogues.serve(misbehaving.answers)
    with Sender(refuse=dialled.refuse) as sender:
        return _told(sender.send(_url(name, rogue), timeout=1), rogue, dialled)


def _try_mixed(rogues: Rogues) -> dict[str, object]:
    dialled = _Dialled()
    rogue = rogues.serve(misbehaving.answers)
    forbidden = rogues.serve(misbehaving.answers, host="::1", port=rogue.port)
    with Sender(refuse=dialled.refuse) as sender:
        told = _told(sender.send(_url("mixed", rogue), timeout=1), rogue, dialled)
    return told | {"forbidden_connections": forbidden.connections}


def _try_rebinding(rogues: Rogues, names: NameServer) -> list[dict[str, object]]:
    """Public when looked at; then private, on the connection that is kept and on a new one."""
    told = []
    rogue = rogues.serve(misbehaving.answers)
    dialled = _Dialled()
    with Sender(refuse=dialled.refuse) as sender:
        told.append(_told(sender.send(_url("rebinding", rogue), timeout=1), rogue, dialled))
        names.rebound = True
        told.append(_told(sender.send(_url("rebinding", rogue), timeout=1), rogue, dialled))
    dialled = _Dialled()
    with Sender(refuse=dialled.refuse) as sender:
        told.append(_told(sender.send(_url("rebinding", rogue), timeout=1), rogue, dialled))
    return told


def _try_beside_hanging(rogues: Rogues) -> dict[str, object]:
    """Many names that hang must not keep another one from being resolved."""
    dialled = _Dialled()
    rogue = rogues.serve(says(misbehaving.OK))
    urls = {f"hang{n}": f"http://hang{n}.test/" for n in range(_HANGING)} | {"good2": _url("good2", rogue)}
    with Sender(refuse=dialled.refuse) as sender:
        ended = sender.send_all(urls, timeout=1)
    return _told(ended["good2"], rogue, dialled) | {"hanging": ended["hang0"].code}


def _try_own_failure(rogues: Rogues, names: NameServer) -> list[dict[str, object]]:
    """The name server is silent altogether; then it is back."""
    dialled = _Dialled()
    rogue = rogues.serve(misbehaving.answers)
    told = []
    with Sender(refuse=dialled.refuse) as sender:
        names.silent = True
        told.append(_told(sender.send(_url("good", rogue), timeout=5), rogue, dialled))
        names.silent = False
        told.append(_told(sender.send(_url("good", rogue), timeout=5), rogue, dialled))
    return told


def _url(name: str, rogue: Rogue) -> str:
    return f"http://{name}.test:{rogue.port}/"


def _told(ended: Ended, rogue: Rogue, dialled: _Dialled) -> dict[str, object]:
    ended.check_bounds()
    return {
        "code": ended.code,
        "error": ended.record.error,
        "state": ended.verdict.state,
        "spent": ended.verdict.spent,
        "milliseconds": ended.exchange.duration // 1000,
        "dialled": dialled.addresses,
        "connections": rogue.connections,
        "reused": ended.reused,
    }


if __name__ == "__main__":
    main()
