"""What the order of the queue follows: rules, plans and what was measured."""

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Nothing yet."""
