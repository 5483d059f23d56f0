"""Row level security, and events emitted inside an application's transaction."""

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Nothing yet."""
