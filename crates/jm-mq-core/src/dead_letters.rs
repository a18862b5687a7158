//! What a dead letter's headers say, and those of a message that is put back: for tools that read and replay them.
//!
//! The body and the properties of a dead letter are the original's, but for those that would move or delete it. Where
//! it is put back its headers may stay as they are: the core reads none of those that it writes here, and writes them
//! anew should the message fail again. The broker's own counts, [`BROKER_COUNTS`], are another matter: with them the
//! message would be taken for one that kills workers.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};

/// The last error's text.
pub const EXCEPTION_MESSAGE: &str = "x-exception-message";
/// Where the message was published first.
pub const ORIGINAL_EXCHANGE: &str = "x-original-exchange";
/// The key it was published with.
pub const ORIGINAL_ROUTING_KEY: &str = "x-original-routingKey";
/// The kind of failure.
pub const ERROR_KIND: &str = "jm-error-kind";
/// Runs of the handler.
pub const ATTEMPTS: &str = "jm-attempts";
/// When the first run failed; RFC 3339, UTC.
pub const FIRST_FAILED_AT: &str = "jm-first-failed-at";
/// When it was given up; RFC 3339, UTC.
pub const FAILED_AT: &str = "jm-failed-at";
/// The process that gave it up.
pub const WORKER: &str = "jm-worker";
/// The queue it was consumed from.
pub const ORIGINAL_QUEUE: &str = "jm-original-queue";
/// The original's `user_id`, which the broker would not take from us.
pub const ORIGINAL_USER_ID: &str = "jm-original-user-id";
/// How many of the original headers had to go to make room.
pub const HEADERS_DROPPED: &str = "jm-headers-dropped";

/// Set by quorum queues on a redelivery: how often a consumer was lost while it held the message; before RabbitMQ 4.3 also
/// how often it was returned.
pub const DELIVERY_COUNT: &str = "x-delivery-count";
/// What quorum queues count of a message's deliveries. `x-acquired-count`, from RabbitMQ 4.3 on, counts all of them.
pub const BROKER_COUNTS: [&str; 2] = [DELIVERY_COUNT, "x-acquired-count"];

/// On a copy that a worker has put into the queue in place of a message that it returned: a table with the exchange and
/// routing key of the message, and what is known of its earlier deliveries. Written only where the broker would count the
/// return as a lost consumer. A replay leaves it behind.
pub const RETURNED: &str = "jm-returned";

/// Which replay put the message back; text that the replaying tool chooses.
pub const REPLAY: &str = "jm-replay";
/// The queue that wants to hear when the message is done. The worker then publishes a message of type
/// [`OUTCOME_TYPE`] to it, together with the handler's answers and before the ack, whose correlation id is the value
/// of [`REPLAY`]. It is a reply: that it cannot be published is no failure. Of a failure nothing is said: the dead letter says it.
pub const OUTCOME_TO: &str = "jm-outcome-to";
/// The type of what is sent to [`OUTCOME_TO`]. Its body is empty.
pub const OUTCOME_TYPE: &str = "jm.done";

/// How often the broker says it has given the message out before; only quorum queues count it, for others it is 0.
///
/// `x-acquired-count` (from RabbitMQ 4.3) counts every consumer that held it, `x-delivery-count` those that returned it or
/// died.
pub fn deliveries(headers: &FieldTable) -> u64 {
    let counts = BROKER_COUNTS.into_iter().filter_map(|name| count(headers.inner().get(name)?));
    counts.max().unwrap_or(0)
}

/// Every integer that a header may hold; a count never is negative.
pub fn count(value: &AMQPValue) -> Option<u64> {
    match *value {
        AMQPValue::ShortShortInt(number) => number.try_into().ok(),
        AMQPValue::ShortShortUInt(number) => Some(number.into()),
        AMQPValue::ShortInt(number) => number.try_into().ok(),
        AMQPValue::ShortUInt(number) => Some(number.into()),
        AMQPValue::LongInt(number) => number.try_into().ok(),
        AMQPValue::LongUInt(number) => Some(number.into()),
        AMQPValue::LongLongInt(number) => number.try_into().ok(),
        _ => None,
    }
}

/// The properties of a copy: the original's but for its headers, which are `headers`, its expiration, and its user, who
/// would have to be ours. Properties have setters and no way to unset one.
pub fn copied(original: &BasicProperties, headers: FieldTable) -> BasicProperties {
    use BasicProperties as P;
    type Set = fn(P, ShortString) -> P;
    let names: [(&Option<ShortString>, Set); 8] = [
        (original.content_type(), P::with_content_type),
        (original.content_encoding(), P::with_content_encoding),
        (original.correlation_id(), P::with_correlation_id),
        (original.reply_to(), P::with_reply_to),
        (original.message_id(), P::with_message_id),
        (original.kind(), P::with_type),
        (original.app_id(), P::with_app_id),
        (original.cluster_id(), P::with_cluster_id),
    ];
    let mut copy = P::default().with_headers(headers);
    for (value, set) in names {
        if let Some(value) = value {
            copy = set(copy, value.clone());
        }
    }
    if let Some(mode) = original.delivery_mode() {
        copy = copy.with_delivery_mode(*mode);
    }
    if let Some(priority) = original.priority() {
        copy = copy.with_priority(*priority);
    }
    match original.timestamp() {
        Some(timestamp) => copy.with_timestamp(*timestamp),
        None => copy,
    }
}
