//! Keeps a group of subscriptions alive: connect, declare, run, and start again when any of them ends.
//!
//! The specification's `Start`: an outer loop without an end, in which any worker's end is the whole group's.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use lapin::types::ShortString;
use tokio::{sync::watch, task::JoinSet};

use super::{
    ConsumerState, DrainReport, Shared, Stop, backlog,
    handoff::Order,
    queue::Queue,
    subscription::{Drained, Subscription, SubscriptionEnd},
    worker::Worker,
};
use crate::{
    backoff::{ReconnectBackoff, jittered},
    broker::{ConnectionPool, PooledConnection},
    error::ConnectError,
    error_kinds::ErrorKinds,
    options::{ConsumerOptions, DeadLetter},
    topology::{self, Topology},
};

/// A group that lived this long was healthy: the next reconnect is quick again.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);
/// Polite closing is limited: the socket is closed in any case.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

pub(super) struct Supervisor {
    pub(super) shared: Arc<Shared>,
    pub(super) connections: ConnectionPool,
    pub(super) answering: Vec<Topology>,
    pub(super) stop: Stop,
    pub(super) state: watch::Sender<ConsumerState>,
    /// The client's own thread.
    pub(super) io: tokio::runtime::Handle,
}

/// Why the group is not running any more.
enum GroupEnd {
    Drained(Drained),
    Lost { reason: &'static str, error: ConnectError },
}

impl Supervisor {
    /// Runs until it is told to stop.
    pub(super) async fn run(self) -> DrainReport {
        let mut watching = JoinSet::new();
        watching.spawn(backlog::watch_age(Arc::clone(&self.shared)));
        let flusher = Arc::clone(&self.shared.flusher);
        watching.spawn_on(flusher.run(self.shared.handoffs.clone()), &self.io);
        let mut workers = self.start_workers();

        let drained = self.supervise().await;

        // A handler that was cut off by the deadline is dropped here; its message is back in the queue.
        workers.shutdown().await;
        self.set_state(ConsumerState::Stopped);
        DrainReport {
            handed_back: drained.unstarted,
            cut_off: drained.cut_off,
            took: self.stop.requested_at().map_or(Duration::ZERO, |requested| requested.elapsed()),
        }
    }

    fn start_workers(&self) -> JoinSet<()> {
        let workers = self.shared.workers();
        self.shared.metrics.consumer_timeout.set(self.shared.options.consumer_timeout.as_secs_f64());
        self.shared.metrics.workers.set(f64::from(u32::try_from(workers.len()).unwrap_or(u32::MAX)));
        workers.into_iter().map(Worker::run).collect()
    }

    async fn supervise(&self) -> Drained {
        let options = &self.shared.options;
        let mut backoff = ReconnectBackoff::new(options.reconnect_delay, options.reconnect_max_delay);
        let mut reported = ErrorKinds::default();
        loop {
            let opened = tokio::select! {
                biased;
                () = self.stop.requested() => return Drained::default(),
                opened = self.open() => opened,
            };
            let (error, reason) = match opened {
                Err(error) => {
                    let reason = error.reason_label();
                    (error, reason)
                }
                Ok(group) => {
                    let since = Instant::now();
                    reported.clear();
                    self.set_state(ConsumerState::Ready);
                    tracing::info!(
                        queue = &*self.shared.queue,
                        workers = options.concurrency,
                        prefetch_per_worker = options.prefetch_per_worker,
                        "consuming"
                    );
                    let end = group.run(self).await;
                    if since.elapsed() > HEALTHY_AFTER {
                        backoff.reset();
                    }
                    match end {
                        GroupEnd::Drained(drained) => return drained,
                        GroupEnd::Lost { reason, error } => {
                            self.shared.metrics.reconnect(reason);
                            (error, reason)
                        }
                    }
                }
            };
            let fatal = error.is_fatal();
            let delay = if fatal { jittered(options.refused_delay) } else { backoff.next_delay() };
            self.report(&error, reason, delay, &mut reported);
            self.set_state(ConsumerState::Waiting { error });
            tokio::select! {
                () = self.stop.requested() => return Drained::default(),
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// Connects, declares, and registers every worker's consumer.
    async fn open(&self) -> Result<Group, ConnectError> {
        let connection = self.connections.get().await?;
        let subscribed = match self.has_channels(&connection) {
            Ok(()) => self.subscribe(&connection).await,
            Err(error) => Err(error),
        };
        match subscribed {
            Ok((queue, subscriptions)) => Ok(Group { connection: Arc::new(connection), queue, subscriptions }),
            Err(error) => {
                // It may be half dead. The next attempt has a new one, perhaps to another node.
                self.connections.close_one(connection, CLOSE_LIMIT).await;
                Err(error)
            }
        }
    }

    /// A channel for each worker, and one to declare and then to look at the queue.
    fn has_channels(&self, connection: &PooledConnection) -> Result<(), ConnectError> {
        let (allowed, needed) = (connection.configuration().channel_max(), self.shared.options.concurrency + 1);
        // 0 is no limit.
        if allowed == 0 || needed <= usize::from(allowed) {
            return Ok(());
        }
        Err(ConnectError::TooFewChannels { allowed, needed, option: "consumer.concurrency" })
    }

    async fn subscribe(&self, connection: &PooledConnection) -> Result<(ShortString, Vec<Subscription>), ConnectError> {
        let shared = &self.shared;
        let queue = Arc::new(self.declare(connection).await?);
        let opening = shared.handoffs.iter().enumerate().map(|(index, handoff)| {
            Subscription::open(Arc::clone(shared), Arc::clone(handoff), connection, Arc::clone(&queue), index)
        });
        Ok((queue.short_name(), try_join_all(opening).await?))
    }

    async fn declare(&self, connection: &PooledConnection) -> Result<Queue, ConnectError> {
        let shared = &self.shared;
        let declare = async {
            let channel = connection.create_channel().await.map_err(|error| ConnectError::Lost(error.to_string()))?;
            let queue = shared.topology.declare(&channel).await?;
            if shared.options.dead_letter == DeadLetter::Queue {
                topology::declare_dead_letter_queue(&channel, &shared.dead_letter_queue, shared.topology.declare)
                    .await?;
            }
            for topology in &self.answering {
                topology.declare(&channel).await?;
            }
            // `Consumer::new` refuses a topology without a queue.
            let queue = queue.ok_or_else(|| ConnectError::Lost("there is no queue to consume".into()))?;
            Queue::examine(&channel, queue, &self.connections.server_properties()).await
        };
        shared.within_rpc_timeout("declaring", declare).await
    }

    fn set_state(&self, state: ConsumerState) {
        let metrics = &self.shared.metrics;
        metrics.consumer_ready.set(f64::from(u8::from(matches!(state, ConsumerState::Ready))));
        metrics.draining.set(f64::from(u8::from(matches!(state, ConsumerState::Draining))));
        self.state.send_replace(state);
    }

    /// As what it is when it is the first of its kind since the consumer was ready, and as a detail otherwise.
    fn report(&self, error: &ConnectError, reason: &'static str, delay: Duration, reported: &mut ErrorKinds) {
        let queue = &*self.shared.queue;
        let text = error.to_string();
        if !reported.is_new(&text) {
            tracing::debug!(queue, reason, error = text, retry_in = ?delay, "still not consuming");
        } else if error.is_fatal() {
            tracing::error!(queue, reason, error = text, retry_in = ?delay, "cannot consume until an operator corrects this; trying again slowly");
        } else {
            tracing::warn!(queue, reason, error = text, retry_in = ?delay, "not consuming; reconnecting");
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Also when the consumer was dropped without a shutdown.
        self.shared.metrics.consumer_ready.set(0.0);
        self.shared.metrics.draining.set(0.0);
        self.shared.metrics.workers.set(0.0);
    }
}

/// All workers' subscriptions on one connection.
struct Group {
    connection: Arc<PooledConnection>,
    queue: ShortString,
    subscriptions: Vec<Subscription>,
}

impl Group {
    async fn run(self, supervisor: &Supervisor) -> GroupEnd {
        let order = |order| supervisor.shared.handoffs.iter().for_each(|handoff| handoff.give_order(order));
        let mut running = JoinSet::new();
        for subscription in self.subscriptions {
            running.spawn(subscription.run(supervisor.stop.clone()));
        }
        // In a set, so that it ends with this future, however that ends.
        let mut watching = JoinSet::new();
        let (shared, connection) = (Arc::clone(&supervisor.shared), Arc::clone(&self.connection));
        let registered = running.len();
        watching.spawn(async move { backlog::watch(&shared, &connection, &self.queue, registered).await });

        let mut drained = Drained::default();
        let mut lost = None;
        loop {
            let ended = tokio::select! {
                biased;
                ended = running.join_next() => ended,
                () = supervisor.stop.requested(), if !matches!(*supervisor.state.borrow(), ConsumerState::Draining) => {
                    supervisor.set_state(ConsumerState::Draining);
                    order(Order::Drain);
                    continue;
                }
                Some(forgotten) = watching.join_next() => {
                    // While it drains, its consumers are cancelled one by one.
                    if supervisor.stop.is_requested() || lost.is_some() {
                        continue;
                    }
                    let text = forgotten.map_or_else(|error| error.to_string(), |forgotten| forgotten.to_string());
                    lost = Some(("forgotten", text));
                    supervisor.set_state(ConsumerState::Connecting);
                    order(Order::End);
                    continue;
                }
            };
            let was_lost = lost.is_some();
            match ended {
                None => break,
                Some(Ok(SubscriptionEnd::Drained(more))) => {
                    drained.unstarted += more.unstarted;
                    drained.cut_off += more.cut_off;
                }
                Some(Ok(SubscriptionEnd::GroupOver)) => {}
                Some(Ok(SubscriptionEnd::Cancelled)) => {
                    lost.get_or_insert((
                        "cancelled",
                        "the broker cancelled the consumer: its queue was deleted, or the queue's node is down"
                            .to_owned(),
                    ));
                }
                Some(Ok(SubscriptionEnd::TimedOut)) => {
                    lost.get_or_insert_with(|| ("timeout", timed_out(&supervisor.shared.options)));
                }
                Some(Ok(SubscriptionEnd::Lost(error))) => drop(lost.get_or_insert(("lost", error))),
                Some(Err(error)) => drop(lost.get_or_insert(("panic", error.to_string()))),
            }
            if lost.is_some() && !was_lost {
                // Readiness falls before anything else happens; the whole group goes with its first member.
                if !supervisor.stop.is_requested() {
                    supervisor.set_state(ConsumerState::Connecting);
                }
                order(Order::End);
            }
        }
        watching.shutdown().await;
        if let Some(connection) = Arc::into_inner(self.connection) {
            supervisor.connections.close_one(connection, CLOSE_LIMIT).await;
        }
        match lost {
            Some((reason, error)) if !supervisor.stop.is_requested() => {
                GroupEnd::Lost { reason, error: ConnectError::Lost(error) }
            }
            _ => GroupEnd::Drained(drained),
        }
    }
}

fn timed_out(options: &ConsumerOptions) -> String {
    let limit = options.consumer_timeout;
    format!(
        "the broker cancelled the consumer, since it held a delivery for longer than its consumer_timeout ({limit:?} here; \
         `rabbitmqctl environment` shows the broker's); set both to the same value, or lower handler_timeout, \
         max_retry_attempts or prefetch_per_worker; handlers must not block their thread"
    )
}

impl Shared {
    fn workers(self: &Arc<Self>) -> Vec<Worker> {
        let number = |index: usize| format!("{}#{index}", self.instance);
        let worker = |(index, handoff): (usize, &Arc<_>)| Worker {
            shared: Arc::clone(self),
            handoff: Arc::clone(handoff),
            name: number(index),
        };
        self.handoffs.iter().enumerate().map(worker).collect()
    }
}
