"""What the suites of this folder put into a store, and how they look at it."""

import itertools
import multiprocessing
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import text

from ringbearer import clock, ids
from ringbearer.domain.deliveries import Lease, Outcome, Record, State
from ringbearer.domain.endpoints import NO_CREDENTIALS, Credentials, Endpoint
from ringbearer.domain.events import LANES
from ringbearer.domain.suppliers import Supplier
from ringbearer.storage.base import Storage
from ringbearer.storage.ledger import Admission

T = TypeVar("T")
DAY = 86_400 * clock.SECOND
ENDPOINT = "ep_" + "1" * 32
HIGH = LANES.index("high")
NORMAL = LANES.index("normal")
_serial = itertools.count()
SECRET = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"


def event_id(made_at: int) -> str:
    """An event id as one of that stored time, after all that this process made before for that time."""
    return f"{ids.floor('evt', made_at)}{next(_serial):08x}{secrets.token_hex(6)}"


def lease_of(number: int = 1, **given: Any) -> Lease:
    """A lease on a delivery with that number, which no store knows."""
    values: dict[str, Any] = {
        "delivery_id": f"dlv_{number}",
        "event_id": f"evt_{number}",
        "endpoint_id": "ep_1",
        "supplier_id": "studio",
        "lane": NORMAL,
        "attempt": 1,
        "attempt_base": 0,
        "ordering_key": None,
        "accepted_at": 0,
        "event_type": "booking.confirmed",
        "timestamp": "2027-06-19T14:00:00Z",
        "data": "{}",
    }
    return Lease(**(values | given))


def admission(
    *endpoints: str,
    lane: int = NORMAL,
    at: int | None = None,
    enabled: bool = True,
    supplier_id: str = "studio",
    event_type: str = "booking.confirmed",
    data: str = '{"n":1}',
    ordering_key: str | None = None,
    idempotency_key: str | None = None,
    deliver_at: int | None = None,
    fingerprint: str = "same",
) -> Admission:
    """An admission to the endpoints with these ids, by default to one."""
    at = clock.now() if at is None else at
    return Admission(
        event_id=event_id(at),
        supplier_id=supplier_id,
        type=event_type,
        timestamp="2027-06-19T14:00:00Z",
        data=data,
        lane=lane,
        accepted_at=at,
        endpoints=tuple((endpoint_id, enabled) for endpoint_id in endpoints or (ENDPOINT,)),
        deliver_at=deliver_at,
        ordering_key=ordering_key,
        idempotency_key=idempotency_key,
        fingerprint=fingerprint,
    )


def nobody(**given: Any) -> Admission:
    """An admission that no endpoint wants."""
    made = admission(**given)
    made.endpoints = ()
    return made


def delivery_of(made: Admission, ordinal: int = 0) -> str:
    """The id of an admission's delivery."""
    return ids.delivery(made.event_id, ordinal)


def claim(storage: Storage, count: int = 100, *, until: int | None = None) -> list[Lease]:
    """Lease up to so many of each lane."""
    until = clock.now() + 60 * clock.SECOND if until is None else until
    return storage.ledger.claim([count] * 4, worker="wrk_test", until=until)


def record(status_code: int | None = 200, **given: Any) -> Record:
    """What is written down of a try."""
    values: dict[str, Any] = {
        "started_at": clock.now(),
        "duration": 1_500,
        "status_code": status_code,
        "error": None,
        "response_body": "ok",
        "response_headers": '{"content-type":"text/plain"}',
    }
    return Record(**(values | given))


def outcome(lease: Lease, state: State = State.DELIVERED, *, due_at: int | None = None) -> Outcome:
    """What becomes of a lease after a try; of one that goes back to READY or is HELD nothing was sent."""
    sent = state not in {State.READY, State.HELD, State.CANCELLED}
    return Outcome(
        lease=lease, state=state, due_at=due_at, record=record() if sent else None, reason="for a reason"
    )


def settle(storage: Storage, leases: Iterable[Lease], state: State = State.DELIVERED) -> set[str]:
    """Let leases become that."""
    due_at = clock.now() if state is State.SCHEDULED else None
    return storage.ledger.settle([outcome(x, state, due_at=due_at) for x in leases], now=clock.now())


def supplier(supplier_id: str = "studio", **given: Any) -> Supplier:
    """A supplier of now."""
    now = datetime.now(UTC)
    return Supplier(id=supplier_id, created_at=now, updated_at=now, **given)


def endpoint(supplier_id: str = "studio", **given: Any) -> Endpoint:
    """An endpoint of now."""
    now = datetime.now(UTC)
    values: dict[str, Any] = {"id": ids.endpoint(), "url": "https://hooks.example/in"}
    return Endpoint(supplier_id=supplier_id, created_at=now, updated_at=now, **(values | given))


def add_endpoint(
    storage: Storage, supplier_id: str = "studio", *, credentials: Credentials = NO_CREDENTIALS, **given: Any
) -> Endpoint:
    """Store an endpoint, with its supplier if need be."""
    if not storage.catalog.subscriptions([supplier_id]):
        storage.catalog.put_supplier(supplier(supplier_id))
    made = endpoint(supplier_id, **given)
    storage.catalog.add_endpoint(made, SECRET, credentials)
    return made


# ── looking ─────────────────────────────────────────────────────────────────────────────────────────────────


def query(storage: Storage, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Rows, past everything that is to be tested."""
    with storage.database.read() as connection:
        return [tuple(row) for row in connection.execute(text(sql), parameters)]


def one(storage: Storage, sql: str, **parameters: Any) -> Any:
    """The one value of a query."""
    ((value,),) = query(storage, sql, **parameters)
    return value


def job_states(storage: Storage) -> dict[str, State]:
    """Where every job stands."""
    return {row[0]: State(row[1]) for row in query(storage, "SELECT delivery_id, state FROM jobs")}


def shown(storage: Storage, delivery_id: str) -> State:
    """Where a delivery stands, as it is shown."""
    return storage.history.get_delivery(delivery_id).state


def counted(storage: Storage) -> dict[tuple[int, State], int]:
    """The depth by its counters."""
    return {(d.lane, d.state): d.count for d in storage.ledger.depth() if d.count}


def rows(storage: Storage) -> dict[tuple[int, State], int]:
    """The depth by counting rows."""
    found = query(storage, "SELECT lane, state, count(*) FROM jobs GROUP BY lane, state")
    return {(lane, State(state)): n for lane, state, n in found}


# ── at once ─────────────────────────────────────────────────────────────────────────────────────────────────


def at_once(count: int, work: Callable[[int], T]) -> list[T]:
    """Call `work` with 0, 1, … in as many threads, all let go at one moment."""
    gate = threading.Barrier(count)

    def wait_and_work(number: int) -> T:
        gate.wait()
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(wait_and_work, range(count)))


def processes(count: int) -> ProcessPoolExecutor:
    """Other processes, which share nothing with this one but the store."""
    context = multiprocessing.get_context("forkserver")  # imports what all need once
    context.set_forkserver_preload([__name__, "alembic.command", "sqlalchemy.dialects.postgresql.psycopg"])
    return ProcessPoolExecutor(count, mp_context=context)


def in_processes(work: Callable[..., T], arguments: Sequence[tuple[Any, ...]]) -> list[T]:
    """Call `work` in as many processes as there are arguments."""
    with processes(len(arguments)) as pool:
        return [done.result() for done in [pool.submit(work, *each) for each in arguments]]


def repeated(counter: Counter[str]) -> list[str]:
    """What was counted more than once."""
    return [name for name, count in counter.items() if count > 1]


def opened(url: str, key: str) -> AbstractContextManager[Storage]:
    """Another process's view of the store."""
    from ringbearer.storage.base import open_storage
    from ringbearer.storage.vault import Vault

    return open_storage(url, Vault([key]))
