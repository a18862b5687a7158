//! RabbitMQ for workers: the messaging of `jm-mq`, got right once.
//!
//! A worker registers a typed handler for a queue. This crate connects, declares, consumes, retries, dead-letters,
//! drains and measures; the handler turns a task into the messages it answers with.
//!
//! ```no_run
//! use jm_mq_core::{
//!     Broker, BrokerOptions, Consumer, ConsumerOptions, Context, HandlerError, Payload, Publisher, PublisherOptions,
//!     Router, Topology, shutdown_signal,
//! };
//!
//! #[derive(serde::Deserialize)]
//! struct Greet { name: String }
//!
//! impl Payload for Greet {
//!     const TYPE: &'static str = "example.greet";
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = Broker::new(BrokerOptions::from_dsn("amqp://guest:guest@127.0.0.1:5672/%2F")?)?;
//! let publisher = Publisher::new(&broker, PublisherOptions::default())?;
//! let router = Router::new().on(async |task: Greet, _: Context| {
//!     println!("Hello, {}!", task.name);
//!     Ok::<_, HandlerError>(())
//! });
//! let queue = Topology::work_queue("example.greet");
//! let consumer = Consumer::new(&broker, &publisher, queue, ConsumerOptions::default(), router)?;
//! consumer.run_until(shutdown_signal()?).await;
//! # Ok(())
//! # }
//! ```
//!
//! # A message's journey
//!
//! ```text
//! Publisher ──> exchange ──> queue ──> subscription (a channel) ──> worker: one delivery at a time
//!                                                                     │ Router: by the `type` property
//!                                                                     │ retry: runs under handler_timeout, backoff between
//!                                                                     ▼
//!              ack <── confirms <── publish the answers <── Ok ── Handler ── Err ──> requeue, or dead letter
//! ```
//!
//! In reading order: [`Message`] and [`Publisher`]; [`Broker`] (connections); [`Topology`] (exchange, queue, binding);
//! [`ConsumerOptions`]; [`Consumer`] (supervisor, subscriptions, workers); [`Router`], [`Handler`] and [`Context`];
//! retry, [`Backoff`] and settlement; [`metrics`].
//!
//! # What it promises
//!
//! A delivery ends in exactly one way:
//!
//! | what happened | then |
//! |---|---|
//! | the handler succeeded and its answers are confirmed | ack |
//! | a retryable error (any error, unless marked), a timeout or a panic, attempts left | a wait of `min(base·2^(n-1), max)`, another run |
//! | attempts exhausted | requeue with `nack_requeue`, else dead letter |
//! | a [`Permanent`] error, an unreadable body, an unknown type, too large a body | dead letter at once |
//! | shutdown before it started, in a backoff, or at the drain's deadline | requeue |
//! | an answer is refused or reaches no queue | tried again, then requeue (its answers kept) or dead letter, by `nack_requeue` |
//! | an answer can never be published (too large, or the broker closes the connection each time) | dead letter at once |
//! | an answer's confirm is late | waited for, and never published beside itself |
//! | a reply to whoever asked cannot be published within `publisher.timeout` | dropped, counted, and ack |
//! | the connection was lost while the handler ran | it runs on; if the message is back in this process within 10 min, it is answered without another run |
//! | its consumer was lost more than `max_deliveries` times while it held it, as a quorum queue counts | dead letter, unrun |
//! | it cannot be settled before the broker's `consumer_timeout` | requeue, result kept |
//!
//! Delivery is at least once: after a crash, or an ack lost on the wire, the broker delivers again, so handlers have to
//! be idempotent.
//!
//! # Logs
//!
//! Events go through `tracing`, with ids as fields and never with bodies. Silence the target `lapin`: this crate
//! reports what matters of it, and lapin prints the bodies of returned messages.

mod backoff;
mod body;
mod broker;
mod consumer;
mod context;
pub mod dead_letters;
mod encoding;
mod envelope;
mod error;
mod error_kinds;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod handler;
mod headers;
mod message;
pub mod metrics;
mod options;
mod publisher;
mod retry;
mod router;
mod settlement;
mod signal;
mod topology;
mod trace;

pub use backoff::Backoff;
pub use broker::{Auth, Broker, BrokerOptions, Connection, HostOptions, Port, TlsOptions};
pub use consumer::{Consumer, ConsumerState, DrainReport, RunningConsumer};
pub use context::Context;
pub use envelope::Envelope;
pub use error::{ConnectError, OptionsError, PublishError, TimeoutCause};
pub use error_kinds::ErrorKinds;
pub use handler::{Answers, Handler, HandlerError, Permanent};
/// The client library's types for properties and headers.
pub use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
pub use message::{CONTENT_TYPE_JSON, CONTENT_TYPE_TEXT, Message, Outgoing, Payload};
pub use options::{ConsumerOptions, DeadLetter};
pub use publisher::{Publisher, PublisherOptions};
pub use router::{RawMessage, Router};
pub use signal::shutdown_signal;
pub use topology::{Declare, ExchangeKind, Topology};
pub use trace::TraceContext;
