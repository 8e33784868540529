"""What is known about each file; the content is in the blob store under the ids."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = ("files",)
depends_on = None

STATEMENTS = (
    """CREATE TABLE files.file (
        id           uuid PRIMARY KEY,
        project_id   uuid NOT NULL,
        -- As the sender called it; never part of a path.
        name         text NOT NULL,
        content_type text NOT NULL,
        size_bytes   bigint NOT NULL,
        sha256       bytea NOT NULL,
        created_at   timestamptz NOT NULL
    )""",
    # For the files of a project, newest first, and for removing them with it.
    "CREATE INDEX file_by_project ON files.file (project_id, id DESC)",
)


def upgrade() -> None:
    """Create the first table of files."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Data of this kind is never taken back; restore a backup instead."""
    raise RuntimeError("The first migration of files cannot be undone; restore a backup.")
