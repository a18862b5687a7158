//! Message ids that are the same however often the same work is announced.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::record::RecordId;

/// A step of a record's pipeline, each with one task and one result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// `sd.diarize` to `sd.diarized`.
    Diarization,
    /// `asr.transcribe` to `asr.transcribed`.
    Transcription,
    /// `embed.text` to `embed.embedded`.
    Embedding,
    /// `llm.summarize` to `llm.completed`.
    Summary,
    /// `llm.title` to `llm.completed`.
    Title,
}

impl Stage {
    /// All of them, in the pipeline's order.
    pub const ALL: [Self; 5] = [Self::Diarization, Self::Transcription, Self::Embedding, Self::Summary, Self::Title];

    /// The name in ids, in the database and in metrics. Never changes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Diarization => "diarization",
            Self::Transcription => "transcription",
            Self::Embedding => "embedding",
            Self::Summary => "summary",
            Self::Title => "title",
        }
    }

    /// The stage of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Of our own; any constant would do, as long as it stays the same.
const NAMESPACE: Uuid = Uuid::from_u128(0x6a6d_6d71_0000_5000_8000_0000_0000_0001);

/// The id of the task that starts a stage: a UUID of version 5 of record, stage and revision, so that a repeat is the
/// same message.
pub fn follow_up_id(record: &RecordId, stage: Stage, revision: u64) -> Uuid {
    // The id comes last: it may contain anything.
    Uuid::new_v5(&NAMESPACE, format!("task/{stage}/{revision}/{record}").as_bytes())
}

/// The id of the event that answers a task: the same for each run of the same task. `None` for a task without an id,
/// whose answers cannot be told apart from each other.
pub fn answer_id(task_message_id: Option<&str>, answer_type: &str) -> Option<Uuid> {
    Some(Uuid::new_v5(&NAMESPACE, format!("answer/{answer_type}/{}", task_message_id?).as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_depend_on_record_stage_and_revision_and_on_nothing_else() {
        let record = RecordId::new("r-1").unwrap();
        let id = follow_up_id(&record, Stage::Summary, 3);
        // Written down: a change of this value would start everything in flight a second time.
        assert_eq!(id.to_string(), "232d5757-04f3-507e-8de6-2ceb71fedb4b");
        assert_ne!(id, follow_up_id(&record, Stage::Embedding, 3));
        assert_ne!(id, follow_up_id(&record, Stage::Summary, 4));
        assert_ne!(id, follow_up_id(&RecordId::new("r-2").unwrap(), Stage::Summary, 3));
        assert_eq!(answer_id(Some("m"), "t"), answer_id(Some("m"), "t"));
        assert_eq!(answer_id(None, "t"), None);
    }

    #[test]
    fn stages_are_found_by_their_names() {
        for stage in Stage::ALL {
            assert_eq!(Stage::from_name(stage.name()), Some(stage));
            assert_eq!(serde_json::to_value(stage).unwrap(), stage.name());
        }
    }
}
