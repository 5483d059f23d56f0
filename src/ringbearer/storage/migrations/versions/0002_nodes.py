"""Nodes: who runs, and who leads the loops that only one may run."""

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Nothing yet."""
