//! What can go wrong, in the words an operator needs.

use std::{borrow::Cow, fmt, time::Duration};

/// An option that cannot be used as it stands. Returned by constructors; nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("option `{option}` is {value}; allowed: {allowed}")]
pub struct OptionsError {
    /// The option's name, as it is written in a configuration.
    pub option: Cow<'static, str>,
    /// The value it has. Never a secret.
    pub value: String,
    /// What it may be.
    pub allowed: Cow<'static, str>,
}

impl OptionsError {
    pub(crate) fn new(
        option: impl Into<Cow<'static, str>>,
        value: impl fmt::Display,
        allowed: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { option: option.into(), value: value.to_string(), allowed: allowed.into() }
    }
}

/// Why there is no usable connection, channel or consumer.
///
/// [`is_fatal`](Self::is_fatal) tells what waits for a person from what passes by itself. Both are tried again,
/// the former slowly.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No host answered. Passing.
    #[error("cannot reach RabbitMQ at {hosts}: {reason}")]
    Unreachable {
        /// The hosts that were tried, with ports.
        hosts: String,
        /// The last host's error.
        reason: String,
    },
    /// A host accepted the connection and then kept silent. Passing.
    #[error("RabbitMQ at {hosts} did not answer within {after:?} while {doing}")]
    Silent {
        /// The configured hosts, with ports.
        hosts: String,
        /// How long we waited.
        after: Duration,
        /// What we waited for.
        doing: &'static str,
    },
    /// User, password, client certificate or virtual host are not accepted. Waits for a person.
    #[error("RabbitMQ refuses {user} at virtual host `{vhost}`: {reason}; {remedy}")]
    Refused {
        /// The configured user, or the client certificate.
        user: String,
        /// The configured virtual host.
        vhost: String,
        /// The broker's words.
        reason: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// Another server than a broker of AMQP 0-9-1 answers at the port. Waits for a person.
    #[error("no RabbitMQ at {host}: {reason}; check rabbitmq.host and rabbitmq.port")]
    NotBroker {
        /// The host that was dialled.
        host: String,
        /// What answered.
        reason: String,
    },
    /// The broker allows fewer channels on a connection than are needed. Waits for a person.
    #[error(
        "RabbitMQ allows {allowed} channels on a connection (channel_max), and {needed} are needed; lower `{option}` or raise \
         the broker's channel_max"
    )]
    TooFewChannels {
        /// What was negotiated.
        allowed: u16,
        /// What is needed: a consumer has one for each worker, and one to declare and to look at its queue.
        needed: usize,
        /// What decides upon the number.
        option: &'static str,
    },
    /// The broker's certificate, or ours, is not accepted, or the port has no TLS. Waits for a person.
    #[error("TLS with {host} failed: {reason}")]
    Tls {
        /// The host that was dialled.
        host: String,
        /// What was wrong with the certificate or the handshake.
        reason: String,
    },
    /// The broker refuses to declare, bind or consume as configured. Waits for a person.
    #[error("RabbitMQ refuses {what}: {reason}; {remedy}")]
    Declaration {
        /// What was asked for: the queue, exchange or binding with its arguments.
        what: String,
        /// The broker's words.
        reason: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The connection or channel ended while it was in use. Passing.
    #[error("connection lost: {0}")]
    Lost(String),
}

impl ConnectError {
    /// Whether trying again quickly is pointless, since a person has to change something first.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Refused { .. }
            | Self::Tls { .. }
            | Self::NotBroker { .. }
            | Self::TooFewChannels { .. }
            | Self::Declaration { .. } => true,
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Lost(_) => false,
        }
    }

    /// A short, fixed word for logs.
    pub(crate) fn reason_label(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Silent { .. } => "silent",
            Self::Refused { .. } => "refused",
            Self::Tls { .. } => "tls",
            Self::NotBroker { .. } => "not_a_broker",
            Self::TooFewChannels { .. } => "too_few_channels",
            Self::Declaration { .. } => "declaration",
            Self::Lost(_) => "lost",
        }
    }
}

/// What became of a message that was not confirmed.
///
/// [`Unroutable`](Self::Unroutable), [`Refused`](Self::Refused), [`Invalid`](Self::Invalid) and
/// [`Forbidden`](Self::Forbidden) mean that it is in no queue. After the other two the broker may still have it, or get it, if it was written: publish it again only with
/// the same message id.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// No queue is bound for this routing key, or the exchange does not exist.
    #[error("message for exchange `{exchange}` with routing key `{routing_key}` reached no queue: {reason}")]
    Unroutable {
        /// Where it was sent.
        exchange: String,
        /// The key it was sent with.
        routing_key: String,
        /// The broker's words.
        reason: String,
    },
    /// The broker answered with a nack: a queue is full and rejects publishes, or the broker failed internally.
    #[error(
        "RabbitMQ refused (nack) the message for exchange `{exchange}` with routing key `{routing_key}`; is a queue at its max-length?"
    )]
    Refused {
        /// Where it was sent.
        exchange: String,
        /// The key it was sent with.
        routing_key: String,
    },
    /// The deadline passed without an answer.
    #[error("no confirm for exchange `{exchange}` within {after:?}: {cause}")]
    TimedOut {
        /// Where it was sent.
        exchange: String,
        /// The publisher's timeout.
        after: Duration,
        /// What it was waiting for.
        cause: TimeoutCause,
    },
    /// There was no connection before the deadline.
    #[error("not connected, gave up after {after:?}: {source}{}", lost_words(*.written))]
    NotConnected {
        /// Whether the message had been written to an earlier connection, which was lost before it was confirmed.
        written: bool,
        /// The publisher's timeout.
        after: Duration,
        /// The last attempt's error.
        source: ConnectError,
    },
    /// The message cannot be sent at all: too large, a name over 255 bytes, or the broker closes the connection each time.
    #[error("cannot publish to exchange `{exchange}`: {reason}")]
    Invalid {
        /// Where it was to go.
        exchange: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The user may not publish there.
    #[error(
        "RabbitMQ forbids to publish to exchange `{exchange}`: {reason}; the user needs the `write` permission on it"
    )]
    Forbidden {
        /// Where it was to go.
        exchange: String,
        /// The broker's words.
        reason: String,
    },
}

/// What a publish was waiting for when its deadline passed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimeoutCause {
    /// The broker blocks publishers: a memory or disk alarm is on.
    #[error("the broker blocks publishers ({reason}); the message was {}", written_words(*.written))]
    Blocked {
        /// The broker's reason, such as `low on memory`.
        reason: String,
        /// Whether the message had been handed to the connection: if so it may be delivered once the alarm ends.
        written: bool,
    },
    /// The broker took the message and did not answer: it is frozen, overloaded, or the network drops packets.
    #[error("the broker does not answer; whether the message was queued is unknown")]
    Unanswered,
    /// All channels of this publisher were busy with other publishes.
    #[error("all channels of the publisher were busy; the message was not sent")]
    Busy,
}

fn lost_words(written: bool) -> &'static str {
    if written { "; the message had been written before the connection was lost, so it may be queued" } else { "" }
}

fn written_words(written: bool) -> &'static str {
    if written { "written and may be delivered when the alarm ends" } else { "not sent" }
}

impl PublishError {
    /// Whether the same publish may well succeed later without anybody changing the message or the topology.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::NotConnected { .. } => true,
            Self::Unroutable { .. } | Self::Refused { .. } | Self::Invalid { .. } | Self::Forbidden { .. } => false,
        }
    }

    /// The metric's `outcome` label.
    pub(crate) fn outcome_label(&self) -> &'static str {
        match self {
            Self::Unroutable { .. } => "unroutable",
            Self::Refused { .. } => "refused",
            Self::TimedOut { .. } => "timed_out",
            Self::NotConnected { .. } => "not_connected",
            Self::Invalid { .. } => "invalid",
            Self::Forbidden { .. } => "forbidden",
        }
    }
}
