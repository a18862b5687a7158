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
use tokio::sync::mpsc::{self, Receiver, Sender};

/// The exchanges, each with its queue's name, which is the routing key as well.
const EXCHANGES: [&str; 5] = [queue::RECORD_EVENTS, queue::SD, queue::ASR, queue::EMBED, queue::LLM];

/// Stages' ends that wait to be taken: far more than a look at the notes lets pass.
const CAPACITY: usize = 1024;

/// A queue of its own, bound beside the workers' to all exchanges. It goes with the connection.
///
/// A task of its own reads it, so that each message has the time of its arrival, whatever its taker is at meanwhile.
pub struct Tap {
    seen: Receiver<Seen>,
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
        let (sender, seen) = mpsc::channel(CAPACITY);
        tokio::spawn(read(messages, sender));
        Ok(Self { seen })
    }

    /// The next message that begins or ends a stage; `None` when the connection is gone. Cancellation safe.
    pub async fn next(&mut self) -> Option<Seen> {
        self.seen.recv().await
    }
}

/// Until the connection is gone, or the tap.
async fn read(mut messages: Consumer, to: Sender<Seen>) {
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            () = to.closed() => return,
        };
        let Some(Ok(delivery)) = message else { return };
        let at = Instant::now();
        let kind = delivery.properties.kind().as_ref().map(ToString::to_string).unwrap_or_default();
        if let Some(seen) = seen(&kind, &delivery.data, at)
            && to.send(seen).await.is_err()
        {
            return;
        }
    }
}

/// The stage that a message of this type begins or ends.
fn seen(kind: &str, body: &[u8], at: Instant) -> Option<Seen> {
    let body: Body = serde_json::from_slice(body).ok()?;
    let (stage, mark) = stage_of(kind, body.task.as_deref())?;
    Some(Seen { record: body.record_id?, stage, mark, at })
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
    use std::time::Duration;

    use jm_testkit::RabbitNode;
    use lapin::{
        BasicProperties, Connection, ConnectionProperties, ExchangeKind,
        options::{BasicPublishOptions, ConfirmSelectOptions},
    };

    use super::*;

    #[test]
    fn tasks_begin_stages_and_answers_end_them() {
        let of = |kind: &str, body: &str| {
            let seen = seen(kind, body.as_bytes(), Instant::now())?;
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

    #[tokio::test(flavor = "multi_thread")]
    async fn a_message_has_the_time_of_its_arrival_and_not_of_its_reading() {
        const APART: Duration = Duration::from_millis(300);
        let vhost = RabbitNode::shared().await.unwrap().vhost().await.unwrap();
        for exchange in EXCHANGES {
            vhost.declare_queue(exchange).await.unwrap();
            vhost.declare_exchange(exchange, ExchangeKind::Direct).await.unwrap();
        }
        vhost.bind(queue::EMBED, queue::EMBED, queue::EMBED).await.unwrap();
        let connection = Connection::connect(&vhost.uri(), ConnectionProperties::default()).await.unwrap();
        let mut tap = Tap::open(&connection.create_channel().await.unwrap()).await.unwrap();
        let publisher = connection.create_channel().await.unwrap();
        publisher.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        for kind in [Embed::TYPE, Embedded::TYPE] {
            let properties = BasicProperties::default().with_type(kind.into());
            let (exchange, options) = (queue::EMBED.into(), BasicPublishOptions::default());
            let body = br#"{"record_id":"r"}"#;
            let published = publisher.basic_publish(exchange, queue::EMBED.into(), options, body, properties);
            published.await.unwrap().await.unwrap();
            tokio::time::sleep(APART).await;
        }
        let (task, result) = (tap.next().await.unwrap(), tap.next().await.unwrap());
        assert_eq!((task.mark, result.mark), (Mark::Task, Mark::Result));
        assert!(result.at - task.at > APART / 2, "{:?}", result.at - task.at);
        assert!(result.at.elapsed() > APART / 2, "{:?}", result.at.elapsed());

        connection.close(200, "done".into()).await.unwrap();
        assert_eq!(tap.next().await, None);
    }
}
