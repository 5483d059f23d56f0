"""Measurements by the minute, alerts and their life."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make room for what is measured."""
    op.create_table(
        "rollups",
        sa.Column("level", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("dimension", _id(), nullable=False),
        sa.Column("at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", _id(), nullable=False),
        sa.Column("process", _id(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("delivered", sa.BigInteger(), nullable=False),
        sa.Column("receiver", sa.BigInteger(), nullable=False),
        sa.Column("ours", sa.BigInteger(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("dead", sa.BigInteger(), nullable=False),
        sa.Column("sketches", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("level", "dimension", "at", "key", "process"),
        sqlite_with_rowid=False,
    )
    op.create_index("rollups_key", "rollups", ["level", "dimension", "key", "at"])
    op.create_table(
        "rollup_marks",
        sa.Column("level", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("level"),
    )


def _id() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
