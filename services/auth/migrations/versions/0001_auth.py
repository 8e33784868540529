"""People, projects and members, sessions with their refresh tokens, connections, and the keys that sign tokens."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = ("auth",)
depends_on = None

STATEMENTS = (
    """CREATE TABLE auth."user" (
        id            uuid PRIMARY KEY,
        -- Normalised: lower case, NFC.
        email         text NOT NULL CONSTRAINT user_email_key UNIQUE,
        name          text NOT NULL,
        -- bcrypt, with its salt and cost.
        password_hash bytea NOT NULL,
        created_at    timestamptz NOT NULL
    )""",
    """CREATE TABLE auth.project (
        id         uuid PRIMARY KEY,
        name       text NOT NULL,
        created_at timestamptz NOT NULL
    )""",
    """CREATE TABLE auth.project_member (
        project_id uuid NOT NULL REFERENCES auth.project ON DELETE CASCADE,
        user_id    uuid NOT NULL REFERENCES auth."user" ON DELETE CASCADE,
        role       text NOT NULL,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (project_id, user_id)
    )""",
    # For the projects of a person, which every access token names.
    "CREATE INDEX project_member_by_user ON auth.project_member (user_id, project_id)",
    """CREATE TABLE auth.session (
        id         uuid PRIMARY KEY,
        user_id    uuid NOT NULL REFERENCES auth."user" ON DELETE CASCADE,
        created_at timestamptz NOT NULL,
        -- Moves on with every refresh.
        expires_at timestamptz NOT NULL,
        ended_at   timestamptz,
        end_reason text
    )""",
    # For ending all sessions of a person, and for the foreign key.
    "CREATE INDEX session_by_user ON auth.session (user_id)",
    # For forgetting sessions that expired.
    "CREATE INDEX session_by_expiry ON auth.session (expires_at)",
    """CREATE TABLE auth.refresh_token (
        -- SHA-256 of the token; the token itself is nowhere.
        token_hash bytea PRIMARY KEY,
        session_id uuid NOT NULL REFERENCES auth.session ON DELETE CASCADE,
        issued_at  timestamptz NOT NULL,
        spent_at   timestamptz
    )""",
    # For forgetting the tokens of a session.
    "CREATE INDEX refresh_token_by_session ON auth.refresh_token (session_id)",
    """CREATE TABLE auth.connection (
        id         uuid PRIMARY KEY,
        project_id uuid NOT NULL REFERENCES auth.project ON DELETE CASCADE,
        name       text NOT NULL,
        -- Numbers of the wire: 1 secret text.
        kind       smallint NOT NULL,
        -- AES-256-GCM, bound to project and id (encryption.py).
        sealed     bytea NOT NULL,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    )""",
    # For resolving by name, and one name once a project.
    "CREATE UNIQUE INDEX connection_by_name ON auth.connection (project_id, name)",
    # For the list of a project's connections.
    "CREATE INDEX connection_by_project ON auth.connection (project_id, id)",
    """CREATE TABLE auth.signing_key (
        kid         text PRIMARY KEY,
        -- Ed25519, sealed with the encryption key.
        private_key bytea NOT NULL,
        public_key  bytea NOT NULL,
        created_at  timestamptz NOT NULL,
        -- Signs no more, but is still published.
        retired_at  timestamptz
    )""",
    # One key signs at a time; of several replicas that start together one makes it.
    "CREATE UNIQUE INDEX signing_key_current ON auth.signing_key ((true)) WHERE retired_at IS NULL",
)


def upgrade() -> None:
    """Create the first tables of auth."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Data of this kind is never taken back; restore a backup instead."""
    raise RuntimeError("The first migration of auth cannot be undone; restore a backup.")
