"""What the order of the queue follows: rules, plans and what was measured."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Begin the lanes' virtual time where the times end by which jobs were ranked before."""
    op.add_column("jobs", sa.Column("ready_at", sa.BigInteger(), nullable=True))
    op.add_column("events", sa.Column("asked", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("lane_reason", sa.Text(), nullable=True))
    op.create_table(
        "plans",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "flows",
        sa.Column("lane", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("endpoint_id", _ID, nullable=False),
        sa.Column("supplier_id", _ID, nullable=False),
        sa.Column("finish", sa.BigInteger(), nullable=False),
        sa.Column("told_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("lane", "endpoint_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("flows_told", "flows", ["told_at"], unique=False)
    op.create_table(
        "flow_costs",
        sa.Column("endpoint_id", _ID, nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("told_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("flow_costs_told", "flow_costs", ["told_at"], unique=False)
    op.create_table(
        "parked",
        sa.Column("endpoint_id", _ID, nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("spacing", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("parked_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint_id"),
    )
    clocks = op.create_table(
        "lane_clocks",
        sa.Column("lane", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("v", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("lane"),
    )
    now = time.time_ns() // 1_000
    op.bulk_insert(clocks, [{"lane": lane, "v": now} for lane in range(4)])
