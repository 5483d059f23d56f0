"""Tenancy on PostgreSQL: the rows that a supplier may read are chosen by the database, not by a WHERE of ours.

 role                  who                          may read, of its own supplier
 the owner             this service                 everything; policies do not bind a table's owner
 ringbearer_supplier   this service, for one        suppliers, endpoints, events, deliveries, attempts, jobs;
                       supplier's key               and how long the queue is
 authenticated         Supabase's users             endpoints but for what is sealed, deliveries, attempts
 anon, everybody else                               nothing

The supplier is `app_metadata.supplier_id` in the setting `request.jwt.claims`, which Supabase fills from a verified
token, and this service from the API key; `app_metadata` is nothing that users can change. Nobody but the owner may
write. Where the role cannot be made, reads are bounded by their WHERE alone, as on SQLite.
"""

from sqlalchemy import Connection, text

from ringbearer.storage.schema import PARTITIONED, metadata

ROLE = "ringbearer_supplier"
SCHEMA = "ringbearer"

# Of functions that run with their owner's rights, pg_temp is named last: it comes first where it is not named, and a
# caller's own type `text` there would bring the caller's code along.
_CLAIMED = f"""
CREATE FUNCTION {SCHEMA}.supplier_id() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
    SELECT (nullif(current_setting('request.jwt.claims', true), '')::jsonb) -> 'app_metadata' ->> 'supplier_id'
$function$
"""
_MINE = (
    f"(SELECT {SCHEMA}.supplier_id())"  # in a subselect it is asked once for a statement, not once for a row
)
_OWN = {
    "suppliers": f"id = {_MINE}",
    "endpoints": f"supplier_id = {_MINE}",
    "events": f"supplier_id = {_MINE}",
    "deliveries": f"supplier_id = {_MINE}",
    "jobs": f"supplier_id = {_MINE}",
    "queue_depth": "true",  # how long the whole queue is, by which a way to search it is chosen
    "attempts": "EXISTS (SELECT 1 FROM deliveries AS d "
    f"WHERE d.id = attempts.delivery_id AND d.supplier_id = {_MINE})",
}
_SHOWN = ("endpoints", "deliveries", "attempts")
"""What Supabase's users see; the queue is none of their business."""
_UNSEALED = (
    "id, supplier_id, url, event_types, description, rate_requests, rate_period, max_concurrency, timeout, "
    "retry_schedule, signing, public_key, enabled, disabled_reason, created_at, updated_at, version, deleted, options, "
    "event_version"
)
"""What those see of endpoints. Written out, as they were when this was installed: a migration that adds a column later
opens it itself, or leaves it closed."""
_MAKE_ROLE = f"""
DO $block$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = '{ROLE}') THEN
        CREATE ROLE {ROLE} NOLOGIN;
    END IF;
    EXECUTE format('GRANT {ROLE} TO %I', current_user);
EXCEPTION
    -- made by another database of this server at the same moment; or by somebody with more rights than ours
    WHEN duplicate_object OR unique_violation OR insufficient_privilege OR invalid_grant_operation THEN
        RAISE NOTICE 'the role {ROLE} was not made: %', SQLERRM;
END
$block$
"""
_MAY = text(
    "SELECT rolname FROM pg_roles WHERE rolname = ANY(:names) AND "
    "(rolname <> :role OR pg_has_role(current_user, oid, 'MEMBER'))"
)
_DAYS = text(
    "SELECT CAST(CAST(inhrelid AS regclass) AS text) FROM pg_inherits "
    "WHERE CAST(CAST(inhparent AS regclass) AS text) = ANY(:parents)"
)
_SCHEMA_OF_TABLES = text(
    "SELECT CAST(relnamespace AS regnamespace) FROM pg_class WHERE oid = CAST('deliveries' AS regclass)"
)
# The search path first: a schema that is found by our own name would not be found by the other role's.
_AS_SUPPLIER = text(
    "SELECT set_config('search_path', (SELECT string_agg(quote_ident(name), ', ') "
    "FROM unnest(current_schemas(false)) AS s(name)), true), "
    f"set_config('role', '{ROLE}', true), "
    "set_config('request.jwt.claims', CAST(jsonb_build_object('app_metadata', "
    "jsonb_build_object('supplier_id', CAST(:supplier AS text))) AS text), true)"
)


def install(connection: Connection, emit: str) -> None:
    """Make the role and the helper; close every table, and open to each role what it may read.

    `emit` is the signature of the function that emits events, which Supabase's servers may call.
    """
    connection.execute(text(_MAKE_ROLE))
    connection.execute(text(_CLAIMED.replace(":", "\\:")))
    roles = _roles(connection)
    for table in [*_tables(connection), f"{SCHEMA}.outbox"]:
        close(connection, table)
    for role in (ROLE, "authenticated"):
        if role in roles:
            _open(connection, role)
    if "service_role" in roles:
        connection.execute(text(f"GRANT USAGE ON SCHEMA {SCHEMA} TO service_role"))
        connection.execute(text(f"GRANT EXECUTE ON FUNCTION {emit} TO service_role"))


def close(connection: Connection, table: str) -> None:
    """Let nobody but the owner into a table; on Supabase, new tables are open to everybody until then."""
    connection.execute(text(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"))
    for role in sorted(_roles(connection) & {"anon", "authenticated"}):
        connection.execute(text(f"REVOKE ALL ON {table} FROM {role}"))


def available(connection: Connection) -> bool:
    """Whether this service may read on behalf of a supplier."""
    return ROLE in _roles(connection)


def become_supplier(connection: Connection, supplier_id: str) -> None:
    """Until the transaction ends, read what that supplier may read; also behind a transaction pooler."""
    connection.execute(_AS_SUPPLIER, {"supplier": supplier_id})


def _open(connection: Connection, role: str) -> None:
    schema = connection.execute(_SCHEMA_OF_TABLES).scalar_one()
    connection.execute(text(f"GRANT USAGE ON SCHEMA {schema}, {SCHEMA} TO {role}"))
    connection.execute(text(f"GRANT EXECUTE ON FUNCTION {SCHEMA}.supplier_id() TO {role}"))
    for table, own in _OWN.items():
        if role == ROLE or table in _SHOWN:
            what = f"SELECT ({_UNSEALED})" if table == "endpoints" and role != ROLE else "SELECT"
            connection.execute(text(f"GRANT {what} ON {table} TO {role}"))
            connection.execute(
                text(f"CREATE POLICY {role}_reads ON {table} FOR SELECT TO {role} USING ({own})")
            )


def _tables(connection: Connection) -> list[str]:
    """Our tables, with those of single days; an application may have its own in the same schema."""
    names = [name for name in metadata.tables if _there(connection, name)]
    days = connection.execute(_DAYS, {"parents": list(PARTITIONED)})
    return [*names, *(row[0] for row in days)]


def _there(connection: Connection, name: str) -> bool:
    return connection.execute(text("SELECT to_regclass(:name)"), {"name": name}).scalar() is not None


def _roles(connection: Connection) -> set[str]:
    names = [ROLE, "anon", "authenticated", "service_role"]
    return {row[0] for row in connection.execute(_MAY, {"names": names, "role": ROLE})}
