"""Runs, their journals, positions in the log and incarnations, with the flush as one function."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = ("executor",)
depends_on = None


def upgrade() -> None:
    """Create the executor's first tables and functions."""
    folder = Path(__file__).parent.parent
    for name in ("tables_v1.sql", "flush_v1.sql", "claim_v1.sql"):
        op.execute((folder / name).read_text())


def downgrade() -> None:
    """Data of this kind is never taken back; restore a backup instead."""
    raise RuntimeError("The executor's first migration cannot be undone; restore a backup.")
