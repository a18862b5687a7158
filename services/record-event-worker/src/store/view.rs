//! A record as a whole, for whoever wants to look at it.

use std::{collections::BTreeMap, str::FromStr as _};

use jiff::Timestamp;
use jm_tasks::{Completed, Diarized, Embedded, RecordContent, RecordId, Stage, Transcribed};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{AnyConnection, Row as _};
use uuid::Uuid;

use super::{Store, StoreError, session::Session};
use crate::state::FOR_GOOD;

/// Everything that is stored of a record. Each result names the revision that it is about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecordView {
    /// Which record.
    pub record_id: RecordId,
    /// The newest revision heard of. `None`: only results so far, or deleted for good.
    pub revision: Option<u64>,
    /// What was deleted of it.
    pub deleted: Option<DeletedUpTo>,
    /// The record at its revision; `None` when that is deleted or has not arrived.
    pub content: Option<RecordContent>,
    /// Who speaks when.
    pub diarization: Option<Diarized>,
    /// What was said.
    pub transcription: Option<Transcribed>,
    /// The vectors.
    pub embedding: Option<Embedded>,
    /// The summary.
    pub summary: Option<Completed>,
    /// The title that was found.
    pub title: Option<Completed>,
    /// The tasks whose results have not arrived.
    pub tasks: BTreeMap<Stage, StartedTask>,
}

/// What was deleted of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeletedUpTo {
    /// Everything up to this revision.
    Revision(u64),
    /// All there was and will be.
    ForGood,
}

/// A task that was started, and whose result has not arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StartedTask {
    /// The record's revision.
    pub revision: u64,
    /// The message id of the task.
    pub task_id: Uuid,
    /// When it was started.
    pub started_at: Timestamp,
}

impl Store {
    /// The record with all that belongs to it, at one moment; `None` if nothing is known of it.
    ///
    /// # Errors
    ///
    /// When the database cannot be read, or somebody else wrote into it.
    pub async fn record(&self, id: &RecordId) -> Result<Option<RecordView>, StoreError> {
        let mut session = Session::begin(&self.pool, self.backend.begin_reading(), self.limit).await?;
        let view = session.deadline().meet(read(&mut session, id)).await?;
        session.roll_back().await?;
        Ok(view)
    }
}

async fn read(reading: &mut AnyConnection, id: &RecordId) -> Result<Option<RecordView>, StoreError> {
    let failed = || StoreError::query("read a record");
    let query = sqlx::query("SELECT revision, deleted_revision, content FROM records WHERE id = $1");
    let row = query.bind(id.as_str()).fetch_optional(&mut *reading).await.map_err(failed())?;
    let Some(row) = row else { return Ok(None) };
    let revision: i64 = row.try_get("revision").map_err(failed())?;
    let deleted: i64 = row.try_get("deleted_revision").map_err(failed())?;
    let content: Option<String> = row.try_get("content").map_err(failed())?;
    let mut view = RecordView {
        record_id: id.clone(),
        revision: (revision != 0 && revision != FOR_GOOD).then_some(revision.unsigned_abs()),
        deleted: match deleted {
            0 => None,
            FOR_GOOD => Some(DeletedUpTo::ForGood),
            up_to => Some(DeletedUpTo::Revision(up_to.unsigned_abs())),
        },
        content: content.map(|json| typed(id, "content", &json)).transpose()?,
        diarization: None,
        transcription: None,
        embedding: None,
        summary: None,
        title: None,
        tasks: BTreeMap::new(),
    };
    let query = sqlx::query("SELECT stage, body FROM results WHERE record_id = $1").bind(id.as_str());
    for row in query.fetch_all(&mut *reading).await.map_err(failed())? {
        let stage: String = row.try_get("stage").map_err(failed())?;
        view.take_result(&stage, &row.try_get::<String, _>("body").map_err(failed())?)?;
    }
    let query = sqlx::query("SELECT stage, revision, task_id, started_at FROM tasks WHERE record_id = $1");
    for row in query.bind(id.as_str()).fetch_all(&mut *reading).await.map_err(failed())? {
        let stage: String = row.try_get("stage").map_err(failed())?;
        let Some(stage) = Stage::from_name(&stage) else { continue };
        let task_id: String = row.try_get("task_id").map_err(failed())?;
        let revision: i64 = row.try_get("revision").map_err(failed())?;
        let unreadable = |what: &str| StoreError::Unreadable {
            what: stage.name(),
            record: id.as_str().to_owned(),
            reason: format!("the task's {what} is none"),
        };
        let task = StartedTask {
            revision: revision.unsigned_abs(),
            task_id: Uuid::from_str(&task_id).map_err(|_| unreadable("id"))?,
            started_at: Timestamp::from_millisecond(row.try_get("started_at").map_err(failed())?)
                .map_err(|_| unreadable("time"))?,
        };
        view.tasks.insert(stage, task);
    }
    Ok(Some(view))
}

impl RecordView {
    fn take_result(&mut self, stage: &str, body: &str) -> Result<(), StoreError> {
        let id = &self.record_id;
        match Stage::from_name(stage) {
            Some(Stage::Diarization) => self.diarization = Some(typed(id, "diarization", body)?),
            Some(Stage::Transcription) => self.transcription = Some(typed(id, "transcription", body)?),
            Some(Stage::Embedding) => self.embedding = Some(typed(id, "embedding", body)?),
            Some(Stage::Summary) => self.summary = Some(typed(id, "summary", body)?),
            Some(Stage::Title) => self.title = Some(typed(id, "title", body)?),
            // Of a newer version.
            None => {}
        }
        Ok(())
    }
}

fn typed<T: DeserializeOwned>(record: &RecordId, what: &'static str, json: &str) -> Result<T, StoreError> {
    serde_json::from_str(json).map_err(|error| StoreError::unreadable(what, record.as_str(), &error))
}
