//! The queue that is consumed, as its broker has it: its type, and what follows from that.

use std::{collections::BTreeMap, time::Duration};

use lapin::{
    Channel, ErrorKind,
    options::{BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable, ShortString},
};

use crate::error::ConnectError;

/// A queue, its type, and its broker's version.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    name: ShortString,
    kind: QueueType,
    /// Major and minor; zeros where the broker does not say.
    version: (u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueueType {
    Classic,
    Quorum,
    Stream,
    /// The broker did not say.
    Unknown,
}

/// From here on a quorum queue does not count `basic.nack` as a lost consumer, and takes a consumer's own timeout.
const NACKS_FREE_SINCE: (u32, u32) = (4, 3);

/// An argument of `basic.consume` that only streams take, and never with this value: every queue type refuses it, each
/// with other words. A passive declare tells no type, and needs other permissions.
const STREAMS_ONLY: &str = "x-stream-offset";
const NO_OFFSET: &str = "0s";

impl Queue {
    /// Asks the broker, which closes the channel for the question.
    ///
    /// # Errors
    ///
    /// When the connection is lost, or the queue is a stream.
    pub(super) async fn examine(
        channel: &Channel,
        name: ShortString,
        server: &BTreeMap<String, String>,
    ) -> Result<Self, ConnectError> {
        let version = server.get("version").map_or((0, 0), |version| version_of(version));
        let queue = Self { kind: ask(channel, &name).await?, name, version };
        tracing::debug!(queue = queue.name(), kind = ?queue.kind, ?version, "the queue's type");
        if queue.kind == QueueType::Stream {
            return Err(ConnectError::Declaration {
                what: format!("queue `{}` as a work queue", queue.name),
                reason: "it is a stream, which keeps its messages after they are acked and returns none".into(),
                remedy: "consume a classic or quorum queue; to feed one from the stream, bind both to the same exchange",
            });
        }
        Ok(queue)
    }

    /// One of which nothing is known.
    #[cfg(test)]
    pub(super) fn unknown(name: &str) -> Self {
        Self { name: name.into(), kind: QueueType::Unknown, version: (0, 0) }
    }

    /// The broker's name for it.
    pub(crate) fn name(&self) -> &str {
        self.name.as_str()
    }

    pub(super) fn short_name(&self) -> ShortString {
        self.name.clone()
    }

    /// Whether a redelivery's `x-delivery-count` is the broker's.
    pub(crate) fn counts_crashes(&self) -> bool {
        self.kind != QueueType::Classic
    }

    /// Whether that count also grows by `basic.nack`.
    pub(crate) fn counts_nacks(&self) -> bool {
        self.kind == QueueType::Quorum && self.version < NACKS_FREE_SINCE
    }

    /// Whether the broker takes a consumer's own timeout, and cancels it for that alone.
    pub(super) fn announces_timeout(&self) -> bool {
        self.kind == QueueType::Quorum && self.version >= NACKS_FREE_SINCE
    }

    /// The arguments for a consumer whose deliveries are settled within `timeout`, where the broker takes that.
    pub(super) fn consume_arguments(&self, timeout: Duration) -> FieldTable {
        let mut arguments = FieldTable::default();
        if self.announces_timeout() {
            let milliseconds = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
            arguments.insert("x-consumer-timeout".into(), AMQPValue::LongLongInt(milliseconds));
        }
        arguments
    }
}

/// Registers a consumer that every queue type refuses.
async fn ask(channel: &Channel, name: &ShortString) -> Result<QueueType, ConnectError> {
    let lost = |error: lapin::Error| ConnectError::Lost(error.to_string());
    // A broker that takes it all the same sends one message at most before it has it back.
    channel.basic_qos(1, BasicQosOptions { global: false }).await.map_err(lost)?;
    let mut arguments = FieldTable::default();
    arguments.insert(STREAMS_ONLY.into(), AMQPValue::LongString(NO_OFFSET.into()));
    let asked =
        channel.basic_consume(name.clone(), ShortString::default(), BasicConsumeOptions::default(), arguments).await;
    let Err(error) = asked else {
        channel.close(200, "OK".into()).await.map_err(lost)?;
        return Ok(QueueType::Unknown);
    };
    match error.kind() {
        // Whatever else it refuses, it refuses the real consumer too, which reports it.
        ErrorKind::ProtocolError(reply) => Ok(type_in(reply.get_message().as_str())),
        _ => Err(lost(error)),
    }
}

/// Classic and quorum queues are named in `… of queue type rabbit_quorum_queue`; a stream takes the argument, and refuses its
/// value. AMQP cuts the text after 255 bytes: with very long names nothing is known.
fn type_in(refusal: &str) -> QueueType {
    let is_whole = refusal.len() < MAX_REPLY_TEXT - 3;
    match refusal.rsplit_once(" of queue type ").map(|(_, kind)| kind) {
        Some("rabbit_classic_queue") => QueueType::Classic,
        Some("rabbit_quorum_queue") => QueueType::Quorum,
        _ if is_whole && refusal.contains(NO_STREAM_OFFSET) => QueueType::Stream,
        _ => QueueType::Unknown,
    }
}

/// In what a stream says of it.
const NO_STREAM_OFFSET: &str = "invalid_stream_offset_arg";

/// AMQP's limit for the text of a refusal, in bytes.
const MAX_REPLY_TEXT: usize = 255;

fn version_of(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(kind: QueueType, version: &str) -> Queue {
        Queue { name: "q".into(), kind, version: version_of(version) }
    }

    #[test]
    fn nacks_count_as_crashes_on_quorum_queues_before_4_3_alone() {
        for (kind, version, counts) in [
            (QueueType::Quorum, "3.10.8", true),
            (QueueType::Quorum, "4.2.11", true),
            (QueueType::Quorum, "4.3.0", false),
            (QueueType::Quorum, "4.10.1", false),
            (QueueType::Quorum, "5.0.0-rc.1", false),
            (QueueType::Classic, "3.10.8", false),
            (QueueType::Unknown, "3.10.8", false),
        ] {
            assert_eq!(queue(kind, version).counts_nacks(), counts, "{kind:?} {version}");
        }
    }

    #[test]
    fn a_timeout_is_announced_where_it_is_understood_and_nowhere_else() {
        let announced = |kind, version| {
            let arguments = queue(kind, version).consume_arguments(Duration::from_mins(30));
            arguments.inner().get("x-consumer-timeout").cloned()
        };
        assert_eq!(announced(QueueType::Quorum, "4.3.6"), Some(AMQPValue::LongLongInt(1_800_000)));
        for (kind, version) in
            [(QueueType::Quorum, "4.2.6"), (QueueType::Classic, "4.3.6"), (QueueType::Unknown, "4.3.6")]
        {
            assert_eq!(announced(kind, version), None, "{kind:?} {version}");
        }
    }

    #[test]
    fn the_type_is_read_from_the_brokers_words_whatever_the_queue_is_called() {
        let key = |name: &str, kind: &str| {
            format!(
                "PRECONDITION_FAILED - invalid arg 'x-stream-offset' for queue '{name}' in vhost '/' of queue type {kind}"
            )
        };
        let value = |name: &str| {
            format!(
                "PRECONDITION_FAILED - invalid arg 'x-stream-offset' for queue '{name}' in vhost '/': {{invalid_stream_offset_arg,{{longstr,<<\"none\">>}}}}"
            )
        };
        assert_eq!(type_in(&key("jm.llm", "rabbit_classic_queue")), QueueType::Classic);
        assert_eq!(type_in(&key("jm.llm", "rabbit_quorum_queue")), QueueType::Quorum);
        assert_eq!(type_in(&key("jm.llm", "rabbit_mqtt_qos0_queue")), QueueType::Unknown);
        assert_eq!(type_in(&value("jm.llm")), QueueType::Stream);
        assert_eq!(type_in(&value("a of queue type rabbit_classic_queue")), QueueType::Stream);
        assert_eq!(type_in(&value(&"q".repeat(250))[..255]), QueueType::Unknown);
        assert_eq!(type_in(&key(&"q".repeat(250), "rabbit_classic_queue")[..255]), QueueType::Unknown);
        assert_eq!(type_in("NOT_FOUND - no queue 'q' in vhost '/'"), QueueType::Unknown);
    }
}
