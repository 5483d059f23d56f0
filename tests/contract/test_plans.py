"""No statement of the hot path walks all jobs, however many are queued."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, Engine, TextClause, event, text

from contract.making import ENDPOINT, admission, claim, event_id, nobody, settle
from ringbearer import clock
from ringbearer.domain.deliveries import State
from ringbearer.monitor.figures import MANY
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.ledger import Ledger
from ringbearer.storage.rollups import Level, Rollup, Rollups
from ringbearer.storage.search import Filter
from ringbearer.storage.sqlite import SQLiteDatabase
from ringbearer.storage.statements import Statements
from ringbearer.storage.vault import Vault, generate_key

HOUR = Level.HOUR.span
FAR = clock.now() + 3_600 * clock.SECOND
WALKED = re.compile(
    r"SCAN (jobs|j|p|deliveries|d|events|e|attempts|i)\b(?! USING (COVERING )?INDEX)"
    r"|Seq Scan on (jobs|deliveries_|events_|attempts_|idempotency).*cost=\d+\.\d+\.\.(?!0\.00)"  # not empty
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def crowded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """A store with 20,000 jobs in all states, and statistics about them."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('crowded') / 'store.db'}"
    else:
        from psycopg import connect

        server: str = request.getfixturevalue("postgres_server")
        with connect(server, autocommit=True) as connection:
            connection.execute("CREATE DATABASE crowded TEMPLATE migrated")
        url = server.replace("/postgres?", "/crowded?", 1)
    with open_storage(url, Vault([generate_key()])) as storage:
        storage.migrate()
        _fill(storage)
        yield storage


def _fill(storage: Storage) -> None:
    endpoints = [f"ep_{n:032x}" for n in range(40)]
    for n in range(10):
        made = [
            admission(*endpoints, lane=m % 4, supplier_id=f"s{m}", idempotency_key=f"k{n}") for m in range(50)
        ]
        storage.ledger.accept(made)
        if n < 4:
            leases = storage.ledger.claim([500] * 4, worker="w", until=FAR)
            ends = (State.SCHEDULED, State.DEAD, State.DELIVERED, State.HELD)
            settle(storage, leases[:1_500], ends[n])
    for n in range(20):
        storage.ledger.accept([admission(ordering_key=f"k{n}") for _ in range(50)])
    body = '"' + "x" * 1_000 + '"'
    for _ in range(4):  # a table of few and small events would rightly be walked
        storage.ledger.accept([nobody(data=body) for m in range(2_500)])
    with storage.database.write() as connection:
        connection.exec_driver_sql("ANALYZE")


Example = tuple[Callable[[Statements], TextClause], dict[str, Any]]


def _rows(*first: object) -> str:
    """A batch of 100 with ids that may exist."""
    ids = ["dlv_" + event_id(clock.now())[4:] + "0000" for _ in range(100)]
    return json.dumps([[i, *first] for i in ids])


HOT: dict[str, Example] = {
    "claim": (lambda s: s.claim, {"n0": 80, "n1": 40, "n2": 20, "n3": 10, "until": FAR, "worker": "w"}),
    "claim_more": (lambda s: s.claim_more, {"spare": 50, "until": FAR, "worker": "w"}),
    "load_events": (
        lambda s: s.load_events,
        {"rows": json.dumps([[event_id(clock.now())] for _ in range(100)])},
    ),
    "finish": (lambda s: s.finish, {"rows": _rows(1)}),
    "put_back": (lambda s: s.put_back, {"rows": _rows(1, "scheduled", FAR, 0, None)}),
    "extend": (lambda s: s.extend, {"rows": _rows(1, FAR)}),
    "close_deliveries": (
        lambda s: s.close_deliveries,
        {"rows": _rows("delivered", 1, None, FAR), "low": "dlv_0", "high": "dlv_f"},
    ),
    "stage": (lambda s: s.due.take, {"now": FAR, "limit": 1_000}),
    "look what is due": (lambda s: s.due.look, {"now": FAR, "limit": 1}),
    "rescue": (lambda s: s.expired.take, {"now": FAR, "limit": 1_000}),
    "look what expired": (lambda s: s.expired.look, {"now": FAR, "limit": 1}),
    "shift": (lambda s: s.shift, {"rows": _rows("ready", None, None)}),
    "promote": (lambda s: s.promote, {"rows": json.dumps([[ENDPOINT, f"k{n}"] for n in range(20)])}),
    "unhold": (lambda s: s.to_unhold.look, {"limit": 1}),
    "orphans": (lambda s: s.orphans.look, {"limit": 1}),
    "stuck": (lambda s: s.stuck.look, {"limit": 10}),
    "next_due": (lambda s: s.next_due, {}),
    "rank": (lambda s: s.rank, {"rows": _rows(1)}),
    "oldest": (lambda s: s.oldest, {}),
    "revivable": (lambda s: s.revivable.take, {"rows": _rows()}),
    "revive": (lambda s: s.revive, {"rows": _rows(0, FAR, 1, "ready", FAR)}),
    "requeue": (
        lambda s: s.requeue,
        {"rows": _rows(), "low": "dlv_0", "high": "dlv_f", "now": FAR, "to_lane": None},
    ),
    "reopen": (lambda s: s.reopen, {"rows": _rows(), "low": "dlv_0", "high": "dlv_f"}),
}


def plan(connection: Connection, sql: str, parameters: dict[str, Any]) -> str:
    """What the database means to do. PostgreSQL is asked for the plan that fits any parameters: it may choose
    that for a statement that it has prepared, and knows no numbers then."""
    if connection.dialect.name == "sqlite":
        return "\n".join(row[3] for row in connection.execute(text("EXPLAIN QUERY PLAN " + sql), parameters))
    connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
    found = connection.execute(text("EXPLAIN (GENERIC_PLAN) " + _numbered(sql, parameters)), {})
    return "\n".join(row[0] for row in found)


def _numbered(sql: str, parameters: dict[str, Any]) -> str:
    """`:name` as `$1`, with the type that the driver would give it."""
    for number, (name, value) in enumerate(parameters.items(), 1):
        kind = "bigint" if isinstance(value, int) else "text" if isinstance(value, str) else "smallint"
        sql = re.sub(rf"(?<!:):{name}\b", f"${number}::{kind}", sql)
    return sql.replace(":", r"\:")


@pytest.mark.parametrize("name", HOT)
def test_a_hot_statement_walks_no_table(crowded: Storage, name: str) -> None:
    choose, parameters = HOT[name]
    sql = str(choose(_statements(crowded.ledger)).text)
    with crowded.database.read() as connection:
        found = plan(connection, sql, parameters)
    assert not WALKED.search(found), found


def _statements(ledger: Ledger) -> Statements:
    return ledger._sql


SEARCHES = [
    Filter(supplier_id="s7"),
    Filter(supplier_id="s7", state=State.DELIVERED),
    Filter(supplier_id="s7", state=State.SCHEDULED),
    Filter(supplier_id="s7", event_type="booking.confirmed"),
    Filter(event_id="evt_0"),
    Filter(endpoint_id=ENDPOINT),
    Filter(endpoint_id=ENDPOINT, state=State.CANCELLED),
    Filter(event_type="nothing.of.it"),
    Filter(after=clock.to_datetime(0), before=clock.to_datetime(FAR)),
    *(Filter(state=state) for state in State),
]


def _fields(wanted: Filter) -> str:
    """What is looked for, in words that are the same in every process."""
    given = msgspec.structs.asdict(wanted)
    return "+".join(f"{name}-{value}" if name == "state" else name for name, value in given.items() if value)


@pytest.mark.parametrize("few", [0, 1_000_000], ids=["many", "few"])
@pytest.mark.parametrize(
    "cursors", [{}, {"older": "dlv_f"}, {"newer": "dlv_0"}], ids=["first", "older", "newer"]
)
@pytest.mark.parametrize("wanted", SEARCHES, ids=_fields)
def test_a_page_of_deliveries_walks_no_table(
    crowded: Storage, wanted: Filter, cursors: dict[str, str], few: int
) -> None:
    queries: list[list[tuple[Any, ...]]] = []

    def explained(connection: Connection, clause: Any, *_: object) -> None:
        compiled = clause.compile(connection, compile_kwargs={"literal_binds": True})
        explain = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
        if not str(compiled).startswith("EXPLAIN"):
            found = connection.exec_driver_sql((explain + str(compiled)).replace("%", "%%"))
            queries.append([tuple(row) for row in found])

    event.listen(Engine, "before_execute", explained)
    try:
        crowded.history.find(wanted, limit=50, few=few, **cursors)  # type: ignore[arg-type]  # its own cursors
    finally:
        event.remove(Engine, "before_execute", explained)
    assert queries
    for found in queries:
        # SQLite calls it a scan, too, when it goes along a primary key until there are enough: not when it sorts.
        sorting = (
            {row[1] for row in found if "USE TEMP B-TREE" in str(row[-1])} if len(found[0]) == 4 else set()
        )
        walked = [row for row in found if WALKED.search(str(row[-1]))]
        assert not [row for row in walked if len(row) == 1 or row[1] in sorting], found


ROLLUPS: dict[str, tuple[Callable[[Rollups], TextClause], dict[str, Any], set[str]]] = {
    "read": (lambda r: r._read, {"since": 0, "until": HOUR}, {"at"}),
    "read one key": (lambda r: r._read_key, {"key": "s7", "since": 0, "until": HOUR}, {"key", "at"}),
    "read some keys": (
        lambda r: r._read_keys,
        {"rows": '[["s7"]]', "since": 0, "until": HOUR},
        {"key", "at"},
    ),
    "totals": (lambda r: r._totals, {"rows": '[["s7"], ["s8"]]', "since": 0, "until": HOUR}, {"key", "at"}),
    "keys": (lambda r: r._keys, {"since": 0, "until": HOUR}, {"at"}),
    "bound": (lambda r: r._bound, {"before": 1, "page": 100}, {"at"}),
    "prune": (lambda r: r._prune, {"bound": 1}, {"at"}),
    "oldest": (lambda r: r._oldest, {"rows": '[["path"], ["supplier"]]'}, set()),
}


@pytest.fixture(scope="module")
def measured(crowded: Storage) -> Storage:
    """The same, with three hours of measurements by two processes of 100 suppliers and endpoints each."""

    def row(dimension: str, at: int, key: int, process: str) -> Rollup:
        return Rollup(dimension, at, f"s{key}", process, 1, 1, 0, 0, 1, 0, "x" * 200)

    for process in ("one", "two"):
        crowded.rollups.write(
            [
                row(dimension, n * Level.MINUTE.span, key, process)
                for dimension in MANY
                for n in range(180)
                for key in range(100)
            ]
        )
    with crowded.database.write() as connection:
        connection.exec_driver_sql("ANALYZE")
    if isinstance(crowded.database, SQLiteDatabase):
        crowded.database._readers.dispose()  # a connection goes by the statistics of when it was opened
    return crowded


@pytest.mark.parametrize("name", ROLLUPS)
def test_figures_are_found_by_all_that_an_index_knows_of_them(measured: Storage, name: str) -> None:
    choose, parameters, columns = ROLLUPS[name]
    given = {"level": 0} | ({} if name == "oldest" else {"dimension": "supplier"}) | parameters
    sql = str(choose(measured.rollups).text)
    with measured.database.read() as connection:
        # As it is planned for these values: the service has every statement of PostgreSQL planned anew.
        if connection.dialect.name == "sqlite":
            found = plan(connection, sql, given)
        else:
            found = "\n".join(row[0] for row in connection.execute(text("EXPLAIN " + sql), given))
    assert not re.search(r"SCAN (rollups|s)\b|Seq Scan on rollups", found), found
    bounds = re.search(r"(?:SEARCH (?:rollups|s) USING .*\(|Index Cond: )(.*)", found)
    assert bounds, found
    assert set(re.findall(r"(\w+)(?:=|>|<| = | >= | < | <= )", bounds[1])) - {"rollups"} == {
        "level",
        "dimension",
        *columns,
    }, found


def test_claims_and_settlements_get_all_through_a_crowd(crowded: Storage) -> None:
    """What is claimed by these plans is right, too: each delivery once, at most as many as asked for."""
    leases = claim(crowded, 100)
    assert len(leases) == len({x.delivery_id for x in leases}) == 400
    assert len(settle(crowded, leases)) == 400
