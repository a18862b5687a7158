//! Confirmed publishing: the specification's `sendMsg`, with an answer.

mod attempts;
mod batch;
mod channel;
mod lane;
mod suspicion;
mod ward;
mod window;

use std::{fmt, ops::ControlFlow, pin::pin, sync::Arc, time::Duration};

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout, timeout_at};

use self::{
    attempts::{Progress, Stage},
    channel::ChannelPool,
    lane::Lane,
    ward::Ward,
};
use crate::{
    broker::{Broker, ConnectionPool, Role},
    error::{ConnectError, OptionsError, PublishError, TimeoutCause},
    message::Outgoing,
    metrics::{self, PublishMetrics},
    options::{check, check_duration},
    topology::{self, Declare, Topology},
};

/// How a publisher works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublisherOptions {
    /// How long a caller waits for the outcome of a publish, connecting and reconnecting included. Default 10 s.
    ///
    /// What a consumer publishes for its tasks is not given up after that time, but told and counted as late: what was
    /// written is waited for as long as its channel lives, since published again it would arrive twice. A reply to whoever
    /// asked is dropped.
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
///
/// A message that makes the broker close the connection each time is recognised when it has done so three times alone,
/// and is [`PublishError::Invalid`]. Replies ([`Answers::and_reply`](crate::Answers::and_reply)) go to addresses that
/// strangers choose, so they have a connection of their own. They are not `mandatory`, and counted apart.
#[derive(Clone)]
pub struct Publisher {
    inner: Arc<Inner>,
}

struct Inner {
    /// Answers, dead letters and whatever an application publishes.
    answers: Lane,
    /// To addresses that strangers choose.
    replies: Lane,
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
        let connection = |purpose: &str| ConnectionPool::new(broker, Role::Publisher, purpose);
        let connections = (0..options.connections).map(|number| connection(&format!("#{number}"))).collect();
        let answers = Lane {
            channels: ChannelPool::new(connections, options.channels, rpc_timeout, true),
            ward: Ward::new(broker, "one message"),
        };
        let replies = Lane {
            channels: ChannelPool::new(vec![connection("replies")], options.channels, rpc_timeout, false),
            ward: Ward::new(broker, "one reply"),
        };
        let hosts = broker.options().nodes_shown();
        let app_id = broker.identity().app_id.clone();
        let inner = Inner { answers, replies, options, app_id, metrics: PublishMetrics::new(), rpc_timeout, hosts };
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
        self.inner.record(outgoing, result.as_ref().err(), started);
        result
    }

    /// Publishes one message of a task until its outcome is known, however long that takes: what was written is waited for as
    /// long as its channel lives, and written again only when that is gone.
    ///
    /// Each time that the publisher's timeout passes, `is_late` is told what is waited for. It may then end the publish, with
    /// that error, unless the message is on its way.
    pub(crate) async fn publish_patiently(
        &self,
        outgoing: &Outgoing,
        mut is_late: impl FnMut(&PublishError) -> ControlFlow<()>,
    ) -> Result<(), PublishError> {
        let started = Instant::now();
        let progress = Progress::default();
        let mut attempts = pin!(self.inner.attempts(outgoing, &progress));
        loop {
            if let Ok(result) = timeout(self.inner.options.timeout, attempts.as_mut()).await {
                self.inner.record(outgoing, result.as_ref().err(), started);
                return result;
            }
            let error = self.inner.timed_out(outgoing, &progress);
            self.inner.record(outgoing, Some(&error), started);
            if is_late(&error).is_break() && !progress.is_on_its_way() {
                return Err(error);
            }
        }
    }

    /// The largest frame with properties that the broker takes, in bytes, as far as is known.
    pub(crate) fn frame_max(&self) -> usize {
        self.inner.answers.channels.frame_max()
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
            let lease = self.inner.answers.channels.lease().await?;
            topology.declare(lease.channel()).await?;
            lease.give_back().await;
            Ok(())
        };
        self.within_timeout(declare).await
    }

    pub(crate) async fn declare_dead_letter_queue(&self, queue: &str, declare: Declare) -> Result<(), ConnectError> {
        let declare = async {
            let lease = self.inner.answers.channels.lease().await?;
            topology::declare_dead_letter_queue(lease.channel(), queue, declare).await?;
            lease.give_back().await;
            Ok(())
        };
        self.within_timeout(declare).await
    }

    /// Closes the connections; publishes still under way fail. A clone that publishes later fails as well.
    pub async fn close(&self) {
        let limit = self.inner.rpc_timeout.min(Duration::from_secs(2));
        tokio::join!(self.inner.answers.close(limit), self.inner.replies.close(limit));
    }

    async fn within_timeout(
        &self,
        declare: impl Future<Output = Result<(), ConnectError>>,
    ) -> Result<(), ConnectError> {
        let limit = self.inner.options.timeout;
        match timeout(limit, declare).await {
            Ok(result) => result,
            Err(_) => Err(self.inner.silent("declaring")),
        }
    }

    async fn publish_until(&self, outgoing: &Outgoing, deadline: Instant) -> Result<(), PublishError> {
        let progress = Progress::default();
        let finished = timeout_at(deadline, self.inner.attempts(outgoing, &progress)).await;
        finished.unwrap_or_else(|_| Err(self.inner.timed_out(outgoing, &progress)))
    }
}

impl Inner {
    fn lane(&self, outgoing: &Outgoing) -> &Lane {
        if outgoing.required { &self.answers } else { &self.replies }
    }

    fn record(&self, outgoing: &Outgoing, error: Option<&PublishError>, started: Instant) {
        let outcome = error.map_or("confirmed", PublishError::outcome_label);
        if outgoing.required {
            self.metrics.record(&outgoing.exchange, outcome, started.elapsed());
        } else {
            metrics::reply(outcome);
        }
    }

    /// Says what a publish is waiting for.
    fn timed_out(&self, outgoing: &Outgoing, progress: &Progress) -> PublishError {
        let (stage, written) = progress.now();
        self.late(outgoing, stage, written)
    }

    fn late(&self, outgoing: &Outgoing, stage: Stage, written: bool) -> PublishError {
        let after = self.options.timeout;
        let timed_out = |cause| PublishError::TimedOut { exchange: outgoing.exchange.clone(), after, cause };
        let blocked = |reason| timed_out(TimeoutCause::Blocked { reason, written });
        let not_connected = |source| PublishError::NotConnected { written, after, source };
        let channels = &self.lane(outgoing).channels;
        match (stage, channels.alarm()) {
            (Stage::Waiting(_), Some(reason)) => blocked(reason),
            (Stage::Waiting(None), None) if channels.exhausted() => timed_out(TimeoutCause::Busy),
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
