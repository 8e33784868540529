-- Live and history apart (data.md 1). Run ids are UUIDv7: a range of ids is a range of time, so the id alone is key, order and partition.

-- Incarnations of executors (I8). A flush moves beat and flush number of its own living row, or does not happen.
CREATE TABLE executor.incarnation (
    epoch      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL,
    alive      boolean NOT NULL DEFAULT true,
    beat       bigint NOT NULL DEFAULT 0,
    flush_no   bigint NOT NULL DEFAULT 0,
    -- What the last flush found stored already; read back when the answer of its commit was lost.
    rejected   uuid[] NOT NULL DEFAULT '{}',
    started_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70, autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0);

-- How far each partition of the log has become runs (I2).
CREATE TABLE executor.position (
    topic       text NOT NULL,
    partition   int NOT NULL,
    log_epoch   text NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 70, autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0);

-- Runs that have not ended: few, hot.
CREATE TABLE executor.run_live (
    run_id      uuid PRIMARY KEY,
    project_id  uuid NOT NULL,
    flow_id     uuid NOT NULL,
    version_id  uuid NOT NULL,
    trigger_id  text NOT NULL,
    test        boolean NOT NULL,
    reply_to    text NOT NULL,
    status      smallint NOT NULL,
    -- The incarnation that has it in hand; none while it is queued.
    owner_epoch bigint,
    -- Which claim of that incarnation took it; a claim whose answer was lost is asked for again under its number.
    claim_no    bigint,
    -- How often it was claimed; more than once: somebody died over it, perhaps before anything of it was durable (I4).
    claims      smallint NOT NULL DEFAULT 0,
    started_at  bigint,
    -- The last owner handed it over itself, between two steps: nobody died over it.
    handed_over boolean NOT NULL DEFAULT false
) WITH (fillfactor = 70, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.02);
-- For dispatch: the oldest queued runs of each project.
CREATE INDEX run_live_queued ON executor.run_live (project_id, run_id) WHERE status = 1;
-- For the list of a project's runs.
CREATE INDEX run_live_by_project ON executor.run_live (project_id, run_id DESC);
-- For a take-over: the runs of a dead incarnation.
CREATE INDEX run_live_by_owner ON executor.run_live (owner_epoch) WHERE owner_epoch IS NOT NULL;

-- Runs that ended: insert only.
CREATE TABLE executor.run (
    run_id         uuid PRIMARY KEY,
    project_id     uuid NOT NULL,
    flow_id        uuid NOT NULL,
    version_id     uuid NOT NULL,
    trigger_id     text NOT NULL,
    test           boolean NOT NULL,
    status         smallint NOT NULL,
    started_at     bigint NOT NULL,
    finished_at    bigint NOT NULL,
    steps_finished int NOT NULL,
    error          bytea
) PARTITION BY RANGE (run_id);
-- For the list of a project's runs, of a flow's runs, and of those that failed.
CREATE INDEX run_by_project ON executor.run (project_id, run_id DESC);
CREATE INDEX run_by_flow ON executor.run (project_id, flow_id, run_id DESC);
CREATE INDEX run_failed ON executor.run (project_id, run_id DESC) WHERE status <> 5;

-- What happened, one row a run a flush. Chunk 0 is written once in a run's life: it is the registry of run ids (I2).
CREATE TABLE executor.journal (
    run_id   uuid NOT NULL,
    chunk_no int NOT NULL,
    entries  bytea NOT NULL,
    PRIMARY KEY (run_id, chunk_no)
) PARTITION BY RANGE (run_id);

-- The `store` piece: committed with the journal that tells of it, hence exactly once.
CREATE TABLE executor.store_entry (
    project_id uuid NOT NULL,
    scope      text NOT NULL,
    key        text NOT NULL,
    value      bytea NOT NULL,
    PRIMARY KEY (project_id, scope, key)
);

-- The first run id of a millisecond.
CREATE FUNCTION executor.first_id_v1(at timestamptz) RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT (rpad(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0'), 32, '0'))::uuid
$$;

-- Makes the weekly partitions from `weeks_back` weeks ago to `weeks_ahead` weeks from now that are missing.
CREATE FUNCTION executor.ensure_partitions_v1(weeks_back int, weeks_ahead int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    this_week timestamptz := date_trunc('week', now(), 'UTC');
    week      timestamptz;
    suffix    text;
BEGIN
    FOR offset_weeks IN -weeks_back .. weeks_ahead LOOP
        week := this_week + offset_weeks * interval '7 days';
        suffix := to_char(week AT TIME ZONE 'UTC', 'YYYYMMDD');
        IF to_regclass('executor.run_' || suffix) IS NULL THEN
            EXECUTE format('CREATE TABLE executor.%I PARTITION OF executor.run FOR VALUES FROM (%L) TO (%L)',
                           'run_' || suffix, executor.first_id_v1(week), executor.first_id_v1(week + interval '7 days'));
            EXECUTE format('CREATE TABLE executor.%I PARTITION OF executor.journal FOR VALUES FROM (%L) TO (%L)',
                           'journal_' || suffix, executor.first_id_v1(week), executor.first_id_v1(week + interval '7 days'));
            EXECUTE format('ALTER TABLE executor.%I ALTER COLUMN entries SET STORAGE EXTERNAL', 'journal_' || suffix);
        END IF;
    END LOOP;
END
$$;
SELECT executor.ensure_partitions_v1(1, 4);
