//! What a message says, whichever of the seven types it is of.

use jm_mq_core::Payload;
use jm_tasks::{
    Completed, Diarized, Embedded, LlmTask, RecordContent, RecordCreated, RecordDeleted, RecordId, RecordUpdated,
    SpeakerTurn, Stage, Transcribed,
};
use serde::Serialize;

/// A record's revision: greater is newer.
///
/// 1 to 9223372036854775806: what both databases can hold, less the one that stands for "deleted for good", and less
/// the 0 of a record nothing is known of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(i64);

/// A revision that no record can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field `revision` is {0}; allowed: 1 to 9223372036854775806")]
pub struct WrongRevision(pub u64);

impl Revision {
    /// The number as the databases hold it.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<u64> for Revision {
    type Error = WrongRevision;

    fn try_from(revision: u64) -> Result<Self, WrongRevision> {
        match i64::try_from(revision) {
            Ok(number) if (1..i64::MAX).contains(&number) => Ok(Self(number)),
            Ok(_) | Err(_) => Err(WrongRevision(revision)),
        }
    }
}

/// Something that happened to a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Which record.
    pub record_id: RecordId,
    /// What happened.
    pub change: Change,
}

/// What happened to a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It was created or updated.
    Content {
        /// The revision it has since.
        revision: Revision,
        /// All of it.
        content: RecordContent,
    },
    /// It was deleted.
    Deletion {
        /// Up to this revision; `None` is for good.
        revision: Option<Revision>,
    },
    /// A worker answered.
    Finding {
        /// Which task it answered.
        stage: Stage,
        /// The revision it worked on.
        revision: Revision,
        /// What the next tasks need of it.
        finding: Finding,
        /// All of it, as JSON.
        body: String,
    },
}

/// What the next tasks need of a result.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// Who speaks when: for the transcription.
    Turns(Vec<SpeakerTurn>),
    /// What was said: for vectors, summary and title.
    Transcript(String),
    /// Nothing: the pipeline ends here.
    End,
}

/// What a message is to this worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrival {
    /// Something happened to a record.
    Event(Event),
    /// A result for somebody else: it names no record, or no revision of it.
    NoRecord,
    /// A result that belongs to a record, and is no part of it: free chat, or a task of a newer version.
    NotKept,
}

/// Why a message cannot be understood, though it could be read. It never will be.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Its revision is out of range.
    #[error(transparent)]
    Revision(#[from] WrongRevision),
    /// It cannot be written as JSON again. It came as JSON, so this does not happen.
    #[error("the event cannot be written as JSON")]
    Json(#[source] serde_json::Error),
}

/// The types of the queue. Their [`Payload::TYPE`] is the metrics' `type` label.
pub trait Announcement: Payload + Sized {
    /// What the message says.
    ///
    /// # Errors
    ///
    /// When a field is out of range.
    fn arrival(self) -> Result<Arrival, EventError>;
}

impl Announcement for RecordCreated {
    fn arrival(self) -> Result<Arrival, EventError> {
        content(self.record_id, self.revision, self.content)
    }
}

impl Announcement for RecordUpdated {
    fn arrival(self) -> Result<Arrival, EventError> {
        content(self.record_id, self.revision, self.content)
    }
}

impl Announcement for RecordDeleted {
    fn arrival(self) -> Result<Arrival, EventError> {
        let revision = self.revision.map(Revision::try_from).transpose()?;
        Ok(Arrival::Event(Event { record_id: self.record_id, change: Change::Deletion { revision } }))
    }
}

impl Announcement for Diarized {
    fn arrival(mut self) -> Result<Arrival, EventError> {
        let (record_id, revision) = (self.record_id.clone(), self.revision);
        let body = json(&self)?;
        let turns = std::mem::take(&mut self.turns);
        finding(Stage::Diarization, record_id, revision, Finding::Turns(turns), body)
    }
}

impl Announcement for Transcribed {
    fn arrival(self) -> Result<Arrival, EventError> {
        let body = json(&self)?;
        finding(Stage::Transcription, self.record_id, self.revision, Finding::Transcript(self.text), body)
    }
}

impl Announcement for Embedded {
    fn arrival(self) -> Result<Arrival, EventError> {
        let body = json(&self)?;
        finding(Stage::Embedding, self.record_id, self.revision, Finding::End, body)
    }
}

impl Announcement for Completed {
    fn arrival(self) -> Result<Arrival, EventError> {
        let stage = match self.task {
            LlmTask::Summarize => Stage::Summary,
            LlmTask::Title => Stage::Title,
            LlmTask::Chat | LlmTask::Other if self.record_id.is_none() => return Ok(Arrival::NoRecord),
            LlmTask::Chat | LlmTask::Other => return Ok(Arrival::NotKept),
        };
        let body = json(&self)?;
        finding(stage, self.record_id, self.revision, Finding::End, body)
    }
}

fn content(record_id: RecordId, revision: u64, content: RecordContent) -> Result<Arrival, EventError> {
    let revision = revision.try_into()?;
    Ok(Arrival::Event(Event { record_id, change: Change::Content { revision, content } }))
}

fn finding(
    stage: Stage,
    record_id: Option<RecordId>,
    revision: Option<u64>,
    finding: Finding,
    body: String,
) -> Result<Arrival, EventError> {
    let (Some(record_id), Some(revision)) = (record_id, revision) else { return Ok(Arrival::NoRecord) };
    let revision = revision.try_into()?;
    Ok(Arrival::Event(Event { record_id, change: Change::Finding { stage, revision, finding, body } }))
}

fn json<T: Serialize>(event: &T) -> Result<String, EventError> {
    serde_json::to_string(event).map_err(EventError::Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_what_both_databases_can_hold() {
        assert_eq!(Revision::try_from(1).unwrap().get(), 1);
        assert_eq!(Revision::try_from(9_223_372_036_854_775_806).unwrap().get(), i64::MAX - 1);
        for wrong in [0, 9_223_372_036_854_775_807, u64::MAX] {
            let error = Revision::try_from(wrong).unwrap_err();
            assert_eq!(error.to_string(), format!("field `revision` is {wrong}; allowed: 1 to 9223372036854775806"));
        }
    }

    #[test]
    fn results_without_a_record_or_a_revision_are_somebody_elses() {
        let completed = |json: &str| serde_json::from_str::<Completed>(json).unwrap().arrival().unwrap();
        assert_eq!(completed(r#"{"task":"summarize","text":"t"}"#), Arrival::NoRecord);
        assert_eq!(completed(r#"{"task":"title","text":"t","record_id":"r"}"#), Arrival::NoRecord);
        assert_eq!(completed(r#"{"task":"title","text":"t","revision":1}"#), Arrival::NoRecord);
        assert_eq!(completed(r#"{"task":"chat","text":"t"}"#), Arrival::NoRecord);
        assert_eq!(completed(r#"{"task":"chat","text":"t","record_id":"r","revision":1}"#), Arrival::NotKept);
        assert_eq!(completed(r#"{"task":"chat","text":"t","record_id":"r"}"#), Arrival::NotKept);
        assert_eq!(completed(r#"{"task":"translate","text":"t","record_id":"r","revision":1}"#), Arrival::NotKept);
        assert_eq!(completed(r#"{"task":"translate","text":"t"}"#), Arrival::NoRecord);
    }

    #[test]
    fn each_result_belongs_to_its_stage() {
        let stage = |arrival: Arrival| match arrival {
            Arrival::Event(Event { change: Change::Finding { stage, .. }, .. }) => stage,
            other => panic!("{other:?}"),
        };
        let summary = r#"{"task":"summarize","text":"t","record_id":"r","revision":1}"#;
        assert_eq!(stage(serde_json::from_str::<Completed>(summary).unwrap().arrival().unwrap()), Stage::Summary);
        let title = summary.replace("summarize", "title");
        assert_eq!(stage(serde_json::from_str::<Completed>(&title).unwrap().arrival().unwrap()), Stage::Title);
        let turns = r#"{"turns":[],"record_id":"r","revision":1}"#;
        assert_eq!(stage(serde_json::from_str::<Diarized>(turns).unwrap().arrival().unwrap()), Stage::Diarization);
        let text = r#"{"text":"","record_id":"r","revision":1}"#;
        assert_eq!(stage(serde_json::from_str::<Transcribed>(text).unwrap().arrival().unwrap()), Stage::Transcription);
        let vectors = r#"{"vectors":[],"record_id":"r","revision":1}"#;
        assert_eq!(stage(serde_json::from_str::<Embedded>(vectors).unwrap().arrival().unwrap()), Stage::Embedding);
    }
}
