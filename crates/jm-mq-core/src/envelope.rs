//! What we receive: a delivery's body and what the broker and the producer say about it.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use lapin::{
    Acker, BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};

use crate::{
    consumer::{queue::Queue, returned},
    dead_letters::{self, count},
    trace::TraceContext,
};

/// Everything about a delivery but its body. All properties are optional: the Go services send only content type,
/// type and body.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub(crate) queue: Arc<str>,
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    pub(crate) redelivered: bool,
    pub(crate) properties: BasicProperties,
    pub(crate) past: Past,
}

/// What became of a message's earlier deliveries, as far as the broker and our own header say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// Consumers that were lost while they held it, since it came into the queue or was last replaced by a copy.
    pub(crate) crashes: u64,
    /// The same before that copy.
    pub(crate) crashes_before: u64,
    /// How often a worker has returned it by a copy.
    pub(crate) returns: u64,
    /// Why, the last time.
    pub(crate) last_error: Option<String>,
}

impl Past {
    /// How often its consumer was lost in all.
    pub(crate) fn all_crashes(&self) -> u64 {
        self.crashes.saturating_add(self.crashes_before)
    }

    /// Whether it has probably killed its consumers. A header alone, which anyone can write, is not enough.
    pub(crate) fn is_poison(&self, max_deliveries: u64) -> bool {
        self.crashes > 0 && self.all_crashes() > max_deliveries
    }
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

    /// How often the broker says it has delivered this message before; only quorum queues count it, others are 0, and so is
    /// a first delivery, whatever headers its producer gave it.
    ///
    /// `x-acquired-count` (from RabbitMQ 4.3) counts every consumer that held it, `x-delivery-count` see
    /// [`crashes`](Self::crashes).
    pub fn delivery_count(&self) -> u64 {
        self.headers().filter(|_| self.redelivered).map_or(0, dead_letters::deliveries)
    }

    /// How often a consumer was lost while it held this message: on quorum queues, by the broker's `x-delivery-count`
    /// and without the returns that workers make themselves. Other queues do not count, and it is 0.
    pub fn crashes(&self) -> u64 {
        self.past.all_crashes()
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
    /// Whether the broker would count a nack as a lost consumer, or seem to, so that it is returned by a copy.
    pub(crate) nacks_count: bool,
}

impl Delivery {
    /// `name` is the consumer's name for the queue, which is in the envelope.
    pub(crate) fn new(name: &Arc<str>, queue: &Queue, delivery: lapin::message::Delivery, arrived: Instant) -> Self {
        let mut envelope = Envelope {
            queue: Arc::clone(name),
            exchange: delivery.exchange,
            routing_key: delivery.routing_key,
            redelivered: delivery.redelivered,
            properties: delivery.properties,
            past: Past::default(),
        };
        let counted = envelope.header(dead_letters::DELIVERY_COUNT).filter(|_| queue.counts_crashes());
        // On a first delivery it is a header like others, which the producer wrote or copied. A nack from RabbitMQ 4.3 on
        // would leave it there, on a redelivery.
        let is_copied = counted.is_some() && !delivery.redelivered;
        envelope.past.crashes = counted.filter(|_| delivery.redelivered).and_then(count).unwrap_or(0);
        returned::restore(&mut envelope, queue.name());
        Self {
            work: Work {
                envelope: Arc::new(envelope),
                body: Bytes::from(delivery.data),
                nacks_count: queue.counts_nacks() || is_copied,
            },
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
            redelivered: true,
            properties: BasicProperties::default().with_headers(headers),
            past: Past::default(),
        }
    }

    #[test]
    fn the_delivery_count_is_read_from_either_header_of_a_redelivery_and_never_from_nonsense() {
        assert_eq!(with_header("x-delivery-count", AMQPValue::LongLongInt(3)).delivery_count(), 3);
        assert_eq!(with_header("x-acquired-count", AMQPValue::LongUInt(4)).delivery_count(), 4);
        assert_eq!(with_header("x-delivery-count", AMQPValue::LongLongInt(-1)).delivery_count(), 0);
        assert_eq!(with_header("x-delivery-count", AMQPValue::Boolean(true)).delivery_count(), 0);
        assert_eq!(with_header("other", AMQPValue::LongLongInt(3)).delivery_count(), 0);
        let copied = Envelope { redelivered: false, ..with_header("x-delivery-count", AMQPValue::LongLongInt(16)) };
        assert_eq!(copied.delivery_count(), 0);
    }

    #[test]
    fn a_timestamp_out_of_range_is_treated_as_absent() {
        let mut envelope = with_header("h", AMQPValue::Void);
        envelope.properties = BasicProperties::default().with_timestamp(u64::MAX);
        assert_eq!(envelope.timestamp(), None);
    }
}
