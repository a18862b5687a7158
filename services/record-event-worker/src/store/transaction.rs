//! One event, one transaction.

use std::collections::BTreeMap;

use jm_tasks::{RecordId, SpeakerTurn, Stage, follow_up_id};
use serde::Deserialize;
use sqlx::{AnyConnection, Row as _};

use super::{Store, StoreError, session::Session};
use crate::{
    event::{Change, Finding},
    pipeline::Started,
    state::{RecordState, StageResult},
};

/// Makes the row if it is missing, and locks it either way: copies of an event take turns here.
const LOCK_RECORD: &str = "INSERT INTO records (id, revision, deleted_revision, content) VALUES ($1, 0, 0, NULL)
    ON CONFLICT (id) DO UPDATE SET id = excluded.id RETURNING revision, deleted_revision, content";

/// Vectors are large, and nothing follows from them.
const READ_RESULTS: &str = "SELECT stage, revision,
    CASE WHEN stage IN ('diarization', 'transcription') THEN body END AS body FROM results WHERE record_id = $1";
const READ_TASKS: &str = "SELECT stage, revision, started_at FROM tasks WHERE record_id = $1";

const WRITE_RECORD: &str = "UPDATE records SET revision = $2, deleted_revision = $3, content = $4 WHERE id = $1";
const WRITE_DELETED_REVISION: &str = "UPDATE records SET deleted_revision = $2 WHERE id = $1";
const DELETE_RESULTS: &str = "DELETE FROM results WHERE record_id = $1 AND revision <= $2";
const WRITE_RESULT: &str = "INSERT INTO results (record_id, stage, revision, body) VALUES ($1, $2, $3, $4)
    ON CONFLICT (record_id, stage) DO UPDATE SET revision = excluded.revision, body = excluded.body";
const DELETE_TASK: &str = "DELETE FROM tasks WHERE record_id = $1 AND stage = $2";
const WRITE_TASK: &str =
    "INSERT INTO tasks (record_id, stage, revision, task_id, started_at) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (record_id, stage) DO UPDATE
    SET revision = excluded.revision, task_id = excluded.task_id, started_at = excluded.started_at";

/// A record that nobody else changes until this ends. Dropped without [`commit`](Self::commit), it changes nothing.
/// From the beginning to the end it takes no longer than the store allows, or else it fails.
pub(crate) struct RecordTransaction {
    session: Session,
    record: RecordId,
    before: Numbers,
}

/// What a record's row had at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers {
    revision: i64,
    deleted_revision: i64,
    has_content: bool,
}

impl Numbers {
    fn of(state: &RecordState) -> Self {
        let RecordState { revision, deleted_revision, content, .. } = state;
        Self { revision: *revision, deleted_revision: *deleted_revision, has_content: content.is_some() }
    }
}

/// A record as it was found.
pub(crate) struct Known {
    pub(crate) state: RecordState,
    pub(crate) started: BTreeMap<Stage, Started>,
}

impl Store {
    /// Waits for the record to be ours, and reads it.
    pub(crate) async fn lock(&self, record: &RecordId) -> Result<(RecordTransaction, Known), StoreError> {
        let mut session = Session::begin(&self.pool, self.backend.begin(), self.limit).await?;
        let read = async |connection: &mut AnyConnection| {
            Ok((read_state(connection, record).await?, read_tasks(connection, record).await?))
        };
        let (state, started) = session.deadline().meet(read(&mut session)).await?;
        let before = Numbers::of(&state);
        Ok((RecordTransaction { session, record: record.clone(), before }, Known { state, started }))
    }
}

impl RecordTransaction {
    /// Writes what is different, and makes it last.
    pub(crate) async fn commit(
        mut self,
        change: &Change,
        after: &RecordState,
        started_before: &BTreeMap<Stage, Started>,
        started_after: &BTreeMap<Stage, Started>,
    ) -> Result<(), StoreError> {
        let deadline = self.session.deadline();
        deadline.meet(self.write(change, after, started_before, started_after)).await?;
        self.session.commit().await
    }

    /// Ends it as if it had never begun.
    pub(crate) async fn roll_back(self) -> Result<(), StoreError> {
        self.session.roll_back().await
    }

    async fn write(
        &mut self,
        change: &Change,
        after: &RecordState,
        started_before: &BTreeMap<Stage, Started>,
        started_after: &BTreeMap<Stage, Started>,
    ) -> Result<(), StoreError> {
        self.write_record(after).await?;
        if let Change::Finding { stage, revision, body, .. } = change
            && after.reached(*stage) == revision.get()
        {
            let write = sqlx::query(WRITE_RESULT).bind(self.record.as_str()).bind(stage.name());
            let write = write.bind(revision.get()).bind(body.as_str());
            write.execute(&mut *self.session).await.map_err(StoreError::query("write a result"))?;
        }
        self.write_tasks(started_before, started_after).await
    }

    async fn write_record(&mut self, after: &RecordState) -> Result<(), StoreError> {
        let (before, numbers) = (self.before, Numbers::of(after));
        if (before.revision, before.has_content) != (numbers.revision, numbers.has_content) {
            let content = after.content.as_ref().map(serde_json::to_string).transpose();
            let content = content.map_err(|error| StoreError::unreadable("content", self.record.as_str(), &error))?;
            let write = sqlx::query(WRITE_RECORD).bind(self.record.as_str());
            let write = write.bind(numbers.revision).bind(numbers.deleted_revision).bind(content);
            write.execute(&mut *self.session).await.map_err(StoreError::query("write a record"))?;
        } else if before.deleted_revision != numbers.deleted_revision {
            let write = sqlx::query(WRITE_DELETED_REVISION).bind(self.record.as_str()).bind(numbers.deleted_revision);
            write.execute(&mut *self.session).await.map_err(StoreError::query("write a deletion"))?;
        }
        if before.deleted_revision != numbers.deleted_revision {
            let delete = sqlx::query(DELETE_RESULTS).bind(self.record.as_str()).bind(numbers.deleted_revision);
            delete.execute(&mut *self.session).await.map_err(StoreError::query("delete results"))?;
        }
        Ok(())
    }

    async fn write_tasks(
        &mut self,
        before: &BTreeMap<Stage, Started>,
        after: &BTreeMap<Stage, Started>,
    ) -> Result<(), StoreError> {
        for stage in before.keys().filter(|stage| !after.contains_key(stage)) {
            let delete = sqlx::query(DELETE_TASK).bind(self.record.as_str()).bind(stage.name());
            delete.execute(&mut *self.session).await.map_err(StoreError::query("delete a task"))?;
        }
        for (stage, task) in after.iter().filter(|(stage, task)| before.get(stage) != Some(task)) {
            let id = follow_up_id(&self.record, *stage, task.revision.unsigned_abs()).to_string();
            let write = sqlx::query(WRITE_TASK).bind(self.record.as_str()).bind(stage.name());
            let write = write.bind(task.revision).bind(id).bind(task.started_at);
            write.execute(&mut *self.session).await.map_err(StoreError::query("write a task"))?;
        }
        Ok(())
    }
}

async fn read_state(connection: &mut AnyConnection, record: &RecordId) -> Result<RecordState, StoreError> {
    let failed = || StoreError::query("lock a record");
    let row = sqlx::query(LOCK_RECORD).bind(record.as_str()).fetch_one(&mut *connection).await.map_err(failed())?;
    let content: Option<String> = row.try_get("content").map_err(failed())?;
    let content = content.map(|json| serde_json::from_str(&json)).transpose();
    let mut state = RecordState {
        revision: row.try_get("revision").map_err(failed())?,
        deleted_revision: row.try_get("deleted_revision").map_err(failed())?,
        content: content.map_err(|error| StoreError::unreadable("content", record.as_str(), &error))?,
        results: BTreeMap::new(),
    };
    let failed = || StoreError::query("read a record's results");
    let rows = sqlx::query(READ_RESULTS).bind(record.as_str()).fetch_all(connection).await.map_err(failed())?;
    for row in rows {
        let name: String = row.try_get("stage").map_err(failed())?;
        // A stage of a newer version: not ours to deal with.
        let Some(stage) = Stage::from_name(&name) else { continue };
        let body: Option<String> = row.try_get("body").map_err(failed())?;
        let finding = finding(stage, &body.unwrap_or_default())
            .map_err(|error| StoreError::unreadable(stage.name(), record.as_str(), &error))?;
        let revision = row.try_get("revision").map_err(failed())?;
        state.results.insert(stage, StageResult { revision, finding });
    }
    Ok(state)
}

async fn read_tasks(connection: &mut AnyConnection, record: &RecordId) -> Result<BTreeMap<Stage, Started>, StoreError> {
    let failed = || StoreError::query("read a record's tasks");
    let rows = sqlx::query(READ_TASKS).bind(record.as_str()).fetch_all(connection).await.map_err(failed())?;
    let mut started = BTreeMap::new();
    for row in rows {
        let name: String = row.try_get("stage").map_err(failed())?;
        let Some(stage) = Stage::from_name(&name) else { continue };
        let revision = row.try_get("revision").map_err(failed())?;
        let started_at = row.try_get("started_at").map_err(failed())?;
        started.insert(stage, Started { revision, started_at });
    }
    Ok(started)
}

/// The part of a stored result that the pipeline needs.
fn finding(stage: Stage, body: &str) -> Result<Finding, serde_json::Error> {
    #[derive(Deserialize)]
    struct Diarization {
        turns: Vec<SpeakerTurn>,
    }
    #[derive(Deserialize)]
    struct Transcription {
        text: String,
    }
    Ok(match stage {
        Stage::Diarization => Finding::Turns(serde_json::from_str::<Diarization>(body)?.turns),
        Stage::Transcription => Finding::Transcript(serde_json::from_str::<Transcription>(body)?.text),
        Stage::Embedding | Stage::Summary | Stage::Title => Finding::End,
    })
}
