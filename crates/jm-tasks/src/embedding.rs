//! Texts as vectors, for search by meaning (`jm.embed`).

use jm_mq_core::Payload;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{bounded, null, record::RecordId};

/// Turn texts into vectors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Embed {
    /// The record the texts belong to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_id: Option<RecordId>,
    /// The record's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The texts, none of them empty. If one cannot be embedded the whole task fails, and says which.
    #[serde(deserialize_with = "bounded::list::<{ Embed::MAX_TEXTS }, _, _>")]
    #[schemars(length(min = 1, max = Embed::MAX_TEXTS))]
    pub texts: Vec<String>,
    /// What the vectors are for; some models tell the two apart. Default `passage`.
    #[serde(default, deserialize_with = "null::as_default")]
    pub purpose: Purpose,
}

impl Embed {
    /// The most texts of one task: as many as OpenAI's server takes in one call.
    pub const MAX_TEXTS: usize = 2048;
}

/// What a vector is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// To be found.
    #[default]
    Passage,
    /// To find with.
    Query,
}

/// The texts' vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Embedded {
    /// The task's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_id: Option<RecordId>,
    /// The task's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// One vector for each text, in the texts' order, all of the same length.
    #[serde(deserialize_with = "bounded::lists::<{ Embed::MAX_TEXTS }, { Embedded::MAX_DIMENSIONS }, _, _>")]
    #[schemars(length(max = Embed::MAX_TEXTS), inner(length(max = Embedded::MAX_DIMENSIONS)))]
    pub vectors: Vec<Vec<f32>>,
    /// The vectors' length.
    #[serde(default, deserialize_with = "null::as_default")]
    pub dimensions: u32,
    /// What made them: vectors of different models cannot be compared.
    #[serde(default, deserialize_with = "null::as_default")]
    pub model: String,
    /// The texts that were longer than the model reads: each was embedded in pieces, and its vector is their mean.
    #[serde(
        default,
        deserialize_with = "bounded::list_or_null::<{ Embed::MAX_TEXTS }, _, _>",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(length(max = Embed::MAX_TEXTS))]
    pub split: Vec<SplitText>,
}

/// A text that was embedded in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SplitText {
    /// Its place among the task's texts, from 0.
    pub index: u32,
    /// The number of its pieces.
    pub pieces: u32,
}

impl Embedded {
    /// The longest vector: four times as long as those of the largest models.
    pub const MAX_DIMENSIONS: usize = 16_384;
}

impl Payload for Embed {
    const TYPE: &'static str = "embed.text";
}

impl Payload for Embedded {
    const TYPE: &'static str = "embed.embedded";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_that_nobody_knows_is_an_error_since_its_vectors_would_be_wrong_ones() {
        let error = serde_json::from_str::<Embed>(r#"{"texts":["t"],"purpose":"clustering"}"#).unwrap_err();
        assert!(error.to_string().contains("unknown variant"), "{error}");
    }
}
