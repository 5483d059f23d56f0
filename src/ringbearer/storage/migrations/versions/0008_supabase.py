"""Row level security, and events emitted inside an application's transaction; for PostgreSQL alone."""

import sqlalchemy as sa
from alembic import op

from ringbearer.storage import tenancy
from ringbearer.storage.outbox import TABLE

revision = "0008"
down_revision = "0007"

_COLUMNS = f"""
CREATE TABLE {TABLE} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    type text NOT NULL,
    supplier_id text NOT NULL,
    data jsonb NOT NULL,
    emitted_at timestamptz NOT NULL,
    happened_at timestamptz,
    idempotency_key text,
    ordering_key text,
    priority text,
    deliver_at timestamptz,
    occasion_date date,
    tags text[],
    refused_at timestamptz,
    reason text
)
"""
_EMIT = f"""
CREATE FUNCTION ringbearer.emit(
    type text,
    supplier text,
    data jsonb,
    idempotency_key text DEFAULT NULL,
    ordering_key text DEFAULT NULL,
    priority text DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL,
    occasion_date date DEFAULT NULL,
    tags text[] DEFAULT NULL,
    happened_at timestamptz DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    number bigint;
BEGIN
    IF type IS NULL OR length(type) > 128 OR type !~ '^[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)*$' THEN
        RAISE EXCEPTION 'ringbearer.emit: type must be words joined by dots, as in booking.confirmed'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF supplier IS NULL OR supplier !~ '^[A-Za-z0-9._-]{{1,64}}$' THEN
        RAISE EXCEPTION 'ringbearer.emit: supplier must be 1 to 64 of A-Z, a-z, 0-9, ".", "_" and "-"'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF data IS NULL OR octet_length(data::text) > 262144 THEN
        RAISE EXCEPTION 'ringbearer.emit: data must be a JSON value of at most 256 KiB'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF priority NOT IN ('urgent', 'high', 'normal', 'bulk') THEN
        RAISE EXCEPTION 'ringbearer.emit: priority must be urgent, high, normal or bulk'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO {TABLE} (type, supplier_id, data, emitted_at, happened_at, idempotency_key, ordering_key,
                         priority, deliver_at, occasion_date, tags)
    VALUES (type, supplier, data, statement_timestamp(), happened_at, idempotency_key, ordering_key,
            priority, deliver_at, occasion_date, tags)
    RETURNING id INTO number;
    PERFORM pg_notify('ringbearer_outbox', '');
    RETURN number;
END
$function$
"""
_SIGNATURE = "ringbearer.emit(text, text, jsonb, text, text, text, timestamptz, date, text[], timestamptz)"


def upgrade() -> None:
    """On PostgreSQL: the private schema with the outbox, then roles, grants and policies. SQLite has one user."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    op.execute("CREATE SCHEMA IF NOT EXISTS ringbearer")
    op.execute(_COLUMNS)
    op.execute(f"CREATE INDEX outbox_waiting ON {TABLE} (id) WHERE refused_at IS NULL")
    op.execute(sa.text(_EMIT.replace(":", "\\:")))
    op.execute(f"REVOKE ALL ON FUNCTION {_SIGNATURE} FROM PUBLIC")
    tenancy.install(connection, _SIGNATURE)
