//! Questions to the broker over AMQP. Each has a channel of its own, since the broker answers "no" by closing it.

use jm_mq_core::{ConnectError, Connection};
use lapin::{
    Channel, ErrorKind,
    options::QueueDeclareOptions,
    types::{FieldTable, ShortString},
};

use crate::failure::Failure;

/// The broker's "no": a reply code, and its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) text: String,
}

/// The broker's "no" as reply codes have it.
pub(crate) const ACCESS_REFUSED: u16 = 403;
pub(crate) const NOT_FOUND: u16 = 404;
pub(crate) const RESOURCE_LOCKED: u16 = 405;
pub(crate) const PRECONDITION_FAILED: u16 = 406;

/// What a passive declare tells of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// There is no such queue.
    Absent,
    /// Messages that wait, and consumers.
    Of { ready: u32, consumers: u32 },
    /// It is there, and the broker tells no more.
    Refused(Refusal),
}

/// Asks on a fresh channel, which is closed behind the answer. `Err` is a lost or silent connection.
pub(crate) async fn ask<T>(
    connection: &Connection,
    doing: &'static str,
    question: impl AsyncFnOnce(&Channel) -> lapin::Result<T>,
) -> Result<Result<T, Refusal>, ConnectError> {
    let channel = connection.channel().await?;
    match connection.within(doing, question(&channel)).await? {
        Ok(answer) => {
            // Its answer makes sure that all that was asked before is done. A channel closed already is as good.
            let _ = connection.within("closing a channel", channel.close(200, "OK".into())).await?;
            Ok(Ok(answer))
        }
        Err(error) => refusal(&error).map(Err),
    }
}

/// The broker's refusal in an error, or else a lost connection.
pub(crate) fn refusal(error: &lapin::Error) -> Result<Refusal, ConnectError> {
    match error.kind() {
        ErrorKind::ProtocolError(reply) if matches!(reply.kind().get_id(), 311..=406 | 530) => {
            Ok(Refusal { code: reply.kind().get_id(), text: reply.get_message().to_string() })
        }
        _ => Err(ConnectError::Lost(error.to_string())),
    }
}

/// Counts a queue's messages and consumers.
pub(crate) async fn count(connection: &Connection, queue: &str) -> Result<Count, Failure> {
    let name = short(queue)?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = ask(connection, "counting a queue's messages", async |channel| {
        channel.queue_declare(name, passive, FieldTable::default()).await
    });
    Ok(match asked.await? {
        Ok(queue) => Count::Of { ready: queue.message_count(), consumers: queue.consumer_count() },
        // "home node … is down": it is there.
        Err(refusal) if refusal.code == NOT_FOUND && !refusal.text.contains("home node") => Count::Absent,
        Err(refusal) => Count::Refused(refusal),
    })
}

/// A name as AMQP carries it.
pub(crate) fn short(name: &str) -> Result<ShortString, Failure> {
    ShortString::try_new(name)
        .map_err(|_| Failure::usage(format_args!("a name of {} bytes; AMQP allows 255", name.len())))
}

/// The type of a queue that exists, such as `classic` or `quorum`, if the broker tells.
///
/// It is asked by a declaration that can neither succeed nor create anything, even if the queue is gone meanwhile: there
/// is no such type. The broker's refusal says what the queue's type is. It is the only way to learn it over AMQP, and it
/// asks for the permission to declare the queue.
pub(crate) async fn queue_type(connection: &Connection, queue: ShortString) -> Result<Option<String>, ConnectError> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), lapin::types::AMQPValue::LongString("jm".into()));
    let asked = ask(connection, "asking for a queue's type", async |channel| {
        channel.queue_declare(queue, options, arguments).await
    });
    let Err(refusal) = asked.await? else { return Ok(None) };
    Ok(Mismatch::read(&refusal.text).and_then(|mismatch| {
        match (mismatch.argument.as_str(), mismatch.current.as_str()) {
            // Only classic queues are not durable, or auto-delete, or without the argument.
            ("durable" | "auto_delete", _) | ("x-queue-type", "") => Some("classic".to_owned()),
            ("x-queue-type", current) => Some(current.to_owned()),
            _ => None,
        }
    }))
}

/// How a declaration differs from what exists, in the words of a 406: the first difference the broker finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// `type`, `durable`, `auto_delete`, `internal` or an argument's name.
    pub(crate) argument: String,
    /// What it is; empty for none, or where the broker's text is cut off.
    pub(crate) current: String,
}

impl Mismatch {
    /// Reads `… inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'`.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once("inequivalent arg '")?;
        let (argument, rest) = rest.split_once('\'')?;
        let current = rest.rsplit_once(" but current is ").map_or("", |(_, current)| current);
        // `'false'`, `none`, or `the value '60000' of type 'signedint'`.
        let current = current.split('\'').nth(1).unwrap_or_default();
        Some(Self { argument: argument.to_owned(), current: current.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_words_tell_what_differs() {
        let read = |text| Mismatch::read(text).map(|mismatch| (mismatch.argument, mismatch.current));
        let of = |argument: &str, current: &str| Some((argument.to_owned(), current.to_owned()));
        let text = "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'";
        assert_eq!(read(text), of("durable", "false"));
        let text = "inequivalent arg 'x-message-ttl' for queue 'it's' in vhost '/': received none but current is the value '60000' of type 'signedint'";
        assert_eq!(read(text), of("x-message-ttl", "60000"));
        let text = "inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received the value 'x' of type 'longstr' but current is none";
        assert_eq!(read(text), of("x-queue-type", ""));
        assert_eq!(read("inequivalent arg 'type' for exchange 'long"), of("type", ""));
        assert_eq!(read("NOT_FOUND - no queue 'q'"), None);
    }
}
