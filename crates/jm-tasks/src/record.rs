//! Records: the notes of the product, and what happens to them.

use std::fmt;

use jm_mq_core::Payload;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{null, speech::AudioSource};

/// A record's id, as the product's services name it.
///
/// 1 to 200 bytes without control characters: it becomes the messages' correlation id, a database key, and part of log
/// lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct RecordId(#[schemars(length(min = 1, max = 200), regex(pattern = r"^[^\p{Cc}]*$"))] String);

/// Why a text is no record id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record's id has 1 to 200 bytes and no control characters")]
pub struct InvalidRecordId;

impl RecordId {
    /// AMQP's limit for a correlation id is 255 bytes; this leaves room for a prefix.
    pub const MAX_BYTES: usize = 200;

    /// Checks and takes an id.
    ///
    /// # Errors
    ///
    /// When it is empty, too long, or has control characters.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidRecordId> {
        let id = id.into();
        let right = (1..=Self::MAX_BYTES).contains(&id.len()) && !id.chars().any(char::is_control);
        if right { Ok(Self(id)) } else { Err(InvalidRecordId) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RecordId {
    type Error = InvalidRecordId;

    fn try_from(id: String) -> Result<Self, InvalidRecordId> {
        Self::new(id)
    }
}

impl From<RecordId> for String {
    fn from(id: RecordId) -> Self {
        id.0
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a record consists of. Always the whole of it: an update replaces what was there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RecordContent {
    /// The title, if its author gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The text of a text note.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The recording of a voice note.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<AudioSource>,
    /// The language as a BCP 47 tag (`zh`, `en`), where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// How many people speak in the recording, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub speakers: Option<u32>,
}

/// A record exists now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordCreated {
    /// Which record.
    pub record_id: RecordId,
    /// Grows with each change of the record: a number, or a time in milliseconds. Default 1. Of two events the one
    /// with the greater revision is the newer one, in whatever order they arrive.
    #[serde(default = "first_revision", deserialize_with = "null::as_first_revision")]
    #[schemars(range(min = 1))]
    pub revision: u64,
    /// The record as it is at this revision. Required, though it may be `{}`: without it, fields that were sent beside
    /// it instead of in it would be lost without a word.
    pub content: RecordContent,
}

fn first_revision() -> u64 {
    null::FIRST_REVISION
}

/// A record was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordUpdated {
    /// Which record.
    pub record_id: RecordId,
    /// See [`RecordCreated::revision`]; greater than before.
    #[schemars(range(min = 1))]
    pub revision: u64,
    /// The record as it is at this revision: all of it, not what changed. Required, see
    /// [`RecordCreated::content`].
    pub content: RecordContent,
}

/// A record was deleted: its content and all results are erased, and what still arrives for it is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordDeleted {
    /// Which record.
    pub record_id: RecordId,
    /// What was deleted: everything up to this revision, so that an update with a greater one brings the record back.
    /// Default: the record is deleted for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub revision: Option<u64>,
}

impl Payload for RecordCreated {
    const TYPE: &'static str = "record.created";
}

impl Payload for RecordUpdated {
    const TYPE: &'static str = "record.updated";
}

impl Payload for RecordDeleted {
    const TYPE: &'static str = "record.deleted";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_a_length_and_no_control_characters() {
        assert_eq!(RecordId::new("笔记-7").unwrap().as_str(), "笔记-7");
        for wrong in [String::new(), "x".repeat(201), "a\nb".into(), "a\u{0}".into()] {
            assert_eq!(RecordId::new(wrong), Err(InvalidRecordId));
        }
    }

    #[test]
    fn missing_fields_have_defaults_or_are_named() {
        let created: RecordCreated = serde_json::from_str(r#"{"record_id":"r","content":{},"unknown":1}"#).unwrap();
        assert_eq!((created.revision, created.content), (1, RecordContent::default()));
        let error = serde_json::from_str::<RecordUpdated>(r#"{"record_id":"r","content":{}}"#).unwrap_err();
        assert!(error.to_string().contains("missing field `revision`"), "{error}");
        assert_eq!(serde_json::from_str::<RecordDeleted>(r#"{"record_id":"r"}"#).unwrap().revision, None);
    }

    #[test]
    fn fields_beside_the_content_instead_of_in_it_do_not_make_an_empty_record() {
        let flat = r#"{"record_id":"r","revision":2,"title":"mine","text":"all of it"}"#;
        let created = serde_json::from_str::<RecordCreated>(flat).unwrap_err();
        let updated = serde_json::from_str::<RecordUpdated>(flat).unwrap_err();
        for error in [created, updated] {
            assert!(error.to_string().contains("missing field `content`"), "{error}");
        }
        let null = r#"{"record_id":"r","revision":2,"content":null}"#;
        assert!(serde_json::from_str::<RecordCreated>(null).is_err());
        assert!(serde_json::from_str::<RecordUpdated>(null).is_err());
    }
}
