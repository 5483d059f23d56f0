"""One run: everything is started, traffic flows, the nemesis rages, all is healed and drained, and judged."""

import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
from sqlalchemy import text

from chaos import invariants, journal, producer, receiver
from chaos.databases import Postgres
from chaos.invariants import Evidence, Pace, Verdict
from chaos.nemesis import RUDE, Deed, Nemesis
from chaos.network import Network
from chaos.outages import of_postgres, of_redis
from chaos.ports import free_port
from chaos.producer import Producer, Said
from chaos.receiver import Manners, Receiver, Seen
from chaos.redis_servers import Group
from chaos.service import Service, wait_for
from ringbearer.process import open_store

SECRET = "whsec_Y2hhb3MtY2hhb3MtY2hhb3MtY2hhb3MtY2hhb3MtY2g="
SCHEDULE = [1, 1, 1, 1, 2, 2, 2, 3, 3, 3]
"""Seconds between attempts; long enough in all to outlast every fault."""
LEASE_SECONDS = 2.0
SLOTS = 64
TIMEOUT = 2.0
"""Seconds for an exchange: short, as receivers are told to hang."""
PATIENT = 20.0
"""The same for runs in which they are not, and an answer that is late must not count as none."""
_SUPPLIERS = 6
_LIMIT = Pace(requests=60, period=4.0)
"""Of one of the endpoints: less than comes when receivers were away, more than comes else."""
_POISONED = "poisoned"
_GROW_SECONDS = 60.0
_DRAIN_SECONDS = 90.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What kind of run. `seconds` is how long the nemesis rages, `pause` how long between two deeds."""

    seed: int
    seconds: float
    database_url: str | None = None
    workers: int = 2
    clients: int = 8
    pause: float = 0.1
    deed_pause: float = 1.5
    manners: Manners = RUDE


class Report(msgspec.Struct, kw_only=True):
    """What a run found, and what was done in it."""

    plan: Plan
    verdict: Verdict
    deeds: dict[str, int]
    killed: int
    recovered: int
    drain_seconds: float
    rebuilds: int
    """Times that the index in Redis was made anew."""
    rebuild_seconds: float
    """How long the slowest of them took."""
    log: list[Deed]


class Rig:
    """A service with endpoints, a recording receiver, and what is written down of both; a context manager."""

    def __init__(
        self,
        directory: Path,
        *,
        database_url: str | None = None,
        workers: int | str = 2,
        timeout: float = TIMEOUT,
        timeless: bool = False,
        network: bool = False,
        **options: object,
    ) -> None:
        """With `network` there is one to break before the receiver; `options` are further settings of the service."""
        self.directory = directory
        self._timeout = timeout
        self._timeless = timeless
        self.network: Network | None = None
        self._with_network = network
        directory.mkdir(parents=True, exist_ok=True)
        self.seen_file = directory / "receiver.jsonl"
        self.paths: dict[str, str] = {}
        self.limits: dict[str, Pace] = {}
        self.suppliers: list[str] = []
        self.service = Service(
            directory,
            database_url=database_url,
            workers=workers,
            slots=SLOTS,
            lease_seconds=LEASE_SECONDS,
            stop_grace=8,
            **options,
        )
        self._said_files: list[Path] = []
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> "Rig":
        with contextlib.ExitStack() as stack:
            start = receiver.Start(
                port=free_port(),
                journal=str(self.seen_file),
                secret=SECRET,
                seed=0,
                timeless=self._timeless,
            )
            self.receiver = stack.enter_context(Receiver(start))
            if self._with_network:
                self.network = stack.enter_context(Network(self.receiver.port, seed=0))
            stack.enter_context(self.service)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._cleanup.close()

    def set_up(self) -> None:
        """Make the suppliers and their endpoints: one or two each."""
        with self.service.client() as client:
            for number in range(_SUPPLIERS):
                self._add(client, f"s{number}", endpoints=1 + number % 2)

    def pace(self) -> None:
        """Give the first endpoint a rate limit."""
        paced = next(iter(self.paths))
        with self.service.client() as client:
            limit = {"rate_limit": msgspec.structs.asdict(_LIMIT)}
            client.patch(f"/v1/suppliers/s0/endpoints/{paced}", json=limit).raise_for_status()
        self.limits[paced] = _LIMIT

    def poison(self) -> None:
        """F13: an endpoint whose deliveries raise in the worker, since no request to that URL can be made.

        The API would not take such a URL; it is put into the store behind its back.
        """
        with self.service.client() as client:
            (endpoint_id,) = self._add(client, _POISONED, endpoints=1, retry_schedule=[1, 1])
        with open_store(self.service.settings()) as storage:
            storage.catalog.change_endpoint(
                _POISONED,
                endpoint_id,
                lambda endpoint: msgspec.structs.replace(endpoint, url=endpoint.url + "/\u2603"),
            )

    def _add(
        self, client: httpx.Client, supplier: str, *, endpoints: int, retry_schedule: list[int] = SCHEDULE
    ) -> list[str]:
        client.put(f"/v1/suppliers/{supplier}", json={}).raise_for_status()
        made = []
        for number in range(endpoints):
            path = f"/{supplier}/{number}"
            answer = client.post(
                f"/v1/suppliers/{supplier}/endpoints",
                json={
                    "url": f"http://127.0.0.1:{self._port()}{path}",
                    "secret": SECRET,
                    "retry_schedule": retry_schedule,
                    "timeout": self._timeout,
                },
            )
            answer.raise_for_status()
            made.append(answer.json()["id"])
            self.paths[made[-1]] = path
        self.suppliers.append(supplier)
        return made

    def _port(self) -> int:
        """Where the receiver is reached."""
        return self.receiver.port if self.network is None else self.network.port

    @contextmanager
    def traffic(self, *, seed: int, clients: int = 8, pause: float = 0.1) -> Iterator[Producer]:
        """Publish for the time of the block."""
        file = self.directory / f"producer-{len(self._said_files)}.jsonl"
        self._said_files.append(file)
        start = producer.Start(
            port=self.service.port,
            key=self._key(),
            journal=str(file),
            seed=seed,
            suppliers=self.suppliers,
            ordered=[supplier for supplier in self.suppliers if supplier != _POISONED],
            clients=clients,
            pause=pause,
        )
        with Producer(start) as publishing:
            yield publishing
            publishing.stop()

    def grows(self, by: int) -> None:
        """Wait until so many more events were accepted."""
        goal = self.accepted() + by
        wait_for(lambda: self.accepted() >= goal, _GROW_SECONDS, f"{by} more events")

    def _key(self) -> str:
        key = self.service.settings().admin_key
        assert key is not None
        return key

    def said(self) -> list[Said]:
        """What the producers wrote down so far."""
        return [said for file in self._said_files for said in journal.read(file, Said)]

    def seen(self) -> list[Seen]:
        """What the receiver wrote down so far."""
        return journal.read(self.seen_file, Seen)

    def accepted(self) -> int:
        """How many events were accepted so far."""
        return len({said.uid for said in self.said() if said.what == "accepted"})

    def drain(self) -> None:
        """Wait until nothing is left to do; raises TimeoutError."""
        with open_store(self.service.settings()) as storage:

            def left() -> dict[str, int]:
                query = text("SELECT state, count(*) AS n FROM jobs WHERE state <> 'dead' GROUP BY state")
                with storage.database.read() as connection:
                    return {row.state: row.n for row in connection.execute(query)}

            try:
                wait_for(lambda: not left(), _DRAIN_SECONDS, "the queue to drain")
            except TimeoutError:
                raise TimeoutError(f"the queue does not drain: {left()}") from None

    def judge(
        self, *, workers_lost: int = 0, crashes: int = 0, frozen: bool = False, cut: int = 0
    ) -> Verdict:
        """Check every invariant; `crashes` is how often a worker saw its database crash, `cut` counts connections."""
        with open_store(self.service.settings()) as storage:
            rows, depth, jobs = invariants.read_store(storage)
            starts = invariants.read_starts(storage, list(self.limits))
        evidence = Evidence(
            said=self.said(),
            seen=self.seen(),
            rows=rows,
            depth=depth,
            jobs=jobs,
            paths=self.paths,
            tries=len(SCHEDULE) + 1,
            workers_lost=workers_lost,
            in_flight=workers_lost * SLOTS,
            forgotten=crashes * SLOTS,
            starts=starts,
            limits=self.limits,
            frozen=SLOTS if frozen else 0,
            cut=cut,
        )
        return invariants.judge(evidence)

    def logged(self) -> list[dict[str, object]]:
        """What the service logged, line by line."""
        found: list[dict[str, object]] = []
        for line in self.service.log.read_bytes().splitlines():
            with contextlib.suppress(msgspec.DecodeError):
                entry = msgspec.json.decode(line)
                if isinstance(entry, dict):
                    found.append(entry)
        return found

    def failures(self) -> Counter[object]:
        """The exit codes of children that ended although nobody had asked them to, by code."""
        ended = "a process ended by itself, it is started again"
        return Counter(entry.get("exit_code") for entry in self.logged() if entry["event"] == ended)

    def recovered(self) -> int:
        """How many leases of lost workers were taken back."""
        rescued = "leases of a lost worker were rescued"
        found = [entry["deliveries"] for entry in self.logged() if entry["event"] == rescued]
        return sum(n for n in found if isinstance(n, int))

    def rebuilds(self) -> list[float]:
        """How many seconds it took each time that the index in Redis was made anew."""
        found = [entry["seconds"] for entry in self.logged() if entry["event"] == "the index is whole"]
        return [float(n) for n in found if isinstance(n, int | float)]


def run(
    plan: Plan,
    directory: Path,
    tell: Callable[[str], None] = lambda line: None,
    *,
    postgres: Postgres | None = None,
    redis: Group | None = None,
) -> Report:
    """Do the whole run in a directory of its own; `tell` hears how it goes.

    `postgres` and `redis` are servers that may be broken, too.
    """
    chance = random.Random(plan.seed)
    outages = [
        *(of_postgres(postgres, chance) if postgres is not None else ()),
        *(of_redis(redis, chance) if redis is not None else ()),
    ]
    redis_url = redis.url if redis is not None else ""
    with Rig(
        directory,
        database_url=plan.database_url,
        workers=plan.workers,
        redis_url=redis_url,
        breaker_pause=2,
        breaker_longest_pause=10,  # else draining is waiting for circuits that opened in the end
    ) as rig:
        rig.service.start()
        rig.set_up()
        rig.pace()
        rig.poison()
        nemesis = Nemesis(
            rig.service,
            rig.receiver,
            seed=plan.seed,
            log=directory / "nemesis.jsonl",
            lease_seconds=LEASE_SECONDS,
            postgres=plan.database_url,
            outages=outages,
        )
        rig.receiver.behave(plan.manners)
        with rig.traffic(seed=plan.seed, clients=plan.clients, pause=plan.pause):
            deadline = time.monotonic() + plan.seconds
            while (left := deadline - time.monotonic()) > 0:
                nemesis.rage(min(left, 10.0), pause=plan.deed_pause)
                deeds = ", ".join(f"{n} × {what}" for what, n in sorted(nemesis.counts.items()))
                tell(f"{max(0.0, left - 10):4.0f} s to go; {rig.accepted()} events accepted; {deeds}")
            nemesis.heal()
        tell("healed; draining")
        began, stuck = time.monotonic(), []
        try:
            rig.drain()
        except TimeoutError as error:
            stuck.append(f"I1: {error}")
        drained = time.monotonic() - began
        verdict = rig.judge(
            workers_lost=nemesis.workers_lost,
            crashes=nemesis.crashes_seen,
            frozen=bool(nemesis.counts["freeze worker"]),
        )
        verdict.violations += stuck
        asked = {0, -signal.SIGTERM, -signal.SIGKILL}
        failed = sum(n for code, n in rig.failures().items() if code not in asked)
        if failed:
            verdict.violations.append(f"{failed} processes ended by themselves: see {rig.service.log}")
        return Report(
            plan=plan,
            verdict=verdict,
            deeds=dict(nemesis.counts),
            killed=nemesis.killed,
            recovered=rig.recovered(),
            drain_seconds=round(drained, 1),
            rebuilds=len(rig.rebuilds()),
            rebuild_seconds=max(rig.rebuilds(), default=0.0),
            log=nemesis.deeds,
        )
