//! The copy of a message that could not be handled, with the reason in its headers.

use std::time::SystemTime;

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};

use crate::{
    dead_letters::{
        ATTEMPTS, ERROR_KIND, EXCEPTION_MESSAGE, FAILED_AT, FIRST_FAILED_AT, HEADERS_DROPPED, ORIGINAL_EXCHANGE,
        ORIGINAL_QUEUE, ORIGINAL_ROUTING_KEY, ORIGINAL_USER_ID, WORKER, copied,
    },
    envelope::Work,
    headers::{MAX_HEADER_BYTES, encoded_size, frame_size, value_size},
    message::{Message, Outgoing, PERSISTENT},
    options::MAX_NAME_BYTES,
    settlement::Failure,
};

/// Error texts can be whole documents; a table in the operator's command has one line.
const MAX_TEXT_BYTES: usize = 2048;

/// Properties that would make the copy behave differently from a message at rest, and where their values go.
///
/// `CC` and `BCC` would route the copy to other queues, `expiration` would delete it, and a `user_id` other than ours
/// makes the broker close the channel. A delivery count would make the copy poison again once it is put back.
const MOVED_HEADERS: [(&str, &str); 4] = [
    ("CC", "jm-original-CC"),
    ("BCC", "jm-original-BCC"),
    ("x-delivery-count", "jm-original-delivery-count"),
    ("x-acquired-count", "jm-original-acquired-count"),
];

/// What is kept of the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The body to the byte, properties and headers.
    All,
    /// The body, and the names that tell what it is. For what the broker does not take with its properties.
    BodyAndNames,
}

/// The copy for the dead-letter queue, with the reason in its headers. `frame_max`: see [`crate::Publisher`].
pub(crate) fn copy(
    work: &Work,
    failure: &Failure,
    worker: &str,
    queue: &str,
    frame_max: usize,
    keep: Keep,
) -> Outgoing {
    let original = work.envelope.properties();
    let mut headers = original.headers().clone().unwrap_or_default();
    for (name, new_name) in MOVED_HEADERS {
        rename(&mut headers, name, new_name);
    }
    if let Some(expiration) = original.expiration() {
        headers.insert("jm-original-expiration".into(), AMQPValue::LongString(expiration.as_str().into()));
    }
    if let Some(user) = original.user_id() {
        headers.insert(ORIGINAL_USER_ID.into(), AMQPValue::LongString(user.as_str().into()));
    }
    let properties = match keep {
        Keep::All => copied(original, FieldTable::default()),
        Keep::BodyAndNames => names(original),
    };
    let properties = properties.with_delivery_mode(PERSISTENT);

    // The publisher adds its name, and make_room a note.
    let around = frame_size(&properties) + MAX_NAME_BYTES + 1 + HEADERS_DROPPED.len() + 16;
    let room = frame_max.saturating_sub(around).min(MAX_HEADER_BYTES);
    let mut ours = reasons(work, failure, worker, MAX_TEXT_BYTES);
    if let Some(over @ 1..) = encoded_size(&ours).checked_sub(room) {
        ours = reasons(work, failure, worker, MAX_TEXT_BYTES.saturating_sub(over));
    }
    let kept = if keep == Keep::All { room.saturating_sub(encoded_size(&ours)) } else { 0 };
    make_room(&mut headers, kept);
    for (name, value) in ours.inner() {
        headers.insert(name.clone(), value.clone());
    }
    Outgoing::to_queue(queue, Message::verbatim(properties.with_headers(headers), work.body.clone()))
}

fn names(original: &BasicProperties) -> BasicProperties {
    let mut names = BasicProperties::default();
    if let Some(kind) = original.kind() {
        names = names.with_type(kind.clone());
    }
    if let Some(id) = original.message_id() {
        names = names.with_message_id(id.clone());
    }
    if let Some(id) = original.correlation_id() {
        names = names.with_correlation_id(id.clone());
    }
    names
}

fn reasons(work: &Work, failure: &Failure, worker: &str, text_bytes: usize) -> FieldTable {
    let mut headers = FieldTable::default();
    let mut text = |name: &'static str, value: &str| {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    text(EXCEPTION_MESSAGE, truncated(&failure.text, text_bytes));
    text(ORIGINAL_EXCHANGE, work.envelope.exchange());
    text(ORIGINAL_ROUTING_KEY, work.envelope.routing_key());
    text(ORIGINAL_QUEUE, work.envelope.queue());
    text(ERROR_KIND, failure.kind.label());
    text(FIRST_FAILED_AT, &rfc3339(failure.first_failed_at));
    text(FAILED_AT, &rfc3339(SystemTime::now()));
    text(WORKER, worker);
    headers.insert(ATTEMPTS.into(), AMQPValue::LongUInt(failure.attempts));
    headers
}

fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).unwrap_or_default().to_string()
}

/// The beginning of a text, cut between characters.
fn truncated(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

fn rename(headers: &mut FieldTable, from: &str, to: &'static str) {
    if !headers.contains_key(from) {
        return;
    }
    let mut renamed = FieldTable::default();
    for (name, value) in headers.inner() {
        renamed.insert(if name.as_str() == from { to.into() } else { name.clone() }, value.clone());
    }
    *headers = renamed;
}

/// Drops the largest of the original headers until they fit: a frame that is too large would cost the connection, and the
/// message would come back for ever.
fn make_room(headers: &mut FieldTable, room: usize) {
    let mut dropped: u32 = 0;
    while encoded_size(headers) > room {
        let largest = headers.inner().iter().max_by_key(|(_, value)| value_size(value)).map(|(name, _)| name.clone());
        let Some(largest) = largest else { break };
        let all = std::mem::take(headers);
        for (name, value) in all.inner().iter().filter(|(name, _)| **name != largest) {
            headers.insert(name.clone(), value.clone());
        }
        dropped += 1;
    }
    if dropped > 0 {
        headers.insert(HEADERS_DROPPED.into(), AMQPValue::LongUInt(dropped));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        envelope::{Envelope, Past},
        settlement::FailureKind,
    };
    use bytes::Bytes;
    use std::sync::Arc;

    /// RabbitMQ's default.
    const FRAME: usize = 131_072;

    fn copied(properties: BasicProperties, text: &str) -> (BasicProperties, FieldTable) {
        copied_into(FRAME, Keep::All, properties, text)
    }

    fn copied_into(
        frame_max: usize,
        keep: Keep,
        properties: BasicProperties,
        text: &str,
    ) -> (BasicProperties, FieldTable) {
        let envelope = Envelope {
            queue: "jm.llm".into(),
            exchange: "ex".into(),
            routing_key: "key".into(),
            redelivered: true,
            properties,
            past: Past::default(),
        };
        let work = Work { envelope: Arc::new(envelope), body: Bytes::from_static(b"\xff body"), nacks_count: false };
        let failure = Failure::unrun(FailureKind::Undecodable, text);
        let copy = copy(&work, &failure, "host/1", "jm.llm.dead", frame_max, keep);
        assert_eq!((copy.exchange(), copy.routing_key()), ("", "jm.llm.dead"));
        assert_eq!(copy.message().body().as_ref(), b"\xff body");
        let properties = copy.message().properties().clone();
        let headers = properties.headers().clone().unwrap();
        (properties, headers)
    }

    fn text(headers: &FieldTable, name: &str) -> String {
        match headers.inner().get(name) {
            Some(AMQPValue::LongString(text)) => text.to_string(),
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn the_copy_says_where_it_came_from_and_what_was_wrong() {
        let (properties, headers) = copied(BasicProperties::default().with_type("t".into()), "EOF at line 1");
        assert_eq!(properties.kind().as_ref().unwrap().as_str(), "t");
        assert_eq!(text(&headers, "x-exception-message"), "EOF at line 1");
        assert_eq!(text(&headers, "x-original-exchange"), "ex");
        assert_eq!(text(&headers, "x-original-routingKey"), "key");
        assert_eq!(text(&headers, "jm-original-queue"), "jm.llm");
        assert_eq!(text(&headers, "jm-error-kind"), "undecodable");
        assert_eq!(text(&headers, "jm-worker"), "host/1");
        assert_eq!(headers.inner().get("jm-attempts"), Some(&AMQPValue::LongUInt(0)));
        text(&headers, "jm-failed-at").parse::<jiff::Timestamp>().unwrap();
        text(&headers, "jm-first-failed-at").parse::<jiff::Timestamp>().unwrap();
    }

    #[test]
    fn properties_that_would_move_or_delete_the_copy_become_headers() {
        let mut headers = FieldTable::default();
        headers.insert("CC".into(), AMQPValue::LongString("elsewhere".into()));
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(16));
        headers.insert("tenant".into(), AMQPValue::LongString("7".into()));
        let original = BasicProperties::default()
            .with_expiration("1000".into())
            .with_user_id("somebody".into())
            .with_delivery_mode(1)
            .with_priority(3)
            .with_message_id("m".into())
            .with_headers(headers);
        let (properties, headers) = copied(original, "x");
        assert_eq!((properties.expiration(), properties.user_id()), (&None, &None));
        assert_eq!((*properties.delivery_mode(), *properties.priority()), (Some(2), Some(3)));
        assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "m");
        assert!(!headers.contains_key("CC") && !headers.contains_key("x-delivery-count"));
        assert_eq!(text(&headers, "jm-original-CC"), "elsewhere");
        assert_eq!(text(&headers, "jm-original-expiration"), "1000");
        assert_eq!(text(&headers, "jm-original-user-id"), "somebody");
        assert_eq!(text(&headers, "tenant"), "7");
    }

    #[test]
    fn long_texts_are_cut_between_characters_and_large_headers_make_room() {
        let mut headers = FieldTable::default();
        headers.insert("big".into(), AMQPValue::LongString("b".repeat(126_000).into()));
        headers.insert("small".into(), AMQPValue::LongString("s".into()));
        let (properties, headers) = copied(BasicProperties::default().with_headers(headers), &"错".repeat(10_000));
        assert_eq!(text(&headers, "x-exception-message"), "错".repeat(MAX_TEXT_BYTES / 3));
        assert!(!headers.contains_key("big") && headers.contains_key("small"));
        assert_eq!(headers.inner().get("jm-headers-dropped"), Some(&AMQPValue::LongUInt(1)));
        assert!(encoded_size(properties.headers().as_ref().unwrap()) <= MAX_HEADER_BYTES);
    }

    #[test]
    fn a_copy_fits_a_small_frame_with_its_reason() {
        let mut headers = FieldTable::default();
        headers.insert("big".into(), AMQPValue::LongString("b".repeat(3500).into()));
        headers.insert("small".into(), AMQPValue::LongString("s".into()));
        let name = || "n".repeat(255).into();
        let long = BasicProperties::default()
            .with_correlation_id(name())
            .with_reply_to(name())
            .with_message_id(name())
            .with_type(name())
            .with_headers(headers);
        for frame in [4096, 8192, FRAME] {
            let (properties, headers) = copied_into(frame, Keep::All, long.clone(), &"错".repeat(10_000));
            let size = frame_size(&properties.with_app_id(name()));
            assert!(size <= frame, "{size} of {frame}");
            assert!(text(&headers, "x-exception-message").len() > 1000);
            assert_eq!(headers.contains_key("big"), frame > 4096);
            assert!(headers.contains_key("small"));
        }
    }

    #[test]
    fn a_copy_without_the_originals_properties_still_says_what_it_is() {
        let mut headers = FieldTable::default();
        headers.insert("tenant".into(), AMQPValue::LongString("7".into()));
        let original = BasicProperties::default()
            .with_type("t".into())
            .with_message_id("m".into())
            .with_reply_to("amq.rabbitmq.reply-to".into())
            .with_headers(headers);
        let (properties, headers) = copied_into(FRAME, Keep::BodyAndNames, original, "x");
        assert_eq!(properties.reply_to(), &None);
        assert_eq!(properties.kind().as_ref().unwrap().as_str(), "t");
        assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "m");
        assert!(!headers.contains_key("tenant"));
        assert_eq!(headers.inner().get("jm-headers-dropped"), Some(&AMQPValue::LongUInt(1)));
        assert_eq!(text(&headers, "x-exception-message"), "x");
    }
}
