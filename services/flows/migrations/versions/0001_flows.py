"""Flows with their drafts, published versions, reports of consumers, edits and samples."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = ("flows",)
depends_on = None


def upgrade() -> None:
    """Create the first tables of flows."""
    op.execute(
        """
        CREATE TABLE flows.flow (
            id                uuid PRIMARY KEY,
            project_id        uuid NOT NULL,
            name              text NOT NULL,
            -- 1 disabled, 2 enabling, 3 enabled, 4 enable failed: numbers of the wire.
            state             smallint NOT NULL DEFAULT 1,
            failure           text NOT NULL DEFAULT '',
            -- Grows with every publish, enable, disable, delete and refusal; consumers apply only what is newer than
            -- what they have.
            change_number     bigint NOT NULL DEFAULT 0,
            -- What is live now; null and 0 when nothing is.
            live_version_id   uuid,
            live_number       int NOT NULL DEFAULT 0,
            -- What was published last: what enabling takes live.
            newest_version_id uuid,
            newest_number     int NOT NULL DEFAULT 0,
            -- Packed documents (one codec byte, then JSON). No faults, an empty list: the draft can be published.
            draft             bytea NOT NULL,
            draft_revision    bigint NOT NULL DEFAULT 1,
            draft_faults      bytea NOT NULL,
            draft_valid       boolean NOT NULL,
            created_at        timestamptz NOT NULL,
            updated_at        timestamptz NOT NULL,
            deleted_at        timestamptz
        );
        ALTER TABLE flows.flow ALTER COLUMN draft SET STORAGE EXTERNAL, ALTER COLUMN draft_faults SET STORAGE EXTERNAL;
        -- For the list of a project's flows.
        CREATE INDEX flow_by_project ON flows.flow (project_id, id DESC) WHERE deleted_at IS NULL;
        -- For consumers that compare their list.
        CREATE INDEX flow_live ON flows.flow (id) WHERE state = 2 OR live_version_id IS NOT NULL;

        CREATE TABLE flows.version (
            id           uuid PRIMARY KEY,
            flow_id      uuid NOT NULL REFERENCES flows.flow,
            project_id   uuid NOT NULL,
            -- From 1 for published versions; 0 for drafts frozen for a simulation.
            number       int NOT NULL,
            -- Of the draft that it was.
            revision     bigint NOT NULL,
            document     bytea NOT NULL,
            published_at timestamptz NOT NULL,
            published_by text NOT NULL
        );
        ALTER TABLE flows.version ALTER COLUMN document SET STORAGE EXTERNAL;
        -- Numbers are given once; the list of a flow's versions.
        CREATE UNIQUE INDEX version_by_number ON flows.version (flow_id, number) WHERE number > 0;
        -- The same revision is frozen once.
        CREATE UNIQUE INDEX version_frozen ON flows.version (flow_id, revision) WHERE number = 0;

        -- The newest report of each consumer about a flow. An empty failure: the change was applied.
        CREATE TABLE flows.applied (
            flow_id       uuid NOT NULL,
            consumer      text NOT NULL,
            change_number bigint NOT NULL,
            failure       text NOT NULL,
            PRIMARY KEY (flow_id, consumer)
        );

        -- Edits that clients named, so that repeating one changes nothing. `edit_id`: any text, UTF-8.
        CREATE TABLE flows.edit (
            flow_id  uuid NOT NULL,
            edit_id  bytea NOT NULL,
            revision bigint NOT NULL,
            PRIMARY KEY (flow_id, edit_id)
        );

        CREATE TABLE flows.sample (
            flow_id     uuid NOT NULL,
            trigger_id  text NOT NULL,
            output      bytea NOT NULL,
            captured_at timestamptz NOT NULL,
            PRIMARY KEY (flow_id, trigger_id)
        );
        ALTER TABLE flows.sample ALTER COLUMN output SET STORAGE EXTERNAL;
        """
    )


def downgrade() -> None:
    """Data of this kind is never taken back; restore a backup instead."""
    raise RuntimeError("The first migration of flows cannot be undone; restore a backup.")
