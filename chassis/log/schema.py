"""The tables of the log in PostgreSQL, and the functions that write them.

Decides: how a record is kept. Statements here may run again and again; they are applied once per database by
`chassis.migrations.ensure_chassis`, under the advisory lock.
Holds: offsets are assigned under the lock of the head row, which is held until the commit. So a reader that sees
offset n has seen, or can see, all before n: the slower writer's record is never passed over. Functions end in a
version: processes of two releases run side by side.
Leaves: when it is called to `postgres` and `postgres_consumer`.
"""

CHANNEL = "millrace_log"
"""NOTIFY goes here, with the topic's number; `members` when a consumer came or went."""

NO_TOPIC_SQLSTATE = "MRL01"

VERSION = 1

DDL = """
CREATE SCHEMA IF NOT EXISTS log;

CREATE TABLE IF NOT EXISTS log.topic (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    epoch text NOT NULL,
    partitions integer NOT NULL
);

-- Updated by every commit: kept small and hot.
CREATE TABLE IF NOT EXISTS log.head (
    topic_id integer NOT NULL,
    partition integer NOT NULL,
    first_offset bigint NOT NULL DEFAULT 0,
    next_offset bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (topic_id, partition)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE TABLE IF NOT EXISTS log.record (
    topic_id integer NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    key bytea NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (topic_id, partition, "offset")
) WITH (toast_tuple_target = 4080, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE log.record ALTER COLUMN value SET STORAGE EXTERNAL;

-- Returns the topic's row, made when it is new. An existing topic keeps its number of partitions.
CREATE OR REPLACE FUNCTION log.ensure_topic_v1(topic_name text, wanted_partitions integer)
RETURNS TABLE (id integer, epoch text, partitions integer) LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        RETURN QUERY SELECT t.id, t.epoch, t.partitions FROM log.topic t WHERE t.name = topic_name;
        EXIT WHEN FOUND;
        WITH made AS (
            INSERT INTO log.topic (name, epoch, partitions)
            VALUES (topic_name, gen_random_uuid()::text, wanted_partitions)
            ON CONFLICT (name) DO NOTHING RETURNING log.topic.id
        )
        INSERT INTO log.head (topic_id, partition)
        SELECT made.id, p FROM made, generate_series(0, wanted_partitions - 1) p;
    END LOOP;
END $$;

-- Appends records in the order given. `parts` names each record's partition; NULL: all to partition 0.
CREATE OR REPLACE FUNCTION log.append_v1(topic_name text, parts integer[], keys bytea[], vals bytea[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    at_topic integer;
    at_partition integer;
    how_many bigint;
    base bigint;
BEGIN
    IF parts IS NULL THEN
        how_many := cardinality(keys);
        UPDATE log.head h SET next_offset = h.next_offset + how_many
         WHERE h.topic_id = (SELECT t.id FROM log.topic t WHERE t.name = topic_name) AND h.partition = 0
        RETURNING h.topic_id, h.next_offset - how_many INTO at_topic, base;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no log topic %', topic_name USING ERRCODE = 'MRL01';
        END IF;
        INSERT INTO log.record (topic_id, partition, "offset", key, value)
        SELECT at_topic, 0, base + r.place - 1, r.key, r.value
          FROM unnest(keys, vals) WITH ORDINALITY AS r(key, value, place);
    ELSE
        -- In the order of partitions, so that two writers never wait for each other.
        FOR at_partition, how_many IN SELECT p, count(*) FROM unnest(parts) p GROUP BY p ORDER BY p LOOP
            UPDATE log.head h SET next_offset = h.next_offset + how_many
             WHERE h.topic_id = (SELECT t.id FROM log.topic t WHERE t.name = topic_name) AND h.partition = at_partition
            RETURNING h.topic_id, h.next_offset - how_many INTO at_topic, base;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'there is no log topic %', topic_name USING ERRCODE = 'MRL01';
            END IF;
            INSERT INTO log.record (topic_id, partition, "offset", key, value)
            SELECT at_topic, at_partition, base + row_number() OVER (ORDER BY r.place) - 1, r.key, r.value
              FROM unnest(parts, keys, vals) WITH ORDINALITY AS r(part, key, value, place)
             WHERE r.part = at_partition;
        END LOOP;
    END IF;
    PERFORM pg_notify('millrace_log', at_topic::text);
END $$;
"""
