//! Every metric of the platform: its name, unit, meaning and labels, in one place.
//!
//! They go through the `metrics` facade: a binary that installs no recorder pays nothing. Labels are bounded: `type`
//! takes only registered types and [`OTHER`], `queue` and `exchange` come from the configuration.
//!
//! Every series that is known beforehand is there at 0 from the start: `increase` does not see the first event of a
//! series that begins with it.

mod channels;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

pub(crate) use self::channels::{ChannelGauges, ChannelLimit};
use crate::settlement::FailureKind;

/// Messages waiting in the queue; labels: queue. The specification's backlog. NaN, which the workers' pages leave out, while
/// the broker does not say.
pub const QUEUE_MESSAGES_READY: &str = "jm_mq_queue_messages_ready";
/// Consumers of the queue, ours and others; labels: queue. NaN as above.
pub const QUEUE_CONSUMERS: &str = "jm_mq_queue_consumers";
/// Deliveries by how they ended; labels: queue, type, outcome (`ack`, `requeue`, `dead_letter`, `lost`). The
/// specification's consume rate.
pub const DELIVERIES: &str = "jm_mq_deliveries_total";
/// Duration of single handler runs; labels: queue, type, outcome (`ok`, `error`, `permanent`, `timeout`, `panic`,
/// `undecodable`).
pub const HANDLER_SECONDS: &str = "jm_mq_handler_seconds";
/// Runs after a failed one; labels: queue, type, reason (`error`, `timeout`, `panic`). The specification's retries.
pub const RETRIES: &str = "jm_mq_retries_total";
/// Open connections; labels: role (`publisher`, `consumer`), state (`open`). The specification's connections.
pub const CONNECTIONS: &str = "jm_mq_connections";
/// Connections on which the broker blocks publishers; labels: role.
pub const CONNECTION_BLOCKED: &str = "jm_mq_connection_blocked";
/// Negative acknowledgements; labels: queue, requeue. The specification's nack rate.
pub const NACKS: &str = "jm_mq_nacks_total";
/// Dead-lettered messages; labels: queue, kind (`permanent`, `exhausted`, `timeout`, `panic`, `undecodable`,
/// `unknown_type`, `too_large`, `poison`).
pub const DEAD_LETTERS: &str = "jm_mq_dead_letters_total";
/// Deliveries that a worker holds at present; labels: queue.
pub const IN_FLIGHT: &str = "jm_mq_in_flight";
/// Workers of this process, each of which can hold one delivery; labels: queue.
pub const WORKERS: &str = "jm_mq_workers";
/// Whether every worker's consumer is registered (1) or not (0); labels: queue.
pub const CONSUMER_READY: &str = "jm_mq_consumer_ready";
/// Whether it was told to stop and still holds deliveries (1) or not (0); labels: queue.
pub const DRAINING: &str = "jm_mq_draining";
/// Age of the oldest delivery that is not settled, buffered ones included; labels: queue. Compare with
/// [`CONSUMER_TIMEOUT_SECONDS`].
pub const OLDEST_UNACKED_SECONDS: &str = "jm_mq_oldest_unacked_seconds";
/// What this process was told of the broker's `consumer_timeout`; labels: queue.
pub const CONSUMER_TIMEOUT_SECONDS: &str = "jm_mq_consumer_timeout_seconds";
/// Ends of a consumer's connection that were not asked for; labels: queue, reason (`lost`, `cancelled`: the queue was
/// deleted, `timeout`: a delivery was held for longer than the `consumer_timeout`, `forgotten`: the broker does not know
/// its consumers any more, `panic`).
pub const RECONNECTS: &str = "jm_mq_reconnects_total";
/// Settlements that the broker never got, since the channel was gone; labels: queue, reason (`channel`, `write`).
pub const LOST_ACKS: &str = "jm_mq_lost_acks_total";
/// Results kept for messages whose connection was lost while they ran; labels: queue, fate (`used`, `evicted`).
pub const KEPT_RESULTS: &str = "jm_mq_kept_results_total";
/// Messages published, but for replies; labels: exchange ([`DEFAULT_EXCHANGE`] for the one without a name), outcome
/// (`confirmed`, `unroutable`, `refused`, `timed_out`, `not_connected`, `invalid`, `forbidden`). A message of a task is
/// counted as `timed_out` or `not_connected` each time that `publisher.timeout` passes, and once more when it is done.
pub const PUBLISHES: &str = "jm_mq_publishes_total";
/// Replies to whoever asked, which fail no task; labels: outcome (those of [`PUBLISHES`]). All but `confirmed` are dropped.
pub const REPLIES: &str = "jm_mq_replies_total";
/// From the first attempt to publish to the broker's confirm; labels: exchange, outcome.
pub const PUBLISH_CONFIRM_SECONDS: &str = "jm_mq_publish_confirm_seconds";

/// Confirm-mode channels of the publishers; labels: state (`leased`: a publish or batch uses it, `idle`: open, unused).
pub const PUBLISHER_CHANNELS: &str = "jm_mq_publisher_channels";
/// Channels that the publishers may open at most; no labels.
pub const PUBLISHER_CHANNELS_MAX: &str = "jm_mq_publisher_channels_max";

/// The `type` label of whatever is not registered.
pub const OTHER: &str = "other";
/// The `exchange` label of the default exchange, whose name is empty. Names that begin with `amq.` are the broker's own.
pub const DEFAULT_EXCHANGE: &str = "amq.default";

/// Why a group ended that was not told to: the `reason` of [`RECONNECTS`].
const RECONNECT_REASONS: [&str; 5] = ["lost", "cancelled", "timeout", "forgotten", "panic"];
/// The `outcome` of [`PUBLISHES`] and [`REPLIES`].
const PUBLISH_OUTCOMES: [&str; 7] =
    ["confirmed", "unroutable", "refused", "timed_out", "not_connected", "invalid", "forbidden"];

/// Tells the installed recorder every metric's unit and meaning. Call it once, after installing one.
pub fn describe() {
    for (name, text) in [
        (DELIVERIES, "Deliveries by how they ended"),
        (RETRIES, "Handler runs after a failed one"),
        (NACKS, "Negative acknowledgements"),
        (DEAD_LETTERS, "Dead-lettered messages by kind of failure"),
        (RECONNECTS, "Ends of a consumer's connection that were not asked for"),
        (LOST_ACKS, "Settlements that the broker never got"),
        (KEPT_RESULTS, "Results kept across a lost connection, by fate"),
        (PUBLISHES, "Messages published, by outcome"),
        (REPLIES, "Replies to whoever asked, by outcome"),
    ] {
        describe_counter!(name, Unit::Count, text);
    }
    for (name, unit, text) in [
        (QUEUE_MESSAGES_READY, Unit::Count, "Messages waiting in the queue"),
        (QUEUE_CONSUMERS, Unit::Count, "Consumers of the queue, all processes"),
        (CONNECTIONS, Unit::Count, "Open connections"),
        (CONNECTION_BLOCKED, Unit::Count, "Connections on which the broker blocks publishers"),
        (IN_FLIGHT, Unit::Count, "Deliveries held by a worker of this process"),
        (WORKERS, Unit::Count, "Workers of this process"),
        (CONSUMER_READY, Unit::Count, "1 when every worker's consumer is registered"),
        (DRAINING, Unit::Count, "1 from the order to stop until nothing is held any more"),
        (OLDEST_UNACKED_SECONDS, Unit::Seconds, "Age of the oldest unsettled delivery"),
        (CONSUMER_TIMEOUT_SECONDS, Unit::Seconds, "The broker's consumer_timeout, as this process was told"),
        (PUBLISHER_CHANNELS, Unit::Count, "Confirm-mode channels of the publishers, by state"),
        (PUBLISHER_CHANNELS_MAX, Unit::Count, "Channels that the publishers may open at most"),
    ] {
        describe_gauge!(name, unit, text);
    }
    describe_histogram!(HANDLER_SECONDS, Unit::Seconds, "Duration of single handler runs");
    describe_histogram!(PUBLISH_CONFIRM_SECONDS, Unit::Seconds, "From publish to the broker's confirm");
}

/// One connection's part of the gauges; taken back when dropped.
pub(crate) struct ConnectionGauges {
    open: Gauge,
    blocked_gauge: Gauge,
    is_blocked: bool,
}

impl ConnectionGauges {
    pub(crate) fn opened(role: &'static str) -> Self {
        let open = gauge!(CONNECTIONS, "role" => role, "state" => "open");
        let blocked_gauge = gauge!(CONNECTION_BLOCKED, "role" => role);
        open.increment(1.0);
        blocked_gauge.increment(0.0);
        Self { open, blocked_gauge, is_blocked: false }
    }

    pub(crate) fn blocked(&mut self, blocked: bool) {
        match (self.is_blocked, blocked) {
            (false, true) => self.blocked_gauge.increment(1.0),
            (true, false) => self.blocked_gauge.decrement(1.0),
            _ => {}
        }
        self.is_blocked = blocked;
    }
}

impl Drop for ConnectionGauges {
    fn drop(&mut self) {
        self.blocked(false);
        self.open.decrement(1.0);
    }
}

/// How a publish ended, counted by exchange.
pub(crate) struct PublishMetrics(Mutex<HashMap<String, Vec<PublishHandles>>>);

/// Those of one outcome, of which there are few.
struct PublishHandles {
    outcome: &'static str,
    count: Counter,
    seconds: Histogram,
}

/// More exchanges than this and the rest is counted as [`OTHER`]: a handler could take the name from a message.
const MAX_EXCHANGES: usize = 64;

impl PublishMetrics {
    pub(crate) fn new() -> Self {
        for outcome in PUBLISH_OUTCOMES {
            counter!(REPLIES, "outcome" => outcome).increment(0);
        }
        Self(Mutex::default())
    }

    /// Something is going to be published there.
    pub(crate) fn expect(&self, exchange: &str) {
        self.of(exchange, |_, _| {});
    }

    pub(crate) fn record(&self, exchange: &str, outcome: &'static str, took: Duration) {
        self.of(exchange, |exchange, outcomes| {
            let place = outcomes.iter().position(|handles| handles.outcome == outcome).unwrap_or_else(|| {
                let (name, seconds) = (exchange.to_owned(), exchange.to_owned());
                outcomes.push(PublishHandles {
                    outcome,
                    count: counter!(PUBLISHES, "exchange" => name, "outcome" => outcome),
                    seconds: histogram!(PUBLISH_CONFIRM_SECONDS, "exchange" => seconds, "outcome" => outcome),
                });
                outcomes.len() - 1
            });
            let handles = &outcomes[place];
            handles.count.increment(1);
            handles.seconds.record(took);
        });
    }

    /// An exchange's label and handles. Its counters are there, at 0, from now on; its histograms with their first value.
    fn of(&self, exchange: &str, then: impl FnOnce(&str, &mut Vec<PublishHandles>)) {
        let exchange = if exchange.is_empty() { DEFAULT_EXCHANGE } else { exchange };
        let mut exchanges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcomes) = exchanges.get_mut(exchange) {
            return then(exchange, outcomes);
        }
        let exchange = if exchanges.len() < MAX_EXCHANGES { exchange } else { OTHER };
        let outcomes = exchanges.entry(exchange.to_owned()).or_insert_with(|| {
            for outcome in PUBLISH_OUTCOMES {
                counter!(PUBLISHES, "exchange" => exchange.to_owned(), "outcome" => outcome).increment(0);
            }
            Vec::new()
        });
        then(exchange, outcomes);
    }
}

/// Counts a reply. Rare enough to be looked up.
pub(crate) fn reply(outcome: &'static str) {
    counter!(REPLIES, "outcome" => outcome).increment(1);
}

/// The handles of one queue, looked up once: a look-up per message would cost more than the counting.
pub(crate) struct QueueMetrics {
    queue: String,
    types: HashMap<String, TypeMetrics>,
    other: TypeMetrics,
    ready: Gauge,
    consumers: Gauge,
    in_flight: Gauge,
    pub(crate) workers: Gauge,
    pub(crate) consumer_ready: Gauge,
    pub(crate) draining: Gauge,
    pub(crate) consumer_timeout: Gauge,
    pub(crate) oldest_unacked: Gauge,
    pub(crate) nacks_requeued: Counter,
    pub(crate) nacks_dropped: Counter,
    pub(crate) lost_on_channel: Counter,
    pub(crate) lost_on_write: Counter,
    pub(crate) kept_used: Counter,
    pub(crate) kept_evicted: Counter,
}

/// The handles of one message type.
pub(crate) struct TypeMetrics {
    pub(crate) acked: Counter,
    pub(crate) requeued: Counter,
    pub(crate) dead_lettered: Counter,
    pub(crate) lost: Counter,
    pub(crate) ok_seconds: Histogram,
    pub(crate) error_seconds: Histogram,
    pub(crate) permanent_seconds: Histogram,
    pub(crate) timeout_seconds: Histogram,
    pub(crate) panic_seconds: Histogram,
    pub(crate) undecodable_seconds: Histogram,
    pub(crate) retried_error: Counter,
    pub(crate) retried_timeout: Counter,
    pub(crate) retried_panic: Counter,
}

impl QueueMetrics {
    pub(crate) fn new<'a>(queue: &str, types: impl Iterator<Item = &'a str>) -> Self {
        let name = || queue.to_owned();
        let of_type = |kind: &str| TypeMetrics::new(queue, kind);
        for kind in FailureKind::ALL {
            counter!(DEAD_LETTERS, "queue" => name(), "kind" => kind.label()).increment(0);
        }
        for reason in RECONNECT_REASONS {
            counter!(RECONNECTS, "queue" => name(), "reason" => reason).increment(0);
        }
        let metrics = Self {
            types: types.map(|kind| (kind.to_owned(), of_type(kind))).collect(),
            other: of_type(OTHER),
            ready: gauge!(QUEUE_MESSAGES_READY, "queue" => name()),
            consumers: gauge!(QUEUE_CONSUMERS, "queue" => name()),
            in_flight: gauge!(IN_FLIGHT, "queue" => name()),
            workers: gauge!(WORKERS, "queue" => name()),
            consumer_ready: gauge!(CONSUMER_READY, "queue" => name()),
            draining: gauge!(DRAINING, "queue" => name()),
            consumer_timeout: gauge!(CONSUMER_TIMEOUT_SECONDS, "queue" => name()),
            oldest_unacked: gauge!(OLDEST_UNACKED_SECONDS, "queue" => name()),
            nacks_requeued: counter!(NACKS, "queue" => name(), "requeue" => "true"),
            nacks_dropped: counter!(NACKS, "queue" => name(), "requeue" => "false"),
            lost_on_channel: counter!(LOST_ACKS, "queue" => name(), "reason" => "channel"),
            lost_on_write: counter!(LOST_ACKS, "queue" => name(), "reason" => "write"),
            kept_used: counter!(KEPT_RESULTS, "queue" => name(), "fate" => "used"),
            kept_evicted: counter!(KEPT_RESULTS, "queue" => name(), "fate" => "evicted"),
            queue: name(),
        };
        metrics.backlog(None);
        metrics
    }

    /// Ready messages and consumers, as far as the broker says.
    pub(crate) fn backlog(&self, known: Option<(u32, u32)>) {
        let (ready, consumers) =
            known.map_or((f64::NAN, f64::NAN), |(ready, consumers)| (ready.into(), consumers.into()));
        self.ready.set(ready);
        self.consumers.set(consumers);
    }

    /// Counts a delivery as in flight until the guard is dropped, however that comes about.
    pub(crate) fn begin_work(&self) -> InFlight {
        self.in_flight.increment(1.0);
        InFlight(self.in_flight.clone())
    }

    /// The handles for a registered type; any other type shares those of [`OTHER`].
    pub(crate) fn of(&self, registered: Option<&str>) -> &TypeMetrics {
        registered.and_then(|kind| self.types.get(kind)).unwrap_or(&self.other)
    }

    /// Rare enough to be looked up.
    pub(crate) fn dead_letter(&self, kind: &'static str) {
        counter!(DEAD_LETTERS, "queue" => self.queue.clone(), "kind" => kind).increment(1);
    }

    /// Rare enough to be looked up.
    pub(crate) fn reconnect(&self, reason: &'static str) {
        counter!(RECONNECTS, "queue" => self.queue.clone(), "reason" => reason).increment(1);
    }
}

/// A delivery that a worker holds.
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl TypeMetrics {
    fn new(queue: &str, kind: &str) -> Self {
        let deliveries = |outcome: &'static str| counter!(DELIVERIES, "queue" => queue.to_owned(), "type" => kind.to_owned(), "outcome" => outcome);
        let seconds = |outcome: &'static str| histogram!(HANDLER_SECONDS, "queue" => queue.to_owned(), "type" => kind.to_owned(), "outcome" => outcome);
        let retries = |reason: &'static str| counter!(RETRIES, "queue" => queue.to_owned(), "type" => kind.to_owned(), "reason" => reason);
        Self {
            acked: deliveries("ack"),
            requeued: deliveries("requeue"),
            dead_lettered: deliveries("dead_letter"),
            lost: deliveries("lost"),
            ok_seconds: seconds("ok"),
            error_seconds: seconds("error"),
            permanent_seconds: seconds("permanent"),
            timeout_seconds: seconds("timeout"),
            panic_seconds: seconds("panic"),
            undecodable_seconds: seconds("undecodable"),
            retried_error: retries("error"),
            retried_timeout: retries("timeout"),
            retried_panic: retries("panic"),
        }
    }
}
