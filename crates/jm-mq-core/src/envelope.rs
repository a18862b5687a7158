//! What we receive: a delivery's body and what the broker and the producer say about it.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use lapin::{
    Acker, BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};

use crate::{dead_letters, trace::TraceContext};

/// Everything about a delivery but its body. All properties are optional: the Go services send only content type,
/// type and body.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub(crate) queue: Arc<str>,
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    pub(crate) redelivered: bool,
    pub(crate) properties: BasicProperties,
}

impl Envelope {
    /// The queue it was consumed from.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// The exchange it was published to; empty for the default exchange.
    pub fn exchange(&self) -> &str {
        self.exchange.as_str()
    }

    /// The routing key it was published with.
    pub fn routing_key(&self) -> &str {
        self.routing_key.as_str()
    }

    /// Whether the broker has delivered it before, to this process or another.
    pub fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// The `type` property, as the producer wrote it.
    pub fn message_type(&self) -> Option<&str> {
        self.properties.kind().as_ref().map(ShortString::as_str)
    }

    /// The producer's id for the message.
    pub fn message_id(&self) -> Option<&str> {
        self.properties.message_id().as_ref().map(ShortString::as_str)
    }

    /// What the message belongs to.
    pub fn correlation_id(&self) -> Option<&str> {
        self.properties.correlation_id().as_ref().map(ShortString::as_str)
    }

    /// The queue that wants the answer as well.
    pub fn reply_to(&self) -> Option<&str> {
        self.properties.reply_to().as_ref().map(ShortString::as_str)
    }

    /// When the producer says it was published.
    pub fn timestamp(&self) -> Option<jiff::Timestamp> {
        let seconds = i64::try_from(self.properties.timestamp().as_ref().copied()?).ok()?;
        jiff::Timestamp::from_second(seconds).ok()
    }

    /// All AMQP properties.
    pub fn properties(&self) -> &BasicProperties {
        &self.properties
    }

    /// The headers, if there are any.
    pub fn headers(&self) -> Option<&FieldTable> {
        self.properties.headers().as_ref()
    }

    /// One header.
    pub fn header(&self, name: &str) -> Option<&AMQPValue> {
        self.headers()?.inner().get(name)
    }

    /// The trace to which the message belongs.
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::from_headers(self.headers()?)
    }

    /// How often the broker says it has given this message out before; only quorum queues count it, others are 0.
    ///
    /// `x-acquired-count` (from RabbitMQ 4.3) counts every consumer that held it, `x-delivery-count` those that
    /// returned it or died.
    pub fn delivery_count(&self) -> u64 {
        self.headers().map_or(0, dead_letters::deliveries)
    }
}

/// A delivery that is ours until it is settled.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) work: Work,
    /// Its number on the channel it came by.
    pub(crate) tag: u64,
    /// Poisoned when that channel is gone.
    pub(crate) acker: Acker,
    /// When we took it from the channel. The broker's `consumer_timeout` counts from here.
    pub(crate) arrived: Instant,
}

/// What a worker needs of a delivery. Cheap to clone; outlives the channel it came by.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) envelope: Arc<Envelope>,
    pub(crate) body: Bytes,
}

impl Delivery {
    pub(crate) fn new(queue: &Arc<str>, delivery: lapin::message::Delivery, arrived: Instant) -> Self {
        let envelope = Envelope {
            queue: Arc::clone(queue),
            exchange: delivery.exchange,
            routing_key: delivery.routing_key,
            redelivered: delivery.redelivered,
            properties: delivery.properties,
        };
        Self {
            work: Work { envelope: Arc::new(envelope), body: Bytes::from(delivery.data) },
            tag: delivery.delivery_tag,
            acker: delivery.acker,
            arrived,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_header(name: &'static str, value: AMQPValue) -> Envelope {
        let mut headers = FieldTable::default();
        headers.insert(name.into(), value);
        Envelope {
            queue: "q".into(),
            exchange: "".into(),
            routing_key: "q".into(),
            redelivered: false,
            properties: BasicProperties::default().with_headers(headers),
        }
    }

    #[test]
    fn the_delivery_count_is_read_from_either_header_and_never_from_nonsense() {
        assert_eq!(with_header("x-delivery-count", AMQPValue::LongLongInt(3)).delivery_count(), 3);
        assert_eq!(with_header("x-acquired-count", AMQPValue::LongUInt(4)).delivery_count(), 4);
        assert_eq!(with_header("x-delivery-count", AMQPValue::LongLongInt(-1)).delivery_count(), 0);
        assert_eq!(with_header("x-delivery-count", AMQPValue::Boolean(true)).delivery_count(), 0);
        assert_eq!(with_header("other", AMQPValue::LongLongInt(3)).delivery_count(), 0);
    }

    #[test]
    fn a_timestamp_out_of_range_is_treated_as_absent() {
        let mut envelope = with_header("h", AMQPValue::Void);
        envelope.properties = BasicProperties::default().with_timestamp(u64::MAX);
        assert_eq!(envelope.timestamp(), None);
    }
}
