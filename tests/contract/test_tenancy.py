"""Row level security on a real PostgreSQL: what each role sees, what it is denied, and by which plan."""

import json
import logging
import re
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from contract.making import DAY, add_endpoint, admission, claim, delivery_of, settle
from ringbearer import clock, ids
from ringbearer.errors import NotFound
from ringbearer.storage.base import Storage, open_storage
from ringbearer.storage.catalog import Catalog
from ringbearer.storage.history import Filter
from ringbearer.storage.schema import metadata
from ringbearer.storage.tenancy import ROLE
from ringbearer.storage.vault import Vault, generate_key

_SUPABASE = ("anon", "authenticated", "service_role")
_KEY = generate_key()


def _like_supabase(url: str) -> None:
    """Give a database Supabase's roles, and open every new table to all of them, as Supabase does."""
    with psycopg.connect(url) as connection:
        for role in _SUPABASE:
            if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone() is None:
                connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
        connection.execute("GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role")
        connection.execute(
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role"
        )


@pytest.fixture(scope="module")
def url(postgres_server: str) -> Iterator[str]:
    """One database for all of these tests; what they write they roll back."""
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE tenancy")
    address = postgres_server.replace("/postgres?", "/tenancy?", 1)
    _like_supabase(address)
    yield address
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("DROP DATABASE tenancy WITH (FORCE)")


@pytest.fixture(scope="module")
def storage(url: str) -> Iterator[Storage]:
    """A store there with the suppliers `lumen` and `nova`: an endpoint each, a delivery done and one to do."""
    with open_storage(url, Vault([_KEY])) as opened:
        opened.migrate()
        endpoints = [add_endpoint(opened, name, id=f"ep_{name}") for name in ("lumen", "nova")]
        for _ in range(2):
            settle(opened, claim(opened))
            opened.ledger.accept([admission(each.id, supplier_id=each.supplier_id) for each in endpoints])
        yield opened


@pytest.fixture
def asking(url: str, storage: Storage) -> Iterator[psycopg.Connection]:
    """A connection of its own, whose writes are rolled back."""
    with psycopg.connect(url) as connection:
        yield connection
        connection.rollback()


def _become(connection: psycopg.Connection, role: str, claims: object = None) -> None:
    connection.rollback()
    _become_within(connection, role, claims)


def _become_within(connection: psycopg.Connection, role: str, claims: object) -> None:
    connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
    if claims is not None:
        text = claims if isinstance(claims, str) else json.dumps(claims)
        connection.execute("SELECT set_config('request.jwt.claims', %s, true)", [text])


def _of(supplier_id: str) -> dict[str, object]:
    return {"role": "authenticated", "app_metadata": {"supplier_id": supplier_id}}


def _column(connection: psycopg.Connection, query: str) -> list[object]:
    return [row[0] for row in connection.execute(query.encode())]


OWN = {
    "suppliers": "id",
    "endpoints": "supplier_id",
    "events": "supplier_id",
    "deliveries": "supplier_id",
    "jobs": "supplier_id",
}


# ── who sees what ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("table", "column"), OWN.items())
def test_for_a_suppliers_key_the_database_shows_what_is_its_own(
    asking: psycopg.Connection, table: str, column: str
) -> None:
    assert set(_column(asking, f"SELECT {column} FROM {table}")) == {"lumen", "nova"}  # the service itself
    for supplier_id in ("lumen", "nova"):
        _become(asking, ROLE, _of(supplier_id))
        assert set(_column(asking, f"SELECT {column} FROM {table}")) == {supplier_id}


def test_attempts_are_seen_with_their_delivery(asking: psycopg.Connection, storage: Storage) -> None:
    assert len(_column(asking, "SELECT delivery_id FROM attempts")) == 2
    (mine,) = [
        d.id for d in storage.history.find(Filter(supplier_id="lumen"), limit=9).items if d.attempt_count
    ]
    for role in (ROLE, "authenticated"):
        _become(asking, role, _of("lumen"))
        assert _column(asking, "SELECT delivery_id FROM attempts") == [mine]


def test_users_of_supabase_see_their_endpoints_deliveries_and_attempts(asking: psycopg.Connection) -> None:
    _become(asking, "authenticated", _of("lumen"))
    assert _column(asking, "SELECT url FROM endpoints") == ["https://hooks.example/in"]
    assert set(_column(asking, "SELECT supplier_id FROM deliveries")) == {"lumen"}
    for query in (
        "SELECT headers_sealed FROM endpoints",
        "SELECT credentials_sealed FROM endpoints",
        "SELECT * FROM endpoints",
        *(
            f"SELECT * FROM {table}"
            for table in metadata.tables
            if table not in {"endpoints", "deliveries", "attempts"}
        ),
        "SELECT * FROM ringbearer.outbox",
    ):
        _become(asking, "authenticated", _of("lumen"))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            asking.execute(query.encode())


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param({}, id="empty-object"),
        pytest.param({"app_metadata": {}}, id="no-supplier"),
        pytest.param({"app_metadata": {"supplier_id": None}}, id="null"),
        pytest.param({"app_metadata": {"supplier_id": "other"}}, id="another"),
        pytest.param({"app_metadata": {"supplier_id": "%"}}, id="pattern"),
        pytest.param({"user_metadata": {"supplier_id": "lumen"}}, id="what-users-can-change"),
        pytest.param({"supplier_id": "lumen"}, id="not-in-app-metadata"),
    ],
)
@pytest.mark.parametrize("role", [ROLE, "authenticated"])
def test_without_a_suppliers_claim_nothing_is_seen(
    asking: psycopg.Connection, role: str, claims: object
) -> None:
    for table in ("endpoints", "deliveries", "attempts"):
        _become(asking, role, claims)
        assert _column(asking, f"SELECT count(*) FROM {table}") == [0]


def test_nobody_else_sees_anything_nor_one_days_table(asking: psycopg.Connection) -> None:
    days = _column(
        asking, "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'deliveries'::regclass"
    )
    assert days
    for role in ("anon", "authenticated"):
        for table in [*(metadata.tables if role == "anon" else ()), *days]:
            _become(asking, role, _of("lumen"))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                asking.execute(f"SELECT * FROM {table}".encode())


WRITES = {
    "insert": "INSERT INTO {} SELECT * FROM {} LIMIT 0",
    "update": "UPDATE {} SET supplier_id = 'lumen'",
    "delete": "DELETE FROM {}",
    "truncate": "TRUNCATE {}",
}


@pytest.mark.parametrize("verb", WRITES)
@pytest.mark.parametrize("role", [ROLE, "authenticated", "anon"])
def test_nobody_else_writes(asking: psycopg.Connection, role: str, verb: str) -> None:
    for table in ("endpoints", "deliveries", "events", "jobs"):
        _become(asking, role, _of("lumen"))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            asking.execute(WRITES[verb].replace("{}", table).encode())


def test_only_servers_may_emit(asking: psycopg.Connection) -> None:
    for role in (ROLE, "authenticated", "anon"):
        _become(asking, role, _of("lumen"))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            asking.execute("SELECT ringbearer.emit('a.b', 'lumen', '1')")
    _become(asking, "service_role")
    assert asking.execute("SELECT ringbearer.emit('a.b', 'lumen', '1')").fetchone() is not None
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        asking.execute("SELECT * FROM ringbearer.outbox")


def test_every_table_is_closed(asking: psycopg.Connection) -> None:
    open_ones = _column(
        asking,
        "SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE n.nspname IN ('public', 'ringbearer') AND c.relkind IN ('r', 'p') AND NOT c.relrowsecurity "
        "AND c.relname <> 'alembic_version'",
    )
    assert open_ones == []


def test_tables_of_others_in_the_same_schema_stay_as_they_are(empty_postgres_url: str) -> None:
    url = empty_postgres_url
    _like_supabase(url)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE bookings (id int)")
    with open_storage(url, Vault([_KEY])) as storage:
        storage.migrate()
    with psycopg.connect(url) as connection:
        assert _column(connection, "SELECT relrowsecurity FROM pg_class WHERE relname = 'bookings'") == [
            False
        ]
        _become(connection, "authenticated")
        assert _column(connection, "SELECT count(*) FROM bookings") == [0]


# ── as the service reads ────────────────────────────────────────────────────────────────────────────────────


def test_a_bug_in_a_condition_shows_nothing_of_others(storage: Storage) -> None:
    whole = storage.history.find(Filter(), limit=9).items
    assert {d.supplier_id for d in whole} == {"lumen", "nova"}
    lumen = storage.history_for("lumen")
    found = lumen.find(Filter(), limit=9).items  # without the condition that should be there
    assert {d.supplier_id for d in found} == {"lumen"}
    assert [d for d in whole if d.supplier_id == "lumen"] == found
    assert lumen.find(Filter(supplier_id="nova"), limit=9).items == []
    for delivery in whole:
        seen = delivery.supplier_id == "lumen"
        for look, identity in ((lumen.get_delivery, delivery.id), (lumen.get_event, delivery.event_id)):
            if seen:
                look(identity)
            else:
                with pytest.raises(NotFound):
                    look(identity)
    assert lumen.get_delivery(found[-1].id) == storage.history.get_delivery(found[-1].id)
    catalog = storage.catalog_for("lumen")
    assert catalog.get_endpoint("lumen", "ep_lumen") == storage.catalog.get_endpoint("lumen", "ep_lumen")
    assert catalog.list_endpoints("nova", limit=9) == []
    with pytest.raises(NotFound):
        catalog.get_supplier("nova")


def test_what_a_supplier_sees_ends_with_its_transaction(storage: Storage) -> None:
    for _ in range(20):  # more than there are connections
        assert {d.supplier_id for d in storage.history_for("lumen").find(Filter(), limit=9).items} == {
            "lumen"
        }
        assert len(storage.history.find(Filter(), limit=9).items) == 4


def test_a_suppliers_name_is_data(storage: Storage) -> None:
    for name in ('x" }}', "x'; RESET ROLE; --", "nova\\"):
        assert storage.history_for(name).find(Filter(), limit=9).items == []


def test_a_supplier_writes_nothing(storage: Storage) -> None:
    with pytest.raises(PermissionError):
        Catalog(storage.database.seen_by("lumen"), Vault([_KEY])).delete_endpoint("lumen", "ep_lumen")


def test_without_the_right_to_make_roles_conditions_alone_hold(
    postgres_server: str, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("CREATE ROLE plain LOGIN")
        connection.execute("CREATE DATABASE plain OWNER plain")
    try:
        url = postgres_server.replace("postgres:@", "plain:@").replace("/postgres?", "/plain?")
        with open_storage(url, Vault([_KEY])) as poor, caplog.at_level(logging.WARNING):
            poor.migrate()
            endpoint = add_endpoint(poor, "lumen")
            made = admission(endpoint.id, supplier_id="lumen")
            poor.ledger.accept([made])
            assert poor.history_for("lumen").get_delivery(delivery_of(made)).supplier_id == "lumen"
            assert poor.history_for("nova").find(Filter(supplier_id="nova"), limit=9).items == []
        assert caplog.text.count(f"the role {ROLE} is missing") == 1
    finally:
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute("DROP DATABASE plain WITH (FORCE)")
            connection.execute("DROP ROLE plain")


def test_everything_can_lie_in_a_private_schema(postgres_server: str, storage: Storage) -> None:
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("CREATE ROLE ringbearer LOGIN CREATEROLE")
        connection.execute("CREATE DATABASE private")
        connection.execute(f"GRANT {ROLE} TO ringbearer WITH ADMIN OPTION".encode())
    url = postgres_server.replace("/postgres?", "/private?")
    try:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE SCHEMA ringbearer AUTHORIZATION ringbearer")
            connection.execute("GRANT CREATE ON DATABASE private TO ringbearer")
        with open_storage(url.replace("postgres:@", "ringbearer:@"), Vault([_KEY])) as private:
            private.migrate()
            made = [admission(add_endpoint(private, name).id, supplier_id=name) for name in ("lumen", "nova")]
            private.ledger.accept(made)
            assert len(private.history.find(Filter(), limit=9).items) == 2
            (seen,) = private.history_for("lumen").find(Filter(), limit=9).items
            assert seen.supplier_id == "lumen"
        with psycopg.connect(url) as connection:
            where = "SELECT DISTINCT schemaname FROM pg_tables WHERE tableowner = 'ringbearer'"
            assert _column(connection, where) == ["ringbearer"]
    finally:
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute("DROP DATABASE private WITH (FORCE)")
            connection.execute("DROP ROLE ringbearer")


# ── plans ───────────────────────────────────────────────────────────────────────────────────────────────────


_MANY_DELIVERIES = """
INSERT INTO deliveries (id, event_id, endpoint_id, supplier_id, event_type, lane, state, attempts, created_at)
SELECT rpad(%s || lpad(n::text, 5, '0'), 40, '0'), 'evt', 'ep', 's' || (n %% 100), 'a.b', 2, 'delivered', 1, 0
FROM generate_series(1, 30000) AS n
"""
_MANY_ENDPOINTS = """
INSERT INTO endpoints (id, supplier_id, url, event_types, headers_sealed, timeout, retry_schedule, signing, enabled,
    created_at, updated_at, version)
SELECT 'ep_' || n, 's' || n / 10, url, event_types, headers_sealed, timeout, retry_schedule, signing, enabled,
    created_at, updated_at, version
FROM endpoints, generate_series(1, 1000) AS n WHERE id = 'ep_lumen'
"""


def _plan(connection: psycopg.Connection, query: str) -> str:
    return "\n".join(str(line) for line in _column(connection, f"EXPLAIN (COSTS OFF) {query}"))


@pytest.mark.parametrize("role", [ROLE, "authenticated"])
def test_policies_walk_the_index_of_the_supplier(
    asking: psycopg.Connection, storage: Storage, role: str
) -> None:
    now = clock.now()
    asking.execute(_MANY_DELIVERIES, [ids.floor("dlv", now)])
    asking.execute(_MANY_ENDPOINTS)
    asking.execute("ANALYZE deliveries, attempts, endpoints")
    day = f"deliveries_{now // DAY}"
    _become_within(asking, role, _of("s7"))
    page = _plan(asking, "SELECT id FROM deliveries ORDER BY id DESC LIMIT 50")
    assert re.search(rf"Index (Only )?Scan Backward using {day}_supplier_id_id_idx", page), page
    assert "supplier_id = (InitPlan" in page or "supplier_id = $" in page  # asked once, not once for a row
    assert f"Seq Scan on {day}" not in page
    mine = _plan(asking, "SELECT id FROM endpoints")
    assert "endpoints_supplier" in mine
    assert "Seq Scan" not in mine
    one = f"{ids.floor('dlv', now)}00007".ljust(40, "0")
    tries = _plan(asking, f"SELECT * FROM attempts WHERE delivery_id = '{one}'")
    assert f"Seq Scan on {day}" not in tries, tries
