//! Confirmed publishing: the specification's `sendMsg`, with an answer.

mod batch;
mod channel;
mod window;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use self::channel::{ChannelPool, Failure};
use crate::{
    backoff::ReconnectBackoff,
    broker::{Broker, ConnectionPool, Role},
    error::{ConnectError, OptionsError, PublishError, TimeoutCause},
    message::Outgoing,
    metrics::PublishMetrics,
    options::{check, check_duration},
    topology::{self, Declare, Topology},
};

/// How a publisher works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublisherOptions {
    /// The deadline of every publish, connecting and reconnecting included. Default 10 s.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Connections to spread the channels over. Default 1: one carries tens of thousands of confirms a second.
    pub connections: usize,
    /// Channels, each used by one publish or batch at a time. Default 16.
    pub channels: usize,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), connections: 1, channels: 16 }
    }
}

impl PublisherOptions {
    /// Checks every option against its range.
    ///
    /// # Errors
    ///
    /// The first option that is out of range, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), OptionsError> {
        check_duration("publisher.timeout", self.timeout, Duration::from_millis(1))?;
        check((1..=100).contains(&self.connections), "publisher.connections", self.connections, "1 to 100")?;
        check((1..=1000).contains(&self.channels), "publisher.channels", self.channels, "1 to 1000")
    }
}

/// Publishes messages and says what became of them. Cheap to clone.
///
/// Every publish is `mandatory` and confirmed, has a deadline, and survives a lost connection: it is sent again with
/// the same message id until it is confirmed or its deadline has passed. Connections and channels are pooled and
/// opened when they are first needed, where the specification opens a channel for each message.
#[derive(Clone)]
pub struct Publisher {
    inner: Arc<Inner>,
}

struct Inner {
    channels: ChannelPool,
    options: PublisherOptions,
    app_id: String,
    metrics: PublishMetrics,
    rpc_timeout: Duration,
    hosts: String,
}

impl Publisher {
    /// A publisher with connections of its own. Nothing is dialled before the first publish.
    ///
    /// # Errors
    ///
    /// The first option that is out of range.
    pub fn new(broker: &Broker, options: PublisherOptions) -> Result<Self, OptionsError> {
        options.validate()?;
        let rpc_timeout = broker.options().rpc_timeout;
        let connections = (0..options.connections)
            .map(|number| ConnectionPool::new(broker, Role::Publisher, &format!("#{number}")))
            .collect();
        let channels = ChannelPool::new(connections, options.channels, rpc_timeout);
        let hosts = broker.options().nodes_shown();
        let app_id = broker.identity().app_id.clone();
        let inner = Inner { channels, options, app_id, metrics: PublishMetrics::new(), rpc_timeout, hosts };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Its outcomes are counted from 0 on, before anything is published there.
    pub(crate) fn expect(&self, exchange: &str) {
        self.inner.metrics.expect(exchange);
    }

    /// Publishes one message and waits for the broker's confirm.
    ///
    /// # Errors
    ///
    /// See [`PublishError`]: whatever is not `Ok` was not confirmed. Dropping the future leaves the outcome unknown.
    pub async fn publish(&self, outgoing: &Outgoing) -> Result<(), PublishError> {
        let started = Instant::now();
        let result = self.publish_until(outgoing, started + self.inner.options.timeout).await;
        let outcome = result.as_ref().map_or_else(PublishError::outcome_label, |()| "confirmed");
        self.inner.metrics.record(&outgoing.exchange, outcome, started.elapsed());
        result
    }

    /// Publishes many messages over one channel without waiting for each, and says for each what became of it, in the
    /// order given. They are written in that order; after a lost connection the unconfirmed ones are written again.
    ///
    /// The deadline starts anew with every confirm, so a large batch takes as long as it makes progress. Messages need
    /// different ids: that is how an unroutable one is told from the others.
    pub async fn publish_all(&self, batch: &[Outgoing]) -> Vec<Result<(), PublishError>> {
        batch::publish_all(self, batch).await
    }

    /// Declares an exchange, and a queue unless the topology is publish-only, as the specification's
    /// `declareResources` does.
    ///
    /// # Errors
    ///
    /// When the broker refuses, or cannot be reached within the publisher's timeout.
    pub async fn declare(&self, topology: &Topology) -> Result<(), ConnectError> {
        let declare = async {
            let lease = self.inner.channels.lease().await?;
            topology.declare(lease.channel()).await?;
            lease.give_back();
            Ok(())
        };
        self.within_timeout(declare).await
    }

    pub(crate) async fn declare_dead_letter_queue(&self, queue: &str, declare: Declare) -> Result<(), ConnectError> {
        let declare = async {
            let lease = self.inner.channels.lease().await?;
            topology::declare_dead_letter_queue(lease.channel(), queue, declare).await?;
            lease.give_back();
            Ok(())
        };
        self.within_timeout(declare).await
    }

    /// Closes the connections; publishes still under way fail. A clone that publishes later fails as well.
    pub async fn close(&self) {
        self.inner.channels.close(self.inner.rpc_timeout.min(Duration::from_secs(2))).await;
    }

    async fn within_timeout(
        &self,
        declare: impl Future<Output = Result<(), ConnectError>>,
    ) -> Result<(), ConnectError> {
        let limit = self.inner.options.timeout;
        match tokio::time::timeout(limit, declare).await {
            Ok(result) => result,
            Err(_) => Err(self.inner.silent("declaring")),
        }
    }

    async fn publish_until(&self, outgoing: &Outgoing, deadline: Instant) -> Result<(), PublishError> {
        if let Some(reason) = channel::defect(outgoing) {
            return Err(PublishError::Invalid { exchange: outgoing.exchange.clone(), reason });
        }
        let progress = Progress { stage: Mutex::new(Stage::Waiting(None)), written: AtomicBool::new(false) };
        let attempts = async {
            let mut backoff = reconnect_backoff();
            loop {
                match self.attempt(outgoing, &progress).await {
                    Ok(()) => return Ok(()),
                    Err(Failure::Final(error)) => return Err(error),
                    Err(Failure::Lost(error)) => progress.set(Stage::Waiting(Some(error))),
                }
                tokio::time::sleep(backoff.next_delay()).await;
            }
        };
        // Ends the borrow of `progress` together with the attempts.
        let finished = timeout_at(deadline, attempts).await;
        finished.unwrap_or_else(|_| {
            let (stage, written) = progress.end();
            Err(self.inner.timed_out(&outgoing.exchange, stage, written))
        })
    }

    async fn attempt(&self, outgoing: &Outgoing, progress: &Progress) -> Result<(), Failure> {
        let lease = self.inner.channels.lease().await?;
        lease.wait_while_blocked(|| progress.set(Stage::Blocked)).await;
        progress.set(Stage::Written { on: lease.connection() });
        lease.publish(outgoing, &self.inner.app_id).await?;
        lease.give_back();
        Ok(())
    }
}

impl Inner {
    /// Says what a publish was waiting for when its time was up.
    fn timed_out(&self, exchange: &str, stage: Stage, written: bool) -> PublishError {
        let after = self.options.timeout;
        let timed_out = |cause| PublishError::TimedOut { exchange: exchange.to_owned(), after, cause };
        let blocked = |reason| timed_out(TimeoutCause::Blocked { reason, written });
        let not_connected = |source| PublishError::NotConnected { written, after, source };
        match (stage, self.channels.alarm()) {
            (Stage::Waiting(_), Some(reason)) => blocked(reason),
            (Stage::Waiting(None), None) if self.channels.exhausted() => timed_out(TimeoutCause::Busy),
            (Stage::Waiting(None), None) => not_connected(self.silent("connecting")),
            (Stage::Waiting(Some(source)), None) => not_connected(source),
            (Stage::Blocked, reason) => blocked(reason.unwrap_or_default()),
            (Stage::Written { on }, Some(reason)) if on.blocked() => blocked(reason),
            (Stage::Written { .. }, _) => timed_out(TimeoutCause::Unanswered),
        }
    }

    fn silent(&self, doing: &'static str) -> ConnectError {
        ConnectError::Silent { hosts: self.hosts.clone(), after: self.options.timeout, doing }
    }
}

/// Quick, since the publish has a deadline of its own.
fn reconnect_backoff() -> ReconnectBackoff {
    ReconnectBackoff::new(Duration::from_millis(20), Duration::from_millis(500))
}

/// How far a publish has come; read when its time is up.
struct Progress {
    stage: Mutex<Stage>,
    /// Whether any attempt has handed the message to a connection.
    written: AtomicBool,
}

#[derive(Clone)]
enum Stage {
    /// For a channel, possibly after a lost connection.
    Waiting(Option<ConnectError>),
    /// Holds the message back, since the broker blocks publishers.
    Blocked,
    /// Handed to the connection.
    Written { on: lapin::ConnectionStatus },
}

impl Progress {
    fn set(&self, stage: Stage) {
        self.written.fetch_or(matches!(stage, Stage::Written { .. }), Ordering::Relaxed);
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// Where it stands, and whether it was ever written.
    fn end(self) -> (Stage, bool) {
        (self.stage.into_inner().unwrap_or_else(PoisonError::into_inner), self.written.into_inner())
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

/// Applications spawn these; a future that is not `Send` is an error here and not there.
const _: fn(&Publisher, &Outgoing, &Topology) = |publisher, outgoing, topology| {
    fn assert_send<T: Send>(_: T) {}
    assert_send(publisher.publish(outgoing));
    assert_send(publisher.publish_all(std::slice::from_ref(outgoing)));
    assert_send(publisher.declare(topology));
    assert_send(publisher.close());
};
