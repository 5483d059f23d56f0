"""The nemesis: breaks one thing after the other by a seed, and writes down what it did and to whom."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import psycopg

from chaos.outages import BLOCKING, Outage
from chaos.receiver import POLITE, Manners, Receiver
from chaos.service import Role, Service, signal_pid

RUDE = Manners(fail=0.2, reset=0.07, hang=0.03)
"""30 % of requests go wrong, in each way that a receiver has."""


class Deed(msgspec.Struct, frozen=True):
    """One thing that was broken; `at` in seconds since the beginning."""

    at: float
    what: str
    pids: list[int]


class Nemesis:
    """Does its deeds one at a time, with pauses between them.

    `lease_seconds` is how long leases last, which a stopped process is made to oversleep. `postgres` is the
    address of the database whose connections may be cut. `outages` are what may happen to databases and Redis.
    """

    def __init__(
        self,
        service: Service,
        receiver: Receiver,
        *,
        seed: int,
        log: Path,
        lease_seconds: float,
        postgres: str | None = None,
        outages: Sequence[Outage] = (),
    ) -> None:
        self._service = service
        self._receiver = receiver
        self._random = random.Random(seed)
        self._log = log
        self._lease_seconds = lease_seconds
        self._postgres = postgres
        self._began = time.monotonic()
        self.deeds: list[Deed] = []
        self._repertoire: list[tuple[int, Callable[[], None]]] = [
            (6, self.kill_worker),
            (3, self.kill_api),
            (2, self.freeze_worker),
            (3, self.roll_worker),
            (2, self.roll_api),
            (2, self.close_receivers),
            (2, self.offend),
            (1, self.kill_all),
        ]
        if postgres is not None:
            self._repertoire.append((2, self.cut_database))
        self._repertoire += [(weight, self._outage(what, do)) for weight, what, do in outages]

    @property
    def counts(self) -> Counter[str]:
        """How often each thing was broken."""
        return Counter(deed.what for deed in self.deeds)

    @property
    def workers_lost(self) -> int:
        """How many workers lost what they held: each of them may have delivered what it could not write down."""
        lost = {"kill worker", "freeze worker", "kill all"} | BLOCKING
        return sum(len(d.pids) for d in self.deeds if d.what in lost)

    @property
    def crashes_seen(self) -> int:
        """How often a worker saw its database crash, which may have forgotten its latest claims."""
        return sum(len(d.pids) for d in self.deeds if d.what == "crash database")

    @property
    def killed(self) -> int:
        """How many children were ended by a signal that they cannot catch."""
        return sum(len(d.pids) for d in self.deeds if d.what in {"kill worker", "kill api"})

    def rage(self, seconds: float, *, pause: float) -> None:
        """Break things for that long, with about `pause` seconds between two."""
        deadline = time.monotonic() + seconds
        weights = [weight for weight, _ in self._repertoire]
        while time.monotonic() < deadline:
            (_, deed), *_ = self._random.choices(self._repertoire, weights)
            deed()
            time.sleep(pause * (0.5 + self._random.random()))

    def heal(self) -> None:
        """Let everybody behave; whatever was stopped goes on already."""
        self._receiver.behave(POLITE)
        self._service.wait_ready()

    def kill_worker(self) -> None:
        """F1: SIGKILL."""
        self._strike("work", signal.SIGKILL, "kill worker")

    def kill_api(self) -> None:
        """F3, at any moment: SIGKILL."""
        self._strike("serve", signal.SIGKILL, "kill api")

    def roll_worker(self) -> None:
        """F4: SIGTERM, as a rolling restart does."""
        self._strike("work", signal.SIGTERM, "roll worker")

    def roll_api(self) -> None:
        """F4: SIGTERM, as a rolling restart does."""
        self._strike("serve", signal.SIGTERM, "roll api")

    def freeze_worker(self) -> None:
        """F2: SIGSTOP for longer than its leases last, then SIGCONT: a zombie that believes itself alive."""
        pid = self._strike("work", signal.SIGSTOP, "freeze worker")
        if pid is not None:
            time.sleep(self._lease_seconds * (1.3 + 0.4 * self._random.random()))
            signal_pid(pid, signal.SIGCONT)

    def close_receivers(self) -> None:
        """F14: nobody listens, then all at once."""
        self._note("close receivers", [])
        self._receiver.behave(Manners(down=True))
        time.sleep(0.5 + 2 * self._random.random())
        self._receiver.behave(RUDE)

    def offend(self) -> None:
        """F11: receivers fail, cut off and hang; or behave, for once."""
        rude = self._random.random() < 0.7
        self._note("rude receivers" if rude else "polite receivers", [])
        self._receiver.behave(RUDE if rude else POLITE)

    def kill_all(self) -> None:
        """SIGKILL the parent, and start again when its children have noticed."""
        self._note("kill all", self._service.pids("work"))
        self._service.kill()
        self._service.start()

    def cut_database(self) -> None:
        """F7: every connection to PostgreSQL is ended by its server."""
        assert self._postgres is not None
        with psycopg.connect(self._postgres, autocommit=True) as connection:
            cut = connection.execute(
                "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchall()
        self._note("cut database", [pid for pid, _ in cut])

    def _outage(self, what: str, do: Callable[[], None]) -> Callable[[], None]:
        def happen() -> None:
            self._note(what, self._service.pids("work") if what in BLOCKING else [])
            do()

        return happen

    def _strike(self, role: Role, number: signal.Signals, what: str) -> int | None:
        pids = self._service.pids(role)
        if not pids:
            return None
        pid = self._random.choice(pids)
        if not signal_pid(pid, number):
            return None
        self._note(what, [pid])
        return pid

    def _note(self, what: str, pids: list[int]) -> None:
        deed = Deed(round(time.monotonic() - self._began, 3), what, pids)
        self.deeds.append(deed)
        with self._log.open("ab") as file:
            file.write(msgspec.json.encode(deed) + b"\n")
