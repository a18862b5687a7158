//! A copy of every message between the workers, to see when each stage began and ended.

use std::time::Instant;

use anyhow::Result;
use futures_util::StreamExt as _;
use jm_mq_core::Payload;
use jm_tasks::{Diarize, Diarized, Embed, Embedded, RecordId, Stage, Summarize, Title, Transcribe, Transcribed, queue};
use lapin::{
    Channel, Consumer,
    options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use serde::Deserialize;

/// The exchanges, each with its queue's name, which is the routing key as well.
const EXCHANGES: [&str; 5] = [queue::RECORD_EVENTS, queue::SD, queue::ASR, queue::EMBED, queue::LLM];

/// A queue of its own, bound beside the workers' to all exchanges. It goes with the connection.
pub struct Tap {
    messages: Consumer,
}

/// A stage of a record has begun or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whose.
    pub record: RecordId,
    /// Which.
    pub stage: Stage,
    /// Whether it is the task, or the answer to it.
    pub mark: Mark,
    /// When the message arrived here.
    pub at: Instant,
}

/// Which end of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Its task was published.
    Task,
    /// Its result was.
    Result,
}

/// What is read of any body. Others' types may have other fields.
#[derive(Deserialize)]
struct Body {
    record_id: Option<RecordId>,
    task: Option<String>,
}

impl Tap {
    pub(crate) async fn open(channel: &Channel) -> Result<Self> {
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?;
        for exchange in EXCHANGES {
            let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
            channel.queue_bind(queue.name().clone(), exchange.into(), exchange.into(), options, arguments).await?;
        }
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let messages = channel.basic_consume(queue.name().clone(), "".into(), options, FieldTable::default()).await?;
        Ok(Self { messages })
    }

    /// The next message that begins or ends a stage; `None` when the connection is gone. Cancellation safe.
    pub async fn next(&mut self) -> Option<Seen> {
        loop {
            let delivery = self.messages.next().await?.ok()?;
            let kind = delivery.properties.kind().as_ref().map(ToString::to_string).unwrap_or_default();
            if let Some(seen) = seen(&kind, &delivery.data) {
                return Some(seen);
            }
        }
    }
}

/// The stage that a message of this type begins or ends.
fn seen(kind: &str, body: &[u8]) -> Option<Seen> {
    let body: Body = serde_json::from_slice(body).ok()?;
    let (stage, mark) = stage_of(kind, body.task.as_deref())?;
    Some(Seen { record: body.record_id?, stage, mark, at: Instant::now() })
}

/// `task` is the field of that name in an answer of the language model.
pub(crate) fn stage_of(kind: &str, task: Option<&str>) -> Option<(Stage, Mark)> {
    let task_of = |stage| Some((stage, Mark::Task));
    let result_of = |stage| Some((stage, Mark::Result));
    match kind {
        Diarize::TYPE => task_of(Stage::Diarization),
        Transcribe::TYPE => task_of(Stage::Transcription),
        Embed::TYPE => task_of(Stage::Embedding),
        Summarize::TYPE => task_of(Stage::Summary),
        Title::TYPE => task_of(Stage::Title),
        Diarized::TYPE => result_of(Stage::Diarization),
        Transcribed::TYPE => result_of(Stage::Transcription),
        Embedded::TYPE => result_of(Stage::Embedding),
        jm_tasks::Completed::TYPE if task == Some("summarize") => result_of(Stage::Summary),
        jm_tasks::Completed::TYPE if task == Some("title") => result_of(Stage::Title),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_begin_stages_and_answers_end_them() {
        let of = |kind: &str, body: &str| {
            let seen = seen(kind, body.as_bytes())?;
            Some((seen.record.to_string(), seen.stage, seen.mark))
        };
        let r = || "r".to_owned();
        assert_eq!(of("sd.diarize", r#"{"record_id":"r"}"#), Some((r(), Stage::Diarization, Mark::Task)));
        assert_eq!(of("asr.transcribed", r#"{"record_id":"r"}"#), Some((r(), Stage::Transcription, Mark::Result)));
        let summary = r#"{"record_id":"r","task":"summarize"}"#;
        assert_eq!(of("llm.completed", summary), Some((r(), Stage::Summary, Mark::Result)));
        for (kind, body) in [
            ("record.created", r#"{"record_id":"r"}"#),
            ("llm.completed", r#"{"record_id":"r","task":"chat"}"#),
            ("embed.embedded", r#"{"vectors":[]}"#),
            ("embed.embedded", "no JSON"),
        ] {
            assert_eq!(of(kind, body), None, "{kind} {body}");
        }
    }
}
