//! Recordings: who spoke when (`jm.sd`), and what was said (`jm.asr`).

use jm_mq_core::Payload;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{bounded, null, record::RecordId};

/// Where a recording is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AudioSource {
    /// `https://…`, `s3://bucket/key`, or `file:///…` under the worker's configured folder.
    pub url: String,
}

/// Find out who speaks when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diarize {
    /// The record the recording belongs to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_id: Option<RecordId>,
    /// The record's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The recording.
    pub audio: AudioSource,
    /// How many people speak, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub speakers: Option<u32>,
}

/// A stretch of the recording in which one person speaks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SpeakerTurn {
    /// Where it begins, in seconds.
    #[schemars(range(min = 0))]
    pub start: f64,
    /// Where it ends, in seconds.
    #[schemars(range(min = 0))]
    pub end: f64,
    /// A name that is the same throughout this recording, and says nothing beyond it.
    pub speaker: String,
}

impl SpeakerTurn {
    /// The most turns of a recording: ten hours in which somebody else begins every two seconds.
    pub const MAX_TURNS: usize = 20_000;
}

/// Who speaks when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Diarized {
    /// The task's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_id: Option<RecordId>,
    /// The task's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The turns in order of their beginning; turns of different speakers may overlap.
    #[serde(deserialize_with = "bounded::list_or_null::<{ SpeakerTurn::MAX_TURNS }, _, _>")]
    #[schemars(length(max = SpeakerTurn::MAX_TURNS))]
    pub turns: Vec<SpeakerTurn>,
    /// Why there are no turns, where the recording is too long for the engine or what it found is noise. The recording
    /// can still be transcribed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many speakers were told apart.
    #[serde(default, deserialize_with = "null::as_default")]
    pub speakers: u32,
    /// The recording's length in seconds.
    #[serde(default, deserialize_with = "null::as_default")]
    pub duration: f64,
    /// What found it out.
    #[serde(default, deserialize_with = "null::as_default")]
    pub model: String,
}

/// Write down what is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Transcribe {
    /// The record the recording belongs to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_id: Option<RecordId>,
    /// The record's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The recording.
    pub audio: AudioSource,
    /// The language as a BCP 47 tag (`zh`, `en`). Default: found out from the recording.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Names and words that are likely to occur, for their spelling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Who speaks when, if it is known: each segment of the transcript then has its speaker.
    #[serde(
        default,
        deserialize_with = "bounded::list_or_null::<{ SpeakerTurn::MAX_TURNS }, _, _>",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(length(max = SpeakerTurn::MAX_TURNS))]
    pub turns: Vec<SpeakerTurn>,
}

/// A stretch of the transcript.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TranscriptSegment {
    /// Where it begins, in seconds from the beginning of the whole recording.
    #[schemars(range(min = 0))]
    pub start: f64,
    /// Where it ends, in seconds.
    #[schemars(range(min = 0))]
    pub end: f64,
    /// What is said.
    pub text: String,
    /// Who says it, where the task told who speaks when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker: Option<String>,
}

impl TranscriptSegment {
    /// The most segments of a transcript: seven a second for two hours.
    pub const MAX_SEGMENTS: usize = 50_000;
}

/// What was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Transcribed {
    /// The task's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_id: Option<RecordId>,
    /// The task's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// All of the text; empty if nobody speaks.
    pub text: String,
    /// The language that was found, as the engine names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The recording's length in seconds.
    #[serde(default, deserialize_with = "null::as_default")]
    pub duration: f64,
    /// The text in stretches, in order.
    #[serde(default, deserialize_with = "bounded::list_or_null::<{ TranscriptSegment::MAX_SEGMENTS }, _, _>")]
    #[schemars(length(max = TranscriptSegment::MAX_SEGMENTS))]
    pub segments: Vec<TranscriptSegment>,
    /// What transcribed it.
    #[serde(default, deserialize_with = "null::as_default")]
    pub model: String,
}

impl Payload for Diarize {
    const TYPE: &'static str = "sd.diarize";
}

impl Payload for Diarized {
    const TYPE: &'static str = "sd.diarized";
}

impl Payload for Transcribe {
    const TYPE: &'static str = "asr.transcribe";
}

impl Payload for Transcribed {
    const TYPE: &'static str = "asr.transcribed";
}
