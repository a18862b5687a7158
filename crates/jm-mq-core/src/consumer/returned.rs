//! The copy that takes a returned message's place, where the broker would count a nack as a lost consumer.
//!
//! Quorum queues before RabbitMQ 4.3 have one count for both, and drop or dead-letter what exceeds their limit. So a worker
//! publishes the message to its queue again, has that confirmed, and acks the original: the broker's count begins anew, and
//! the header [`RETURNED`] says what it was. `docs/adr/0018-returns-are-no-crashes.md` has the alternatives.

use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::{
    dead_letters::{BROKER_COUNTS, ORIGINAL_USER_ID, RETURNED, copied, count},
    envelope::{Envelope, Past, Work},
    message::{Message, Outgoing},
};

/// Error texts can be whole documents.
const MAX_ERROR_BYTES: usize = 512;

/// They would route the copy to other queues too; they travel in our header.
const ROUTING_HEADERS: [&str; 2] = ["CC", "BCC"];

const EXCHANGE: &str = "exchange";
const ROUTING_KEY: &str = "routing-key";
const CRASHES: &str = "crashes";
const RETURNS: &str = "returns";
const ERROR: &str = "error";
const HEADERS: &str = "headers";

/// A copy for the queue that the message was consumed from. `error` is why it is returned.
pub(crate) fn copy(work: &Work, queue: &str, error: Option<&str>) -> Outgoing {
    let Envelope { exchange, routing_key, properties, past, .. } = &*work.envelope;
    let (mut headers, mut routing) = (FieldTable::default(), FieldTable::default());
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        if ROUTING_HEADERS.contains(&name.as_str()) {
            routing.insert(name.clone(), value.clone());
        } else if !BROKER_COUNTS.contains(&name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    if let Some(user) = properties.user_id() {
        headers.insert(ORIGINAL_USER_ID.into(), AMQPValue::LongString(user.as_str().into()));
    }
    let mut returned = FieldTable::default();
    returned.insert(EXCHANGE.into(), AMQPValue::LongString(exchange.as_str().into()));
    returned.insert(ROUTING_KEY.into(), AMQPValue::LongString(routing_key.as_str().into()));
    for (name, number) in [(CRASHES, past.all_crashes()), (RETURNS, past.returns.saturating_add(1))] {
        returned.insert(name.into(), AMQPValue::LongLongInt(i64::try_from(number).unwrap_or(i64::MAX)));
    }
    if let Some(error) = error.or(past.last_error.as_deref()) {
        let error = &error[..error.floor_char_boundary(MAX_ERROR_BYTES)];
        returned.insert(ERROR.into(), AMQPValue::LongString(error.into()));
    }
    if !routing.inner().is_empty() {
        returned.insert(HEADERS.into(), AMQPValue::FieldTable(routing));
    }
    headers.insert(RETURNED.into(), AMQPValue::FieldTable(returned));
    let mut copy = copied(properties, headers);
    if let Some(expiration) = properties.expiration() {
        copy = copy.with_expiration(expiration.clone());
    }
    Outgoing::to_queue(queue, Message::verbatim(copy, work.body.clone()))
}

/// Makes a delivery of such a copy what the original's would be: a redelivery. Anything else is left unchanged.
pub(crate) fn restore(envelope: &mut Envelope, queue: &str) {
    // A copy comes by the default exchange, from this very queue.
    if !envelope.exchange.as_str().is_empty() || envelope.routing_key.as_str() != queue {
        return;
    }
    let Some(AMQPValue::FieldTable(returned)) = envelope.header(RETURNED).cloned() else { return };
    let Some(exchange) = text(&returned, EXCHANGE).and_then(|name| ShortString::try_new(name).ok()) else { return };
    let Some(routing_key) = text(&returned, ROUTING_KEY).and_then(|key| ShortString::try_new(key).ok()) else { return };
    let number = |name: &str| returned.inner().get(name).and_then(count).unwrap_or(0);
    let mut headers = FieldTable::default();
    let own = envelope.headers().into_iter().flat_map(FieldTable::inner);
    for (name, value) in own.filter(|(name, _)| name.as_str() != RETURNED) {
        headers.insert(name.clone(), value.clone());
    }
    if let Some(AMQPValue::FieldTable(routing)) = returned.inner().get(HEADERS) {
        for (name, value) in routing.inner().iter().filter(|(name, _)| ROUTING_HEADERS.contains(&name.as_str())) {
            headers.insert(name.clone(), value.clone());
        }
    }
    let mut properties = copied(&envelope.properties, headers);
    if let Some(expiration) = envelope.properties.expiration() {
        properties = properties.with_expiration(expiration.clone());
    }
    envelope.past = Past {
        crashes: envelope.past.crashes,
        crashes_before: number(CRASHES),
        returns: number(RETURNS),
        last_error: text(&returned, ERROR),
    };
    envelope.exchange = exchange;
    envelope.routing_key = routing_key;
    envelope.properties = properties;
    envelope.redelivered = true;
}

fn text(table: &FieldTable, name: &str) -> Option<String> {
    match table.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use lapin::BasicProperties;

    use super::*;

    fn envelope(exchange: &str, routing_key: &str, properties: BasicProperties) -> Envelope {
        Envelope {
            queue: "q".into(),
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            redelivered: false,
            properties,
            past: Past::default(),
        }
    }

    /// As the broker would deliver its copy, with its own count of that.
    fn returned(envelope: Envelope, error: Option<&str>, crashes: u64) -> Envelope {
        let work = Work { envelope: Arc::new(envelope), body: Bytes::from_static(b"body"), nacks_count: true };
        let copy = copy(&work, "q", error);
        assert_eq!((copy.exchange(), copy.routing_key(), copy.message().body().as_ref()), ("", "q", &b"body"[..]));
        let mut delivered = self::envelope("", "q", copy.message().properties().clone());
        delivered.past.crashes = crashes;
        restore(&mut delivered, "q");
        delivered
    }

    #[test]
    fn what_is_known_of_a_message_adds_up_over_its_copies() {
        let mut properties = FieldTable::default();
        properties.insert("x-delivery-count".into(), AMQPValue::LongLongInt(2));
        let mut first = envelope("notes", "notes.new", BasicProperties::default().with_headers(properties));
        first.past.crashes = 2;
        let second = returned(first, Some("the database is away"), 3);
        assert_eq!((second.exchange(), second.routing_key(), second.redelivered()), ("notes", "notes.new", true));
        assert_eq!((second.crashes(), second.past.returns, second.header(RETURNED)), (5, 1, None));
        assert_eq!(second.header("x-delivery-count"), None, "the broker counts anew");
        let third = returned(second, None, 0);
        assert_eq!((third.exchange(), third.crashes(), third.past.returns), ("notes", 5, 2));
        assert_eq!(third.past.last_error.as_deref(), Some("the database is away"));
        assert!(!third.past.is_poison(4), "not without a crash since then");
        assert!(returned(third, None, 1).past.is_poison(5));
    }

    #[test]
    fn a_header_that_no_worker_wrote_changes_nothing() {
        let mut table = FieldTable::default();
        table.insert("exchange".into(), AMQPValue::LongString("notes".into()));
        table.insert("routing-key".into(), AMQPValue::LongString("notes.new".into()));
        let long = AMQPValue::LongString("e".repeat(256).into());
        for (exchange, key, value) in [
            ("notes", "q", AMQPValue::FieldTable(table.clone())),
            ("", "another", AMQPValue::FieldTable(table.clone())),
            ("", "q", AMQPValue::LongLongInt(16)),
            ("", "q", AMQPValue::FieldTable(FieldTable::default())),
            ("", "q", {
                table.insert("exchange".into(), long);
                AMQPValue::FieldTable(table)
            }),
        ] {
            let mut headers = FieldTable::default();
            headers.insert(RETURNED.into(), value.clone());
            let mut delivered = envelope(exchange, key, BasicProperties::default().with_headers(headers));
            restore(&mut delivered, "q");
            assert_eq!(
                (delivered.exchange(), delivered.routing_key(), delivered.redelivered()),
                (exchange, key, false)
            );
            assert_eq!((delivered.header(RETURNED), &delivered.past), (Some(&value), &Past::default()));
        }
    }
}
