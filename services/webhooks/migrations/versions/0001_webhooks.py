"""Duplicate keys of accepted events, and deliveries that became no run."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = ("webhooks",)
depends_on = None

STATEMENTS = (
    """CREATE TABLE webhooks.idempotency (
        flow_id       uuid NOT NULL,
        -- SHA-256 of the trigger's id and the sender's key.
        key_hash      bytea NOT NULL,
        run_id        uuid NOT NULL,
        -- False: the event may not be in the log; a duplicate publishes it again under run_id.
        published     boolean NOT NULL DEFAULT false,
        -- Milliseconds since 1970, by the clock of the replica.
        expires_at_ms bigint NOT NULL,
        PRIMARY KEY (flow_id, key_hash)
    ) WITH (fillfactor = 80)""",
    # For forgetting keys that expired.
    "CREATE INDEX idempotency_by_expiry ON webhooks.idempotency (expires_at_ms)",
    """CREATE TABLE webhooks.trigger_event (
        -- UUIDv7: the time of the delivery is in it.
        id             uuid PRIMARY KEY,
        project_id     uuid NOT NULL,
        flow_id        uuid NOT NULL,
        -- Empty when the delivery named none that exists.
        trigger_id     text NOT NULL,
        -- refused or simulated.
        kind           text NOT NULL,
        -- HTTP status of the answer, and its reason when it was refused.
        status         integer NOT NULL,
        reason         text NOT NULL,
        method         text NOT NULL,
        -- Packed JSON, credentials masked.
        headers        bytea NOT NULL,
        -- The first 16 KiB as received.
        body           bytea NOT NULL,
        remote_address text NOT NULL
    )""",
    "ALTER TABLE webhooks.trigger_event ALTER COLUMN headers SET STORAGE EXTERNAL",
    # For the newest deliveries of a flow.
    "CREATE INDEX trigger_event_by_flow ON webhooks.trigger_event (project_id, flow_id, id DESC)",
)


def upgrade() -> None:
    """Create the first tables of webhooks."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Data of this kind is never taken back; restore a backup instead."""
    raise RuntimeError("The first migration of webhooks cannot be undone; restore a backup.")
