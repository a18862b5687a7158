//! The messages of the five queues: what producers send, and what workers answer.
//!
//! | queue = exchange = routing key | tasks in | events out, to `jm.coreRecordEvent` |
//! |---|---|---|
//! | [`queue::LLM`] | [`Chat`], [`Summarize`], [`Title`] | [`Completed`] |
//! | [`queue::ASR`] | [`Transcribe`] | [`Transcribed`] |
//! | [`queue::SD`] | [`Diarize`] | [`Diarized`] |
//! | [`queue::EMBED`] | [`Embed`] | [`Embedded`] |
//! | [`queue::RECORD_EVENTS`] | [`RecordCreated`], [`RecordUpdated`], [`RecordDeleted`], and all of the events above | the next tasks |
//!
//! A body is JSON; the AMQP `type` property names it ([`jm_mq_core::Payload::TYPE`]). Fields evolve without breaking
//! anybody: unknown ones are ignored, new ones are optional, and an optional one that is `null` counts as missing. `schemas/` has a JSON Schema for each type, generated from
//! the types here, and `golden/` an example of each, so that producers in other languages can rely on both.
//!
//! Times within a recording are seconds from its beginning.

mod answer;
mod bounded;
mod catalog;
mod embedding;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod identity;
mod llm;
mod null;
mod record;
mod speech;

pub use answer::answer;
pub use catalog::{CATALOG, MessageType};
pub use embedding::{Embed, Embedded, Purpose, SplitText};
pub use identity::{Stage, answer_id, follow_up_id};
pub use llm::{Chat, ChatMessage, Completed, LlmTask, Role, Summarize, Title};
pub use record::{InvalidRecordId, RecordContent, RecordCreated, RecordDeleted, RecordId, RecordUpdated};
pub use speech::{AudioSource, Diarize, Diarized, SpeakerTurn, Transcribe, Transcribed, TranscriptSegment};

/// The queues' names, which are their exchanges' and routing keys' names too: the specification's list.
pub mod queue {
    /// Chat completions: summaries, titles, free chat.
    pub const LLM: &str = "jm.llm";
    /// Speech to text.
    pub const ASR: &str = "jm.asr";
    /// Speaker diarization: who spoke when.
    pub const SD: &str = "jm.sd";
    /// Text to vectors.
    pub const EMBED: &str = "jm.embed";
    /// Record events: what producers tell of records, and what the workers found out.
    pub const RECORD_EVENTS: &str = "jm.coreRecordEvent";
}
