"""Commands of operators to workers that run, with the workers' answers."""

import sqlalchemy as sa
from alembic import op

from ringbearer.storage import tenancy

revision = "0010"
down_revision = "0009"

_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """A table of what was asked, and one of what each worker answered."""
    op.create_table(
        "commands",
        sa.Column("id", _ID, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("workers", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("commands_asked", "commands", ["asked_at"])
    op.create_table(
        "command_answers",
        sa.Column("command_id", _ID, nullable=False),
        sa.Column("worker", _ID, nullable=False),
        sa.Column("answered_at", sa.BigInteger(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("command_id", "worker"),
    )
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        for table in ("commands", "command_answers"):
            tenancy.close(connection, table)
