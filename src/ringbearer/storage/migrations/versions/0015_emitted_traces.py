"""Events emitted in SQL may say which trace they belong to; for PostgreSQL alone."""

import sqlalchemy as sa
from alembic import op

from ringbearer.storage.outbox import TABLE

revision = "0015"
down_revision = "0014"

_OLD = "ringbearer.emit(text, text, jsonb, text, text, text, timestamptz, date, text[], timestamptz)"
_NEW = "ringbearer.emit(text, text, jsonb, text, text, text, timestamptz, date, text[], timestamptz, text)"
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
    happened_at timestamptz DEFAULT NULL,
    traceparent text DEFAULT NULL
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
    -- As over HTTP, a trace that is malformed is as if it had not been sent: it never stops a transaction.
    INSERT INTO {TABLE} (type, supplier_id, data, emitted_at, happened_at, idempotency_key, ordering_key,
                         priority, deliver_at, occasion_date, tags, traceparent)
    VALUES (type, supplier, data, statement_timestamp(), happened_at, idempotency_key, ordering_key,
            priority, deliver_at, occasion_date, tags,
            CASE WHEN length(traceparent) <= 256 THEN traceparent END)
    RETURNING id INTO number;
    PERFORM pg_notify('ringbearer_outbox', '');
    RETURN number;
END
$function$
"""
_GRANTED = f"""
SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE CAST(CAST(a.grantee AS regrole) AS text) END
       || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
FROM pg_proc AS p, aclexplode(p.proacl) AS a
WHERE p.oid = to_regprocedure('{_OLD}') AND a.privilege_type = 'EXECUTE' AND a.grantee <> p.proowner
"""


def upgrade() -> None:
    """Make the function anew, since one with another argument would stand beside it; who might call it still may."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    op.execute(f"ALTER TABLE {TABLE} ADD COLUMN traceparent text")
    granted = [row[0] for row in connection.execute(sa.text(_GRANTED))]
    op.execute(f"DROP FUNCTION {_OLD}")
    op.execute(sa.text(_EMIT.replace(":", "\\:")))
    op.execute(f"REVOKE ALL ON FUNCTION {_NEW} FROM PUBLIC")
    for whom in granted:
        op.execute(f"GRANT EXECUTE ON FUNCTION {_NEW} TO {whom}")
