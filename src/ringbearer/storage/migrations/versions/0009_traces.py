"""The trace that an event belongs to, where its publisher or we began one."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """One column more; on PostgreSQL that changes no row, and what stays null takes no room."""
    op.add_column("events", sa.Column("trace", sa.Text(), nullable=True))
