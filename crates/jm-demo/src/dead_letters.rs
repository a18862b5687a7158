//! What the workers could not handle, and why: read from the dead-letter queues, and left there.

use anyhow::{Context as _, Result};
use jm_report::plain;
use jm_tasks::{RecordId, Stage};
use lapin::{
    Channel, Connection,
    message::Delivery,
    options::{BasicGetOptions, BasicNackOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde::Deserialize;

use crate::{tap::stage_of, workers::Kind};

/// Dead letters that are looked at in one queue, the oldest first, as the broker gives them out: those of years, with a
/// demo's few notes a day. There is no other way to the latest.
const MAX_LOOKED_AT: u32 = 20_000;

/// Error texts can be documents; a report has a line or two for one.
const MAX_REASON_CHARS: usize = 400;

/// A message in a dead-letter queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Whose it was, if it was a record's.
    pub record: Option<RecordId>,
    /// The stage that it was to begin or end; `None` for the record's own events.
    pub stage: Option<Stage>,
    /// The worker that gave it up.
    pub worker: Kind,
    /// The kind of failure, such as `permanent`.
    pub kind: String,
    /// The error's text, in one line.
    pub reason: String,
}

impl DeadLetter {
    /// Whether the language model refused the text's language.
    pub fn is_of_the_language(&self) -> bool {
        self.stage == Some(Stage::Summary) && self.kind == "permanent" && self.reason.contains("does not write")
    }
}

/// The five dead-letter queues, each read when the number of its messages has changed.
pub struct DeadLetters<'a> {
    connection: &'a Connection,
    channel: Option<Channel>,
    counts: [u32; 5],
    most: u32,
    has_warned: bool,
}

impl<'a> DeadLetters<'a> {
    pub(crate) fn new(connection: &'a Connection) -> Self {
        Self { connection, channel: None, counts: [0; 5], most: MAX_LOOKED_AT, has_warned: false }
    }

    /// The messages of all queues in which something has changed since the last look. `told` hears, once, that there are
    /// more than it looks at.
    ///
    /// # Errors
    ///
    /// When the broker does not answer.
    pub async fn look(&mut self, mut told: impl FnMut(&str)) -> Result<Vec<DeadLetter>> {
        let mut found = Vec::new();
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            let queue = format!("{}.dead", kind.queue());
            let count = self.count(&queue).await.with_context(|| format!("could not look into {queue}"))?;
            if count > self.most && !self.has_warned {
                self.has_warned = true;
                let most = self.most;
                told(&format!(
                    "{queue} keeps {count} messages: a new one is not seen behind the first {most}; purge it"
                ));
            }
            if count != self.counts[index] {
                self.counts[index] = count;
                found.extend(self.read(&queue, kind).await.with_context(|| format!("could not look into {queue}"))?);
            }
        }
        Ok(found)
    }

    async fn channel(&mut self) -> Result<Channel> {
        if let Some(channel) = self.channel.as_ref().filter(|channel| channel.status().connected()) {
            return Ok(channel.clone());
        }
        let channel = self.connection.create_channel().await?;
        self.channel = Some(channel.clone());
        Ok(channel)
    }

    async fn count(&mut self, queue: &str) -> Result<u32> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = self.channel().await?.queue_declare(queue.into(), options, FieldTable::default()).await?;
        Ok(declared.message_count())
    }

    /// Takes the messages and gives them back, all at the end: one that is given back is the next to come again.
    async fn read(&mut self, queue: &str, worker: Kind) -> Result<Vec<DeadLetter>> {
        let channel = self.channel().await?;
        let (mut letters, mut last) = (Vec::new(), None);
        for _ in 0..self.most {
            let Some(message) = channel.basic_get(queue.into(), BasicGetOptions::default()).await? else { break };
            letters.push(letter(&message.delivery, worker));
            last = Some(message.delivery);
        }
        if let Some(last) = last {
            last.acker.nack(BasicNackOptions { multiple: true, requeue: true }).await?;
        }
        Ok(letters)
    }
}

/// What is read of any body.
#[derive(Deserialize)]
struct Body {
    record_id: Option<RecordId>,
    task: Option<String>,
}

fn letter(delivery: &Delivery, worker: Kind) -> DeadLetter {
    let properties = &delivery.properties;
    let header = |name: &str| {
        let value = properties.headers().as_ref().and_then(|headers| headers.inner().get(name));
        match value {
            Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
            _ => String::new(),
        }
    };
    let body: Option<Body> = serde_json::from_slice(&delivery.data).ok();
    let kind = properties.kind().as_ref().map(ToString::to_string).unwrap_or_default();
    let task = body.as_ref().and_then(|body| body.task.as_deref());
    // A body that is none still has the id that producers and workers put beside it.
    let beside = || RecordId::new(properties.correlation_id().as_ref()?.to_string()).ok();
    DeadLetter {
        stage: stage_of(&kind, task).map(|(stage, _)| stage),
        record: body.and_then(|body| body.record_id).or_else(beside),
        worker,
        kind: header("jm-error-kind"),
        reason: plain(&header("x-exception-message")).chars().take(MAX_REASON_CHARS).collect(),
    }
}

#[cfg(test)]
mod tests;
