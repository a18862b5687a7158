//! Language models: summaries, titles, free chat (`jm.llm`).

use jm_mq_core::Payload;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{bounded, null, record::RecordId};

/// Answer a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Chat {
    /// The record it is about, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_id: Option<RecordId>,
    /// The record's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The conversation so far, the oldest message first; at least one.
    #[serde(deserialize_with = "bounded::list::<{ Chat::MAX_MESSAGES }, _, _>")]
    #[schemars(length(min = 1, max = Chat::MAX_MESSAGES))]
    pub messages: Vec<ChatMessage>,
    /// The longest answer in tokens. Default: the worker's `engine.max_output_tokens`, which is also the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_tokens: Option<u32>,
    /// From 0 (always the likeliest word) to 2. Default: the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2))]
    pub temperature: Option<f32>,
}

impl Chat {
    /// The most messages of a conversation.
    pub const MAX_MESSAGES: usize = 1000;
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChatMessage {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// Who says something in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// What the model is to be.
    System,
    /// Who asks.
    User,
    /// The model.
    Assistant,
}

/// Summarise a text in its own language. A text longer than the model can read is summarised in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summarize {
    /// The record the text belongs to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_id: Option<RecordId>,
    /// The record's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The text.
    pub text: String,
    /// The summary's language as a BCP 47 tag (`zh`, `en`). Default: the text's own, found out from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
}

/// Find a title for a text, in its own language. Of a long text the beginning is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Title {
    /// The record the text belongs to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_id: Option<RecordId>,
    /// The record's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The text.
    pub text: String,
    /// The title's language as a BCP 47 tag (`zh`, `en`). Default: the text's own, found out from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
}

/// Which of the tasks was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LlmTask {
    /// [`Chat`].
    Chat,
    /// [`Summarize`].
    Summarize,
    /// [`Title`].
    Title,
    /// One that this version does not know, of a newer worker: while workers are replaced one after the other, both
    /// kinds run. Nothing to send.
    #[serde(other)]
    #[schemars(skip)]
    Other,
}

/// What the model wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Completed {
    /// The task's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_id: Option<RecordId>,
    /// The task's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// What it was asked for.
    pub task: LlmTask,
    /// The answer, summary or title.
    pub text: String,
    /// The language that was asked for, as a BCP 47 tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The language the text is in, where that is certainly another one: the model was asked for it twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_in: Option<String>,
    /// Whether it is not the whole answer, or not of the whole text: a limit of tokens cut it off.
    #[serde(default, deserialize_with = "null::as_default")]
    pub truncated: bool,
    /// What wrote it.
    #[serde(default, deserialize_with = "null::as_default")]
    pub model: String,
    /// Tokens read, over all calls for this task, where the engine tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
    /// Tokens written, over all calls for this task, where the engine tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_tokens: Option<u64>,
}

impl Payload for Chat {
    const TYPE: &'static str = "llm.chat";
}

impl Payload for Summarize {
    const TYPE: &'static str = "llm.summarize";
}

impl Payload for Title {
    const TYPE: &'static str = "llm.title";
}

impl Payload for Completed {
    const TYPE: &'static str = "llm.completed";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_task_of_a_newer_version_is_read() {
        let completed: Completed = serde_json::from_str(r#"{"task":"translate","text":"t"}"#).unwrap();
        assert_eq!((completed.task, completed.text.as_str()), (LlmTask::Other, "t"));
    }
}
