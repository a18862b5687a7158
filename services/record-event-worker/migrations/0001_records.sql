-- One schema for SQLite and PostgreSQL: TEXT and BIGINT only, JSON as TEXT.

-- What is known of a record. A row exists once anything that counts was heard of it.
CREATE TABLE records (
    -- The record's id, as the product's services name it.
    id TEXT NOT NULL PRIMARY KEY,
    -- The newest revision heard of, by content or by deletion. 0: only results so far.
    revision BIGINT NOT NULL,
    -- Everything up to this revision is deleted. 0: nothing; 9223372036854775807: the record, for good.
    deleted_revision BIGINT NOT NULL,
    -- The record as it is at `revision`: JSON. NULL when that is deleted, or not known yet.
    content TEXT
);

-- The newest result of each stage of the pipeline. It may be older than the record until its successor arrives, or
-- newer until the record's own event does.
CREATE TABLE results (
    -- The record it belongs to. It has a row in `records`.
    record_id TEXT NOT NULL,
    -- diarization, transcription, embedding, summary or title.
    stage TEXT NOT NULL,
    -- The revision of the record that was worked on.
    revision BIGINT NOT NULL,
    -- The worker's event: JSON.
    body TEXT NOT NULL,
    PRIMARY KEY (record_id, stage)
);

-- The tasks that were started and whose results have not arrived. Every row is of the record's present revision.
CREATE TABLE tasks (
    -- The record it belongs to.
    record_id TEXT NOT NULL,
    -- The stage that it is to bring the result of.
    stage TEXT NOT NULL,
    -- The record's revision.
    revision BIGINT NOT NULL,
    -- The message id of the task: a UUID, made of the three columns before.
    task_id TEXT NOT NULL,
    -- When it was started: milliseconds since 1970, UTC.
    started_at BIGINT NOT NULL,
    PRIMARY KEY (record_id, stage)
);
