-- Takes up to `p_limit` queued runs for a living incarnation, oldest first in each project, projects in turn: it begins with the project
-- after `p_after` (the one served last; null begins with the first) and goes round, so that room for one run at a time serves all alike.
-- `p_again`: the answer of this claim was lost; answer once more what it took, if it took anything.
-- The share lock on the incarnation's row orders this claim and a take-over (I8). Error MR001 as in the flush.
CREATE FUNCTION executor.claim_v1(p_epoch bigint, p_claim_no bigint, p_again boolean, p_limit int, p_per_project int, p_after uuid)
RETURNS SETOF executor.run_live LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM executor.incarnation WHERE epoch = p_epoch AND alive FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'incarnation % is not alive', p_epoch USING ERRCODE = 'MR001';
    END IF;
    IF p_again THEN
        RETURN QUERY SELECT * FROM executor.run_live WHERE owner_epoch = p_epoch AND claim_no = p_claim_no;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    RETURN QUERY
    -- A loose index scan: one probe of run_live_queued for each project that waits, whatever the length of its queue.
    WITH RECURSIVE waiting AS (
        (SELECT project_id FROM executor.run_live WHERE status = 1 ORDER BY project_id LIMIT 1)
        UNION ALL
        SELECT (SELECT l.project_id FROM executor.run_live l WHERE l.status = 1 AND l.project_id > w.project_id ORDER BY l.project_id LIMIT 1)
          FROM waiting w WHERE w.project_id IS NOT NULL
    ), turns AS (
        SELECT project_id FROM waiting WHERE project_id IS NOT NULL ORDER BY project_id <= p_after, project_id LIMIT p_limit
    ), picked AS (
        SELECT q.run_id
          FROM turns t
         CROSS JOIN LATERAL (
                SELECT l.run_id FROM executor.run_live l
                 WHERE l.status = 1 AND l.project_id = t.project_id
                 ORDER BY l.run_id LIMIT p_per_project FOR UPDATE SKIP LOCKED
               ) q
         LIMIT p_limit
    )
    UPDATE executor.run_live r SET status = 2, owner_epoch = p_epoch, claim_no = p_claim_no, claims = claims + 1 FROM picked WHERE r.run_id = picked.run_id
    RETURNING r.*;
END
$$;

-- Marks a silent incarnation dead, unless it moved since `p_beat` was seen, and queues its runs for whoever has room (I8).
-- Answers how many runs were queued, or null when it was not taken over.
CREATE FUNCTION executor.take_over_v1(p_epoch bigint, p_beat bigint) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    queued int;
BEGIN
    UPDATE executor.incarnation SET alive = false WHERE epoch = p_epoch AND alive AND beat = p_beat;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE executor.run_live SET status = 1, owner_epoch = NULL, claim_no = NULL, handed_over = false
     WHERE owner_epoch = p_epoch;
    GET DIAGNOSTICS queued = ROW_COUNT;
    RETURN queued;
END
$$;

-- The end of an incarnation that stops by itself: marks it dead and queues its runs as handed over (no take-over counts).
-- Answers how many runs were queued, or null when somebody was faster.
CREATE FUNCTION executor.hand_over_v1(p_epoch bigint) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    queued int;
BEGIN
    UPDATE executor.incarnation SET alive = false WHERE epoch = p_epoch AND alive;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE executor.run_live SET status = 1, owner_epoch = NULL, claim_no = NULL, handed_over = true
     WHERE owner_epoch = p_epoch;
    GET DIAGNOSTICS queued = ROW_COUNT;
    RETURN queued;
END
$$;
