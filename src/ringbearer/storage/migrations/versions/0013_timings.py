"""How long the parts of a connection took, of attempts that had to make one."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """One column more; on PostgreSQL that changes no row, and what stays null takes no room."""
    op.add_column("attempts", sa.Column("timing", sa.Text(), nullable=True))
