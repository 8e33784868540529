-- The flush (I2, I3, I8): everything that the runs of one incarnation did since its last flush, in one round trip, all or nothing.
-- Answers with the run ids that were stored already: those are duplicates, and nothing of them was written.
-- Errors: MR001 the incarnation is no longer alive or the flush number is not the next one; MR002 a position was moved by somebody else;
-- MR003 a run that ends is not in the hands of this incarnation.
CREATE FUNCTION executor.flush_v1(
    p_epoch bigint, p_flush_no bigint,
    -- positions to move, each from where this incarnation believes it to be
    p_topic text[], p_partition int[], p_log_epoch text[], p_from bigint[], p_to bigint[],
    -- runs stored for the first time; `n_finished` is null for those that go on
    n_run uuid[], n_project uuid[], n_flow uuid[], n_version uuid[], n_trigger text[], n_test boolean[], n_reply text[],
    n_status smallint[], n_started bigint[], n_chunk bytea[], n_finished bigint[], n_steps int[], n_error bytea[],
    -- further chunks of runs stored before
    c_run uuid[], c_no int[], c_chunk bytea[],
    -- runs stored before that ended
    f_run uuid[], f_status smallint[], f_started bigint[], f_finished bigint[], f_steps int[], f_error bytea[],
    -- values of the store piece; null deletes
    s_project uuid[], s_scope text[], s_key text[], s_value bytea[]
) RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE
    moved    int;
    refused  uuid[] := '{}';
BEGIN
    -- I8: no living row, no flush. The row lock orders this flush and a take-over.
    UPDATE executor.incarnation SET beat = beat + 1, flush_no = p_flush_no, rejected = '{}'
     WHERE epoch = p_epoch AND alive AND flush_no = p_flush_no - 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'incarnation % is not alive at flush %', p_epoch, p_flush_no USING ERRCODE = 'MR001';
    END IF;

    -- I2: compare and set.
    IF cardinality(p_topic) > 0 THEN
        UPDATE executor.position AS p SET next_offset = m.next_offset
          FROM unnest(p_topic, p_partition, p_log_epoch, p_from, p_to) AS m (topic, partition, log_epoch, seen_offset, next_offset)
         WHERE p.topic = m.topic AND p.partition = m.partition AND p.log_epoch = m.log_epoch AND p.next_offset = m.seen_offset;
        GET DIAGNOSTICS moved = ROW_COUNT;
        IF moved <> cardinality(p_topic) THEN
            RAISE EXCEPTION 'a position is not where incarnation % left it', p_epoch USING ERRCODE = 'MR002';
        END IF;
    END IF;

    -- I2: chunk 0 decides whether a run id is new.
    IF cardinality(n_run) > 0 THEN
        WITH fresh AS (
            SELECT * FROM unnest(n_run, n_project, n_flow, n_version, n_trigger, n_test, n_reply, n_status, n_started, n_chunk,
                                 n_finished, n_steps, n_error)
                AS n (run_id, project_id, flow_id, version_id, trigger_id, test, reply_to, status, started_at, entries,
                      finished_at, steps_finished, error)
        ), stored AS (
            INSERT INTO executor.journal (run_id, chunk_no, entries) SELECT run_id, 0, entries FROM fresh
            ON CONFLICT DO NOTHING RETURNING run_id
        ), live AS (
            INSERT INTO executor.run_live (run_id, project_id, flow_id, version_id, trigger_id, test, reply_to, status, owner_epoch, started_at)
            SELECT run_id, project_id, flow_id, version_id, trigger_id, test, reply_to, status, CASE status WHEN 1 THEN NULL ELSE p_epoch END, started_at
              FROM fresh JOIN stored USING (run_id) WHERE finished_at IS NULL
        ), ended AS (
            INSERT INTO executor.run (run_id, project_id, flow_id, version_id, trigger_id, test, status, started_at, finished_at, steps_finished, error)
            SELECT run_id, project_id, flow_id, version_id, trigger_id, test, status, started_at, finished_at, steps_finished, error
              FROM fresh JOIN stored USING (run_id) WHERE finished_at IS NOT NULL
        )
        SELECT coalesce(array_agg(run_id), '{}') INTO refused FROM fresh WHERE run_id NOT IN (SELECT run_id FROM stored);
        IF cardinality(refused) > 0 THEN
            UPDATE executor.incarnation SET rejected = refused WHERE epoch = p_epoch;
        END IF;
    END IF;

    -- The key of (run, chunk) is a second fence: two writers collide here.
    IF cardinality(c_run) > 0 THEN
        INSERT INTO executor.journal (run_id, chunk_no, entries) SELECT * FROM unnest(c_run, c_no, c_chunk);
    END IF;

    IF cardinality(f_run) > 0 THEN
        WITH finish AS (
            SELECT * FROM unnest(f_run, f_status, f_started, f_finished, f_steps, f_error)
                AS f (run_id, end_status, began_at, finished_at, steps_finished, error)
        ), gone AS (
            DELETE FROM executor.run_live l USING finish f WHERE l.run_id = f.run_id AND l.owner_epoch = p_epoch
            RETURNING l.run_id, l.project_id, l.flow_id, l.version_id, l.trigger_id, l.test, f.end_status, f.began_at, f.finished_at,
                      f.steps_finished, f.error
        )
        INSERT INTO executor.run (run_id, project_id, flow_id, version_id, trigger_id, test, status, started_at, finished_at, steps_finished, error)
        SELECT * FROM gone;
        GET DIAGNOSTICS moved = ROW_COUNT;
        IF moved <> cardinality(f_run) THEN
            RAISE EXCEPTION 'a run that ends is not owned by incarnation %', p_epoch USING ERRCODE = 'MR003';
        END IF;
    END IF;

    IF cardinality(s_key) > 0 THEN
        INSERT INTO executor.store_entry (project_id, scope, key, value)
        SELECT * FROM unnest(s_project, s_scope, s_key, s_value) AS s (project_id, scope, key, value) WHERE s.value IS NOT NULL
        ON CONFLICT (project_id, scope, key) DO UPDATE SET value = excluded.value;
        DELETE FROM executor.store_entry e USING unnest(s_project, s_scope, s_key, s_value) AS s (project_id, scope, key, value)
         WHERE s.value IS NULL AND (e.project_id, e.scope, e.key) = (s.project_id, s.scope, s.key);
    END IF;
    RETURN refused;
END
$$;
